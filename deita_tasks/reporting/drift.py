"""Drift: whether the new rows of a pool score like the old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.reporting.statistics import is_partial, pool_sample

MEASURES = ("complexity", "quality", "evol_score")
NO_ROWS = (0, float("nan"), float("nan"))


@dataclass(frozen=True)
class Drift:
    """A measure over the old rows of the pool and over the new ones.

    Rows with a score, their mean and median, or NaN.
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
        """How much higher the mean of the new rows is; None if either kind has no rows."""
        return self.new_mean - self.old_mean if self.old_rows and self.new_rows else None

    def sentence(self) -> str | None:
        """Return the shift in words; None if there is none."""
        if self.shift is None:
            return None
        return _sentence(self.measure, self.old_mean, self.new_mean)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as changes.json has them."""
        return {
            "measure": self.measure,
            "old": _numbers(self.old_rows, self.old_mean, self.old_median),
            "new": _numbers(self.new_rows, self.new_mean, self.new_median),
        }


def _numbers(rows: int, mean: float, median: float) -> dict[str, float | None]:
    """Return the numbers of one kind of rows; null where there are none."""
    if not rows:
        return {"rows": 0, "mean": None, "median": None}
    return {"rows": rows, "mean": mean, "median": median}


def drift_from_json(fields: Mapping[str, Any]) -> Drift:
    """Return the drift that changes.json has."""
    old = _from_json(fields["old"])
    new = _from_json(fields["new"])
    return Drift(fields["measure"], *old, *new)


def _from_json(numbers: Mapping[str, Any]) -> tuple[int, float, float]:
    """Return rows, mean and median; NaN for null."""
    rows = numbers["rows"]
    if not rows:
        return NO_ROWS
    return rows, numbers["mean"], numbers["median"]


def describe_drift(drift: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the drift of changes.json in words, a sentence for each measure that has any."""
    sentences = [drift_from_json(fields).sentence() for fields in drift]
    return [sentence for sentence in sentences if sentence is not None]


def _sentence(measure: str, old: float, new: float) -> str:
    """Return "The mean complexity of new rows is 0.3 lower than that of the old ones"."""
    difference = f"{abs(new - old):.2f}"
    if difference == "0.00":
        return f"The mean {measure} of new rows is within 0.01 of that of the old ones, {old:.2f}."
    side = "higher" if new > old else "lower"
    amount = difference.rstrip("0").rstrip(".")
    return (
        f"The mean {measure} of new rows is {amount} {side} than that of the old ones "
        f"({new:.2f} and {old:.2f})."
    )


def measure_drift(
    rows: pa.Table, fresh: pa.Array, old_ids: pa.Array, samples: tuple[pa.Table, pa.Table] | None
) -> list[Drift]:
    """Return the drift of each of MEASURES.

    rows: distinct rows of the ledger. fresh: which of them are new, bool (n,). samples: random rows
    of the pool and of the new ones, if given. Without them a random sample of `rows` is measured
    where not all of them have scores, as only the best have.
    """
    old_rows, new_rows = rows.filter(pc.invert(fresh)), rows.filter(fresh)
    if samples is not None:
        of_pool, new_rows = samples
        old_rows = of_pool.filter(pc.is_in(of_pool["id"], value_set=old_ids))
    elif is_partial(rows):
        of_pool = pool_sample(rows)
        is_old = pc.is_in(of_pool["id"], value_set=old_ids)
        old_rows, new_rows = of_pool.filter(is_old), of_pool.filter(pc.invert(is_old))
    return [_drift(measure, old_rows, new_rows) for measure in MEASURES]


def _drift(measure: str, old_rows: pa.Table, new_rows: pa.Table) -> Drift:
    """Return the drift of one column."""
    name = measure.replace("_", " ")
    old = _statistics(old_rows[measure])
    new = _statistics(new_rows[measure])
    return Drift(name, *old, *new)


def _statistics(column: pa.ChunkedArray) -> tuple[int, float, float]:
    """Return rows with a score, mean and median; a list of scores counts turn by turn."""
    column = column.drop_null()  # an unscorable row has none
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    numbers = values.drop_null().to_numpy()
    if not len(numbers):
        return NO_ROWS
    return len(column), float(numbers.mean(dtype=np.float64)), float(np.median(numbers))
