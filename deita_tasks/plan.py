"""A run's parameters, made into what will really run, and checked: everything that can be known to
be wrong is found here, first.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast, get_args

from deita_tasks import storage
from deita_tasks.components import component_class
from deita_tasks.config import (
    Advanced,
    Embedding,
    Export,
    Group,
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
from deita_tasks.loading import pool_files
from deita_tasks.presets import LICENCES, PRESETS, Spec
from deita_tasks.records import SCORE_KINDS, ScoreKind
from deita_tasks.results import publish as publishing
from deita_tasks.results import versions
from deita_tasks.scoring import SCORERS, load_scorer
from deita_tasks.scoring.base import Scorer
from deita_tasks.selecting import SELECTORS, load_selector
from deita_tasks.selecting.base import Selector


@dataclass(frozen=True)
class Plan:
    """What a run will do: its files, and its components with the options that make them. No model
    is loaded yet.
    """

    files: list[str]
    specs: Mapping[str, Spec]  # complexity, quality, embedding, selection
    scorers: Mapping[str, Scorer]  # complexity, quality
    embedder: Embedder | None  # None where the strategy does without vectors
    selector: Selector

    def fingerprints(self) -> dict[str, Any]:
        """What each stage's results depend on; None for a stage that does not run."""
        found: dict[str, Any] = {
            kind: scorer.fingerprint() for kind, scorer in self.scorers.items()
        }
        found["embedding"] = self.embedder.fingerprint() if self.embedder else None
        return {**found, "selection": self.selector.fingerprint()}

    def models(self) -> list[dict[str, Any]]:
        """The models among the components: {"use", "id", "revision", "licence"}, the last two None
        where nobody states them.
        """
        parts: dict[str, Scorer | Embedder | None] = {**self.scorers, "embedding": self.embedder}
        found = []
        for use, part in parts.items():
            model = getattr(part, "model", None)
            if part is not None and model is not None:
                identity = part.fingerprint()
                revision = identity.get("revision") or identity.get("files_sha256")
                found.append(
                    {"use": use, "id": model, "revision": revision, "licence": LICENCES.get(model)}
                )
        return found

    def facts(self, preset: PresetName, groups: Mapping[str, Group]) -> dict[str, Any]:
        """What a manifest says of it, with the parameters by group as they were given."""
        parameters = {name: dict(group) for name, group in groups.items()}
        return {
            "preset": preset,
            "parameters": parameters,
            "models": self.models(),
            "fingerprints": self.fingerprints(),
        }


def plan_run(
    source: Source,
    preset: PresetName,
    scoring: Scoring,
    embedding: Embedding,
    selection: Selection,
    export: Output | Versions | None,
    advanced: Advanced,
) -> Plan:
    """Raises UsageError or InputError, in one line, for whatever is wrong in the parameters; reads
    nothing of the pool.

    `export`: None for a run that writes no output folder.
    """
    specs: dict[str, Spec] = {"selection": _selector_spec(preset, selection, advanced.device)}
    selector = load_selector(selection.strategy, **specs["selection"]["options"])
    files = pool_files(source.input)
    run: dict[str, Any] = {
        "device": advanced.device,
        "allow_bin": advanced.allow_bin,
        "pool": files,
    }
    specs |= {kind: scorer_spec(preset, kind, scoring, **run) for kind in SCORE_KINDS}
    specs["embedding"] = embedder_spec(preset, embedding, **run)
    scorers: dict[str, Scorer] = {
        kind: load_scorer(specs[kind]["name"], **specs[kind]["options"]) for kind in SCORE_KINDS
    }
    embedder = load_embedder(specs["embedding"]["name"], **specs["embedding"]["options"])
    if isinstance(export, Export | Versions) and export.output_format != "input":
        load_exporter(export.output_format)
    if export is not None:
        if isinstance(export, Versions):
            versions.check_output(export.output, [*files, advanced.store])
        else:
            check_output(export, [*files, advanced.store])
        check_apart(source.input, export.output)
    check_apart(source.input, advanced.store)
    running_of(advanced)
    storage.check_place(advanced.store)
    return Plan(files, specs, scorers, embedder if selector.needs_embeddings else None, selector)


