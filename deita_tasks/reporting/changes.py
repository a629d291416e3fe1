"""Changes between two selections: which conversations joined or left, and why.

Also whether the new rows of the pool score like the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.decisions import NO_PLACE
from deita_tasks.reporting.changed_rows import ChangedRow
from deita_tasks.reporting.drift import Drift, measure_drift
from deita_tasks.reporting.settings import SettingChange, compare_settings

# By stage: of the earlier selection, and of the new one.
Fingerprints: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]

RANKING_SETTINGS = (
    "complexity",
    "quality",
    "selection.ranking",
    "selection.rank_by",
    "selection.evol_score",
    "selection.strategy",
)

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
class Changes:
    """Changes between two selections; counts are of distinct conversations.

    table: a row of SCHEMA for every conversation that joined or left the selection. examples: the
    best of them, with their texts.
    """

    before: str  # name of the earlier version
    pool_added: int
    pool_removed: int
    budget: tuple[int | None, int | None]  # before, after
    settings: list[SettingChange]  # the budget too
    table: pa.Table
    drift: list[Drift]
    examples: Sequence[ChangedRow] = ()

    @property
    def added(self) -> int:
        """Conversations that joined the selection."""
        return self._count("added")

    @property
    def dropped(self) -> int:
        """Conversations that left it."""
        return self._count("dropped")

    def _count(self, change: str) -> int:
        """Return the conversations that were "added" or "dropped"; 0 of an empty table."""
        return int(pc.sum(pc.equal(self.table["change"], change)).as_py() or 0)

    def reasons(self) -> list[tuple[str, str, int]]:
        """Return (change, why, conversations), the most common first."""
        tally = pc.value_counts(
            pc.binary_join_element_wise(self.table["change"], self.table["why"], "\t")
        )
        reasons = [(*pair["values"].split("\t", 1), pair["counts"]) for pair in tally.to_pylist()]
        return sorted(reasons, key=lambda reason: (reason[0], -reason[2], reason[1]))

    def summary(self) -> dict[str, Any]:
        """Return the numbers as JSON: changes.json.

        Counts are of distinct conversations; `why` has the most common reasons first.
        """
        return {
            "before": self.before,
            "pool": {"added": self.pool_added, "removed": self.pool_removed},
            "selection": {"added": self.added, "dropped": self.dropped},
            "budget": {"before": self.budget[0], "after": self.budget[1]},
            "settings": [setting._asdict() for setting in self.settings],
            "why": [
                {"change": change, "why": why, "conversations": count}
                for change, why, count in self.reasons()
            ],
            "drift": [drift.to_json() for drift in self.drift],
        }

    def to_json(self, after: str) -> dict[str, Any]:
        """Return the numbers and the examples as JSON. after: name of the later version."""
        examples = [row.to_json() for row in self.examples]
        return {**self.summary(), "after": after, "examples": examples}


def compare(
    name: str,
    before: pa.Table,
    after: pa.Table,
    fingerprints: Fingerprints,
    samples: tuple[pa.Table, pa.Table] | None = None,
) -> Changes:
    """Compare the ledger `before` of the version `name` with the ledger `after`.

    Ignores duplicates: a conversation is compared with itself. samples: id and scores of random
    rows of the pool and of the new rows; if given, drift is measured over them, as `after` has the
    scores of the best rows alone.
    """
    old, new = _distinct(before), _distinct(after)
    old_ids, new_ids = old["id"].combine_chunks(), new["id"].combine_chunks()
    was, now = _is_selected(old), _is_selected(new)
    fresh = pc.invert(pc.is_in(new_ids, value_set=old_ids))
    has_joined = pc.and_(now, pc.invert(pc.is_in(new_ids, value_set=old_ids.filter(was))))
    has_left = pc.and_(was, pc.invert(pc.is_in(old_ids, value_set=new_ids.filter(now))))
    added = _added_rows(new.filter(has_joined), old, fingerprints)
    budgets = (_budget(fingerprints[0]), _budget(fingerprints[1]))
    full = _why_below_budget(budgets, others_joined=added.num_rows > 0)
    dropped = _dropped_rows(old.filter(has_left), new, new_ids.filter(fresh), full)
    return Changes(
        before=name,
        pool_added=pc.sum(fresh).as_py() or 0,
        pool_removed=int(
            np.sum(~pc.is_in(old_ids, value_set=new_ids).to_numpy(zero_copy_only=False))
        ),
        budget=budgets,
        settings=compare_settings(*fingerprints),
        table=pa.concat_tables([added, dropped]),
        drift=measure_drift(new, fresh, old_ids, samples),
    )


def _distinct(ledger: pa.Table) -> pa.Table:
    """Return the rows that stand for a conversation, those that filters left out included.

    Unlike `statistics.distinct_rows`: a row that a filter left out can leave or join a selection.
    """
    return ledger.filter(~pc.field("decision").isin(["quarantined", "duplicate"])).combine_chunks()


def _is_selected(ledger: pa.Table) -> pa.Array:
    """Return a boolean for each row of a ledger."""
    return pc.equal(ledger["decision"].combine_chunks(), "selected")


def _budget(fingerprints: Mapping[str, Any]) -> int | None:
    """Return the budget in rows, EVERY_ROW for all; None where no fingerprint names it."""
    return (fingerprints.get("selection") or {}).get("budget")


def _look_up(ids: pa.ChunkedArray, ledger: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return `columns` of a ledger in the order of `ids`, null for an id that it does not have."""
    return ledger.select(list(columns)).take(
        pc.index_in(ids, value_set=ledger["id"].combine_chunks())
    )


