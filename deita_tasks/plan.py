"""Turn a run's parameters into components, and find every mistake before any work."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, cast, get_args

from deita_tasks import storage
from deita_tasks.catalogue import NAMED_SCORES, PROVIDED_SCORE
from deita_tasks.components import Component, component_class
from deita_tasks.config import (
    Advanced,
    Embedding,
    Evaluation,
    Export,
    Filtering,
    Grid,
    Output,
    PresetName,
    RunnerName,
    Scoring,
    Selection,
    Source,
    Versions,
)
from deita_tasks.embedding import EMBEDDERS, load_embedder
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import MissingExtra, OutputExists, StorageError, UsageError
from deita_tasks.exporting import load_exporter
from deita_tasks.filtering.decontamination import OverlapRule
from deita_tasks.loading import find_pool, load_layouts
from deita_tasks.loading.evaluation_rows import find_evaluation_files
from deita_tasks.manifest import MANIFEST, Model, PassedOver
from deita_tasks.models.token_counter import TokenCounter
from deita_tasks.presets import EVERY_ROW, LICENCES, PRESETS, Spec
from deita_tasks.records import SCORE_KINDS, ScoreKind, column_of
from deita_tasks.results import publish, versions
from deita_tasks.scoring import SCORERS, load_scorer
from deita_tasks.scoring.base import Scorer
from deita_tasks.selecting import SELECTORS, load_selector
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.expression import EVOL
from deita_tasks.selecting.mix import parse_mix
from deita_tasks.selecting.reference import ReferenceKind

# By runner, which is also the name of the extra.
RUNNER_PACKAGES: Mapping[str, str] = {"dask": "prefect_dask", "ray": "prefect_ray"}

# Fields of a Selection that are no options of a strategy.
NOT_OF_STRATEGIES = {
    "strategy",
    "seed",
    "target_size",
    "evaluation",
    "budget_tokens",
    "target",
    "tags",
}
_REFERENCE_OPTIONS: Mapping[ReferenceKind, str] = {
    "target": "target files: examples of the task to train for (target)",
    "tags": "the column with the tags of each row (tags)",
}

MANIFEST_FIELDS = {"format_version", "fingerprints", "outputs"}  # of every result of ours


@dataclass(frozen=True)
class Decontamination:
    """The evaluation files to compare rows with, and what a row may repeat of them."""

    files: list[str]
    rule: OverlapRule

    @cached_property
    def contents(self) -> list[list[str]]:
        """Each file with a digest of its content, which is read once."""
        return [[uri, storage.content_digest(uri)] for uri in self.files]


@dataclass(frozen=True)
class ReferenceSource:
    """Where the texts that rows are compared with come from.

    files: target or evaluation files; none for tags. tags: the column that holds those of each row.
    """

    files: Sequence[str] = ()
    tags: str | None = None

    @cached_property
    def contents(self) -> list[list[str]]:
        """Each file with a digest of its content, which is read once."""
        return [[uri, storage.content_digest(uri)] for uri in self.files]


@dataclass(frozen=True)
class SimilarityRule:
    """The evaluation files whose embeddings a row may resemble, and up to which cosine."""

    source: ReferenceSource
    limit: float


@dataclass(frozen=True)
class TokenCounting:
    """What counts the tokens of rows, and the window of the training.

    cut_window: the window too, if long rows are cut at a turn to fit it.
    """

    counter: TokenCounter
    window: int | None
    cut_window: int | None = None


@dataclass(frozen=True)
class Filters:
    """What leaves rows out before any model works; None for what the user has not asked for."""

    decontamination: Decontamination | None = None
    tokens: TokenCounting | None = None
    similarity: SimilarityRule | None = None

    @property
    def are_set(self) -> bool:
        """Whether there is any filter."""
        return any((self.decontamination, self.tokens, self.similarity))

    def fingerprints(self) -> dict[str, Any]:
        """Return what the filters leave out depends on, besides the content of files."""
        fingerprints: dict[str, Any] = {}
        if self.decontamination is not None:
            rule = self.decontamination.rule._asdict()
            fingerprints["decontamination"] = {"files": self.decontamination.files, **rule}
            if self.similarity is not None:
                fingerprints["decontamination"]["similarity"] = self.similarity.limit
        if self.tokens is not None:
            window = {"window": self.tokens.window}
            fingerprints["tokens"] = {**self.tokens.counter.fingerprint(), **window}
            if self.tokens.cut_window is not None:
                fingerprints["tokens"]["cut_turns"] = True
        return fingerprints


@dataclass(frozen=True)
class Plan:
    """What a run will do: its files and components. No model is loaded yet.

    specs: by stage (complexity, quality, embedding, selection). scorers: complexity and quality, or
    what rank_by names.
    embedder: None if the strategy needs no vectors of rows. evaluation: as the user set it.
    filters: what leaves rows out before any model works. budget_tokens: the most tokens to select.
    references: where the texts come from that strategies compare rows with, by kind.
    text_embedder: what embeds these, and what filters compare.
    """

    files: list[str]
    specs: Mapping[str, Spec]
    scorers: Mapping[str, Scorer]
    embedder: Embedder | None
    selector: Selector
    evaluation: Evaluation = "all"
    passed_over: list[PassedOver] = field(default_factory=list)  # of the input
    filters: Filters = Filters()
    budget_tokens: int | None = None
    references: Mapping[ReferenceKind, ReferenceSource] = field(default_factory=dict)
    text_embedder: Embedder | None = None

    @property
    def reference(self) -> ReferenceSource | None:
        """Where the texts come from that the strategy compares rows with; None for none."""
        kind = self.selector.reference_kind
        return None if kind is None else self.references[kind]

    def fingerprints(self) -> dict[str, Any]:
        """Return what each stage's results depend on; None for a stage that does not run."""
        fingerprints: dict[str, Any] = {
            kind: scorer.fingerprint() for kind, scorer in self.scorers.items()
        }
        fingerprints["embedding"] = self.embedder.fingerprint() if self.embedder else None
        fingerprints["selection"] = self.selector.fingerprint()
        if self.budget_tokens is not None:
            fingerprints["selection"]["budget_tokens"] = self.budget_tokens
        for kind, source in self.references.items():
            fingerprints["selection"][kind] = source.tags or list(source.files)
        return {**fingerprints, **self.filters.fingerprints()}

    @property
    def is_lazy(self) -> bool:
        """Whether to compute only what the selection needs."""
        return self.evaluation == "lazy" and self.why_all is None

    @property
    def why_all(self) -> str | None:
        """Why the strategy needs every score and vector; None if it does not."""
        strategy = self.specs["selection"]["name"]
        if self.selector.budget == EVERY_ROW and self.budget_tokens is None:
            return "a budget of all rows needs every row"
        if not self.selector.stops_at_budget:
            return f"the strategy {strategy} looks at every row"
        if self.budget_tokens is not None and self.selector.divides_budget:
            return "strata that divide a budget in tokens need the order of all their rows"
        if self.selector.clusters is not None:
            return "clusters are made of every vector"
        if self.selector.rank_by is not None:
            return (
                f"rank_by = {self.selector.rank_by}: only the scores of the evol score have bounds"
            )
        if self.selector.ranking == "length":
            return "a ranking by length says nothing about scores, and a row needs them to be kept"
        return None

    def components(self) -> dict[str, Scorer | Embedder]:
        """Return the components that compute something, by stage.

        Without the selector, and without what only filters use.
        """
        embedders = {} if self.embedder is None else {"embedding": self.embedder}
        return {**self.scorers, **embedders}

    def languages(self) -> dict[str, list[str]]:
        """Return the languages that a stage's model was made for, where it says so."""
        return {
            stage: list(component.languages)
            for stage, component in self.components().items()
            if component.languages
        }

    def models(self) -> list[Model]:
        """Return the models among the components.

        In the order of the stages. A component without a model is left out, such as a user's own
        column.
        """
        models = []
        for use, component in self.components().items():
            model = getattr(component, "model", None)
            if model is not None:
                fingerprint = component.fingerprint()
                revision = fingerprint.get("revision") or fingerprint.get("files_sha256")
                models.append(
                    Model(
                        use=use,
                        id=model,
                        revision=None if revision is None else str(revision),
                        licence=LICENCES.get(model),
                    )
                )
        return models


