"""Train a scorer: plan, fit a base model to judged chains, measure it, write the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.config import (
    Group,
    Judging,
    Output,
    Requests,
    Rewriting,
    Runtime,
    ScorerMeasures,
    ScorerTraining,
    SeedSource,
)
from deita_tasks.errors import UsageError
from deita_tasks.evolving.beside import scorer_beside
from deita_tasks.evolving.chains import Chain, Seed
from deita_tasks.evolving.data_set import ChainSet, DataFacts, hold_out
from deita_tasks.evolving.estimate import RoleEstimate, estimate_roles, read_kept
from deita_tasks.evolving.evaluation import (
    OWN,
    MeasuredTexts,
    ScorerFigures,
    Scores,
    measure,
    texts_of,
)
from deita_tasks.evolving.fit import encode_scored, scorer_encoder, write_scorer
from deita_tasks.evolving.mini import MiniHead, fit_head, head_of, judged_texts
from deita_tasks.evolving.report import chains_beside, figures_markdown
from deita_tasks.evolving.result import (
    ChainCounts,
    RoleUsage,
    ScorerEstimate,
    ScorerResult,
    TrainedScorer,
    write_scorer_result,
)
from deita_tasks.evolving.roles import Roles, roles_of
from deita_tasks.evolving.seed_files import read_labelled, read_seeds, without_seen
from deita_tasks.evolving.templates import Templates, load_templates
from deita_tasks.finetuning import require_packages
from deita_tasks.finetuning.examples import build_training_set
from deita_tasks.finetuning.job import TrainedModel
from deita_tasks.finetuning.options import base_of, sft_recipe
from deita_tasks.finetuning.trained import model_uri, prepare_sft, read_model
from deita_tasks.manifest import InputFile
from deita_tasks.models.chat_tokenizer import BaseName, load_tokenizer
from deita_tasks.models.hardware import choose_device, require_device
from deita_tasks.models.stopping import stopped_by
from deita_tasks.plan import check_apart, check_output, check_outside
from deita_tasks.presets import Spec
from deita_tasks.records import ScoreKind
from deita_tasks.scoring import Scorer, load_scorer
from deita_tasks.scoring.prompt_encoder import PromptEncoder
from deita_tasks.tasks.aligning import settings_of, train
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.device_slots import chosen_device_slot
from deita_tasks.tasks.model_cache import raise_if_run_ends
from deita_tasks.training.judged import JudgedText

SHOWN_CHAINS = 3  # side by side on the run's page


@dataclass(frozen=True)
class ScorerPlan:
    """What a run works with, before anything is asked for.

    base, encoder: of the model to train, None for a head of mini. others: scorers that are measured
    beside the trained one, by name.
    """

    kind: ScoreKind
    seeds: list[Seed]
    inputs: list[InputFile]
    templates: Templates
    rounds: int
    roles: Roles
    facts: DataFacts
    base: BaseName | None
    encoder: PromptEncoder | None
    labelled: MeasuredTexts
    others: dict[str, Spec]
    estimates: list[RoleEstimate]
    random_seed: int


def plan_scorer(
    source: SeedSource,
    rewriting: Rewriting,
    judging: Judging,
    requests: Requests,
    training: ScorerTraining,
    measures: ScorerMeasures,
    output: Output,
    options: Runtime,
) -> ScorerPlan:
    """Return what a run works with; log what it will ask for.

    Raises every error that shows before a request: a base model whose digits are not single tokens,
    prompts without their fields, labels that are no numbers.
    """
    base, encoder = _model_to_train(source.kind, training)
    _check_places(source, output, options)
    require_device(options.device)
    templates = load_templates(source.kind, rewriting.prompts)
    roles = roles_of(rewriting, judging, requests)
    others = _other_scorers(source.kind, measures, options)
    labelled = MeasuredTexts([], [], [])
    if measures.labelled:
        labelled = read_labelled(source.kind, measures.labelled, measures.label_column)
    data = read_seeds(source, training.seed)
    rounds, store = rewriting.rounds, storage.absolute(options.store)
    kept = read_kept(data.seeds, templates, rounds, roles, store, training.seed)
    plan = ScorerPlan(
        kind=source.kind,
        seeds=data.seeds,
        inputs=data.inputs,
        templates=templates,
        rounds=rounds,
        roles=roles,
        facts=_facts(templates, roles, source.licence),
        base=base,
        encoder=encoder,
        labelled=labelled,
        others=others,
        estimates=estimate_roles(kept, templates, rounds, roles, requests),
        random_seed=training.seed,
    )
    for line in estimate_of(plan).sentences():
        get_run_logger().info("%s", line)
    return plan


def _model_to_train(
    kind: ScoreKind, training: ScorerTraining
) -> tuple[BaseName | None, PromptEncoder | None]:
    """Return the base model and the encoder of its prompts; both None for a head of mini.

    Raises UsageError for an empty base, MissingExtra without the packages to train.
    """
    if training.head == "mini":
        return None, None
    if training.base is None:
        raise UsageError("base is empty: expected a model to train, or head = mini")
    require_packages("train-scorer")
    base = base_of(training)
    return base, scorer_encoder(kind, base, sft_recipe(training).max_length)


def _check_places(source: SeedSource, output: Output, options: Runtime) -> None:
    """Raise an error unless store and output can be written, apart from the input."""
    check_outside(output.output, options.store)
    check_output(output)
    check_apart(source.input, output.output)
    check_apart(source.input, options.store)
    storage.check_writable(options.store)


def _other_scorers(kind: ScoreKind, measures: ScorerMeasures, options: Runtime) -> dict[str, Spec]:
    """Return the scorers to measure beside the trained one. Raises an error for what is none."""
    names = measures.beside or ()
    specs = {name: scorer_beside(kind, name, options.device) for name in names}
    for spec in specs.values():
        _load(spec).fingerprint()
    return specs


def _load(spec: Spec) -> Scorer:
    """Return the scorer of a spec; its model is loaded on first use."""
    return load_scorer(spec["name"], **spec["options"])


def _facts(templates: Templates, roles: Roles, licence: str) -> DataFacts:
    """Return which prompts and models made the data, and its licence, for the data's card."""
    return DataFacts(
        rewrite_prompts=templates.rewrite_fingerprint,
        judge_prompt=templates.judge_fingerprint,
        rewrite_model=roles.rewriter.model,
        judge_model=roles.judge.model,
        licence=licence,
    )


