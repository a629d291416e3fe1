"""Explain a decision: from the ledger of a result, and the pool that it was made from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks import storage
from deita_tasks.artifacts.exclusions import EXCLUDED_FILE, EXCLUSIONS
from deita_tasks.artifacts.pool import POOL_FILE, Pool, pool_uri
from deita_tasks.artifacts.selection import DECISIONS_FILE
from deita_tasks.conversations import Conversation
from deita_tasks.decisions import LedgerRow, ledger_rows
from deita_tasks.errors import DamagedArtifact, MissingFile, UsageError
from deita_tasks.manifest import MANIFEST
from deita_tasks.results.how_far import how_far
from deita_tasks.results.reading import (
    EarlierManifest,
    checked_output,
    read_earlier_manifest,
    read_ledger,
)
from deita_tasks.results.versions import result_uri

MIN_ID_LENGTH = 4
PLACE = re.compile(r"(?P<uri>.+):(?P<row>\d+)")


class EvaluationText(NamedTuple):
    """What a turn of an evaluation row says; turn None: all of the row."""

    uri: str
    row: int
    turn: int | None
    text: str

    @property
    def place(self) -> str:
        """Where it stands: FILE:ROW, behind "turn N of" if it is one turn."""
        row = f"{self.uri}:{self.row}"
        return row if self.turn is None else f"turn {self.turn} of {row}"


class RowWithText(NamedTuple):
    """Another row of the result, with its text."""

    row: LedgerRow
    conversation: Conversation


@dataclass(frozen=True)
class Explanation:
    """What is known of a row.

    row: its row of the ledger; for a duplicate, the row that it repeats.
    duplicates: the rows that repeat it.
    selector: the fingerprint of the strategy.
    ranked: number of rows that have an evol score, known or not.
    last_selected: the selected row with the lowest evol score; of its stratum, if that is full.
    repeated: for a contaminated row, the evaluation text that it repeats.
    how_far: what would have let it in, in words, where that is certain.
    conversation: its text; None for a quarantined row, which has `raw` instead.
    blocker: for a row that is too similar, the selected row that blocked it.
    blocked: the most similar of the `blocked_rows` rows that it blocked.
    """

    row: LedgerRow
    duplicates: list[LedgerRow]
    selector: dict[str, Any]
    ranked: int
    conversation: Conversation | None
    raw: str | None
    blocker: RowWithText | None
    blocked: list[RowWithText]
    blocked_rows: int
    last_selected: LedgerRow | None = None
    repeated: EvaluationText | None = None
    how_far: Sequence[str] = ()


@dataclass(frozen=True)
class TextMatches:
    """The first conversations that hold a piece of text, in the order of the pool, of so many."""

    rows: list[RowWithText]
    total: int


def find_text(output: str, piece: str, store: str | None = None, limit: int = 10) -> TextMatches:
    """Find the rows of the result in `output` by a piece of their text, in any case of letters.

    Reads the texts of the pool, a row group at a time. Raises UsageError if no row has it, or for
    an unknown result or pool.
    """
    if not piece.strip():
        raise UsageError(f"text {piece!r}: expected a piece of a conversation")
    output = result_uri(output)
    manifest = read_result(output)
    pool = open_pool(manifest.pool, store)
    ids: dict[str, None] = {}
    for table in pool.scan(["id", "turns"]):
        ids.update(dict.fromkeys(_ids_with_text(table, piece)))
    if not ids:
        raise UsageError(f"{piece!r}: no conversation of {output} holds this text")
    first = list(ids)[:limit]
    ledger = read_ledger(output, manifest.outputs)
    texts = pool.find(first)
    rows = []
    for id in first:
        row, _ = _first_row(ledger, ledger.filter(pc.field("id") == id))
        rows.append(RowWithText(row, texts[id]))
    return TextMatches(rows, len(ids))


def _ids_with_text(table: pa.Table, piece: str) -> list[str]:
    """Return the ids of the rows of `table` (id, turns) of which a turn holds `piece`."""
    turns = table["turns"].combine_chunks()
    contents = pc.struct_field(pc.list_flatten(turns), "content")
    parents = pc.list_parent_indices(turns)
    has_text = pc.match_substring(contents, piece, ignore_case=True)
    rows = pc.unique(parents.filter(pc.fill_null(has_text, False)))
    ids: list[str] = table["id"].take(rows).to_pylist()
    return ids


def explain(output: str, query: str, store: str | None = None, limit: int = 20) -> Explanation:
    """Explain a row of the result in `output`.

    query: an id, the beginning of one, or FILE:ROW as the ledger has them; or the id that the row
    has in a column of its own, whose name ends in "id". store: where the store is now, if it has
    moved since the run. limit: the most blocked rows to show.

    Raises UsageError for an unknown row, result or pool.
    """
    output = result_uri(output)
    manifest = read_result(output)
    ledger = read_ledger(output, manifest.outputs)
    pool = open_pool(manifest.pool, store)
    row, duplicates = _find_row(ledger, pool, query, output)
    selector = manifest.fingerprints["selection"]
    took_part = pc.is_valid(ledger["evol_upper"]), pc.is_null(ledger["duplicate_of"])
    ranked = pc.sum(pc.and_(*took_part)).as_py() or 0
    if row.id is None:
        raw = _raw_text(pool, row)
        return Explanation(row, [], selector, ranked, None, raw, None, [], 0)
    nearest_first = "descending" if selector.get("min_distance") is None else "ascending"
    blocked = ledger.filter(pc.field("nearest_id") == row.id)
    keys = [("similarity", nearest_first), ("rank", "ascending")]
    nearest = ledger_rows(blocked.take(pc.sort_indices(blocked, sort_keys=keys)[:limit]))
    blocker = None
    if row.nearest_id is not None:
        blocker, _ = _first_row(ledger, ledger.filter(pc.field("id") == row.nearest_id))
    others = [*nearest, blocker] if blocker else nearest
    texts = pool.find([row.id, *(other.id for other in others if other.id)])
    last = _last_selected(ledger, row)
    return Explanation(
        row,
        duplicates,
        selector,
        ranked,
        conversation=texts[row.id],
        raw=None,
        blocker=RowWithText(blocker, texts[row.nearest_id]) if blocker and row.nearest_id else None,
        blocked=[RowWithText(other, texts[other.id]) for other in nearest if other.id],
        blocked_rows=blocked.num_rows,
        last_selected=last,
        repeated=_repeated(output, manifest, row),
        how_far=how_far(ledger, row, selector, last),
    )


def _repeated(output: str, manifest: EarlierManifest, row: LedgerRow) -> EvaluationText | None:
    """Return the evaluation text that a contaminated row repeats; None for any other row."""
    if row.decision != "contaminated":
        return None
    place = checked_output(output, EXCLUDED_FILE, manifest.outputs)
    table = storage.read_table(place, schema=EXCLUSIONS)
    (fields,) = table.filter(pc.field("id") == row.id).to_pylist()
    names = ("evaluation_uri", "evaluation_row", "evaluation_turn", "evaluation_text")
    uri, number, turn, text = (fields[name] for name in names)
    return EvaluationText(uri, number, turn, text)


def _last_selected(ledger: pa.Table, row: LedgerRow) -> LedgerRow | None:
    """Return the selected row with the lowest evol score; None if nothing is selected.

    For a row whose stratum is full: the lowest of that stratum, the one that it had to beat.
    """
    selected = ledger.filter(pc.field("decision") == "selected")
    if row.decision == "stratum_full":
        selected = selected.filter(pc.field("stratum") == row.stratum)
    order = pc.sort_indices(selected, sort_keys=[("evol_score", "ascending")])
    rows = ledger_rows(selected.take(order[:1]))
    return rows[0] if rows else None


def read_result(output: str) -> EarlierManifest:
    """Return the manifest of the selection in `output`. Raises UsageError if there is none."""
    try:
        manifest = read_earlier_manifest(output)
    except MissingFile as error:
        raise UsageError(
            f"{output}: no result here (no {MANIFEST}); expected the output folder of "
            "`deita select`"
        ) from error
    except DamagedArtifact as error:
        raise UsageError(
            f"{output}: its {MANIFEST} is damaged, or not that of a selection ({error}); expected "
            "the output folder of `deita select`"
        ) from error
    if not isinstance(manifest.fingerprints.get("selection"), dict):
        raise UsageError(
            f"{output}: its {MANIFEST} is not that of a selection; expected the output folder of "
            "`deita select`"
        )
    return manifest


def open_pool(uri: str, store: str | None) -> Pool:
    """Open the pool of the result, where the run had it or in `store`.

    Raises UsageError if it is not there.
    """
    if store is not None:
        uri = pool_uri(store, uri.rsplit("/", 1)[1])
    if not storage.exists(storage.join(uri, POOL_FILE)):
        raise UsageError(
            f"{uri}: the pool of this result is missing; if its store has moved, set --store"
        )
    return Pool.open(uri)


def _find_row(
    ledger: pa.Table, pool: Pool, query: str, output: str
) -> tuple[LedgerRow, list[LedgerRow]]:
    """Return the row that `query` names, and its duplicates."""
    place = PLACE.fullmatch(query)
    matches = ledger.filter((pc.field("id") == query) | (pc.field("whole_id") == query))
    if not matches.num_rows:
        matches = _rows_with_own_id(ledger, pool, query)
    if not matches.num_rows and place:
        matches = _rows_at(ledger, place["uri"], int(place["row"]), output)
    elif not matches.num_rows:
        matches = _rows_with_id(ledger, query, output)
    return _first_row(ledger, matches)


def _first_row(ledger: pa.Table, matches: pa.Table) -> tuple[LedgerRow, list[LedgerRow]]:
    """Return the row of `matches` that is not a duplicate, and its duplicates."""
    if matches["id"][0].is_valid:
        matches = ledger.filter(pc.field("id") == matches["id"][0])
    rows = sorted(ledger_rows(matches), key=lambda row: row.decision == "duplicate")
    return rows[0], rows[1:]


def _rows_with_own_id(ledger: pa.Table, pool: Pool, query: str) -> pa.Table:
    """Return the rows that have `query` in a column of the user's own, whose name ends in "id".

    Raises UsageError if they are different conversations.
    """
    places = pool.index(["id", "source_uri", "source_row", "extra"])
    has_text = pc.match_substring(places["extra"], json.dumps(query, ensure_ascii=False)[1:-1])
    places = places.filter(pc.fill_null(has_text, False))
    is_named = [query in _own_ids(json.loads(text)) for text in places["extra"].to_pylist()]
    named = places.filter(pa.array(is_named, pa.bool_()))
    ids = pc.unique(named["id"]).to_pylist()
    if len(ids) > 1:
        examples = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
        raise UsageError(
            f"{query!r}: {len(ids)} conversations have this id in a column of their own; expected "
            f"the id of one of them ({examples})"
        )
    return ledger.filter(pc.is_in(ledger["id"], value_set=pa.array(ids, pa.string())))


def _own_ids(extra: Mapping[str, Any]) -> set[str]:
    """Return the ids that a row has in columns of its own, as text."""
    return {
        str(value)
        for name, value in extra.items()
        if name.lower().endswith("id") and isinstance(value, str | int)
    }


def _rows_with_id(ledger: pa.Table, prefix: str, output: str) -> pa.Table:
    """Return the rows of the ledger whose id, or id before it was cut, begins with `prefix`.

    At least one, all with the same id. Raises UsageError for a short, unknown or ambiguous prefix.
    """
    if len(prefix) < MIN_ID_LENGTH:
        raise UsageError(
            f"{prefix!r}: expected an id, at least its first {MIN_ID_LENGTH} characters, one of "
            "the pool's own, or FILE:ROW"
        )
    begins = pc.starts_with(ledger["id"], prefix.lower())
    whole = pc.starts_with(ledger["whole_id"], prefix.lower())
    matches = ledger.filter(pc.or_(pc.fill_null(begins, False), pc.fill_null(whole, False)))
    ids = pc.unique(matches["id"]).to_pylist()
    if not ids:
        raise UsageError(
            f"{prefix!r}: no row of {output} has this id; expected one of the column id of its "
            f"{DECISIONS_FILE}, one of the pool's own (a column whose name ends in id), or FILE:ROW"
        )
    if len(ids) > 1:
        examples = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
        raise UsageError(f"{prefix!r}: {len(ids)} ids begin with this ({examples}); add characters")
    return matches


def _rows_at(ledger: pa.Table, uri: str, row: int, output: str) -> pa.Table:
    """Return that row of the file `uri`; the last steps of its path are enough to name a file."""
    uris = pc.unique(ledger["source_uri"]).to_pylist()
    files = [uri] if uri in uris else [file for file in uris if file.endswith(f"/{uri}")]
    if len(files) != 1:
        problem = f"no such file in {output}"
        if files:
            problem = f"{len(files)} files of {output} end with this ({', '.join(files[:3])})"
        raise UsageError(
            f"{uri!r}: {problem}; expected one of the column source_uri of its {DECISIONS_FILE}"
        )
    in_file = pc.field("source_uri") == files[0]
    matches = ledger.filter(in_file & (pc.field("source_row") == row))
    if not matches.num_rows:
        raise UsageError(
            f"{uri}:{row}: {files[0]} has no conversation in row {row}; rows count from 1"
        )
    return matches


def _raw_text(pool: Pool, row: LedgerRow) -> str:
    """Return the raw text of a quarantined row."""
    quarantine = pool.quarantine(["source_uri", "source_row", "raw"])
    in_file = pc.field("source_uri") == row.source_uri
    matches = quarantine.filter(in_file & (pc.field("source_row") == row.source_row))
    return str(matches["raw"][0])
