"""What the trainings of a comparison scored, side by side, and the sentence that this allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deita_tasks.measuring.intervals import LEVEL, Interval, ItemScores, compare
from deita_tasks.measuring.scores import HeldOutLoss, PreferenceLosses, TaskScores
from deita_tasks.strict_json import JsonRecord

SELECTION = "selection"
RANDOM = "random"
NAMES = {
    SELECTION: "the selection",
    RANDOM: "random rows",
    "longest": "the rows with the longest answers",
    "top_score": "the rows with the best scores",
    "everything": "the whole pool",
}


class RunScores(JsonRecord):
    """What one training scored. group: of its arm. address: of its model."""

    arm: str
    group: str
    seed: int
    address: str
    updates: int
    last_loss: float | None
    held_out: HeldOutLoss | None = None
    preferences: PreferenceLosses | None = None
    tasks: list[TaskScores] = Field(default_factory=list)


class GroupScore(JsonRecord):
    """A group's mean over its trainings, and the value of each training."""

    group: str
    mean: float
    runs: dict[str, float]

    @property
    def lowest(self) -> float:
        """The smallest value of a training."""
        return min(self.runs.values())

    @property
    def highest(self) -> float:
        """The largest value of a training."""
        return max(self.runs.values())


class Contrast(JsonRecord):
    """The selection minus another group, with the bootstrap interval of the difference."""

    group: str
    difference: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside the interval."""
        return Interval(self.difference, self.low, self.high).is_clear


class MeasureResult(JsonRecord):
    """A measure of all groups. items: that it was taken over."""

    name: str
    label: str
    unit: str
    lower_is_better: bool
    items: int
    groups: list[GroupScore]
    contrasts: list[Contrast]


class _Measure(NamedTuple):
    """A measure with the scores of each group, before groups are compared.

    All have the same items.
    """

    name: str
    label: str
    unit: str
    lower_is_better: bool
    scores: dict[str, ItemScores]  # by group


def measure(
    runs: Sequence[RunScores], held_out: Collection[str], pairs: Collection[str], seed: int
) -> list[MeasureResult]:
    """Return every measure that the runs have: held-out loss, preference accuracy, then tasks.

    held_out, pairs: ids of the items that stand in no arm; only they count. seed: of the bootstrap.
    All runs must have the same measures, over the same items.
    """
    groups = list(dict.fromkeys(run.group for run in runs))
    measures: list[_Measure] = []
    if runs[0].held_out is not None and held_out:
        measures += _held_out_measures(runs, groups, set(held_out))
    if runs[0].preferences is not None and pairs:
        measures += _preference_measures(runs, groups, set(pairs))
    measures += [_task_measure(runs, groups, number) for number in range(len(runs[0].tasks))]
    return [_result(each, runs, seed) for each in measures]


def _held_out_measures(
    runs: Sequence[RunScores], groups: Sequence[str], kept: set[str]
) -> list[_Measure]:
    """Return the loss on held-out rows in nats a token: each row counting alike, then each token.

    `kept`: ids of the rows that count. A row's loss is the mean over the tokens of its answers.
    """
    by_row: dict[str, ItemScores] = {}
    by_token: dict[str, ItemScores] = {}
    for group in groups:
        losses = [run.held_out for run in runs if run.group == group and run.held_out]
        is_kept = np.array([row_id in kept for row_id in losses[0].ids])
        tokens = np.array(losses[0].tokens, np.float64)[is_kept]
        means = np.array([np.array(loss.total)[is_kept] for loss in losses]) / tokens
        by_row[group] = ItemScores(means, np.ones(len(tokens)))
        by_token[group] = ItemScores(means, tokens)
    unit = "nats a token"
    return [
        _Measure("held_out_loss", "held-out loss, mean over rows", unit, True, by_row),
        _Measure("held_out_loss_tokens", "held-out loss, mean over tokens", unit, True, by_token),
    ]


def _preference_measures(
    runs: Sequence[RunScores], groups: Sequence[str], kept: set[str]
) -> list[_Measure]:
    """Return the share of pairs whose chosen answer has the lower loss, per token and summed.

    `kept`: ids of the pairs that count. Sums favour short answers; means per token do not.
    """
    per_token: dict[str, ItemScores] = {}
    summed: dict[str, ItemScores] = {}
    for group in groups:
        losses = [run.preferences for run in runs if run.group == group and run.preferences]
        is_kept = np.array([pair_id in kept for pair_id in losses[0].ids])
        margins = [np.array(loss.rejected) - np.array(loss.chosen) for loss in losses]
        margins_per_token = [
            np.array(loss.rejected) / loss.rejected_tokens
            - np.array(loss.chosen) / loss.chosen_tokens
            for loss in losses
        ]
        weights = np.ones(int(is_kept.sum()))
        summed[group] = ItemScores(_accuracy(margins)[:, is_kept], weights)
        per_token[group] = ItemScores(_accuracy(margins_per_token)[:, is_kept], weights)
    label = "preference accuracy"
    return [
        _Measure("preference_accuracy", f"{label}, per token", "share", False, per_token),
        _Measure("preference_accuracy_sum", f"{label}, whole answers", "share", False, summed),
    ]


def _accuracy(margins: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return 1 where the chosen answer is more probable, half for a tie: float64 (r, n)."""
    stacked = np.array(margins)
    return np.asarray((stacked > 0) + 0.5 * (stacked == 0), np.float64)