def estimate_of(plan: ScorerPlan) -> ScorerEstimate:
    """Return the estimate of a plan.

    Requests, tokens and minutes by role; no model is asked for it.
    """
    return ScorerEstimate(chains=len(plan.seeds), roles=plan.estimates)


def show_estimate(plan: ScorerPlan) -> ScorerEstimate:
    """Show the estimate on the run's page, and return it."""
    estimate = estimate_of(plan)
    rows = []
    for role in estimate.roles:
        row = {"role": role.role, "model": role.model, "requests": role.requests}
        row |= {"tokens in": role.prompt_tokens, "tokens out": role.completion_tokens}
        row["in the store"] = role.kept
        rows.append({**row, "minutes, at least": role.minutes})
    create_table_artifact(
        rows, key="deita-estimate", description="What a run would ask for; nothing was asked"
    )
    return estimate


# ---- fit


class FittedScorer(NamedTuple):
    """What was fitted, the chains that it was fitted to, and those that were held out."""

    model: TrainedModel | MiniHead
    trained: list[Chain]
    held_out: list[Chain]


def fit_scorer(
    plan: ScorerPlan,
    chains: ChainSet,
    training: ScorerTraining,
    measures: ScorerMeasures,
    options: Runtime,
) -> FittedScorer:
    """Train the base model on the judged chains that are not held out, or fit a head to them.

    Only if the store does not have it; a training goes on from its last checkpoint.
    """
    judged = chains.judged
    for line in ChainCounts.of(chains, 0).reasons():
        get_run_logger().warning("%s", line)
    ids = hold_out(judged, measures.held_out_share, plan.random_seed)
    trained = [chain for chain in judged if chain.id not in ids]
    held_out = [chain for chain in judged if chain.id in ids]
    if plan.base is None or plan.encoder is None:
        return FittedScorer(_fit_head(plan.kind, trained, options), trained, held_out)
    model = _train_model(plan.base, plan.encoder, trained, training, options)
    return FittedScorer(model, trained, held_out)


