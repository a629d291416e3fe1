"""The labels that the packaged mini scorers are fitted to.

A source is left out with its whole family, the sources that label the same responses. Families
share prompts too (pandalm, open_instruct and vicuna most of theirs): leaving one out means leaving
out its prompts of the others as well, which `normalise_prompt` finds.
"""

from __future__ import annotations

import lzma
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from deita_tasks.training.texts import Comparisons, LabelledTexts

GENERAL = "just_eval_level5"  # a judge's difficulty, 1 to 5, of general prompts
# most of the same prompts, labelled 1 to 3 by the same judge: fitted together with GENERAL
SAME_PROMPTS = "just_eval_tags_gpt-4"
# the same seed with 0 to 5 constraints added
CONSTRAINTS = ("followbench_style", "followbench_content", "followbench_format")
# not fitted to: see the model card
MEASURED = ("followbench_example", "math_level", "gsm8k_steps_train")

QUALITY_FAMILIES: Mapping[str, Sequence[str]] = {
    "pandalm": ("pandalm_human",),
    "open_instruct": ("open_instruct_human", "open_instruct_accept"),
    "mt_bench": ("mt_bench_single", "prometheus_mt_bench_eval"),
    "vicuna": ("qlora_vicuna_gpt4", "prometheus_vicuna_eval"),
}
# prefers harmless responses, which is something else than good ones; only measured
HARMLESS = "hh_harmless_test"
TIE = 1e-9  # scores that differ by less are equal


class InstructionRow(BaseModel):
    """A row of complexity.jsonl.xz, or of a held-out file, which may have no source and group."""

    instruction: str
    label: float
    source: str = ""
    group: str | int | None = None


class PreferenceRow(BaseModel):
    """A row of quality_pair.jsonl.xz. `pref`: 1 or 2, the better response; 0 for a tie."""

    source: str
    instruction: str
    response_a: str
    response_b: str
    pref: int


class ScoredRow(BaseModel):
    """A row of quality_point.jsonl.xz."""

    source: str
    instruction: str
    response: str
    score: float


class QualityLabels(NamedTuple):
    """All (instruction, response) pairs, and the comparisons by source."""

    pairs: list[tuple[str, str]]
    comparisons: dict[str, Comparisons]


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, compressed with xz or plain."""
    open_text = lzma.open if path.suffix == ".xz" else open
    with open_text(path, "rt", encoding="utf-8") as lines:
        yield from lines


def read_instructions(path: Path) -> LabelledTexts:
    """Return the labelled instructions of a JSON Lines file as one source, without groups."""
    rows = [InstructionRow.model_validate_json(line) for line in read_lines(path)]
    labels = np.array([row.label for row in rows], np.float64)
    return LabelledTexts([row.instruction for row in rows], labels, np.zeros(len(rows), np.int64))


def read_complexity(folder: Path) -> dict[str, LabelledTexts]:
    """Return the labelled instructions by source.

    No prompt of the general source is in another one that is fitted to.
    """
    rows: dict[str, list[InstructionRow]] = defaultdict(list)
    for line in read_lines(folder / "complexity.jsonl.xz"):
        row = InstructionRow.model_validate_json(line)
        rows[row.source].append(row)
    general = {row.instruction for row in rows[GENERAL]}
    for source in CONSTRAINTS:
        rows[source] = [row for row in rows[source] if row.instruction not in general]
    return {source: _labelled_texts(source_rows) for source, source_rows in rows.items()}


def _labelled_texts(rows: Sequence[InstructionRow]) -> LabelledTexts:
    numbers: dict[str | int | None, int] = {}
    groups = [numbers.setdefault(row.group, len(numbers)) for row in rows]
    return LabelledTexts(
        [row.instruction for row in rows],
        np.array([row.label for row in rows], np.float64),
        np.array(groups, np.int64),
    )


def read_quality(folder: Path) -> QualityLabels:
    """Return all pairs and their comparisons.

    Comparisons are human choices, and any two responses to one instruction with different scores.
    Ties are left out.
    """
    positions: dict[tuple[str, str], int] = {}
    ordered: dict[str, list[tuple[int, int]]] = defaultdict(list)  # by source: (better, worse)

    def position(instruction: str, response: str) -> int:
        return positions.setdefault((instruction, response), len(positions))

    for line in read_lines(folder / "quality_pair.jsonl.xz"):
        choice = PreferenceRow.model_validate_json(line)
        first = position(choice.instruction, choice.response_a)
        second = position(choice.instruction, choice.response_b)
        if choice.pref:
            better_first = choice.pref == 1
            ordered[choice.source].append((first, second) if better_first else (second, first))
    scored: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for line in read_lines(folder / "quality_point.jsonl.xz"):
        row = ScoredRow.model_validate_json(line)
        responses = scored[row.source, row.instruction]
        responses.append((position(row.instruction, row.response), row.score))
    for (source, _), responses in scored.items():
        ordered[source] += _order_by_score(responses)
    return QualityLabels(
        list(positions), {source: Comparisons.of(pairs) for source, pairs in ordered.items()}
    )


def _order_by_score(responses: Sequence[tuple[int, float]]) -> list[tuple[int, int]]:
    """Return (better, worse) of any two responses with different scores."""
    return [
        (better, worse)
        for (better, high), (worse, low) in permutations(responses, 2)
        if high > low + TIE and better != worse
    ]
