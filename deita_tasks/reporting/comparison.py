"""The files of a comparison: its table, its figures and a page.

comparison.csv    a line for each measure of each training
comparison.json   all of it, with the intervals
comparison.html   the page: what can be said, tables, figures, answers side by side
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from pydantic import JsonValue, NonNegativeInt

from deita_tasks.manifest import ResultManifest
from deita_tasks.measuring.measures import NAMES, SELECTION, MeasureResult, RunScores
from deita_tasks.reporting import figures
from deita_tasks.reporting.parameters import explain_parameters
from deita_tasks.reporting.render import render
from deita_tasks.strict_json import JsonRecord

MEASURE_SIZE = (5.6, 2.6)  # inches


class ArmFacts(JsonRecord):
    """What a comparison says of an arm's data."""

    name: str
    group: str
    rows: NonNegativeInt
    tokens: NonNegativeInt
    trained_tokens: NonNegativeInt
    cut_rows: NonNegativeInt
    left_out: NonNegativeInt


class Sample(JsonRecord):
    """A held-out prompt, and the answer of one training of each group."""

    prompt: str
    answers: dict[str, str]


class Judgement(JsonRecord):
    """What a judge says of the selection's answers beside another group's.

    win_rate: share of the pairs that the selection wins, ties counting half. disagreements: ties
    because the two orders contradict each other. words: mean length of the answers.
    """

    group: str
    judge: str
    pairs: NonNegativeInt
    wins: NonNegativeInt
    ties: NonNegativeInt
    losses: NonNegativeInt
    disagreements: NonNegativeInt
    without_verdict: NonNegativeInt
    win_rate: float
    low: float
    high: float
    words: float
    other_words: float


class CompareManifest(ResultManifest):
    """manifest.json of a comparison.

    selection: where it lies. base: the model that all trainings start from. removed: held-out rows
    and pairs whose prompts stand in an arm. left_out: those that could not be used, by reason.
    """

    selection: str
    base: str
    base_identity: dict[str, str]
    recipe: dict[str, JsonValue]
    sentence: str
    notes: list[str]
    arms: list[ArmFacts]
    removed: dict[str, NonNegativeInt]
    left_out: dict[str, NonNegativeInt]


@dataclass(frozen=True)
class ComparisonData:
    """What the files of a comparison show."""

    manifest: CompareManifest
    runs: Sequence[RunScores]
    measures: Sequence[MeasureResult]
    judgements: Sequence[Judgement]
    samples: Sequence[Sample]


def write_files(folder: Path, data: ComparisonData) -> None:
    """Write comparison.csv, comparison.json and comparison.html into `folder`."""
    with (folder / "comparison.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(_lines(data.measures))
    text = json.dumps(json_fields(data), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "comparison.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "comparison.html").write_bytes(build_page(data))


def _lines(measures: Sequence[MeasureResult]) -> list[list[JsonValue]]:
    """Return the lines of comparison.csv, its head first; values have six decimals."""
    lines: list[list[JsonValue]] = [["measure", "group", "training", "value"]]
    for measure in measures:
        for group in measure.groups:
            for training, value in group.runs.items():
                lines.append([measure.name, group.group, training, round(value, 6)])
    return lines


def json_fields(data: ComparisonData) -> dict[str, JsonValue]:
    """Return a comparison as JSON values.

    Scores of single items are left out: the means and intervals are made of them.
    """
    return {
        "sentence": data.manifest.sentence,
        "notes": list(data.manifest.notes),
        "arms": [arm.to_dict() for arm in data.manifest.arms],
        "measures": [measure.to_dict() for measure in data.measures],
        "trainings": [
            run.to_dict() | {"held_out": None, "preferences": None, "tasks": []}
            for run in data.runs
        ],
        "judgements": [judgement.to_dict() for judgement in data.judgements],
        "samples": [sample.to_dict() for sample in data.samples],
    }


def build_page(data: ComparisonData) -> bytes:
    """Return comparison.html; equal data give equal bytes."""
    drawings = [
        figures.on_page(figures.svg(measure.name, MEASURE_SIZE, _dots(measure)))
        for measure in data.measures
    ]
    return render(
        "comparison.html.jinja",
        manifest=data.manifest,
        runs=data.runs,
        measures=data.measures,
        figures=drawings,
        judgements=data.judgements,
        samples=data.samples,
        names=NAMES,
        parameters=explain_parameters(data.manifest),
    )


def _dots(measure: MeasureResult) -> Callable[[Axes], None]:
    """Draw a dot for each training, and a line for each group's mean."""

    def draw(axes: Axes) -> None:
        """Draw the groups from the top down, the selection in its own colour."""
        for place, group in enumerate(measure.groups):
            colour = figures.SELECTED if group.group == SELECTION else figures.POOL
            values = list(group.runs.values())
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=6, alpha=0.75)
            axes.plot([group.mean] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        labels: list[Any] = [group.group.replace("_", " ") for group in measure.groups]
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel(f"{measure.label} ({measure.unit})")
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")

    return draw
