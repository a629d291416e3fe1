"""Compare two results: what joined and left, with texts and reasons, settings and drift."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.config import SubsetOptions
from deita_tasks.conversations import Conversation
from deita_tasks.errors import StorageError, UsageError
from deita_tasks.manifest import Manifest
from deita_tasks.reporting.changed_rows import shown_rows, text_ids, with_texts
from deita_tasks.reporting.changes import Changes, compare
from deita_tasks.reporting.drift import drift_from_json
from deita_tasks.results.explain import open_pool, read_result
from deita_tasks.results.reading import EarlierManifest, read_changes, read_ledger
from deita_tasks.results.versions import NAME

log = logging.getLogger(__name__)


class Selected(NamedTuple):
    """A finished selection: its manifest and its ledger."""

    manifest: Manifest | EarlierManifest
    ledger: pa.Table


def diff_results(before: str, after: str, store: str | None = None) -> Changes:
    """Return the changes from the result in the folder `before` to that in `after`.

    store: where the store is now, if it has moved. Raises UsageError if there is no such result.
    """
    earlier, later = read_selected(before), read_selected(after)
    changes = compare_selected(name_of(before), earlier, later)
    stored = read_changes(after, later.manifest.outputs)
    if stored is not None and stored["before"] == changes.before:
        # The run had scores of more rows than the ledger has.
        drift = list(map(drift_from_json, stored["drift"]))
        changes = replace(changes, drift=drift)
    pools = _open_pools([later.manifest.pool, earlier.manifest.pool], store)
    return with_examples(changes, pools)


def read_selected(uri: str) -> Selected:
    """Return the selection in the folder `uri`. Raises UsageError if there is none."""
    manifest = read_result(uri)
    return Selected(manifest, read_ledger(uri, manifest.outputs))


def name_of(uri: str) -> str:
    """Return the version that lies in the folder `uri`; for another result, `uri` itself."""
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    return name if NAME.fullmatch(name) else uri


def settings_of(manifest: Manifest | EarlierManifest) -> dict[str, Any]:
    """Return the settings of a selection by stage.

    They are the fingerprints, and as those of "export" the options of the subset.
    """
    export: Any = manifest.parameters.get("export") or {}
    options = {}
    for name in SubsetOptions.model_fields:
        if name in export:
            options[name] = export[name]
    return {**manifest.fingerprints, "export": options}


def compare_selected(
    name: str, before: Selected, after: Selected, samples: tuple[pa.Table, pa.Table] | None = None
) -> Changes:
    """Return the changes from `before`, called `name`, to `after`. samples: as for `compare`."""
    old = settings_of(before.manifest)
    new = settings_of(after.manifest)
    return compare(name, before.ledger, after.ledger, (old, new), samples)


def with_examples(changes: Changes, pools: Iterable[Pool]) -> Changes:
    """Return the changes with the texts of the best rows, from the first pool that has each."""
    rows = shown_rows(changes.table)
    texts = _find_texts(text_ids(rows), pools)
    return replace(changes, examples=with_texts(rows, texts))


def _find_texts(ids: Sequence[str], pools: Iterable[Pool]) -> dict[str, Conversation]:
    """Return the texts of the rows, each from the first pool that has it.

    A row that no pool has is left out. Opens no more pools than it needs.
    """
    texts: dict[str, Conversation] = {}
    missing = pa.array(ids, pa.string())
    for pool in pools:
        if not len(missing):
            break
        distinct_ids, _ = pool.every_distinct
        is_here = pc.is_in(missing, value_set=distinct_ids)
        here = missing.filter(is_here)
        texts |= pool.find(here.to_pylist())
        missing = missing.filter(pc.invert(is_here))
    return texts


def then_earlier(pool: Pool, earlier: str) -> Iterator[Pool]:
    """Yield `pool`, then the pool `earlier`, which has the rows that are gone, if it is there."""
    yield pool
    yield from _open_pools([earlier], None)


def _open_pools(uris: Sequence[str], store: str | None) -> Iterator[Pool]:
    """Yield the pools that can be opened, with a warning for each that cannot."""
    for uri in dict.fromkeys(uris):
        try:
            yield open_pool(uri, store)
        except (UsageError, StorageError) as error:
            log.warning("some texts are not shown: %s", error)
