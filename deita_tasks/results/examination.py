"""Look a selection over for what its counts do not show.

examination = examine(pool, ledger, truncated, made_for)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.findings import Findings, MediaRows, find_other_languages
from deita_tasks.reporting.composition import (
    LANGUAGE,
    SOURCE,
    ColumnCounts,
    ValueCounter,
    count_column,
    find_vanished,
    with_names,
)
from deita_tasks.reporting.statistics import with_decision
from deita_tasks.results.shared_beginnings import count_shared_beginnings
from deita_tasks.selecting.arrays import Indices, Mask
from deita_tasks.strict_json import JSON

COLUMNS = ("id", "source_uri", "language", "n_unanswered", "n_media")


class Examination(NamedTuple):
    """What to know about a selection, and its columns of few values."""

    findings: Findings
    columns: list[ColumnCounts]


def examine(
    pool: Pool, ledger: pa.Table, truncated: pa.Array, made_for: Mapping[str, Sequence[str]]
) -> Examination:
    """Examine a selection of `pool`.

    truncated: ids of which the embedder read a part. made_for: languages by stage. Reads the
    columns of the input a row group at a time.
    """
    ids, positions = pool.every_distinct
    rows = pool.index(COLUMNS).take(pa.array(positions))
    selected_ids = with_decision(ledger, "selected")["id"].combine_chunks()
    is_selected = pc.is_in(ids, value_set=selected_ids)
    languages = count_column(LANGUAGE, rows["language"], is_selected)
    counter = ValueCounter()
    differences = _read_columns(pool, positions, is_selected.to_numpy(False), counter)
    sources = count_column(SOURCE, rows["source_uri"], is_selected)
    columns = [sources, with_names(languages), *counter.counts()]
    unanswered = rows["n_unanswered"].to_numpy()
    n_media = rows["n_media"].combine_chunks()
    media_ids = ids.filter(pc.greater(n_media, 0))
    selected_media = pc.is_in(media_ids, value_set=selected_ids)
    media = MediaRows(
        pool=len(media_ids),
        selected=_count(selected_media),
        too_similar=_count_pairs(ledger, media_ids),
    )
    findings = Findings(
        rows=rows.num_rows,
        unanswered_exchanges=int(unanswered.sum()),
        unanswered_rows=int((unanswered > 0).sum()),
        media=media,
        differing_duplicates=differences.rows,
        differing_columns=[name for name, _ in differences.columns.most_common()],
        half_read_pairs=_count_pairs(ledger, truncated),
        shared_beginnings=count_shared_beginnings(pool, ledger),
        other_languages=find_other_languages(
            {count.value: count.pool for count in languages.values},
            made_for,
            {count.value: count.selected for count in languages.values},
        ),
        vanished=[value for column in columns for value in find_vanished(column)],
    )
    return Examination(findings, columns)


def _count(is_true: pa.Array) -> int:
    """Return how many values are true; 0 of none."""
    return pc.sum(is_true).as_py() or 0


def _count_pairs(ledger: pa.Table, ids: pa.Array) -> int:
    """Return how many too similar rows are among `ids`, as is the row that blocked them."""
    pairs = with_decision(ledger, "too_similar")
    has_row = pc.is_in(pairs["id"], value_set=ids)
    has_nearest = pc.is_in(pairs["nearest_id"], value_set=ids)
    return _count(pc.and_(has_row, has_nearest))


class _Differences:
    """Duplicates that differ from their first row in some of the input's other columns."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: Counter[str] = Counter()
        self._first: dict[str, dict[str, int]] = {}

    def add(self, id: str, columns: Mapping[str, JSON], is_first: bool) -> None:
        """Note the columns of a row whose id is not unique, in the order of the pool."""
        values = {}
        for name, value in columns.items():
            if value is not None:
                text = json.dumps(value, sort_keys=True)
                values[name] = hash(text)
        if is_first:
            self._first[id] = values
            return
        first = self._first[id]
        names = first | values
        differing = [name for name in names if first.get(name) != values.get(name)]
        self.rows += bool(differing)
        self.columns.update(differing)


def _read_columns(
    pool: Pool, positions: Indices, is_selected: Mask, counter: ValueCounter
) -> _Differences:
    """Give the distinct rows at `positions` to `counter`; return how duplicates differ.

    is_selected: which of the distinct rows are selected, in the order of `positions`.
    """
    selected_positions = positions[is_selected]
    selected = set(selected_positions.tolist())
    first = set(positions.tolist())
    repeated = _repeated_ids(pool) if len(positions) < pool.summary.good else set()
    differences = _Differences()
    for position, (id, text) in enumerate(_ids_and_columns(pool)):
        is_first = position in first
        columns = json.loads(text) if text else {}
        if is_first:
            counter.add(columns, position in selected)
        if id in repeated:
            differences.add(id, columns, is_first)
    return differences


def _ids_and_columns(pool: Pool) -> Iterable[tuple[str, str | None]]:
    """Yield the id of every good row, in order, and its other columns as JSON text."""
    for table in pool.scan(["id", "extra"]):
        ids = table["id"].to_pylist()
        texts = table["extra"].to_pylist()
        yield from zip(ids, texts, strict=True)


def _repeated_ids(pool: Pool) -> set[str]:
    """Return the ids that several rows have."""
    ids = pool.index(["id"])["id"].combine_chunks()
    counts = pc.value_counts(ids)
    is_repeated = pc.greater(counts.field("counts"), 1)
    repeated = counts.field("values").filter(is_repeated)
    return set(repeated.to_pylist())