def _train_model(
    base: BaseName,
    encoder: PromptEncoder,
    trained: Sequence[Chain],
    training: ScorerTraining,
    options: Runtime,
) -> TrainedModel:
    """Return the base model, trained to answer the scorer's prompt by the judge's score.

    Each text of a chain is a row named "<chain>-<round>"; one that does not fit the window is left
    out. The token under loss is the score's digit, so scores are whole numbers.
    """
    texts = texts_of(trained)
    names = [f"{chain.id}-{variant.round}" for chain in trained for variant in chain.variants]
    rows = encode_scored(encoder, names, texts.pairs, [int(each) for each in texts.scores])
    recipe = sft_recipe(training)
    data = build_training_set(rows, recipe.max_length)
    settings = settings_of(training, options)
    preparation = prepare_sft(base, data, load_tokenizer(base), recipe, settings)
    for line in data.survey.sentences():
        get_run_logger().info("%s", line)
    for line in preparation.job.warnings:
        get_run_logger().warning("%s", line)
    return train(preparation, training.launcher, options, "fit the scorer")


def _fit_head(kind: ScoreKind, trained: Sequence[Chain], options: Runtime) -> MiniHead:
    """Fit a head of the scorer mini, unless the store has it."""
    texts = judged_texts(trained)
    head = head_of(kind, texts)
    store = storage.absolute(options.store)
    arguments = (head.address, "fit the scorer", store, head.to_dict(), texts)
    call_cached(fit_mini_head, options, head.is_fitted(store), *arguments)
    return head


@task(name="fit-mini-head", task_run_name="{title}", **CACHED)
def fit_mini_head(
    key: str, title: str, store: str, head: Mapping[str, JsonValue], texts: Sequence[JudgedText]
) -> dict[str, JsonValue]:
    """Write a head to the store."""
    fit_head(store, MiniHead.model_validate(head), [JudgedText(*text) for text in texts])
    return {}


# ---- measure


class MeasuredScorer(NamedTuple):
    """What was found of a scorer. expected: its scores of the held-out chains' texts, by chain."""

    figures: ScorerFigures
    expected: dict[str, list[float | None]]


def measure_scorer(plan: ScorerPlan, fitted: FittedScorer, options: Runtime) -> MeasuredScorer:
    """Score held-out chains and labelled texts by the trained scorer, and by those beside it."""
    held_out = texts_of(fitted.held_out)
    labelled = without_seen(plan.labelled, set(texts_of(fitted.trained).pairs))
    pairs = [*held_out.pairs, *labelled.texts.pairs]
    device = choose_device(options.device)
    digest = storage.digest_of([plan.kind, device, [list(pair) for pair in pairs]])
    work: list[Any] = [pairs, options.device, options.device_slots]
    key = f"{fitted.model.address}-{digest}"
    store = storage.absolute(options.store)
    title = "evaluate the scorer"
    if isinstance(fitted.model, MiniHead):
        spec = _own_head(fitted.model, store, options)
        found = {OWN: call_cached(score_texts, options, True, key, title, spec, *work)}
    else:
        place = (key, title, store, fitted.model.address, plan.encoder)
        found = {OWN: call_cached(evaluate_scorer, options, True, *place, *work)}
    for name, spec in plan.others.items():
        key = f"{storage.digest_of(dict(_load(spec).fingerprint()))}-{digest}"
        found[name] = call_cached(score_texts, options, True, key, f"score by {name}", spec, *work)
    count = len(held_out.pairs)
    scores: dict[str, list[Any]] = {name: _list(fields) for name, fields in found.items()}
    figures = measure(
        plan.kind,
        held_out,
        {name: values[:count] for name, values in scores.items()},
        labelled.texts,
        {name: values[count:] for name, values in scores.items()},
        labelled.seen,
    )
    return MeasuredScorer(figures, _by_chain(fitted.held_out, scores[OWN]))


def _own_head(head: MiniHead, store: str, options: Runtime) -> Spec:
    """Return the spec of the scorer mini with a fitted head of the store in place of its own."""
    own = {"kind": head.kind, "device": options.device, "head": head.folder(store)}
    return {"name": "mini", "options": own}


def _list(fields: Mapping[str, Any]) -> list[Any]:
    """Return the scores that a task returned, one for each pair; None where there is none."""
    return list(fields["scores"])


