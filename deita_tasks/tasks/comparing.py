"""Compare a selection with other choices of rows: train each, measure each, say what can be said.

Every training and every measurement is a task of its own with an address, so one more arm costs
that arm alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.config import Comparison, Group, Measures, Output, Runtime, Training
from deita_tasks.errors import UsageError
from deita_tasks.finetuning import require_packages
from deita_tasks.finetuning.base_model import BaseName, Tokenization, load_tokenizer
from deita_tasks.finetuning.evaluation import Evaluator
from deita_tasks.finetuning.harness import evaluate_tasks
from deita_tasks.finetuning.job import TrainedModel
from deita_tasks.finetuning.options import base_of, sft_recipe
from deita_tasks.finetuning.trained import local_model, model_uri, prepare_sft, read_model
from deita_tasks.measuring.measures import SELECTION, MeasureResult, RunScores
from deita_tasks.measuring.scores import HeldOutLoss, PreferenceLosses, TaskScores
from deita_tasks.models.hardware import choose_device, require_device
from deita_tasks.models.stopping import stopped_by
from deita_tasks.plan import check_output, check_outside
from deita_tasks.reporting.comparison import Judgement, Sample
from deita_tasks.results.arms import Arm, build_arms, open_selection
from deita_tasks.results.comparison import (
    ComparedModels,
    Trainings,
    Usable,
    first_run_of_each_group,
    judgement,
    usable_items,
    write_comparison,
)
from deita_tasks.results.evaluation_data import (
    EvaluationData,
    Prompt,
    load_evaluation,
    read_evaluation,
)
from deita_tasks.scoring.pairwise import AnswerPair, JudgeOptions, PairVerdicts, compare_answers
from deita_tasks.tasks.aligning import settings_of, train
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.device_slots import device_slot, visible_gpus
from deita_tasks.tasks.model_cache import raise_if_run_ends
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
    comparison: Comparison,
    training: Training,
    measures: Measures,
    output: Output,
    options: Runtime,
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
    """Train every arm with every seed; return the trainings without scores yet."""
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
    losses = [point.values["loss"] for point in model.outcome.curve]
    return RunScores(
        arm=arm.name,
        group=arm.group,
        seed=seed,
        address=model.address,
        updates=model.preparation.job.steps,
        last_loss=losses[-1] if losses else None,
    )


# ---- measuring


def measure_arms(
    plan: ComparisonPlan, runs: Sequence[RunScores], measures: Measures, options: Runtime
) -> list[RunScores]:
    """Return the trainings with what each scored on all items; nothing is measured twice."""
    store = storage.absolute(options.store)
    items = plan.evaluation.write(store)
    digest = items.rsplit("/", 1)[-1]
    measured = []
    for run in runs:
        title = f"measure {run.arm}, seed {run.seed}"
        key = f"{run.address}-{digest}"
        place = (title, store, run.address)
        fields = call_cached(
            evaluate_model, options, True, key, *place, items, options.device, options.device_slots
        )
        losses = HeldOutLoss.model_validate(fields["held_out"])
        preferences = PreferenceLosses.model_validate(fields["preferences"])
        tasks: list[TaskScores] = []
        if measures.tasks:
            names = sorted(measures.tasks)
            key = f"{run.address}-{storage.digest_of([names, measures.task_limit])}"
            fields = call_cached(
                run_tasks, options, True, key, *place, names, measures.task_limit, options.device
            )
            tasks = [TaskScores.model_validate(each) for each in _list(fields["tasks"])]
        scores = {
            "held_out": losses if losses.ids else None,
            "preferences": preferences if preferences.ids else None,
            "tasks": tasks,
        }
        measured.append(run.model_copy(update=scores))
    return measured


def _list(value: JsonValue) -> list[Any]:
    return list(value) if isinstance(value, list) else []


@task(name="evaluate-model", task_run_name="{title}", **CACHED)
def evaluate_model(
    key: str, title: str, store: str, address: str, items: str, device: str, slots: int | None
) -> dict[str, JsonValue]:
    """Return the loss of a model on every held-out row and on both answers of every pair."""
    examples, pairs = read_evaluation(items)
    with (
        stopped_by(raise_if_run_ends),
        _slot(device, slots),
        local_model(model_uri(store, address)) as folder,
    ):
        evaluator = Evaluator(folder, choose_device(device))
        held_out = evaluator.held_out_loss(examples)
        preferences = evaluator.preference_losses(pairs)
    return {"held_out": held_out.to_dict(), "preferences": preferences.to_dict()}


@task(name="run-tasks", task_run_name="{title}", **CACHED)
def run_tasks(
    key: str,
    title: str,
    store: str,
    address: str,
    names: Sequence[str],
    limit: int | None,
    device: str,
) -> dict[str, JsonValue]:
    """Return the scores of a model at tasks of lm-eval."""
    with local_model(model_uri(store, address)) as folder:
        scores = evaluate_tasks(folder, names, limit, choose_device(device))
    return {"tasks": [each.to_dict() for each in scores]}


def _slot(device: str, slots: int | None) -> AbstractContextManager[None]:
    """Return the slot of the device that measures."""
    gpus = visible_gpus() if choose_device(device) != "cpu" else []
    return device_slot([f"cuda-{gpus[0]}"] if gpus else ["cpu"], slots)


# ---- answers and the judge


def answer_prompts(
    plan: ComparisonPlan, runs: Sequence[RunScores], measures: Measures, options: Runtime
) -> list[Sample]:
    """Return the answers of one training of each group to held-out prompts."""
    usable = set(plan.usable.held_out)
    prompts = [prompt for prompt in plan.evaluation.prompts if prompt.id in usable]
    prompts = prompts[: measures.prompts]
    if not prompts:
        return []
    answers = {
        group: _answers(run, prompts, options)
        for group, run in first_run_of_each_group(runs).items()
    }
    return [
        Sample(
            prompt=prompt.text,
            answers={group: texts[number] for group, texts in answers.items()},
        )
        for number, prompt in enumerate(prompts)
    ]


def _answers(run: RunScores, prompts: Sequence[Prompt], options: Runtime) -> list[str]:
    messages: list[Any] = [prompt.messages for prompt in prompts]
    key = f"{run.address}-{storage.digest_of(messages)}"
    title = f"answers of {run.arm}, seed {run.seed}"
    store = storage.absolute(options.store)
    fields = call_cached(
        write_answers,
        options,
        True,
        key,
        title,
        store,
        run.address,
        messages,
        options.device,
        options.device_slots,
    )
    return [str(text) for text in _list(fields["answers"])]


@task(name="write-answers", task_run_name="{title}", **CACHED)
def write_answers(
    key: str,
    title: str,
    store: str,
    address: str,
    prompts: Sequence[Sequence[dict[str, str]]],
    device: str,
    slots: int | None,
) -> dict[str, JsonValue]:
    """Return a model's most probable answers to prompts."""
    with (
        stopped_by(raise_if_run_ends),
        _slot(device, slots),
        local_model(model_uri(store, address)) as folder,
    ):
        tokenizer = load_tokenizer(BaseName(model=folder, chat_template="own")).tokenizer
        answers = Evaluator(folder, choose_device(device)).answers(tokenizer, prompts)
    return {"answers": list(answers)}


