"""What changed between two selections: which conversations came and went, and why; and whether the
new rows score as the old ones did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.manifest import Manifest

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "change": pa.string(),  # added or dropped
        "why": pa.string(),
        "decision_before": pa.string(),  # null for a row that was not in the pool
        "decision_after": pa.string(),  # null for a row that is no longer in it
        "nearest_id": pa.string(),  # the kept row that blocks it now, or that blocked it before
        "similarity": pa.float32(),
        "evol_score": pa.float64(),
        "rank": pa.int64(),
    }
)


@dataclass(frozen=True)
class Drift:
    """A measure over the rows that the pool had before and over those that are new: rows with a
    score, their mean and median, or NaN.
    """

    measure: str
    old_rows: int
    old_mean: float
    old_median: float
    new_rows: int
    new_mean: float
    new_median: float

    @property
    def shift(self) -> float | None:
        """How much higher the new rows' mean is; None where there are none of either kind."""
        return self.new_mean - self.old_mean if self.old_rows and self.new_rows else None


@dataclass(frozen=True)
class Changes:
    """`table`: a row of SCHEMA for every conversation that came into or went out of the selection.
    Counts are of distinct conversations.
    """

    before: str  # name of the earlier version
    pool_added: int
    pool_removed: int
    budget: tuple[int | None, int | None]  # before, after
    settings: list[str]  # what was asked for differently, other than the budget
    table: pa.Table
    drift: list[Drift]

    @property
    def added(self) -> int:
        """Conversations that came into the selection."""
        return self._count("added")

    @property
    def dropped(self) -> int:
        """Conversations that went out of it."""
        return self._count("dropped")

    def _count(self, change: str) -> int:
        return int(pc.sum(pc.equal(self.table["change"], change)).as_py() or 0)

    def reasons(self) -> list[tuple[str, str, int]]:
        """(change, why, conversations), the commonest first."""
        tally = pc.value_counts(
            pc.binary_join_element_wise(self.table["change"], self.table["why"], "\t")
        )
        found = [(*pair["values"].split("\t", 1), pair["counts"]) for pair in tally.to_pylist()]
        return sorted(found, key=lambda one: (one[0], -one[2], one[1]))

    def summary(self) -> dict[str, Any]:
        """The numbers, as JSON."""
        return {
            "before": self.before,
            "pool": {"added": self.pool_added, "removed": self.pool_removed},
            "selection": {"added": self.added, "dropped": self.dropped},
            "budget": {"before": self.budget[0], "after": self.budget[1]},
            "settings": self.settings,
            "why": [
                {"change": change, "why": why, "conversations": count}
                for change, why, count in self.reasons()
            ],
            "drift": [
                {
                    "measure": one.measure,
                    "old": _numbers(one.old_rows, one.old_mean, one.old_median),
                    "new": _numbers(one.new_rows, one.new_mean, one.new_median),
                }
                for one in self.drift
            ],
        }


def _numbers(rows: int, mean: float, median: float) -> dict[str, float | None]:
    return {"rows": rows, "mean": mean if rows else None, "median": median if rows else None}


def compare(
    name: str, before: pa.Table, after: pa.Table, manifests: tuple[Mapping[str, Any], Manifest]
) -> Changes:
    """What became of the version `name`, whose ledger was `before` (as `build_ledger` gives it), in
    `after`.

    manifests: the earlier one as JSON, and the new one. Duplicates take no part: a conversation is
    compared with itself.
    """
    old, new = _distinct(before), _distinct(after)
    old_ids, new_ids = old["id"].combine_chunks(), new["id"].combine_chunks()
    was, now = _chosen(old), _chosen(new)
    fresh = pc.invert(pc.is_in(new_ids, value_set=old_ids))
    table = pa.concat_tables(
        [
            _came(
                new.filter(
                    pc.and_(now, pc.invert(pc.is_in(new_ids, value_set=old_ids.filter(was))))
                ),
                old,
                manifests,
            ),
            _went(
                old.filter(
                    pc.and_(was, pc.invert(pc.is_in(old_ids, value_set=new_ids.filter(now))))
                ),
                new,
                new_ids.filter(fresh),
            ),
        ]
    )
    budgets = (_budget(manifests[0].get("fingerprints", {})), _budget(manifests[1].fingerprints))
    return Changes(
        before=name,
        pool_added=pc.sum(fresh).as_py() or 0,
        pool_removed=int(
            np.sum(~pc.is_in(old_ids, value_set=new_ids).to_numpy(zero_copy_only=False))
        ),
        budget=budgets,
        settings=_settings(manifests[0].get("fingerprints", {}), manifests[1].fingerprints),
        table=table,
        drift=[_drift(measure, new, fresh) for measure in ("complexity", "quality", "evol_score")],
    )