def _task_measure(runs: Sequence[RunScores], groups: Sequence[str], number: int) -> _Measure:
    """Return the scores of the task at `number`, which all runs list in the same place."""
    first = runs[0].tasks[number]
    items = list(first.items)
    scores = {}
    for group in groups:
        of_group = [run.tasks[number].items for run in runs if run.group == group]
        values = np.array([[each[item] for item in items] for each in of_group])
        scores[group] = ItemScores(values, np.ones(len(items)))
    return _Measure(first.task, f"{first.task}, {first.metric}", "share", False, scores)


def _result(measure: _Measure, runs: Sequence[RunScores], seed: int) -> MeasureResult:
    """Return the means of a measure by group, and the selection less each other group.

    `seed`: of the bootstrap. The names of a group's trainings tell arm and seed apart.
    """
    groups, contrasts = [], []
    for group, scores in measure.scores.items():
        names = [f"{run.arm}, seed {run.seed}" for run in runs if run.group == group]
        values = dict(zip(names, map(float, scores.by_run()), strict=True))
        groups.append(GroupScore(group=group, mean=scores.mean(), runs=values))
        if group != SELECTION:
            interval = compare(measure.scores[SELECTION], scores, seed)
            contrasts.append(Contrast(group=group, **interval._asdict()))
    return MeasureResult(
        name=measure.name,
        label=measure.label,
        unit=measure.unit,
        lower_is_better=measure.lower_is_better,
        items=len(measure.scores[SELECTION].weights),
        groups=groups,
        contrasts=contrasts,
    )


def verdict(results: Sequence[MeasureResult]) -> str:
    """Return what can be said of the selection, by the first measure and against random rows.

    Against the first other group if no rows were drawn at random.
    """
    result = results[0]
    by_group = {contrast.group: contrast for contrast in result.contrasts}
    contrast = by_group.get(RANDOM) or result.contrasts[0]
    other = NAMES[contrast.group]
    trainings = {group.group: len(group.runs) for group in result.groups}
    figures = (
        f"{result.label} {contrast.difference:+.4f} {result.unit} "
        f"({LEVEL:.0%} interval {contrast.low:+.4f} to {contrast.high:+.4f}; "
        f"{_count(trainings[SELECTION])} of the selection against "
        f"{_count(trainings[contrast.group])}, {result.items:,} items)"
    )
    if not contrast.is_clear:
        return f"No difference was found between the selection and {other}: {figures}."
    is_better = (contrast.difference < 0) == result.lower_is_better
    if is_better:
        return f"The selection trains a better model than {other}: {figures}."
    return f"The selection trains a worse model than {other}: {figures}."


def _count(trainings: int) -> str:
    """Return a number of trainings in words, for a sentence."""
    return "one training" if trainings == 1 else f"{trainings} trainings"


def caveats(results: Sequence[MeasureResult]) -> list[str]:
    """Return sentences on what the intervals do not cover; [] if there is nothing to add."""
    lines = []
    runs = {group.group: len(group.runs) for group in results[0].groups}
    if runs[SELECTION] == 1:
        lines.append(
            "The selection was trained once, so the intervals do not cover the chance of its "
            "training; --seeds repeats it."
        )
    if RANDOM in runs and runs[RANDOM] < 3:
        lines.append(
            "Fewer than three trainings on random rows say little of how random rows differ; "
            "raise --draws."
        )
    if any(contrast.is_clear for result in results[1:] for contrast in result.contrasts):
        lines.append(
            "Each interval is for one measure; of many measures some leave out 0 by chance."
        )
    return lines