def plan_run(
    source: Source,
    preset: PresetName,
    scoring: Scoring,
    embedding: Embedding,
    selection: Selection,
    export: Output | Versions | None,
    advanced: Advanced,
    filtering: Filtering = Filtering(),  # noqa: B008 - immutable
) -> Plan:
    """Turn parameters into components, and check everything that can be checked.

    export: None for a run that writes no output folder. Reads nothing of the pool. Raises
    UsageError or InputError, in one line.
    """
    specs: dict[str, Spec] = {
        "selection": selector_spec(preset, selection, RunSettings(advanced.device))
    }
    selector = load_selector(selection.strategy, **specs["selection"]["options"])
    filters = plan_filters(filtering, selection)
    references = plan_references([selection.strategy], selection.target, selection.tags)
    found = find_pool(source.input, load_layouts())
    settings = RunSettings(advanced.device, advanced.allow_bin, found.files)
    _check_language_model(scoring, selector)
    for name in selector.score_names:
        specs[name] = score_spec(preset, name, scoring, settings, selector.score_names)
    specs["embedding"] = embedder_spec(preset, embedding, settings)
    scorers, embedder = _load_components(specs, selector.score_names)
    _check_cuts(filtering, specs)
    _check_places(source, export, advanced, found.files)
    running_of(advanced)
    has_texts = bool(references) or filters.similarity is not None
    return Plan(
        found.files,
        specs,
        scorers,
        embedder if selector.needs_vectors else None,
        selector,
        selection.evaluation,
        found.passed_over,
        filters,
        selection.budget_tokens,
        references,
        _text_embedder(specs["embedding"]["name"], embedder) if has_texts else None,
    )