def _selector_spec(preset: PresetName, selection: Selection, device: str = "auto") -> Spec:
    """The strategy with the options that it has; one that is set and that it does not have is an
    error, not a silent nothing.
    """
    known = component_class(SELECTORS, "strategy", selection.strategy).model_fields
    given = selection.model_dump(exclude={"strategy", "seed", "target_size"}, exclude_none=True)
    for option, value in given.items():
        if option not in known:
            raise UsageError(f"{option} = {value}: the strategy {selection.strategy!r} has none")
    if (selection.strata is None) != (selection.per_stratum is None):
        raise UsageError(
            f"strata = {selection.strata!r} with per_stratum = {selection.per_stratum}: "
            "expected both or neither"
        )
    if "seed" in known:
        given["seed"] = selection.seed
    if "max_similarity" in known and selection.metric in (None, "cosine"):
        given.setdefault("max_similarity", PRESETS[preset].max_similarity)
    return {"name": selection.strategy, "options": {**given, **_offer(known, device)}}


def scorer_spec(
    preset: PresetName, kind: ScoreKind, scoring: Scoring, device: str = "auto", **run: Any
) -> Spec:
    """The scorer of `kind`: the preset's, with what the user has set in its place; `run` as in
    `_offer`.
    """
    given = {
        "model": getattr(scoring, f"{kind}_model"),
        "revision": getattr(scoring, f"{kind}_revision"),
        "base_url": getattr(scoring, f"{kind}_url"),
        "tokenizer": getattr(scoring, f"{kind}_tokenizer"),
        "column": getattr(scoring, f"{kind}_column"),
    }
    shared = {
        "max_length": scoring.score_max_length,
        "dtype": scoring.score_dtype,
        "server": scoring.score_server,
        "api_key_env": scoring.api_key_env,
        "api_key_block": scoring.api_key_block,
        "concurrency": scoring.concurrency,
        "timeout": scoring.request_timeout,
        "attempts": scoring.request_attempts,
        "file": scoring.scores_file,
    }
    names = {
        each: getattr(scoring, each) or getattr(PRESETS[preset], each)["name"]
        for each in SCORE_KINDS
    }
    takes: dict[ScoreKind, Container[str]] = {
        each: component_class(SCORERS, "scorer", name).model_fields for each, name in names.items()
    }
    # An option for both scorers that only the other one takes is not a mistake in this one.
    of_the_other = {
        name
        for name in shared
        if name not in takes[kind] and any(name in each for each in takes.values())
    }
    given |= {name: value for name, value in shared.items() if name not in of_the_other}
    chosen = _merged(getattr(PRESETS[preset], kind), getattr(scoring, kind), given)
    return {
        "name": chosen["name"],
        "options": {"kind": kind, **chosen["options"], **_offer(takes[kind], device, **run)},
    }


def embedder_spec(
    preset: PresetName, embedding: Embedding, device: str = "auto", **run: Any
) -> Spec:
    """The embedder: the preset's, with what the user has set in its place; `run` as in `_offer`."""
    given = {
        "model": embedding.embedding_model,
        "revision": embedding.embedding_revision,
        "max_length": embedding.embedding_max_length,
        "dtype": embedding.embedding_dtype,
        "column": embedding.embedding_column,
        "file": embedding.embeddings_file,
    }
    chosen = _merged(PRESETS[preset].embedding, embedding.embedding, given)
    takes = component_class(EMBEDDERS, "embedder", chosen["name"]).model_fields
    return {
        "name": chosen["name"],
        "options": {**chosen["options"], **_offer(takes, device, **run)},
    }


def _merged(preset: Spec, name: str | None, given: Mapping[str, Any]) -> Spec:
    """Another backend leaves all of the preset's options behind, another model its revision."""
    options = dict(preset["options"]) if name in (None, preset["name"]) else {}
    if given["model"] is not None:
        options.pop("revision", None)
    options |= {option: value for option, value in given.items() if value is not None}
    return {"name": name or preset["name"], "options": options}


def _offer(
    takes: Container[str], device: str, allow_bin: bool = False, pool: Sequence[str] = ()
) -> dict[str, Any]:
    """What a run has for whichever component takes it: its device, whether .bin files may be read,
    the pool's files.
    """
    offered = {
        "device": device if device != "auto" else None,
        "allow_bin": allow_bin or None,
        "pool": list(pool) or None,
    }
    return {
        option: value for option, value in offered.items() if option in takes and value is not None
    }