def judge_answers(
    samples: Sequence[Sample], measures: Measures, options: Runtime
) -> list[Judgement]:
    """Return what the judge says of the selection's answers beside each other group's."""
    if measures.judge_url is None or measures.judge_model is None or not samples:
        return []
    judge = JudgeOptions(
        url=measures.judge_url, model=measures.judge_model, api_key_env=measures.judge_key_env
    )
    judgements = []
    for group in [name for name in samples[0].answers if name != SELECTION]:
        pairs = [
            [sample.prompt, sample.answers[SELECTION], sample.answers[group]] for sample in samples
        ]
        key = storage.digest_of([judge.fingerprint(), pairs])
        title = f"judge selection and {group}"
        fields = call_cached(ask_judge, options, True, key, title, judge.to_dict(), pairs)
        verdicts = PairVerdicts.model_validate(fields)
        judgements.append(judgement(group, judge.model, verdicts))
    return judgements


@task(name="ask-judge", task_run_name="{title}", **CACHED)
def ask_judge(
    key: str, title: str, judge: Mapping[str, JsonValue], pairs: Sequence[Sequence[str]]
) -> dict[str, JsonValue]:
    """Return the judge's verdicts on pairs of a prompt and two answers."""
    with stopped_by(raise_if_run_ends):
        verdicts = compare_answers(
            [AnswerPair(*pair) for pair in pairs], JudgeOptions.model_validate(judge)
        )
    return verdicts.to_dict()


# ---- the result


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
    answers = {group: one_line(answer) for group, answer in sample.answers.items()}
    return {"prompt": one_line(sample.prompt), **answers}


def _table(result: MeasureResult) -> list[dict[str, Any]]:
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
