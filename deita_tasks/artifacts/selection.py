"""The selection artifact: what was chosen from a pool, and a decision for every one of its rows.

<store>/selections/<digest>/decisions.parquet    the ledger (`exporting/ledger.py`)
                            kept.parquet         ids in the order chosen
                            selection.json       counts; written last: a selection without it is not there
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.artifacts.decisions import build_ledger
from deita_tasks.artifacts.parts import WIDTH, PartSet, place_vectors, vector_problems, vector_width
from deita_tasks.artifacts.pool import Pool
from deita_tasks.config import Selection
from deita_tasks.errors import StorageError, TooFewRows, UsageError
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.evol import How, evol_scores_of, ranking_scores

IN_MEMORY = 2**29  # bytes of vectors

Parts = Mapping[
    str, Mapping[str, Any]
]  # by stage: {"family": {"uri", "fingerprint"}, "parts": [digest, …]}
SCORES = pa.schema(
    {
        "id": pa.string(),
        "complexity": pa.list_(pa.float32()),
        "quality": pa.list_(pa.float32()),
        "evol_score": pa.float64(),
        "truncated": pa.bool_(),
        "problem": pa.string(),
    }
)


@dataclass(frozen=True)
class Candidates:
    """n rows that every stage has a value for. `vectors`: float32 (n, d), or None where no stage
    has made any.
    """

    pool: Pool
    scores: pa.Table  # SCORES
    vectors: NDArray[np.float32] | None

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        ids: list[str] = self.scores["id"].to_pylist()
        return ids

    def ranking(self, strategy: Selector) -> NDArray[np.float64]:
        """What `strategy` goes by: float64 (n,). Length is in words."""
        lengths = (
            self._first(["n_words"])["n_words"].to_numpy() if strategy.ranking == "length" else None
        )
        return ranking_scores(
            strategy.ranking,
            strategy.evol_score,
            self.scores["complexity"],
            self.scores["quality"],
            lengths,
        )

    def strata(self, strategy: Selector) -> list[str] | None:
        """The values of the column that `strategy` counts by; None where it counts none. Raises
        UsageError where it is not there.
        """
        column = strategy.strata
        if column is None:
            return None
        if column == "source_uri":
            uris: list[str] = self._first(["source_uri"])["source_uri"].to_pylist()
            return uris
        extras = [
            json.loads(text) if text else {} for text in self._first(["extra"])["extra"].to_pylist()
        ]
        missing = sum(column not in extra for extra in extras)
        if missing:
            raise UsageError(
                f"strata = {column!r}: {missing:,} of {len(extras):,} rows have no such "
                "column; expected one of every row"
            )
        return [json.dumps(extra[column], sort_keys=True) for extra in extras]

    def _first(self, columns: list[str]) -> pa.Table:
        """Columns of the pool for these rows, each as it first stands there."""
        table = self.pool.index(["id", *columns])
        return table.take(pc.index_in(self.scores["id"], value_set=table["id"].combine_chunks()))


def is_selection(uri: str) -> bool:
    """Whether a whole selection lies under `uri`."""
    try:
        files = storage.read_json(storage.join(uri, "selection.json"))["files"]
        return all(storage.is_same(storage.join(uri, name), facts) for name, facts in files.items())
    except (
        StorageError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # not there, damaged, or another program's JSON
        return False


def write_selection(
    uri: str, pool: Pool, parts: Parts, selector: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose from `pool` by what `parts` say, and write the artifact under `uri`; returns its
    selection.json.
    """
    rows = pool.index(["id", "source_uri", "source_row"])
    strategy = load_selector(selector["name"], **selector["options"])
    scores, truncated = _scores(rows["id"].unique(), parts, strategy.evol_score)
    with _candidates(pool, scores, parts) as found:
        selection = strategy.select(
            found.ids, found.ranking(strategy), found.vectors, found.strata(strategy)
        )
    ledger, counts = build_ledger(
        rows, pool.quarantine(["source_uri", "source_row", "reason", "detail"]), scores, selection
    )
    files = {
        "decisions.parquet": ledger,
        "kept.parquet": pa.table({"id": pa.array(list(selection.kept), pa.string())}),
    }
    for name, table in files.items():
        storage.write_table(storage.join(uri, name), table)
    described = {name: storage.describe(storage.join(uri, name)) for name in files}
    unscorable = (
        ledger.filter(pc.equal(ledger["decision"], "unscorable"))["reason"]
        .to_pandas()
        .value_counts()
        .to_dict()
    )
    summary = {
        "uri": uri,
        "made_of": {
            "pool": pool.uri.rsplit("/", 1)[1],
            "families": {stage: held["family"]["fingerprint"] for stage, held in parts.items()},
            "selector": {
                "name": selector["name"],
                "options": strategy.model_dump(exclude_unset=True),
            },
        },
        "counts": counts,
        "truncated": truncated,
        "unscorable": {str(why): int(rows) for why, rows in unscorable.items()},
        "files": described,
    }
    storage.write_json(storage.join(uri, "selection.json"), summary)
    return summary


