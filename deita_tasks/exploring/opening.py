"""Find what there is to look at: a result, a version of it, a pool, or what a store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from deita_tasks import storage
from deita_tasks.artifacts.inventory import Artifact, list_artifacts
from deita_tasks.artifacts.parts import FINGERPRINT_FILE, VECTORS_FOLDER, PartSet
from deita_tasks.artifacts.pool import POOL_FILE, Pool, pool_uri
from deita_tasks.artifacts.selection import DECISIONS_FILE, SELECTION_FILE, read_selection
from deita_tasks.conversations import RowKey
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import UsageError
from deita_tasks.manifest import MANIFEST
from deita_tasks.models.token_counter import TokenCounter
from deita_tasks.results.explain import open_pool, read_result
from deita_tasks.results.reading import read_ledger
from deita_tasks.results.versions import result_uri

TOKENS_FOLDER = "tokens"


@dataclass(frozen=True)
class ExplorerSource:
    """A pool, and what a selection made of it.

    ledger: the decisions; None for a pool alone. vectors, tokens: parts of the store; None where
    the selection has none, or they are gone. compares_by_distance: whether its similarities are
    distances.
    """

    uri: str
    pool: Pool
    ledger: pa.Table | None = None
    vectors: PartSet | None = None
    tokens: PartSet | None = None
    compares_by_distance: bool = False


def open_source(output: str, store: str | None = None) -> ExplorerSource:
    """Open a result, the latest of several versions, a pool, or the newest selection of a store.

    store: where the store of a result is now, if it has moved. Raises UsageError for anything else.
    """
    if storage.exists(storage.join(output, POOL_FILE)):
        return ExplorerSource(output, Pool.open(output))
    uri = result_uri(output)
    is_result = storage.exists(storage.join(uri, MANIFEST))
    if not is_result and not storage.is_empty(storage.join(output, "pools")):
        artifacts = [each for each in list_artifacts(output) if _is_complete(each)]
        if artifacts:
            return _open_store(output, artifacts)
    return _open_result(uri, store)


def _is_complete(artifact: Artifact) -> bool:
    """Return whether it is a pool or a selection, and not one that is being written.

    The file that describes an artifact is written last.
    """
    last_files = {"pools": POOL_FILE, "selections": SELECTION_FILE}
    last_file = last_files.get(artifact.kind, "")
    return any(file.name.endswith(f"/{last_file}") for file in artifact.files)


def _open_result(uri: str, store: str | None) -> ExplorerSource:
    """Open the result in a folder, and the pool that it was made from."""
    manifest = read_result(uri)
    pool = open_pool(manifest.pool, store)
    fingerprints = manifest.fingerprints
    embedder = fingerprints.get("embedding")
    counter = _without_window(fingerprints.get("tokens"))
    digests = {"embedding": _digest(embedder), "tokens": _digest(counter)}
    ledger = read_ledger(uri, manifest.outputs)
    options = fingerprints["selection"]
    return _source_of(uri, pool, ledger, digests, options)


def _open_store(store: str, artifacts: Sequence[Artifact]) -> ExplorerSource:
    """Open the newest selection of a store; its pool, if it has no selection and one pool."""
    selections = [each for each in artifacts if each.kind == "selections"]
    if selections:
        newest = max(selections, key=_age_of)
        return _open_selection(store, newest)
    pools = [each.digest for each in artifacts]
    if len(pools) > 1:
        places = ", ".join(pool_uri(store, digest) for digest in pools[:3])
        raise UsageError(
            f"{store}: {len(pools)} pools and no selection; expected one of the pools ({places})"
        )
    (pool,) = pools
    uri = pool_uri(store, pool)
    return ExplorerSource(uri, Pool.open(uri))


def _age_of(artifact: Artifact) -> tuple[datetime, str]:
    """Return what orders artifacts by the time at which they were written."""
    return artifact.newest, artifact.digest


def _open_selection(store: str, artifact: Artifact) -> ExplorerSource:
    """Open a selection of a store, and the pool that it was made from."""
    uri = storage.join(store, artifact.kind, artifact.digest)
    summary = read_selection(uri)
    provenance = summary.provenance
    if provenance is None:
        raise UsageError(
            f"{uri}: made by an early version, which did not say of which pool; expected the "
            "output folder of the selection"
        )
    pool = Pool.open(pool_uri(store, provenance.pool))
    ledger = summary.read(DECISIONS_FILE)
    digests = provenance.fingerprints
    options = provenance.selector.options
    return _source_of(uri, pool, ledger, digests, options)


def _source_of(
    uri: str, pool: Pool, ledger: pa.Table, digests: Mapping[str, Any], options: Mapping[str, Any]
) -> ExplorerSource:
    """Return what a selection made of a pool.

    digests: of the fingerprints of its values, by stage. options: of its strategy.
    """
    store = pool.uri.rsplit("/", 2)[0]
    return ExplorerSource(
        uri,
        pool,
        ledger,
        vectors=_open_parts(store, VECTORS_FOLDER, digests.get("embedding")),
        tokens=_open_parts(store, TOKENS_FOLDER, digests.get("tokens")),
        compares_by_distance=options.get("min_distance") is not None,
    )


def _digest(fingerprint: Any) -> str | None:
    """Return the digest that names the parts of a fingerprint; None for none."""
    if fingerprint is None:
        return None
    return storage.digest_of(fingerprint)


def _without_window(fingerprint: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the fingerprint of what counted tokens; the manifest has the window beside it."""
    if fingerprint is None:
        return None
    counter = dict(fingerprint)
    counter.pop("window", None)
    return counter


def _open_parts(store: str, folder: str, digest: str | None) -> PartSet | None:
    """Return the parts of a fingerprint; None if there are none in the store."""
    if digest is None:
        return None
    uri = storage.join(store, folder, digest)
    if not storage.exists(storage.join(uri, FINGERPRINT_FILE)):
        return None
    part_set = PartSet(uri=uri, fingerprint=digest)
    fingerprint = part_set.read_fingerprint()
    row_key = _row_key(folder, fingerprint)
    return part_set.model_copy(update={"row_key": row_key})


def _row_key(folder: str, fingerprint: Mapping[str, Any]) -> RowKey:
    """Return what the parts keep values by: the user's own and token counts are of whole rows."""
    if folder == TOKENS_FOLDER:
        return TokenCounter.ROW_KEY
    if fingerprint.get("backend") == "provided":
        return "id"
    return Embedder.ROW_KEY
