"""Fits the mini scorers and prints how well they do where they were not fitted.

    python -m deita_tasks.training.mini --data FOLDER [--held-out FILE ...] [--output FOLDER]

FOLDER holds complexity.jsonl.xz, quality_point.jsonl.xz and quality_pair.jsonl.xz (labels.py says
which sources). Each FILE: JSON Lines with `instruction` and `label`, measured and never fitted to.
Without --output nothing is written. The fits have closed forms or one optimum: nothing is drawn at
random but the figures of a random choice and the sample of the mathematical sources, by SEED.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deita_tasks.scoring.length import count_words
from deita_tasks.scoring.mini.encoder import MiniEncoder
from deita_tasks.scoring.mini.features import instruction_features, response_features
from deita_tasks.scoring.mini.head import Head, Judge, closeness, place
from deita_tasks.scoring.mini.scorer import WEIGHTS
from deita_tasks.training.fit import (
    Matrix,
    agreeing,
    bradley_terry,
    centred,
    kernel_ridge,
    normal_ranks,
    positive_ridge,
    spearman,
)
from deita_tasks.training.labels import (
    CONSTRAINTS,
    GENERAL,
    HARMLESS,
    MEASURED,
    QUALITY_FAMILIES,
    SAME_PROMPTS,
    Compared,
    Labelled,
    prompt_of,
    read_complexity,
    read_quality,
    read_rows,
)

SEED = 0
SAMPLE = 500  # texts of a source that is only measured
JUDGED_WIDTH, JUDGED_PENALTY = (
    0.5,
    0.3,
)  # by cross-validation within the general source, which is flat about them
COUNTED_PENALTY = 0.03
QUALITY_PENALTY = 0.01


@dataclass(frozen=True)
class Texts:
    """The labelled texts of a source by their prompts, with what the scorer sees of them. `states`:
    (n, d). `aim`: (n,), what is fitted: the ranks of the labels, or the sum of two such
    (`judged_twice`).
    """

    prompts: Sequence[str]
    features: Sequence[Mapping[str, float]]
    states: NDArray[np.float32]
    words: Matrix
    labels: Matrix
    groups: NDArray[np.int64]
    aim: Matrix

    def apart_from(self, other: Texts) -> Texts:
        """Those whose prompts are not in `other`."""
        known = set(other.prompts)
        keep = [i for i, prompt in enumerate(self.prompts) if prompt not in known]
        prompts, features = [self.prompts[i] for i in keep], [self.features[i] for i in keep]
        return Texts(
            prompts,
            features,
            self.states[keep],
            self.words[keep],
            self.labels[keep],
            self.groups[keep],
            self.aim[keep],
        )


def look_at(source: Labelled, encoder: MiniEncoder) -> Texts:
    features = [instruction_features(text) for text in source.texts]
    words = np.array([count_words(text) for text in source.texts], np.float64)
    prompts, states = (
        [prompt_of(text) for text in source.texts],
        encoder.states(source.texts).values,
    )
    return Texts(
        prompts, features, states, words, source.labels, source.groups, normal_ranks(source.labels)
    )


def judged_twice(texts: Texts, again: Labelled) -> Texts:
    """`texts` whose aim is the sum of two opinions of the judge, on two scales: the sum is less
    noisy than either. A prompt that is not in `again` has one.
    """
    ranks = (
        pd.Series(normal_ranks(again.labels))
        .groupby([prompt_of(text) for text in again.texts])
        .mean()
    )
    return replace(texts, aim=texts.aim + ranks.reindex(list(texts.prompts)).fillna(0).to_numpy())


def blank_head(features: Sequence[Mapping[str, float]]) -> Head:
    """A head that knows the names, means and deviations of `features`, and no weights yet."""
    names = list(features[0])
    raw = np.array([[one[name] for name in names] for one in features])
    mean, scale = raw.mean(0).astype(np.float32), (raw.std(0) + 1e-6).astype(np.float32)
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    return Head(names, mean, scale, np.zeros(len(names), np.float32), zero, zero, one)


def fit_complexity(general: Texts | None, constraints: Sequence[Texts]) -> Head:
    """`general`: texts with a judge's difficulty, or None where they are left out. `constraints`:
    seeds with more and more demands.

    The judged opinion is fitted across the general texts; the counted one within seeds, where
    nothing but the demands differs.
    """
    sources = [*([general] if general else []), *constraints]
    head = blank_head([one for source in sources for one in source.features])
    x = [head.standardise(source.features) / np.sqrt(len(head.names)) for source in constraints]
    parts = [
        (centred(one, source.groups), centred(source.aim, source.groups))
        for one, source in zip(x, constraints, strict=True)
    ]
    counted = positive_ridge(parts, COUNTED_PENALTY) / np.sqrt(len(head.names))
    everything = np.concatenate([head.standardise(source.features) for source in sources])
    counted, offset = unit(everything @ counted, counted)
    head = replace(head, counted=counted, counted_offset=offset)
    return (
        replace(head, judge=fit_judge(head.standardise(general.features), general))
        if general
        else head
    )


def fit_judge(x: Matrix, general: Texts) -> Judge:
    """From texts with standardised features x, (n, k), all of which become the judge's examples."""
    mean, scale = general.states.mean(0), general.states.std(0) + np.float32(1e-6)
    examples = place(x, general.states, mean, scale).astype(np.float16)
    near = closeness(examples.astype(np.float32), examples, JUDGED_WIDTH).astype(np.float64)
    found = kernel_ridge(near, general.aim, JUDGED_PENALTY)
    weights, offset = unit(near @ found, found)
    return Judge(mean, scale, examples, weights, np.array([JUDGED_WIDTH], np.float32), offset)


