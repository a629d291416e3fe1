"""Why a row was kept or not: from the ledger of a result, and the pool that it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks import storage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.errors import MissingFile, UsageError
from deita_tasks.records import Conversation

SHORTEST_ID = 4
PLACE = re.compile(r"(?P<uri>.+):(?P<row>\d+)")

Line = Mapping[str, Any]  # a line of the ledger, by the names of exporting/ledger.py


class Shown(NamedTuple):
    """Another row, with its text."""

    line: Line
    conversation: Conversation


@dataclass(frozen=True)
class Explanation:
    """What is known of a row.

    `line`: its line of the ledger (a duplicate's: that of the row that it repeats). `duplicates`:
    the lines that repeat it. `selector`: the strategy with its options. `ranked`: how many rows
    have a rank. `conversation`: None for a quarantined row, which has `raw` instead. `blocker`: for
    a row that is too similar, the kept one that blocked it. `blocked`: of the `blocked_rows` rows
    that this one blocked, being kept, the most similar.
    """

    line: Line
    duplicates: list[Line]
    selector: Mapping[str, Any]
    ranked: int
    conversation: Conversation | None
    raw: str | None
    blocker: Shown | None
    blocked: list[Shown]
    blocked_rows: int


def explain(output: str, wanted: str, store: str | None = None, shown: int = 20) -> Explanation:
    """Explain the row `wanted` of the result in `output`: an id, the beginning of one, or FILE:ROW
    as the ledger has them.

    `store`: where the store lies now, if it is not where the run had it. Raises UsageError where
    there is no such row, result or pool.
    """
    manifest = _manifest(output)
    ledger = storage.read_table(storage.join(output, "decisions.parquet"))
    line, duplicates = _lines(ledger, wanted, output)
    pool = _pool(manifest, store)
    selector, ranked = manifest["fingerprints"]["selection"], pc.max(ledger["rank"]).as_py() or 0
    if line["id"] is None:
        return Explanation(line, [], selector, ranked, None, _raw(pool, line), None, [], 0)
    blocked = ledger.filter(pc.field("nearest_id") == line["id"])
    nearest_first = "descending" if selector.get("min_distance") is None else "ascending"
    first = blocked.take(
        pc.sort_indices(blocked, sort_keys=[("similarity", nearest_first), ("rank", "ascending")])[
            :shown
        ]
    ).to_pylist()
    nearest = line["nearest_id"]
    texts = pool.find([line["id"], *([nearest] if nearest else []), *(row["id"] for row in first)])
    return Explanation(
        line,
        duplicates,
        selector,
        ranked,
        conversation=texts[line["id"]],
        raw=None,
        blocker=Shown(_lines(ledger, nearest, output)[0], texts[nearest]) if nearest else None,
        blocked=[Shown(row, texts[row["id"]]) for row in first],
        blocked_rows=blocked.num_rows,
    )


def _manifest(output: str) -> Mapping[str, Any]:
    try:
        manifest: Mapping[str, Any] = storage.read_json(storage.join(output, "manifest.json"))
    except MissingFile as error:
        raise UsageError(
            f"{output}: no result here (no manifest.json); expected the output folder of "
            "`deita select`"
        ) from error
    if not isinstance(manifest, dict) or not manifest.keys() >= {"pool", "counts", "fingerprints"}:
        raise UsageError(
            f"{output}: its manifest.json is not that of a selection; expected the output "
            "folder of `deita select`"
        )
    return manifest


def _pool(manifest: Mapping[str, Any], store: str | None) -> Pool:
    """The pool that the result was made from, where the run had it or in `store`."""
    uri = (
        manifest["pool"]
        if store is None
        else storage.join(store, "pools", manifest["pool"].rsplit("/", 1)[1])
    )
    if not storage.exists(storage.join(uri, "pool.json")):
        raise UsageError(
            f"{uri}: the pool of this result is not there; give the store in which it lies "
            "now with --store"
        )
    return Pool.open(uri)


def _lines(ledger: pa.Table, wanted: str, output: str) -> tuple[Line, list[Line]]:
    """The line that `wanted` names, with those of its duplicates."""
    place = PLACE.fullmatch(wanted)
    found = (
        _at_place(ledger, place["uri"], int(place["row"]), output)
        if place
        else _by_id(ledger, wanted, output)
    )
    if found["id"][0].is_valid:
        found = ledger.filter(pc.field("id") == found["id"][0])
    lines = sorted(found.to_pylist(), key=lambda line: line["decision"] == "duplicate")
    return lines[0], lines[1:]


def _by_id(ledger: pa.Table, wanted: str, output: str) -> pa.Table:
    if len(wanted) < SHORTEST_ID:
        raise UsageError(
            f"{wanted!r}: expected an id, at least its first {SHORTEST_ID} characters, or FILE:ROW"
        )
    found = ledger.filter(pc.fill_null(pc.starts_with(ledger["id"], wanted.lower()), False))
    ids = pc.unique(found["id"]).to_pylist()
    if not ids:
        raise UsageError(
            f"{wanted!r}: no row of {output} has this id; expected one of the column id of "
            "its decisions.parquet, or FILE:ROW"
        )
    if len(ids) > 1:
        some = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
        raise UsageError(
            f"{wanted!r}: {len(ids)} ids begin so ({some}); expected more of one of them"
        )
    return found


def _at_place(ledger: pa.Table, uri: str, row: int, output: str) -> pa.Table:
    """The line of that row of the file `uri`; the last steps of its path are enough where they name
    one file.
    """
    uris = pc.unique(ledger["source_uri"]).to_pylist()
    files = [uri] if uri in uris else [one for one in uris if one.endswith(f"/{uri}")]
    if len(files) != 1:
        told = (
            f"{len(files)} files of {output} end so ({', '.join(files[:3])})"
            if files
            else f"no such file in {output}"
        )
        raise UsageError(
            f"{uri!r}: {told}; expected one of the column source_uri of its decisions.parquet"
        )
    found = ledger.filter((pc.field("source_uri") == files[0]) & (pc.field("source_row") == row))
    if not found.num_rows:
        raise UsageError(
            f"{uri}:{row}: {files[0]} has no conversation in row {row}; rows count from 1"
        )
    return found


def _raw(pool: Pool, line: Line) -> str:
    """What a quarantined row was."""
    quarantine = pool.quarantine(["source_uri", "source_row", "raw"])
    here = (pc.field("source_uri") == line["source_uri"]) & (
        pc.field("source_row") == line["source_row"]
    )
    return str(quarantine.filter(here)["raw"][0])