def _added_rows(rows: pa.Table, old: pa.Table, fingerprints: Fingerprints) -> pa.Table:
    """Return the conversations that joined the selection."""
    earlier = _look_up(rows["id"], old, ["decision", "nearest_id", "similarity"])
    words = {
        None: "new in the pool",
        "below_budget": _why_within_budget(fingerprints),
        "stratum_full": "its stratum has room for it now",
        "too_similar": "no selected row is too similar to it any more",
        "unscorable": "it had no score or vector",
        "contaminated": "it is not contaminated any more",
        "too_long": "it is not too long for the training window any more",
    }
    limit = _raised_limit(fingerprints)

    def why_added(decision: str | None, similarity: float | None) -> str:
        """Return why a conversation joined, by its earlier decision and similarity.

        A raised limit comes first: it alone lets in a row that was too similar.
        """
        if limit is not None and similarity is not None and similarity <= limit:
            return "its similarity is within the new limit"
        return words.get(decision, "it was not selected before")

    columns = earlier["decision"].to_pylist(), earlier["similarity"].to_pylist()
    why = [why_added(*row) for row in zip(*columns, strict=True)]
    return _table(
        rows,
        "added",
        why,
        earlier["decision"],
        rows["decision"],
        earlier["nearest_id"],
        earlier["similarity"],
    )


def _why_within_budget(fingerprints: Fingerprints) -> str:
    """Return why conversations that were below the budget are selected now."""
    before, after = (_budget(stages) or 0 for stages in fingerprints)
    if after > before:
        return "the budget is larger"
    names = [setting.name for setting in compare_settings(*fingerprints)]
    if any(name.startswith(RANKING_SETTINGS) for name in names):
        return "it ranks higher by the new settings"
    return "the budget has room for it now"


def _raised_limit(fingerprints: Fingerprints) -> float | None:
    """Return the new limit of similarity if it is higher than the one before."""
    before, after = (
        (stages.get("selection") or {}).get("max_similarity") for stages in fingerprints
    )
    is_raised = before is not None and after is not None and after > before
    return after if is_raised else None


def _why_below_budget(budgets: tuple[int | None, int | None], others_joined: bool) -> str:
    """Return why conversations that were selected are below the budget now.

    Others take their places if any joined; if none did, only a smaller budget leaves them out.
    """
    before, after = budgets
    is_smaller = before is not None and after is not None and after < before
    if not is_smaller:
        return "others come before it, and the budget is full"
    if others_joined:
        return "the budget is smaller, and others come before it"
    return "the budget is smaller"


def _dropped_rows(rows: pa.Table, new: pa.Table, fresh: pa.Array, full: str) -> pa.Table:
    """Return the conversations that left the selection. full: why, where the budget in rows is."""
    names = ["decision", "reason", "nearest_id", "similarity", "evol_score", "rank"]
    later = _look_up(rows["id"], new, names)
    by_new = pc.is_in(later["nearest_id"], value_set=fresh).to_pylist()
    words = {
        None: "no longer in the pool",
        "below_budget": full,
        "stratum_full": "no place is left in its stratum",
        "unscorable": "it has no score or vector now",
        "contaminated": "it repeats an evaluation text",
        "too_long": "its answers lie beyond the training window",
    }

    def why(decision: str | None, reason: str | None, by_new_row: bool | None) -> str:
        """Return why a conversation left, by its decision now: None where the pool lost it."""
        if decision == "too_similar":
            return f"too similar to {'a new' if by_new_row else 'another'} selected conversation"
        if decision in NO_PLACE and reason is not None:
            return reason
        return words.get(decision, "it is not selected now")

    decisions, why_now = later["decision"].to_pylist(), later["reason"].to_pylist()
    reasons = [why(*row) for row in zip(decisions, why_now, by_new, strict=True)]
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
    """Return the conversations of one kind of change as SCHEMA, in the order of `rows`.

    rows: id, evol_score and rank. All others have a value for each of these, null where unknown.
    """
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
