"""Compare a selection with other choices of rows: train each, measure each, say what can be said.

Every training and every measurement is a task of its own with an address, so one more arm costs
that arm alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from deita_tasks import storage
from deita_tasks.config import Comparison, Group, Measures, Output, Runtime, Training
from deita_tasks.errors import UsageError
from deita_tasks.finetuning import require_packages
from deita_tasks.finetuning.job import TrainedModel
from deita_tasks.finetuning.options import base_of, sft_recipe
from deita_tasks.finetuning.trained import model_uri, prepare_sft, read_model
from deita_tasks.measuring.measures import MeasureResult, RunScores
from deita_tasks.models.chat_tokenizer import BaseName, Tokenization, load_tokenizer
from deita_tasks.models.hardware import require_device
from deita_tasks.plan import check_output, check_outside
from deita_tasks.reporting.comparison import Judgement, Sample
from deita_tasks.results.arms import Arm, build_arms, open_selection
from deita_tasks.results.comparison import (
    ComparedModels,
    Trainings,
    Usable,
    usable_items,
    write_comparison,
)
from deita_tasks.results.evaluation_data import EvaluationData, load_evaluation
from deita_tasks.tasks.aligning import settings_of, train
from deita_tasks.tasks.ui_artifacts import show_files
from deita_tasks.templating import escape_markdown, one_line


@dataclass(frozen=True)
class ComparisonPlan:
    """The arms and what measures them, before anything is trained.

    notes: a line for each arm that could not be made.
    """

    base: BaseName
    tokenization: Tokenization
    selection: str
    arms: list[Arm]
    notes: list[str]
    evaluation: EvaluationData
    usable: Usable


def plan_comparison(
    comparison: Comparison, training: Training, measures: Measures, output: Output, options: Runtime
) -> ComparisonPlan:
    """Return the arms and what measures them.

    Raises every error that shows before a training: a missing extra, pool or base model, held-out
    rows that all stand in an arm.
    """
    require_packages("compare")
    if not (measures.held_out or measures.pairs or measures.tasks):
        raise UsageError("nothing to measure with; set held_out, pairs or tasks")
    if measures.tasks:
        require_packages("tasks", ("lm_eval",), "eval")
    check_outside(output.output, options.store)
    check_output(output, [comparison.selection])
    storage.check_writable(options.store)
    require_device(options.device)
    base = base_of(training)
    recipe = sft_recipe(training)
    tokenization = load_tokenizer(base)
    store = storage.absolute(options.store)
    tokenizer = tokenization.tokenizer
    evaluation = load_evaluation(measures, tokenizer, recipe.max_length)
    selection = open_selection(comparison.selection, store, tokenizer, recipe.max_length)
    arms, notes = build_arms(selection, comparison)
    usable = usable_items(evaluation, arms)
    _log(arms, notes, usable)
    return ComparisonPlan(
        base, tokenization, storage.absolute(selection.uri), arms, notes, evaluation, usable
    )


def _log(arms: Sequence[Arm], notes: Sequence[str], usable: Usable) -> None:
    """Log the size of each arm and how many held-out items are left out of the measurement.

    An arm that could not be made is a warning: the comparison goes on without it.
    """
    logger = get_run_logger()
    for arm in arms:
        logger.info("%s: %s", arm.name, arm.data.survey.sentences()[0])
    for kind, number in usable.removed.items():
        if number:
            logger.info("%s %s are removed: their prompts stand in an arm", f"{number:,}", kind)
    for note in notes:
        logger.warning("%s", note)


def train_arms(
    plan: ComparisonPlan, comparison: Comparison, training: Training, options: Runtime
) -> list[RunScores]:
    """Train every arm with every seed; return the trainings without scores yet.

    Arm by arm, with seeds counted up from the training's own. Those that the store has are not
    trained again.
    """
    recipe = sft_recipe(training)
    runs = []
    for arm in plan.arms:
        for seed in range(training.seed, training.seed + comparison.seeds):
            settings = settings_of(training, options)._replace(seed=seed)
            preparation = prepare_sft(plan.base, arm.data, plan.tokenization, recipe, settings)
            title = f"{arm.name}, seed {seed}"
            model = train(preparation, training.launcher, options, title)
            runs.append(_run(arm, seed, model))
    return runs


def _run(arm: Arm, seed: int, model: TrainedModel) -> RunScores:
    """Return what is known of a training before it is measured.

    last_loss: of its last update, in nats a token; None for a model without a curve.
    """
    losses = model.outcome.losses
    return RunScores(
        arm=arm.name,
        group=arm.group,
        seed=seed,
        address=model.address,
        updates=model.preparation.job.steps,
        last_loss=losses[-1] if losses else None,
    )


def export_comparison(
    plan: ComparisonPlan,
    runs: Sequence[RunScores],
    samples: Sequence[Sample],
    judgements: Sequence[Judgement],
    output: str,
    options: Runtime,
    groups: Mapping[str, Group],
) -> ComparedModels:
    """Write a comparison to its output folder, and show it. groups: the flow's parameters."""
    first = read_model(model_uri(storage.absolute(options.store), runs[0].address))
    compared = write_comparison(
        output,
        Trainings(first, plan.selection),
        plan.arms,
        plan.notes,
        runs,
        plan.usable,
        plan.evaluation.left_out,
        judgements,
        samples,
        {name: group.model_dump(mode="json") for name, group in groups.items()},
    )
    _show(compared, samples)
    show_files(output, compared.manifest.outputs)
    return compared


def _show(compared: ComparedModels, samples: Sequence[Sample]) -> None:
    """Show the sentence, the table and the answers side by side on the run's page."""
    lines = list(map(escape_markdown, (compared.manifest.sentence, *compared.manifest.notes)))
    create_markdown_artifact("\n\n".join(lines), key="deita-comparison")
    create_table_artifact(
        [line for result in compared.measures for line in _table(result)],
        key="deita-measures",
        description="The means of each group, and the selection minus the group",
    )
    if samples:
        create_table_artifact(
            [_side_by_side(sample) for sample in samples],
            key="deita-answers",
            description="Answers of one training of each group, side by side",
        )


def _side_by_side(sample: Sample) -> dict[str, str]:
    """Return a row of the UI's table: the prompt and the answer of each group, each on one line."""
    answers = {group: one_line(answer) for group, answer in sample.answers.items()}
    return {"prompt": one_line(sample.prompt), **answers}


def _table(result: MeasureResult) -> list[dict[str, Any]]:
    """Return a row for each group: its mean, and the selection minus the group with its interval.

    Both have four decimals. The selection's own row has an empty difference.
    """
    differences = {contrast.group: contrast for contrast in result.contrasts}
    lines = []
    for group in result.groups:
        line: dict[str, Any] = {"measure": result.label, "group": group.group}
        line["mean"] = round(group.mean, 4)
        contrast = differences.get(group.group)
        interval = ""
        if contrast is not None:
            interval = f"{contrast.difference:+.4f} ({contrast.low:+.4f} to {contrast.high:+.4f})"
        lines.append({**line, "selection minus group": interval})
    return lines