def _check_cuts(filtering: Filtering, specs: Mapping[str, Spec]) -> None:
    """Raise UsageError for cuts with values that the user brings: those are of whole rows."""
    if not filtering.cut_turns:
        return
    for stage, spec in specs.items():
        if spec["name"] in ("provided", "provided_column"):
            raise UsageError(
                f"cut_turns with {stage} of your own: these values are of whole rows; expected "
                "models, or no cuts"
            )


def _load_components(
    specs: Mapping[str, Spec], scores: Sequence[str]
) -> tuple[dict[str, Scorer], Embedder]:
    """Return the scorers of `scores`, and the embedder. Raises UsageError for a wrong option."""
    scorers: dict[str, Scorer] = {}
    for name in scores:
        scorers[name] = load_scorer(specs[name]["name"], **specs[name]["options"])
    embedder = load_embedder(specs["embedding"]["name"], **specs["embedding"]["options"])
    for component in (*scorers.values(), embedder):
        _check_model(component)
    return scorers, embedder


def plan_grid(plan: Plan, grid: Grid) -> Plan:
    """Return the plan of a sweep, with what the strategies of its grid compare rows with.

    Raises UsageError and InputError as `plan_references`, and UsageError for a strategy that cannot
    rank by the grid's scores.
    """
    for name in grid.strategies if plan.selector.rank_by is not None else ():
        strategy = load_selector(name, budget=1, rank_by=grid.rank_by)
        if strategy.evol_score != plan.selector.evol_score:
            raise UsageError(
                f"rank_by with the strategy {name!r}: it combines turns by {strategy.evol_score}, "
                f"the others by {plan.selector.evol_score}; expected it in a run of its own"
            )
    references = plan_references(grid.strategies, grid.target, grid.tags)
    if not references or plan.embedder is None:
        return plan
    embedder = _text_embedder(plan.specs["embedding"]["name"], plan.embedder)
    return replace(plan, references=references, text_embedder=embedder)