def _by_chain(chains: Sequence[Chain], scores: Scores) -> dict[str, list[float | None]]:
    """Return the scores of each chain's texts; `scores` are of all, in the order of the chains."""
    values = iter(scores)
    return {chain.id: [next(values) for _ in chain.variants] for chain in chains}


@task(name="evaluate-scorer", task_run_name="{title}", **CACHED)
def evaluate_scorer(
    key: str,
    title: str,
    store: str,
    address: str,
    encoder: PromptEncoder,
    pairs: Sequence[tuple[str, str]],
    device: str,
    slots: int | None,
) -> dict[str, JsonValue]:
    """Return the scores of a trained model, as `causal_lm` gives them.

    Returns {"scores": one for each pair, None where it has none}. The checkpoint is written to a
    temporary folder, since `causal_lm` reads only folders.
    """
    with storage.scratch_folder() as scratch:
        folder = Path(scratch, "scorer")
        folder.mkdir()
        write_scorer(folder, read_model(model_uri(store, address)), store, encoder)
        own = {"kind": encoder.kind, "model": str(folder), "device": device}
        return _score({"name": "causal_lm", "options": own}, pairs, device, slots)


@task(name="score-texts", task_run_name="{title}", **CACHED)
def score_texts(
    key: str,
    title: str,
    spec: Spec,
    pairs: Sequence[tuple[str, str]],
    device: str,
    slots: int | None,
) -> dict[str, JsonValue]:
    """Return the scores of another scorer.

    Returns {"scores": one for each pair, None where it has none}.
    """
    return _score(spec, pairs, device, slots)


def _score(
    spec: Spec, pairs: Sequence[tuple[str, str]], device: str, slots: int | None
) -> dict[str, JsonValue]:
    """Return {"scores": one for each pair, in order}, with None for NaN, which JSON does not have.

    Holds a slot of the device while it computes, and releases the model after.
    """
    scorer = _load(spec)
    with stopped_by(raise_if_run_ends), chosen_device_slot(device, slots):
        values = scorer.compute([(pair[0], pair[1]) for pair in pairs]).values
    scorer.release()
    scores: list[JsonValue] = [None if np.isnan(value) else float(value) for value in values]
    return {"scores": scores}


# ---- write


def export_scorer(
    plan: ScorerPlan,
    chains: ChainSet,
    usage: Sequence[RoleUsage],
    fitted: FittedScorer,
    measured: MeasuredScorer,
    output: str,
    options: Runtime,
    groups: Mapping[str, Group],
) -> TrainedScorer:
    """Write a scorer to its output folder, and show it. groups: the flow's parameters by name."""
    result = ScorerResult(
        plan.kind, fitted.model, plan.encoder, chains, fitted.held_out, measured.expected
    )
    written = write_output(
        output,
        storage.absolute(options.store),
        result,
        measured.figures,
        usage,
        plan.inputs,
        {name: group.model_dump(mode="json") for name, group in groups.items()},
    )
    scorer = TrainedScorer.model_validate({"uri": output, "manifest": written})
    _show(scorer, fitted.held_out[:SHOWN_CHAINS], measured)
    return scorer


@task(name="export-scorer", task_run_name="export", result_serializer="json")
def write_output(
    output: str,
    store: str,
    result: ScorerResult,
    figures: ScorerFigures,
    usage: Sequence[RoleUsage],
    inputs: Sequence[InputFile],
    parameters: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Write checkpoint, data, card, figures and manifest; return the manifest.

    parameters: by group. The result as a whole stays in `output`: only JSON leaves a task.
    """
    written = write_scorer_result(output, store, result, figures, usage, inputs, parameters)
    return written.manifest.to_dict()


def _show(scorer: TrainedScorer, chains: Sequence[Chain], measured: MeasuredScorer) -> None:
    """Show what was measured with the calibration, and chains side by side, on the run's page."""
    notes = scorer.manifest.chains.sentences()
    create_markdown_artifact(figures_markdown(measured.figures, notes), key="deita-scorer")
    create_table_artifact(
        chains_beside(chains, measured.expected),
        key="deita-chains",
        description="Held-out chains side by side: judged and expected scores, round by round",
    )
