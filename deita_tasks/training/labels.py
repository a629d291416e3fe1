"""The labels that the mini scorers are fitted to: which sources there are, and which of them are
too close to be told apart.

A source is left out with its whole family, the same responses labelled twice. Families share
prompts too (pandalm, open_instruct and vicuna most of theirs): whoever leaves one out also leaves
out of the others what `prompt_of` finds in it.
"""

from __future__ import annotations

import json
import lzma
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GENERAL = "just_eval_level5"  # a judge's difficulty, 1 to 5, of general prompts
# most of the same prompts, labelled 1 to 3 by the same judge: fitted together with GENERAL
SAME_PROMPTS = "just_eval_tags_gpt-4"
CONSTRAINTS = (
    "followbench_style",
    "followbench_content",
    "followbench_format",
)  # the same seed with 0 to 5 constraints added
MEASURED = (
    "followbench_example",
    "math_level",
    "gsm8k_steps_train",
)  # not fitted to: see the model card

QUALITY_FAMILIES: Mapping[str, Sequence[str]] = {
    "pandalm": ("pandalm_human",),
    "open_instruct": ("open_instruct_human", "open_instruct_accept"),
    "mt_bench": ("mt_bench_single", "prometheus_mt_bench_eval"),
    "vicuna": ("qlora_vicuna_gpt4", "prometheus_vicuna_eval"),
}
# prefers what does no harm, which is another thing than a good response; only measured
HARMLESS = "hh_harmless_test"


@dataclass(frozen=True)
class Labelled:
    """n texts of one source. `labels`: (n,). `groups`: (n,), equal where texts are variants of one
    seed.
    """

    texts: Sequence[str]
    labels: NDArray[np.float64]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Compared:
    """Comparisons of one source, each between two responses to one instruction: positions in the
    list of pairs, better and worse.
    """

    better: NDArray[np.int64]
    worse: NDArray[np.int64]


def prompt_of(instruction: str) -> str:
    """What instructions that are one prompt have in common: the words, whatever the case, white
    space and punctuation.
    """
    return " ".join(re.findall(r"\w+", instruction.lower()))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file, compressed with xz or plain."""
    with (
        lzma.open(path, "rt", encoding="utf-8")
        if path.suffix == ".xz"
        else path.open(encoding="utf-8") as lines
    ):
        for line in lines:
            yield json.loads(line)


def read_complexity(folder: Path) -> dict[str, Labelled]:
    """The labelled instructions by source. Prompts of the general source are in no other one that
    is fitted to.
    """
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_rows(folder / "complexity.jsonl.xz"):
        rows[row["source"]].append(row)
    general = {row["instruction"] for row in rows[GENERAL]}
    for source in CONSTRAINTS:
        rows[source] = [row for row in rows[source] if row["instruction"] not in general]
    return {source: _labelled(found) for source, found in rows.items()}


def _labelled(rows: Sequence[Mapping[str, Any]]) -> Labelled:
    numbers: dict[Any, int] = {}
    groups = [numbers.setdefault(row["group"], len(numbers)) for row in rows]
    return Labelled(
        [row["instruction"] for row in rows],
        np.array([row["label"] for row in rows], np.float64),
        np.array(groups, np.int64),
    )


def read_quality(folder: Path) -> tuple[list[tuple[str, str]], dict[str, Compared]]:
    """All (instruction, response) pairs, and the comparisons by source: of human choices, and of
    any two responses to one instruction that were scored differently. Ties are left out.
    """
    numbers: dict[tuple[str, str], int] = {}
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in read_rows(folder / "quality_pair.jsonl.xz"):
        a, b = (
            numbers.setdefault((row["instruction"], row[side]), len(numbers))
            for side in ("response_a", "response_b")
        )
        if row["pref"]:
            found[row["source"]].append((a, b) if row["pref"] == 1 else (b, a))
    scored: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in read_rows(folder / "quality_point.jsonl.xz"):
        pair = (row["instruction"], row["response"])
        scored[row["source"], row["instruction"]].append(
            (numbers.setdefault(pair, len(numbers)), row["score"])
        )
    for (source, _), responses in scored.items():
        found[source] += [
            (i, j)
            for (i, one), (j, other) in permutations(responses, 2)
            if one > other + 1e-9 and i != j
        ]
    compared = {
        source: np.array(pairs, np.int64).reshape(-1, 2).T for source, pairs in found.items()
    }
    return list(numbers), {
        source: Compared(better, worse) for source, (better, worse) in compared.items()
    }
