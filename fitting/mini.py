"""Fit the packaged mini scorers, and print how they do on sources they were not fitted to.

    python -m fitting.mini --data FOLDER [--held-out FILE ...] [--output FOLDER]

FOLDER holds complexity.jsonl.xz, quality_point.jsonl.xz and quality_pair.jsonl.xz (labels.py lists
the sources). Each FILE, JSON Lines with `instruction` and `label`, is measured and never fitted to.
Nothing is written without --output. The fits have closed forms or one optimum: only the figures of
a random choice and the sample of the mathematical sources are drawn at random, with fixed seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deita_tasks.scoring.mini.encoder import MiniEncoder
from deita_tasks.scoring.mini.features import response_features
from deita_tasks.scoring.mini.scorer import WEIGHTS
from deita_tasks.training.heads import (
    EncodedTexts,
    Features,
    add_second_label,
    calibrate,
    compared_positions,
    encode_texts,
    fit_complexity,
    fit_quality,
    predict_totals,
)
from deita_tasks.training.texts import LabelledTexts, normalise_prompt
from deita_tasks.words import count_words
from fitting.evaluation import complexity_table, quality_table
from fitting.labels import (
    CONSTRAINTS,
    GENERAL,
    MEASURED,
    QUALITY_FAMILIES,
    SAME_PROMPTS,
    QualityLabels,
    read_complexity,
    read_instructions,
    read_quality,
)

SEED = 0
SAMPLE = 500  # texts of a source that is only measured


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the labels")
    parser.add_argument(
        "--held-out", type=Path, nargs="*", default=[], help="JSON Lines files that are measured"
    )
    parser.add_argument(
        "--output", type=Path, help=f"folder for the weights, such as {WEIGHTS}; default: none"
    )
    options = parser.parse_args(arguments)
    encoder = MiniEncoder()
    labelled = read_complexity(options.data)
    for path in options.held_out:
        if path.stem in labelled:
            parser.error(f"{path}: there is already a source named {path.stem}; rename the file")
        labelled[path.stem] = read_instructions(path)
    sources = encode_sources(labelled, encoder)
    print("\n".join(complexity_table(sources)), "\n")
    labels = read_quality(options.data)
    features = [response_features(*pair) for pair in labels.pairs]
    words = np.array([count_words(response) for _, response in labels.pairs], np.float64)
    prompts = [normalise_prompt(instruction) for instruction, _ in labels.pairs]
    print("\n".join(quality_table(prompts, features, words, labels.comparisons)))
    if options.output:
        write_heads(options.output, sources, labels, features, encoder)


def encode_sources(
    labelled: Mapping[str, LabelledTexts], encoder: MiniEncoder
) -> dict[str, EncodedTexts]:
    """Return all sources, a sample of the measured ones, and the general one with both labels."""
    sources: dict[str, EncodedTexts] = {}
    for name, source in labelled.items():
        texts = sample_texts(source) if name in MEASURED else source
        sources[name] = encode_texts(texts, encoder)
    sources[GENERAL] = add_second_label(sources[GENERAL], labelled[SAME_PROMPTS])
    return sources


def sample_texts(source: LabelledTexts) -> LabelledTexts:
    """Return SAMPLE texts of a source, or all of a smaller one."""
    count = len(source.texts)
    if count <= SAMPLE:
        return source
    rows = np.sort(np.random.default_rng(SEED).choice(count, SAMPLE, replace=False))
    texts = [source.texts[row] for row in rows]
    return LabelledTexts(texts, source.labels[rows], source.groups[rows])


def write_heads(
    folder: Path,
    sources: Mapping[str, EncodedTexts],
    labels: QualityLabels,
    features: Sequence[Features],
    encoder: MiniEncoder,
) -> None:
    """Write both heads, fitted to everything.

    Both are calibrated on the same conversations: those whose responses were compared. `features`:
    of every pair.
    """
    families = [[labels.comparisons[name] for name in names] for names in QUALITY_FAMILIES.values()]
    compared = compared_positions(source for family in families for source in family)
    quality = fit_quality(features, families)
    totals = quality.total(quality.standardise([features[i] for i in compared]))
    calibrate(quality, totals).save(folder / "quality.safetensors")

    complexity = fit_complexity(sources[GENERAL], [sources[name] for name in CONSTRAINTS])
    instructions = sorted({labels.pairs[i][0] for i in compared})
    no_labels = np.zeros(len(instructions))
    no_groups = np.zeros(len(instructions), np.int64)
    texts = encode_texts(LabelledTexts(instructions, no_labels, no_groups), encoder)
    calibrate(complexity, predict_totals(complexity, texts)).save(folder / "complexity.safetensors")


if __name__ == "__main__":
    main()