def _distinct(ledger: pa.Table) -> pa.Table:
    return ledger.filter(~pc.field("decision").isin(["quarantined", "duplicate"])).combine_chunks()


def _chosen(ledger: pa.Table) -> pa.Array:
    return pc.equal(ledger["decision"].combine_chunks(), "selected")


def _budget(fingerprints: Mapping[str, Any]) -> int | None:
    return (fingerprints.get("selection") or {}).get("budget")


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The stages whose results depend on something else now; scores of another scorer do not
    compare.
    """

    def settled(fingerprints: Mapping[str, Any], stage: str) -> Any:
        found = fingerprints.get(stage)
        return (
            {name: value for name, value in found.items() if name != "budget"}
            if stage == "selection" and found
            else found
        )

    return [
        stage
        for stage in ("complexity", "quality", "embedding", "selection")
        if settled(before, stage) != settled(after, stage)
    ]


def _looked_up(ids: pa.ChunkedArray, ledger: pa.Table, columns: Sequence[str]) -> pa.Table:
    return ledger.select(list(columns)).take(
        pc.index_in(ids, value_set=ledger["id"].combine_chunks())
    )


def _came(rows: pa.Table, old: pa.Table, manifests: tuple[Mapping[str, Any], Manifest]) -> pa.Table:
    """The conversations that are selected now and were not."""
    earlier = _looked_up(rows["id"], old, ["decision", "nearest_id", "similarity"])
    more = (_budget(manifests[1].fingerprints) or 0) > (
        _budget(manifests[0].get("fingerprints", {})) or 0
    )
    words = {
        None: "new in the pool",
        "below_budget": "the budget is larger" if more else "there is room for it now",
        "too_similar": "nothing that is kept is too similar to it any more",
        "unscorable": "it had no score or vector",
    }
    why = [
        words.get(decision, "it was not selected before")
        for decision in earlier["decision"].to_pylist()
    ]
    return _table(
        rows,
        "added",
        why,
        earlier["decision"],
        rows["decision"],
        earlier["nearest_id"],
        earlier["similarity"],
    )


def _went(rows: pa.Table, new: pa.Table, fresh: pa.Array) -> pa.Table:
    """The conversations that were selected and are not any more."""
    later = _looked_up(
        rows["id"], new, ["decision", "nearest_id", "similarity", "evol_score", "rank"]
    )
    by_new = pc.is_in(later["nearest_id"], value_set=fresh).to_pylist()
    words = {
        None: "no longer in the pool",
        "below_budget": "others are better, and the budget is full",
        "unscorable": "it has no score or vector now",
    }

    def why(decision: str | None, by_new_row: bool | None) -> str:
        if decision == "too_similar":
            return (
                f"too similar to {'a new' if by_new_row else 'another'} conversation that is kept"
            )
        return words.get(decision, "it is not selected now")

    reasons = [why(*row) for row in zip(later["decision"].to_pylist(), by_new, strict=True)]
    scored = pa.table({"id": rows["id"], "evol_score": later["evol_score"], "rank": later["rank"]})
    return _table(
        scored,
        "dropped",
        reasons,
        rows["decision"],
        later["decision"],
        later["nearest_id"],
        later["similarity"],
    )


def _table(
    rows: pa.Table,
    change: str,
    why: list[str],
    before: pa.ChunkedArray,
    after: pa.ChunkedArray,
    nearest: pa.Array,
    similarity: pa.Array,
) -> pa.Table:
    columns = [
        rows["id"],
        pa.array([change] * rows.num_rows, pa.string()),
        pa.array(why, pa.string()),
        before,
        after,
    ]
    return pa.table(
        [*columns, nearest, similarity, rows["evol_score"], rows["rank"]], names=SCHEMA.names
    ).cast(SCHEMA)


def _drift(measure: str, new: pa.Table, fresh: pa.Array) -> Drift:
    """A list of scores, one a turn, counts turn by turn."""

    def told(rows: pa.Table) -> tuple[int, float, float]:
        column = rows[measure].drop_null()  # an unscorable row has none
        values = (
            (pc.list_flatten(column) if pa.types.is_list(column.type) else column)
            .drop_null()
            .to_numpy()
        )
        if not len(values):
            return 0, float("nan"), float("nan")
        return len(column), float(values.mean(dtype=np.float64)), float(np.median(values))

    return Drift(
        measure.replace("_", " "), *told(new.filter(pc.invert(fresh))), *told(new.filter(fresh))
    )
