"""A budget in tokens that is divided among strata."""

from __future__ import annotations

import numpy as np

from deita_tasks.selecting.arrays import Indices, Mask
from deita_tasks.selecting.strata import Sizes


class TokenPlaces:
    """The tokens of a budget that are still free, by stratum. The counterpart of `Places`.

    codes, sizes: of the n rows, by the numbers that all methods take. minimum, maximum: int64 (s,),
    in tokens.

    A stratum ends before its first row that exceeds its maximum; no later row that would still fit
    is taken in its place, so what is kept of a stratum is the beginning of its rows. What no
    minimum reserves is shared, and ends before the first row that exceeds it; from then on a row
    has to fit the minimum of its own stratum.
    """

    def __init__(self, codes: Indices, sizes: Sizes, minimum: Indices, maximum: Indices) -> None:
        self._codes = codes
        self._tokens = sizes.tokens
        self._minimum = minimum
        self._used = np.zeros(len(minimum), np.int64)
        self._budget = sizes.budget
        no_limit = maximum >= sizes.budget  # there, the budget ends and not the stratum
        self._maximum = np.where(no_limit, np.iinfo(np.int64).max, maximum)
        self._shared_has_ended = False
        self._has_ended = np.zeros(len(minimum), bool)
        self._is_full = np.zeros(len(minimum), bool)  # for another reason than the budget

    def admit(self, rows: Indices) -> Mask:
        """Return which of m rows are kept if they come in this order, (m,); ends strata."""
        used = self._used.copy()
        is_admitted = np.zeros(len(rows), bool)
        for place, row in enumerate(rows.tolist()):
            is_admitted[place] = self._add(used, row)
        return is_admitted

    def count_fitting(self, rows: Indices) -> int:
        """Return how many of m rows can be kept, from the first on; ends the next one's stratum."""
        used = self._used.copy()
        for place, row in enumerate(rows.tolist()):
            if not self._add(used, row):
                return place
        return len(rows)

    def fill(self, rows: Indices) -> Mask:
        """Return which of m rows fill a stratum, (m,): none, as a stratum ends before a row."""
        return np.zeros(len(rows), bool)

    def take(self, rows: Indices) -> None:
        """Spend the tokens of these rows (positions), which must fit."""
        np.add.at(self._used, self._codes[rows], self._tokens[rows])

    def are_full(self, rows: Indices) -> Mask:
        """Return which of m rows have a stratum that has ended, (m,)."""
        return np.asarray(self._has_ended[self._codes[rows]])

    def full_before_budget(self) -> Mask:
        """Return which rows have a stratum that ended for another reason than the budget, (n,)."""
        return np.asarray(self._is_full[self._codes])

    def _add(self, used: Indices, row: int) -> bool:
        """Add the tokens of a row to those `used` if it fits; else end its stratum."""
        code = int(self._codes[row])
        if self._has_ended[code]:
            return False
        after = used[code] + int(self._tokens[row])
        if after <= self._minimum[code]:
            used[code] = after
            return True
        if after > self._maximum[code] or self._shared_has_ended:
            self._end(np.array([code]))
            return False
        reserved = np.maximum(self._minimum - used, 0)
        shared = self._budget - int(used.sum() + reserved.sum())
        if after - max(used[code], self._minimum[code]) <= shared:
            used[code] = after
            return True
        self._shared_has_ended = True
        reserved[code] = 0  # not enough for the row
        no_reserve = np.flatnonzero((reserved == 0) & ~self._has_ended)
        self._end(no_reserve, is_full=bool(reserved.any()))
        return False

    def _end(self, codes: Indices, is_full: bool = True) -> None:
        """End these strata; is_full: for a reason of their own."""
        self._has_ended[codes] = True
        self._is_full[codes] = is_full
