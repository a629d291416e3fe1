"""What becomes of an input row, and the row of the ledger that records it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

Decision = Literal[
    "selected",
    "too_similar",  # to a selected row with a higher evol score
    "below_budget",  # the selection ended before its turn came
    "stratum_full",  # its stratum had all the rows that it gets
    "duplicate",  # the same conversation as an earlier row
    "quarantined",  # the loader could not read it
    "unscorable",  # a model gave no valid score or vector
    "contaminated",  # it repeats a text of an evaluation file
    "too_long",  # its answers lie beyond the training window
]
# In the order in which counts and tables show them.
DECISIONS: tuple[Decision, ...] = get_args(Decision)

# Rows that no place was left for, and rows that a filter left out before any model worked.
NO_PLACE: tuple[Decision, ...] = ("below_budget", "stratum_full")
EXCLUDED: tuple[Decision, ...] = ("contaminated", "too_long")

RejectionReason = Literal["too_similar", "below_budget", "stratum_full", "unscorable"]


class LedgerRow(NamedTuple):
    """A row of the ledger; the fields are the columns of decisions.parquet."""

    id: str | None
    source_uri: str
    source_row: int
    complexity: list[float] | None
    quality: list[float] | None
    evol_score: float | None
    evol_lower: float | None
    evol_upper: float | None
    rank: int | None
    decision: Decision
    nearest_id: str | None
    similarity: float | None
    duplicate_of: str | None
    reason: str | None
    truncated: bool | None
    stratum: str | None = None
    scores: list[dict[str, Any]] | None = None  # other scores: name, values
    cut_turns: int | None = None
    whole_id: str | None = None

    @property
    def place(self) -> str:
        """Where the row stands in the input, as FILE:ROW."""
        return f"{self.source_uri}:{self.source_row}"


def ledger_rows(ledger: Any) -> list[LedgerRow]:
    """Return the rows of an Arrow table with the columns of the ledger."""
    return [LedgerRow(**fields) for fields in ledger.select(list(LedgerRow._fields)).to_pylist()]