def plan_references(
    strategies: Sequence[str], target: Sequence[str] | None, tags: str | None
) -> dict[ReferenceKind, ReferenceSource]:
    """Return where the texts come from that these strategies compare rows with, by kind.

    Raises UsageError for a source that is missing or that no strategy uses, InputError for target
    files that are not there.
    """
    given: dict[ReferenceKind, object] = {"target": target, "tags": tags}
    users: dict[ReferenceKind, str] = {}
    for name in strategies:
        kind = component_class(SELECTORS, "strategy", name).reference_kind
        if kind is not None:
            users[kind] = name
    for kind, value in given.items():
        if value and kind not in users:
            raise UsageError(
                f"{kind} = {value}: the strategy {', '.join(strategies)!r} has no such option"
            )
        if not value and kind in users:
            raise UsageError(f"the strategy {users[kind]!r} needs {_REFERENCE_OPTIONS[kind]}")
    sources: dict[ReferenceKind, ReferenceSource] = {}
    if target:
        sources["target"] = ReferenceSource(sorted(find_evaluation_files(target).files))
    if tags:
        sources["tags"] = ReferenceSource(tags=tags)
    return sources


def _text_embedder(name: str, embedder: Embedder) -> Embedder:
    """Return the embedder, for texts that are no rows of the pool.

    Raises UsageError if it reads vectors from the pool.
    """
    if name == "provided":
        raise UsageError(
            "embedding = 'provided' has no vectors of target rows, evaluation rows or tags; "
            "expected an embedder with a model"
        )
    return embedder


def plan_filters(filtering: Filtering, selection: Selection) -> Filters:
    """Return the filters that the parameters ask for.

    Raises InputError for evaluation files that are not there, UsageError or ModelError for a
    tokenizer that cannot be used.
    """
    if selection.mix is not None and selection.budget_tokens is not None:
        mix = parse_mix(selection.mix)
        mix.check(selection.budget_tokens, "tokens")
    decontamination = similarity = None
    if filtering.decontaminate:
        rule = OverlapRule(
            words=filtering.decontaminate_words,
            share=filtering.decontaminate_share,
            run=filtering.decontaminate_run,
        )
        files = sorted(find_evaluation_files(filtering.decontaminate).files)
        decontamination = Decontamination(files, rule)
        if filtering.decontaminate_similarity is not None:
            source = ReferenceSource(files)
            similarity = SimilarityRule(source, filtering.decontaminate_similarity)
    if filtering.tokenizer is None:
        if selection.budget_tokens is not None:
            raise UsageError(
                f"budget_tokens = {selection.budget_tokens:,}: needs a tokenizer, which counts them"
            )
        return Filters(decontamination, similarity=similarity)
    counter = TokenCounter(
        model=filtering.tokenizer,
        revision=filtering.tokenizer_revision,
        chat_template=filtering.chat_template,
    )
    _check_model(counter)
    counter.fingerprint()  # a tokenizer that cannot be used is found before any work
    window = filtering.train_window
    tokens = TokenCounting(counter, window, window if filtering.cut_turns else None)
    return Filters(decontamination, tokens, similarity)


def _check_model(component: Component) -> None:
    """Raise UsageError for a model that is an address. A server may name its models as it likes."""
    model = getattr(component, "model", None)
    if model and "://" in model and not hasattr(component, "base_url"):
        raise UsageError(
            f"{model!r}: models are not read from addresses; expected a hub id "
            "(organisation/name) or a local folder"
        )


def _check_places(
    source: Source, export: Output | Versions | None, advanced: Advanced, files: Sequence[str]
) -> None:
    """Raise an error unless store and output can be written, apart from the input."""
    if export is not None:
        check_outside(export.output, advanced.store)
        _check_export(export, source, files)
    check_apart(source.input, advanced.store)
    storage.check_writable(advanced.store)


