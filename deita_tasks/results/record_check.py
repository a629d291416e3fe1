"""What would become of a record in a finished selection."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, JsonValue

from deita_tasks.decisions import Decision
from deita_tasks.strict_json import JsonRecord

MAX_NAMED = 10  # rows named in a sentence


class NamedRow(JsonRecord):
    """A row of the selection: its id and FILE:ROW, and its evol score and rank, if computed."""

    id: str
    place: str
    evol_score: float | None = None
    rank: int | None = None


class NearestRow(JsonRecord):
    """A kept row, its similarity (or distance) to the record, and whether it comes before it."""

    row: NamedRow
    similarity: float
    is_before: bool


class RecordCheck(JsonRecord):
    """What a selection would make of a record.

    record: where it stands. format: as which it was read. decision: as in decisions.parquet; None
    where only a run can say it, and for `reason` why. scores: others that rank_by names;
    `evol_score` then is its value. rank, last_rank: the first and the last rank that it may have;
    they differ where rows in between have no scores yet. ranked: number of rows with a rank.
    nearest: the most similar kept row of all. blocker: the kept row that it is too similar to.
    pushed_out, cut_off, let_in, open_places: see `selecting.insertion.Insertion`.
    """

    record: str
    decision: Decision | None
    reason: str
    format: str | None = None
    id: str | None = None
    complexity: list[float] | None = None
    quality: list[float] | None = None
    scores: list[dict[str, JsonValue]] | None = None
    evol_score: float | None = None
    truncated: bool = False
    rank: int | None = None
    last_rank: int | None = None
    ranked: int | None = None
    nearest: NearestRow | None = None
    blocker: NearestRow | None = None
    pushed_out: list[NamedRow] = Field(default_factory=list)
    cut_off: list[NamedRow] = Field(default_factory=list)
    let_in: list[NamedRow] = Field(default_factory=list)
    open_places: int = 0

    @property
    def leaving(self) -> list[NamedRow]:
        """The kept rows that leave the selection for it: too similar ones, then the last ones."""
        return [*self.pushed_out, *self.cut_off]

    def consequences(self) -> Iterator[str]:
        """Yield what changes for other rows, a sentence each; nothing if it is not selected."""
        if self.decision != "selected":
            return
        if self.pushed_out:
            yield f"{_count(self.pushed_out)} would leave, too similar: {_names(self.pushed_out)}"
        if self.cut_off:
            yield f"{_count(self.cut_off)} would fall off the end: {_names(self.cut_off)}"
        if self.let_in:
            yield f"{_count(self.let_in)} would come in instead: {_names(self.let_in)}"
        if self.open_places:
            yield (
                f"up to {self.open_places:,} rows below the budget would come in too; which of "
                "them takes a run"
            )
        if not self.leaving:
            yield "no row would leave"


def _count(rows: list[NamedRow]) -> str:
    """Return the number of rows with its noun, for a sentence."""
    return "1 row" if len(rows) == 1 else f"{len(rows):,} rows"


def _names(rows: list[NamedRow]) -> str:
    """Return the places of the first MAX_NAMED rows, and how many more there are."""
    hidden = len(rows) - MAX_NAMED
    more = f" and {hidden:,} more" if hidden > 0 else ""
    return ", ".join(row.place for row in rows[:MAX_NAMED]) + more
