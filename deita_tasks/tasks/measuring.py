"""Measure the models of a comparison: losses, tasks of lm-eval, answers, a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import task
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.config import Measures, Runtime
from deita_tasks.finetuning.evaluation import Evaluator
from deita_tasks.finetuning.harness import evaluate_tasks
from deita_tasks.finetuning.trained import local_model, model_uri
from deita_tasks.measuring.measures import SELECTION, RunScores
from deita_tasks.measuring.scores import HeldOutLoss, PreferenceLosses, TaskScores
from deita_tasks.models.chat_tokenizer import BaseName, load_tokenizer
from deita_tasks.models.hardware import choose_device
from deita_tasks.models.stopping import stopped_by
from deita_tasks.reporting.comparison import Judgement, Sample
from deita_tasks.results.comparison import first_run_of_each_group, judgement
from deita_tasks.results.evaluation_data import Prompt, read_evaluation
from deita_tasks.scoring.pairwise import AnswerPair, JudgeOptions, PairVerdicts, compare_answers
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.comparing import ComparisonPlan
from deita_tasks.tasks.device_slots import chosen_device_slot
from deita_tasks.tasks.model_cache import raise_if_run_ends


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
            limits = (measures.task_limit, options.device, options.device_slots)
            fields = call_cached(run_tasks, options, True, key, *place, names, *limits)
            tasks = [TaskScores.model_validate(each) for each in _list(fields["tasks"])]
        scores = {
            "held_out": losses if losses.ids else None,
            "preferences": preferences if preferences.ids else None,
            "tasks": tasks,
        }
        measured.append(run.model_copy(update=scores))
    return measured


def _list(value: JsonValue) -> list[Any]:
    """Return the list that a task returned as JSON; [] where it is none."""
    return list(value) if isinstance(value, list) else []


@task(name="evaluate-model", task_run_name="{title}", **CACHED)
def evaluate_model(
    key: str, title: str, store: str, address: str, items: str, device: str, slots: int | None
) -> dict[str, JsonValue]:
    """Return the loss of a model on every held-out row and on both answers of every pair.

    Losses are sums over the tokens of the answers, in nats, beside the number of these tokens.
    items: where the tokens of rows and pairs are.
    """
    examples, pairs = read_evaluation(items)
    with (
        stopped_by(raise_if_run_ends),
        chosen_device_slot(device, slots),
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
    slots: int | None,
) -> dict[str, JsonValue]:
    """Return the scores of a model at tasks of lm-eval.

    limit: items of each task, all if None. Scores are by item, under the task's own metric.
    """
    with (
        stopped_by(raise_if_run_ends),
        chosen_device_slot(device, slots),
        local_model(model_uri(store, address)) as folder,
    ):
        scores = evaluate_tasks(folder, names, limit, choose_device(device))
    return {"tasks": [each.to_dict() for each in scores]}


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
            prompt=prompt.text, answers={group: texts[number] for group, texts in answers.items()}
        )
        for number, prompt in enumerate(prompts)
    ]


def _answers(run: RunScores, prompts: Sequence[Prompt], options: Runtime) -> list[str]:
    """Return the answers of one trained model, in the order of `prompts`.

    The task's key holds model and prompts, so no answer is written twice.
    """
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
    """Return a model's most probable answers to prompts.

    Greedy, at most MAX_NEW_TOKENS each, in the order of the prompts.
    """
    with (
        stopped_by(raise_if_run_ends),
        chosen_device_slot(device, slots),
        local_model(model_uri(store, address)) as folder,
    ):
        tokenizer = load_tokenizer(BaseName(model=folder, chat_template="own")).tokenizer
        answers = Evaluator(folder, choose_device(device)).answers(tokenizer, prompts)
    return {"answers": list(answers)}


def judge_answers(
    samples: Sequence[Sample], measures: Measures, options: Runtime
) -> list[Judgement]:
    """Return what the judge says of the selection's answers beside each other group's.

    [] without a judge. Each pair is shown in both orders; a group has one judgement over all pairs.
    """
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