def _check_export(export: Output | Versions, source: Source, needed: Sequence[str]) -> None:
    """Raise an error unless the output can be written: in its format, and outside the input.

    needed: files of the input that no output may replace.
    """
    if isinstance(export, Export | Versions):
        load_exporter(export.output_format, scores=export.scores)
    if isinstance(export, Versions):
        versions.check_output(export.output, needed)
    else:
        check_output(export, needed)
    check_apart(source.input, export.output)


class RunSettings(NamedTuple):
    """What a run offers to every component that has such an option."""

    device: str = "auto"
    allow_bin: bool = False
    pool: Sequence[str] = ()

    def options_for(self, fields: Container[str]) -> dict[str, Any]:
        """Return the settings that differ from the default, for a component with these fields."""
        settings = {
            "device": self.device if self.device != "auto" else None,
            "allow_bin": self.allow_bin or None,
            "pool": list(self.pool) or None,
        }
        return {
            name: value for name, value in settings.items() if name in fields and value is not None
        }


def selector_spec(preset: PresetName, selection: Selection, run: RunSettings) -> Spec:
    """Return the strategy with its options.

    Raises UsageError for an option that the strategy does not have.
    """
    strategy = component_class(SELECTORS, "strategy", selection.strategy)
    fields = strategy.model_fields
    of_the_run = {*NOT_OF_STRATEGIES, "budget"}
    options: dict[str, Any] = {"budget": selection.rows}
    options |= selection.model_dump(exclude=of_the_run, exclude_none=True)
    for name, value in options.items():
        if name not in fields:
            raise UsageError(
                f"{name} = {value}: the strategy {selection.strategy!r} has no such option"
            )
    has_limit = selection.per_stratum is not None
    if selection.strata is not None and not has_limit:
        raise UsageError(f"strata = {selection.strata!r} without per_stratum: expected both")
    if has_limit and selection.strata is None and selection.clusters is None:
        raise UsageError(
            f"per_stratum = {selection.per_stratum} without strata or clusters: expected one of "
            "them"
        )
    _check_divided(selection)
    if "seed" in fields:
        options["seed"] = selection.seed
    if "max_similarity" in fields and selection.metric in (None, "cosine"):
        options.setdefault("max_similarity", PRESETS[preset].max_similarity)
    return {"name": selection.strategy, "options": {**options, **run.options_for(fields)}}


def score_spec(
    preset: PresetName, name: str, scoring: Scoring, run: RunSettings, names: Sequence[str] = ()
) -> Spec:
    """Return the scorer of the score `name`, as the strategy names it. names: all that it names."""
    if name in SCORE_KINDS:
        return scorer_spec(preset, name, scoring, run, names)
    column = column_of(name)
    if column is not None:
        of_file = scoring.component_options("scorers")
        options = {"kind": name, "column": column}
        options |= {option: of_file[option] for option in ("file", "key") if option in of_file}
        fields = component_class(PROVIDED_SCORE, "scorer", "provided_column").model_fields
        return {"name": "provided_column", "options": {**options, **run.options_for(fields)}}
    options = scoring.component_options("language_model")
    if "model" not in options:
        raise UsageError(
            f"rank_by names {name}: needs language_model, a hub id or a local folder, such as "
            "openai-community/gpt2"
        )
    fields = component_class(NAMED_SCORES, "scorer", name).model_fields
    return {"name": name, "options": {**options, **run.options_for(fields)}}


def _check_language_model(scoring: Scoring, selector: Selector) -> None:
    """Raise UsageError for options of a language model that nothing uses."""
    options = scoring.component_options("language_model")
    if options and not set(NAMED_SCORES) & set(selector.score_names):
        raise UsageError(
            f"language_model: expected {' or '.join(NAMED_SCORES)} in rank_by, which is "
            f"{selector.rank_by or EVOL[0]!r}"
        )