def unit(values: Matrix, weights: Matrix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and offset scaled so that `values`, which the weights gave, would have mean 0 and
    standard deviation 1.
    """
    spread = values.std() + 1e-12
    return (weights / spread).astype(np.float32), np.array([-values.mean() / spread], np.float32)


def totals(head: Head, texts: Texts) -> Matrix:
    return head.total(head.standardise(texts.features), texts.states)


def calibrated(head: Head, total: Matrix) -> Head:
    return replace(
        head,
        middle=np.array([total.mean()], np.float32),
        spread=np.array([total.std()], np.float32),
    )


def fit_quality(
    features: Sequence[Mapping[str, float]], families: Sequence[Sequence[Compared]]
) -> Head:
    """From comparisons by family: features that pull the same way in each family beside the number
    of words, weighed by Bradley-Terry.
    """
    used = sorted(
        {int(i) for family in families for one in family for i in (*one.better, *one.worse)}
    )
    head = blank_head([features[i] for i in used])
    x = np.zeros((len(features), len(head.names)))
    x[used] = head.standardise([features[i] for i in used])
    differences = [
        [x[one.better] - x[one.worse] for one in family if len(one.better) >= 20]
        for family in families
    ]
    differences = [family for family in differences if family]
    keep = agreeing(differences, head.names.index("words"), QUALITY_PENALTY)
    weights = np.zeros(len(keep))
    weights[keep] = bradley_terry(
        [one[:, keep] for family in differences for one in family], QUALITY_PENALTY
    )
    counted, offset = unit(x[used] @ weights, weights)
    return replace(head, counted=counted, counted_offset=offset)


def agreement(values: Matrix, compared: Compared, where: NDArray[np.bool_] | None = None) -> float:
    """Share of comparisons in which the better response has the higher value; equal values count
    half.
    """
    difference = (values[compared.better] - values[compared.worse])[
        slice(None) if where is None else where
    ]
    return (
        float(np.mean((difference > 0) + 0.5 * (difference == 0)))
        if len(difference)
        else float("nan")
    )


def within_groups(values: Matrix, texts: Texts) -> float:
    """Mean rank correlation among the variants of one seed; NaN where there are no seeds."""
    groups = [np.flatnonzero(texts.groups == group) for group in np.unique(texts.groups)]
    return (
        float(np.mean([spearman(values[one], texts.labels[one]) for one in groups if len(one) > 2]))
        if len(groups) > 1
        else float("nan")
    )


def complexity_table(sources: Mapping[str, Texts]) -> list[str]:
    """Spearman of every source with a head that saw neither it nor its prompts, beside the number
    of words and a random choice.
    """
    random = np.random.default_rng(SEED)
    lines = [
        f"{'complexity, left out':28} {'n':>5} {'mini':>7} {'words':>7} {'random':>7}   "
        "within a seed: mini, words"
    ]
    for name, texts in sources.items():
        general = None if name in (GENERAL, SAME_PROMPTS) else sources[GENERAL].apart_from(texts)
        head = fit_complexity(
            general, [sources[other].apart_from(texts) for other in CONSTRAINTS if other != name]
        )
        values = totals(head, texts)
        figures = [
            spearman(one, texts.labels) for one in (values, texts.words, random.random(len(values)))
        ]
        seeds = [within_groups(one, texts) for one in (values, texts.words)]
        lines.append(
            f"{name:28} {len(values):5} "
            + " ".join(f"{f:7.3f}" for f in figures)
            + "   "
            + " ".join(f"{f:7.3f}" for f in seeds)
        )
    return lines


def other_families(
    names: Sequence[str], compared: Mapping[str, Compared], prompts: Sequence[str]
) -> list[list[Compared]]:
    """The comparisons, by family, that are neither of the sources `names` nor share a prompt with
    one. `prompts`: of every pair.
    """
    known = {prompts[i] for name in names for i in compared[name].better}
    found = []
    for others in QUALITY_FAMILIES.values():
        if not set(others) & set(names):
            apart = [
                (
                    compared[other],
                    np.array([prompts[i] not in known for i in compared[other].better], bool),
                )
                for other in others
            ]
            found.append([Compared(one.better[where], one.worse[where]) for one, where in apart])
    return found


def quality_table(
    prompts: Sequence[str],
    features: Sequence[Mapping[str, float]],
    words: Matrix,
    compared: Mapping[str, Compared],
) -> list[str]:
    """Share of comparisons decided rightly in every source with a head that saw neither its family
    nor its prompts, beside the number of words and a random choice; then only where the better
    response is the shorter one, in which words are always wrong. `prompts`, `features`, `words`: of
    every pair.
    """
    random = np.random.default_rng(SEED)
    lines = [
        f"{'quality, left out':28} {'n':>5} {'mini':>7} {'words':>7} {'random':>7}   where "
        "the longer is worse: n, mini"
    ]
    for names in (*QUALITY_FAMILIES.values(), (HARMLESS,)):
        head = fit_quality(features, other_families(names, compared, prompts))
        values = head.total(head.standardise(features))
        for name in names:
            one = compared[name]
            figures = [agreement(v, one) for v in (values, words, random.random(len(values)))]
            shorter = words[one.better] < words[one.worse]
            lines.append(
                f"{name:28} {len(one.better):5} "
                + " ".join(f"{f:7.3f}" for f in figures)
                + f"   {shorter.sum():5} {agreement(values, one, shorter):7.3f}"
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--output", type=Path, help=f"where the weights are written, such as {WEIGHTS}"
    )
    given = parser.parse_args(arguments)
    encoder = MiniEncoder()
    labelled = read_complexity(given.data)
    for path in given.held_out:
        if path.stem in labelled:
            parser.error(
                f"{path}: there is a source named {path.stem} already; give the file another name"
            )
        rows = list(read_rows(path))
        labels = np.array([row["label"] for row in rows], np.float64)
        labelled[path.stem] = Labelled(
            [row["instruction"] for row in rows], labels, np.zeros(len(rows), np.int64)
        )
    sources = {
        name: look_at(_sampled(source) if name in MEASURED else source, encoder)
        for name, source in labelled.items()
    }
    sources[GENERAL] = judged_twice(sources[GENERAL], labelled[SAME_PROMPTS])
    print("\n".join(complexity_table(sources)), "\n")
    pairs, compared = read_quality(given.data)
    features = [response_features(*pair) for pair in pairs]
    words = np.array([count_words(response) for _, response in pairs], np.float64)
    print(
        "\n".join(
            quality_table([prompt_of(asked) for asked, _ in pairs], features, words, compared)
        )
    )
    if given.output:
        write(given.output, sources, pairs, features, compared, encoder)


def write(
    folder: Path,
    sources: Mapping[str, Texts],
    pairs: Sequence[tuple[str, str]],
    features: Sequence[Mapping[str, float]],
    compared: Mapping[str, Compared],
    encoder: MiniEncoder,
) -> None:
    """Both heads, fitted to everything, calibrated on the same conversations: those that responses
    were compared in.
    """
    quality = fit_quality(
        features, [[compared[name] for name in names] for names in QUALITY_FAMILIES.values()]
    )
    one_each = {
        i
        for names in QUALITY_FAMILIES.values()
        for name in names
        for i in (*compared[name].better, *compared[name].worse)
    }
    used = sorted(int(i) for i in one_each)
    calibrated(quality, quality.total(quality.standardise([features[i] for i in used]))).save(
        folder / "quality.safetensors"
    )
    complexity = fit_complexity(sources[GENERAL], [sources[name] for name in CONSTRAINTS])
    instructions = sorted({pairs[i][0] for i in used})
    seen = look_at(
        Labelled(instructions, np.zeros(len(instructions)), np.zeros(len(instructions), np.int64)),
        encoder,
    )
    calibrated(complexity, totals(complexity, seen)).save(folder / "complexity.safetensors")


def _sampled(source: Labelled) -> Labelled:
    if len(source.texts) <= SAMPLE:
        return source
    chosen = np.sort(np.random.default_rng(SEED).choice(len(source.texts), SAMPLE, replace=False))
    return Labelled([source.texts[i] for i in chosen], source.labels[chosen], source.groups[chosen])


if __name__ == "__main__":
    main()
