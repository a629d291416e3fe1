"""Put together what the trainings of a comparison scored, and write it to the output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

from deita_tasks.errors import InputError
from deita_tasks.finetuning.job import LIBRARIES, TrainedModel
from deita_tasks.manifest import PACKAGES, package_versions
from deita_tasks.measuring.intervals import ItemScores, compare
from deita_tasks.measuring.measures import (
    SELECTION,
    MeasureResult,
    RunScores,
    caveats,
    measure,
    verdict,
)
from deita_tasks.reporting.comparison import (
    CompareManifest,
    ComparisonData,
    Judgement,
    Sample,
    write_files,
)
from deita_tasks.results.arms import Arm
from deita_tasks.results.evaluation_data import EvaluationData
from deita_tasks.results.publish import publish_result
from deita_tasks.results.records import ResultRecord
from deita_tasks.scoring.pairwise import PairVerdicts


class ComparedModels(ResultRecord):
    """A comparison in its output folder. Subscripts read the manifest's fields and `measures`."""

    uri: str
    manifest: CompareManifest
    measures: list[MeasureResult]

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return the fields of the manifest, and the measures in their order."""
        measures: list[JsonValue] = [result.to_dict() for result in self.measures]
        return {**self.manifest.to_dict(), "measures": measures}


class Usable(NamedTuple):
    """The items that stand in no arm, by id. removed: how many do, by kind."""

    held_out: list[str]
    pairs: list[str]
    removed: dict[str, int]


def usable_items(evaluation: EvaluationData, arms: Sequence[Arm]) -> Usable:
    """Return the held-out items whose prompts stand in no arm.

    Raises InputError if all of a kind do: nothing would be left to measure with.
    """
    prompts = [arm.prompts for arm in arms]
    all_rows = [example.id for example in evaluation.examples]
    all_pairs = [pair.id for pair in evaluation.pairs]
    held_out = evaluation.outside(all_rows, prompts)
    pairs = evaluation.outside(all_pairs, prompts)
    for kind, before, after in (
        ("held-out rows", all_rows, held_out),
        ("preference pairs", all_pairs, pairs),
    ):
        if before and not after:
            raise InputError(
                f"all {len(before):,} {kind} have prompts that stand in an arm, so they would "
                "measure what the models have seen; choose rows that are not in the pool"
            )
    removed = {
        "held-out rows": len(all_rows) - len(held_out),
        "preference pairs": len(all_pairs) - len(pairs),
    }
    return Usable(held_out, pairs, removed)


def judgement(group: str, judge: str, verdicts: PairVerdicts) -> Judgement:
    """Return the win rate of the selection's answers, with a bootstrap interval over the prompts.

    verdicts: the selection's answers are the first.
    """
    points = {"first": 1.0, "tie": 0.5, "second": 0.0}
    values = np.array([points[each] for each in verdicts.verdicts if each is not None])
    ones = np.ones(len(values))
    zero = ItemScores(np.zeros((1, len(values))), ones)
    interval = compare(ItemScores(values[None, :], ones), zero)
    counts = {name: verdicts.verdicts.count(name) for name in ("first", "tie", "second")}  # type: ignore[arg-type]
    return Judgement(
        group=group,
        judge=judge,
        pairs=len(verdicts.verdicts),
        wins=counts["first"],
        ties=counts["tie"],
        losses=counts["second"],
        disagreements=verdicts.disagreements,
        without_verdict=len(verdicts.verdicts) - len(values),
        win_rate=interval.difference,
        low=interval.low,
        high=interval.high,
        words=float(np.mean(verdicts.first_words)),
        other_words=float(np.mean(verdicts.second_words)),
    )


class Trainings(NamedTuple):
    """What all trainings of a comparison share: the first of them, and the selection."""

    first: TrainedModel
    selection: str


def write_comparison(
    output: str,
    trainings: Trainings,
    arms: Sequence[Arm],
    notes: Sequence[str],
    runs: Sequence[RunScores],
    usable: Usable,
    left_out: Mapping[str, int],
    judgements: Sequence[Judgement],
    samples: Sequence[Sample],
    parameters: Mapping[str, JsonValue],
) -> ComparedModels:
    """Measure, and write the comparison to `output`, whole or not at all."""
    results = measure(runs, usable.held_out, usable.pairs, seed=0)
    preparation = trainings.first.preparation
    manifest = CompareManifest(
        parameters=dict(parameters),
        fingerprints={f"{run.arm}, seed {run.seed}": run.address for run in runs},
        inputs=[],
        versions=package_versions((*PACKAGES, *LIBRARIES)),
        selection=trainings.selection,
        base=preparation.base_name,
        base_identity=preparation.job.base,
        recipe=preparation.job.recipe.model_dump(mode="json"),
        sentence=verdict(results),
        notes=[*notes, *preparation.job.warnings, *caveats(results)],
        arms=[arm.facts() for arm in arms],
        removed=usable.removed,
        left_out=dict(left_out),
    )
    data = ComparisonData(manifest, runs, results, judgements, samples)
    manifest = publish_result(output, manifest, partial(write_files, data=data))
    return ComparedModels(uri=output, manifest=manifest, measures=results)


def first_run_of_each_group(runs: Sequence[RunScores]) -> dict[str, RunScores]:
    """Return the training of each group whose answers are shown, the selection's first."""
    first: dict[str, RunScores] = {}
    for run in runs:
        first.setdefault(run.group, run)
    return {SELECTION: first[SELECTION], **first}
