"""Data sets of the Hugging Face hub, by id: their rows as `datasets` has cached them.

    hf:org/name                       the only configuration, and its split "train"
    hf:org/name:config:split          hf:org/name::split for the only configuration
    hf:org/name@revision              a branch, tag or commit

A bare org/name works too, unless there is such a path. The files are the Arrow files in the cache
of `datasets`, under a folder named by the revision, so the store knows them by their content.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from deita_tasks.errors import InputError, MissingExtra
from deita_tasks.manifest import PassedOver
from deita_tasks.storage.failures import without_secrets

HUB_ID = re.compile(
    r"(?P<scheme>hf:)?(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?"
    r"(?::(?P<config>[\w.-]*))?(?::(?P<split>[\w.-]+))?"
)
DATA_NAME = re.compile(r"\.(json|jsonl|ndjson|csv|tsv|parquet|arrow|txt)(\.\w+)?$", re.IGNORECASE)
SYNTAX = "hf:org/name, hf:org/name:config or hf:org/name:config:split"
DEFAULT_SPLIT = "train"


class HubPool(NamedTuple):
    """The files of a data set, and the splits that were not asked for."""

    files: list[str]
    passed_over: list[PassedOver]


def hub_files(pattern: str) -> HubPool | None:
    """Return the files of the data set that `pattern` names; None if it is not the id of one.

    Downloads what the cache lacks. Raises MissingExtra without `datasets`, and InputError, in one
    line, for a data set that cannot be read.
    """
    match = HUB_ID.fullmatch(pattern)
    if match is None or not (match["scheme"] or _is_no_path(pattern)):
        if pattern.startswith("hf:") and not pattern.startswith("hf://"):
            raise InputError(f"{pattern!r}: not the id of a data set; expected {SYNTAX}")
        return None
    splits = _load(pattern, match)
    split = match["split"] or _choose_split(pattern, list(splits))
    if split not in splits:
        raise InputError(f"{pattern}: no split {split!r}; expected one of {', '.join(splits)}")
    files = [entry["filename"] for entry in splits[split].cache_files]
    if not files:
        raise InputError(f"{pattern}: `datasets` keeps no files of it; save it to a folder first")
    others = [
        PassedOver(uri=f"hf:{match['id']}:{match['config'] or ''}:{other}", reason="another split")
        for other in splits
        if other != split
    ]
    return HubPool(files, others)


def _is_no_path(pattern: str) -> bool:
    """Return whether a name like org/name can only be an id."""
    folder = pattern.split("/")[0]
    return not (os.path.exists(pattern) or os.path.isdir(folder) or DATA_NAME.search(pattern))


def _load(pattern: str, match: re.Match[str]) -> dict[str, Any]:
    """Return the data set's splits by name."""
    try:
        import datasets
        from huggingface_hub.utils import logging as hub_logging
    except ImportError as error:
        raise MissingExtra(pattern, "datasets", "hub") from error
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # else it reports each attempt
    try:
        return dict(
            datasets.load_dataset(
                match["id"], match["config"] or None, revision=match["revision"] or None
            )
        )
    except Exception as error:  # builders and the hub's client raise almost anything
        raise InputError(_explain(pattern, error, bool(match["scheme"]))) from error


def _choose_split(pattern: str, splits: list[str]) -> str:
    """Return the split "train", or the only one there is. Raises InputError for several others."""
    if DEFAULT_SPLIT in splits:
        return DEFAULT_SPLIT
    if len(splits) == 1:
        return splits[0]
    raise InputError(f"{pattern}: choose one of its splits ({', '.join(splits)}) as in {SYNTAX}")


def _explain(pattern: str, error: Exception, is_explicit: bool) -> str:
    """Return in one line why a data set cannot be read."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    detail = without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__
    start = f"{pattern}: " if is_explicit else f"{pattern}: no such file or folder, and on the hub "
    if kinds & {"OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TimeoutException"}:
        return f"{start}the Hugging Face hub cannot be reached ({detail}); download it beforehand"
    status = getattr(getattr(error, "response", None), "status_code", None)
    missing = {"DatasetNotFoundError", "RepositoryNotFoundError", "GatedRepoError"}
    if kinds & missing or status in (401, 403, 404):
        return (
            f"{start}no such data set, or it is private ({detail}); check the id, or log in with "
            "`hf auth login` or HF_TOKEN"
        )
    return f"{start}the data set cannot be read ({detail}); expected {SYNTAX}"