def scorer_spec(
    preset: PresetName,
    kind: ScoreKind,
    scoring: Scoring,
    run: RunSettings = RunSettings(),  # noqa: B008 - immutable
    ranked_by: Sequence[str] = (),
) -> Spec:
    """Return the scorer of `kind`: the preset's, with what the user has set instead.

    ranked_by: all scores that rank rows.
    """
    defaults = {each: getattr(PRESETS[preset], each) for each in SCORE_KINDS}
    names = {each: getattr(scoring, each) or defaults[each]["name"] for each in SCORE_KINDS}
    fields = {
        each: component_class(SCORERS, "scorer", name).model_fields for each, name in names.items()
    }
    all_fields = list(fields.values())
    if any(column_of(name) is not None for name in ranked_by):
        provided = component_class(PROVIDED_SCORE, "scorer", "provided_column")
        all_fields.append(provided.model_fields)
    options = scoring.component_options(kind)
    for name, value in scoring.component_options("scorers").items():
        # An option that only another scorer has is not a mistake in this one.
        is_of_the_other = name not in fields[kind] and any(name in each for each in all_fields)
        if not is_of_the_other:
            options[name] = value
    spec = _override(defaults[kind], names[kind], options)
    run_options = run.options_for(fields[kind])
    return {"name": spec["name"], "options": {"kind": kind, **spec["options"], **run_options}}


def _check_divided(selection: Selection) -> None:
    """Raise UsageError for strata without one budget to divide, be it in rows or in tokens."""
    strata = {"mix": selection.mix, "clusters": selection.clusters, "strata": selection.strata}
    for name, division in strata.items():
        if division is None:
            continue
        if selection.per_stratum is not None:  # which divides no budget
            continue
        if selection.budget_tokens is None:
            if selection.budget == "all":
                raise UsageError(
                    f"{name} = {division} and budget = all: {name} divides a budget; expected a "
                    "number"
                )
        elif selection.budget != "all":
            raise UsageError(
                f"{name} = {division} with budget = {selection.budget:,} and budget_tokens = "
                f"{selection.budget_tokens:,}: {name} divides one budget; expected one of the two"
            )


def embedder_spec(
    preset: PresetName,
    embedding: Embedding,
    run: RunSettings = RunSettings(),  # noqa: B008 - immutable
) -> Spec:
    """Return the embedder: the preset's, with what the user has set instead."""
    default = PRESETS[preset].embedding
    name = embedding.embedding or default["name"]
    spec = _override(default, name, embedding.component_options("embedding"))
    fields = component_class(EMBEDDERS, "embedder", name).model_fields
    return {"name": name, "options": {**spec["options"], **run.options_for(fields)}}


def pin_spec(spec: Spec, component: Component, fingerprint: Mapping[str, Any]) -> Spec:
    """Return the spec with the number type and revision of a fingerprint.

    They are what a run has found, where the parameters leave them open. component: made by `spec`.
    """
    options = type(component).model_fields
    pinned = {}
    for option in ("dtype", "revision"):
        if option in fingerprint and option in options:
            pinned[option] = fingerprint[option]
    return {"name": spec["name"], "options": {**spec["options"], **pinned}}


def _override(default: Spec, name: str, options: Mapping[str, Any]) -> Spec:
    """Return the component `name` with `options`.

    Another component than the default takes none of its options; another model not its revision.
    """
    inherited = dict(default["options"]) if name == default["name"] else {}
    if "model" in options:
        inherited.pop("revision", None)
    return {"name": name, "options": {**inherited, **options}}


def check_output(export: Output, needed: Sequence[str] = ()) -> None:
    """Raise OutputExists if the output folder is not ours to write, or UsageError if it holds one
    of the `needed` URIs.

    A result is replaced as a whole, so nothing that a run reads or keeps may be inside.
    """
    output = export.output
    for uri in needed:
        if storage.path_in(uri, output) is not None:
            raise UsageError(
                f"{output}: holds {uri}, which the run needs; choose a folder apart from input "
                "and store"
            )
    storage.check_writable(output)
    publish.recover(output)
    if storage.is_empty(output) or publish.is_unfinished(output):
        return
    if not _is_result(output):
        raise OutputExists(
            f"{output}: not empty, and not a result of ours (no such manifest.json); expected a "
            "new or empty folder"
        )
    if not export.overwrite:
        raise OutputExists(
            f"{output}: holds an earlier result; choose another folder, or overwrite it "
            "(--overwrite)"
        )
    if foreign := publish.foreign_files(output):
        raise OutputExists(
            f"{output}: holds {', '.join(foreign[:3])}, which are not of the earlier result and "
            "would be lost: move them"
        )