def check_output(export: Output, needed: Sequence[str] = ()) -> None:
    """Raises OutputExists where the output folder is not ours to write, and UsageError where one of
    the `needed` URIs lies in it.

    A result is replaced as a whole, so nothing that a run reads or keeps may be inside.
    """
    for uri in needed:
        if storage.path_in(uri, export.output) is not None:
            raise UsageError(
                f"{export.output}: holds {uri}, which the run needs; choose a folder apart "
                "from input and store"
            )
    storage.check_place(export.output)
    publishing.recover(export.output)
    if storage.is_empty(export.output) or publishing.is_unfinished(export.output):
        return
    if not _is_result(export.output):
        raise OutputExists(
            f"{export.output}: not empty, and not a result of ours (no such manifest.json); "
            "expected a new or empty folder"
        )
    if not export.overwrite:
        raise OutputExists(
            f"{export.output}: holds an earlier result; choose another folder, or --overwrite "
            "to replace it"
        )
    if foreign := publishing.foreign_files(export.output):
        raise OutputExists(
            f"{export.output}: holds {', '.join(foreign[:3])}, not of the earlier result and "
            "lost if it were replaced: move it"
        )


def check_apart(inputs: Sequence[str], uri: str) -> None:
    """Raises UsageError where `uri` lies in a folder of the pool: the next run would read what this
    one writes there.
    """
    for one in inputs:
        below = storage.path_in(uri, one)
        if below is None or any(step.startswith((".", "_")) for step in below.split("/")):
            continue  # apart, or hidden and so no part of the pool
        fs, folder = storage.filesystem(one)
        if fs.isdir(folder):
            raise UsageError(
                f"{uri}: lies in the input {one}, and the next run would read it as a pool; "
                "choose a folder apart from it"
            )


def _is_result(folder: str) -> bool:
    """Whether a run of ours has written `folder`: other programs have a manifest.json too."""
    try:
        manifest = storage.read_json(storage.join(folder, "manifest.json"))
    except StorageError:
        return False
    return isinstance(manifest, dict) and manifest.keys() >= {
        "format_version",
        "fingerprints",
        "outputs",
    }


# ---- where shards are computed

PACKAGES: Mapping[str, str] = {
    "dask": "prefect_dask",
    "ray": "prefect_ray",
}  # by runner, which is also the name of the extra


class Running(NamedTuple):
    """`cluster`: the address of one that is there, or None."""

    runner: RunnerName
    cluster: str | None


def running_of(options: Advanced, environment: Mapping[str, str] | None = None) -> Running:
    """What the parameters say, else DEITA_RUNNER and DEITA_CLUSTER. Raises UsageError for what does
    not go together or is not installed.
    """
    environment = os.environ if environment is None else environment
    runner = options.runner or environment.get("DEITA_RUNNER") or "thread"
    if runner not in get_args(RunnerName):
        raise UsageError(
            f"DEITA_RUNNER = {runner!r}: expected one of {', '.join(get_args(RunnerName))}"
        )
    # A cluster in the environment is for the runs that can use it; one in the parameters is meant.
    cluster = options.cluster or (environment.get("DEITA_CLUSTER") if runner in PACKAGES else None)
    if cluster and runner not in PACKAGES:
        raise UsageError(
            f"cluster = {cluster!r} with runner = {runner!r}: expected the runner "
            f"{' or '.join(PACKAGES)}"
        )
    if cluster and options.workers:
        raise UsageError(
            f"workers = {options.workers} with cluster = {cluster!r}: a cluster has its own; "
            "leave one of them out"
        )
    if options.num_gpus is not None and runner not in PACKAGES:
        raise UsageError(
            f"num_gpus = {options.num_gpus:g} with runner = {runner!r}: expected the runner "
            f"{' or '.join(PACKAGES)}"
        )
    if runner != "thread" and options.store.startswith("memory:"):
        raise UsageError(
            f"store = {options.store!r} with runner = {runner!r}: other processes do not see "
            "it; expected a folder or s3://"
        )
    if runner in PACKAGES and importlib.util.find_spec(PACKAGES[runner]) is None:
        raise MissingExtra(runner, PACKAGES[runner].replace("_", "-"), runner)
    return Running(cast(RunnerName, runner), cluster or None)