def ran_out(counts: Mapping[str, int], selection: Selection) -> str:
    """What to say where a selection has fewer rows than its budget."""
    reached = (
        " whose stratum had room"
        if selection.per_stratum
        else " that was considered"
        if counts["below_budget"]
        else ""
    )
    told = (
        f"The pool ran out before the budget: {counts['selected']:,} of {selection.budget:,} "
        "conversations were kept"
    )
    told = f"{told}, and every row{reached} was reached."
    if not counts["too_similar"] or selection.metric not in (None, "cosine"):
        return told
    return (
        f"{told}\n`deita solve --budget {selection.budget}` finds the smallest --max-similarity "
        "that fills it, if there is one."
    )


def check_size(counts: Mapping[str, int], selection: Selection) -> None:
    """Raises TooFewRows where the target size is exact and the pool ran out before it."""
    if selection.target_size == "exact" and counts["selected"] < selection.budget:
        told = ran_out(counts, selection)
        raise TooFewRows(
            f"{told}\nThe target size is exact, so nothing was written; scores, vectors and "
            "decisions are in the store."
        )


@contextmanager
def candidates(pool: Pool, parts: Parts) -> Iterator[Candidates]:
    """What a strategy chooses from: the distinct rows of `pool` that every stage has a value for."""
    scores, _ = _scores(pool.index(["id"])["id"].unique(), parts)
    with _candidates(pool, scores, parts) as found:
        yield found


@contextmanager
def _candidates(pool: Pool, scores: pa.Table, parts: Parts) -> Iterator[Candidates]:
    able = scores.filter(pc.is_null(scores["problem"]))
    with _vectors(able["id"].to_pylist(), parts) as vectors:
        yield Candidates(pool, able, vectors)


def _scores(
    ids: pa.ChunkedArray, parts: Parts, how: How = "sum"
) -> tuple[pa.Table, dict[str, int]]:
    """SCORES of each of `ids`, in their order; rows that were cut, by stage."""
    if not len(ids):  # a pool of bad rows alone has no parts
        return SCORES.empty_table(), dict.fromkeys(parts, 0)
    columns: dict[str, Any] = {"id": ids}
    problem = pa.nulls(len(ids), pa.string())
    cut: dict[str, NDArray[np.bool_]] = {}
    for stage, held in parts.items():
        wanted = ["id", "cut", "problem", WIDTH if stage == "embedding" else "values"]
        table = _aligned(PartSet(**held["family"]).gather(held["parts"], wanted), ids)
        why = vector_problems(table) if stage == "embedding" else table["problem"]
        prefix = pc.binary_join_element_wise(stage, why, ": ")
        problem = pc.coalesce(problem, prefix)
        cut[stage] = table["cut"].to_numpy() > 0
        if "values" in wanted:
            columns[stage] = table["values"]
    evol = evol_scores_of(columns["complexity"], columns["quality"], how)
    truncated = np.logical_or.reduce(list(cut.values()))
    table = pa.table({**columns, "evol_score": evol, "truncated": truncated, "problem": problem})
    return table.select(SCORES.names), {stage: int(rows.sum()) for stage, rows in cut.items()}


def _aligned(table: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """The rows of `table` in the order of `ids`. Raises StorageError where one is missing."""
    rows = pc.index_in(ids, value_set=table["id"])
    if rows.null_count:
        raise StorageError(
            f"{rows.null_count} of {len(rows)} rows are in no part; run again: they "
            "will be computed"
        )
    return table.take(rows)


@contextmanager
def _vectors(ids: Sequence[str], parts: Parts) -> Any:
    """float32 (n, d), row i of ids[i], NaN where there is none; over IN_MEMORY bytes in a scratch
    file. None without vectors.
    """
    if "embedding" not in parts or not ids:
        yield None if "embedding" not in parts else np.zeros((0, 1), np.float32)
        return
    family, digests = PartSet(**parts["embedding"]["family"]), parts["embedding"]["parts"]
    shape = (len(ids), vector_width(family, digests, ids))
    if shape[0] * shape[1] * 4 <= IN_MEMORY:
        held = np.empty(shape, np.float32)
        place_vectors(family, digests, ids, held)
        yield held
        return
    with tempfile.TemporaryDirectory(prefix="deita-") as folder:
        target: NDArray[np.float32] = np.memmap(
            Path(folder) / "vectors.f32", np.float32, "w+", shape=shape
        )
        place_vectors(family, digests, ids, target)
        yield target
        del target