def check_outside(output: str, store: str) -> None:
    """Raise UsageError if output or store lies in the other: each removes files of its own."""
    if storage.path_in(output, store):
        raise UsageError(
            f"{output}: lies in the store {store}, where `deita store gc` removes files; choose a "
            "folder apart from it"
        )
    if storage.path_in(store, output) is not None:
        raise UsageError(
            f"{output}: holds the store {store}, which the run needs; choose a folder apart from it"
        )


def check_apart(inputs: Sequence[str], uri: str) -> None:
    """Raise UsageError if `uri` lies in a folder of the pool: the next run would read it."""
    for pool_uri in inputs:
        path = storage.path_in(uri, pool_uri)
        if path is None or any(step.startswith((".", "_")) for step in path.split("/")):
            continue  # elsewhere, or hidden and so not part of the pool
        fs, folder = storage.filesystem(pool_uri)
        if fs.isdir(folder):
            raise UsageError(
                f"{uri}: lies in the input {pool_uri}, and the next run would read it as a pool; "
                "choose a folder apart from it"
            )


def _is_result(folder: str) -> bool:
    """Return whether we wrote `folder`: other programs have a manifest.json too."""
    try:
        manifest = storage.read_json(storage.join(folder, MANIFEST))
    except StorageError:
        return False
    return isinstance(manifest, dict) and manifest.keys() >= MANIFEST_FIELDS


# ---- where shards are computed


class Running(NamedTuple):
    """Runner of the shards, and the address of its cluster (None: this machine)."""

    runner: RunnerName
    cluster: str | None


def running_of(options: Advanced, environment: Mapping[str, str] | None = None) -> Running:
    """Return the runner that the parameters set, else DEITA_RUNNER and DEITA_CLUSTER.

    Raises UsageError for settings that exclude each other, or a runner that is not installed.
    """
    environment = os.environ if environment is None else environment
    runner = options.runner or environment.get("DEITA_RUNNER") or "thread"
    if runner not in get_args(RunnerName):
        choices = ", ".join(get_args(RunnerName))
        raise UsageError(f"DEITA_RUNNER = {runner!r}: expected one of {choices}")
    cluster = options.cluster
    if not cluster and runner in RUNNER_PACKAGES:  # other runs ignore the environment's cluster
        cluster = environment.get("DEITA_CLUSTER")
    if cluster and runner not in RUNNER_PACKAGES:
        raise UsageError(
            f"cluster = {cluster!r} with runner = {runner!r}: expected the runner "
            f"{' or '.join(RUNNER_PACKAGES)}"
        )
    if cluster and options.workers:
        raise UsageError(
            f"workers = {options.workers} with cluster = {cluster!r}: a cluster has its own; "
            "leave one of them out"
        )
    if options.num_gpus is not None and runner not in RUNNER_PACKAGES:
        raise UsageError(
            f"num_gpus = {options.num_gpus:g} with runner = {runner!r}: expected the runner "
            f"{' or '.join(RUNNER_PACKAGES)}"
        )
    if runner != "thread" and options.store.startswith("memory:"):
        raise UsageError(
            f"store = {options.store!r} with runner = {runner!r}: other processes do not see "
            "it; expected a folder or s3://"
        )
    if runner in RUNNER_PACKAGES and importlib.util.find_spec(RUNNER_PACKAGES[runner]) is None:
        raise MissingExtra(runner, RUNNER_PACKAGES[runner].replace("_", "-"), runner)
    return Running(cast(RunnerName, runner), cluster or None)
