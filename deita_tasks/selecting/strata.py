"""Strata: parts of the pool, each with a least and a largest number of rows (or tokens) to keep.

One mechanism for all: a limit per stratum has no minimum, an exact share has minimum and maximum
alike. The places of a budget that no minimum reserves are shared: whichever row comes first takes
them. A stratum is full at its maximum, or at its minimum once no shared place is left; it stays
full from then on.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from deita_tasks.selecting.arrays import Indices, Mask


class Sizes(NamedTuple):
    """The tokens of n rows, int64 (n,), and the budget in tokens that they share."""

    tokens: Indices
    budget: int


@dataclass(frozen=True)
class Strata:
    """The strata of n rows.

    codes: int64 (n,), the stratum of each row, from 0 to s - 1. names: of the s strata. minimum,
    maximum: int64 (s,), the rows to keep of each; with sizes, the tokens. rows: int64 (s,), the
    rows that each has in the whole pool.
    """

    codes: Indices
    names: Sequence[str]
    minimum: Indices
    maximum: Indices
    rows: Indices
    sizes: Sizes | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Indices) -> Strata:
        """Return the same strata and limits for these rows (positions) alone, in this order."""
        sizes = self.sizes
        if sizes is not None:
            sizes = sizes._replace(tokens=sizes.tokens[rows])
        return replace(self, codes=self.codes[rows], sizes=sizes)


def add_tokens(strata: Strata) -> Indices:
    """Return the tokens of all rows of each stratum, int64 (s,); 0 for strata without sizes."""
    tokens = np.zeros(len(strata.names), np.int64)
    if strata.sizes is not None:
        np.add.at(tokens, strata.codes, strata.sizes.tokens)
    return tokens


def number_labels(labels: Sequence[Hashable]) -> tuple[Indices, list[Hashable]]:
    """Return the number of each label, (n,), from 0 on as they appear; and all labels."""
    numbers: dict[Hashable, int] = {}
    numbered = (numbers.setdefault(label, len(numbers)) for label in labels)
    codes = np.fromiter(numbered, np.int64, len(labels))
    return codes, list(numbers)


class Places:
    """The places of a budget that are still free, by stratum."""

    def __init__(self, strata: Strata, budget: int) -> None:
        self._minimum = strata.minimum
        self._maximum = strata.maximum
        self._left = budget
        self._shared = budget - int(strata.minimum.sum())
        self.kept = np.zeros(len(strata.names), np.int64)  # rows, by stratum
        self._last: tuple[int, bool] | None = None  # stratum of the last row kept; is it shared?

    def admit(self, codes: Indices) -> Mask:
        """Return which of m rows of these strata get a place if they come in this order, (m,)."""
        _, is_reserved, is_shared = self._places_of(codes)
        return is_reserved | (is_shared & (np.cumsum(is_shared) <= self._shared))

    def fill(self, codes: Indices) -> Mask:
        """Return which of m rows fill a stratum if they are kept in this order, (m,).

        Right up to the first of them, whose strata all have places.
        """
        place, _, is_shared = self._places_of(codes)
        count = place + 1
        is_last_shared = self._shared - np.cumsum(is_shared) <= 0
        has_minimum = count >= self._minimum[codes]
        fills: Mask = (count >= self._maximum[codes]) | (is_last_shared & has_minimum)
        return fills

    def count_fitting(self, codes: Indices) -> int:
        """Return how many of m rows of strata that are not full get a place: all of them."""
        return len(codes)

    def take(self, codes: Indices) -> None:
        """Give a place to a row of each of these strata, codes int64 (m,), which must have room."""
        _, _, is_shared = self._places_of(codes)
        if not len(codes):
            return
        self._last = int(codes[-1]), bool(is_shared[-1])
        self._left -= len(codes)
        self._shared -= int(is_shared.sum())
        self.kept = self.kept + np.bincount(codes, minlength=len(self.kept))

    def full(self) -> Mask:
        """Return which strata are full, bool (s,).

        A stratum is at its maximum, or has its minimum and no shared place is left.
        """
        has_no_shared = self._shared <= 0
        full: Mask = (self.kept >= self._maximum) | (has_no_shared & (self.kept >= self._minimum))
        return full

    def are_full(self, codes: Indices) -> Mask:
        """Return which of m rows have a stratum that is full, (m,)."""
        return np.asarray(self.full()[codes])

    def full_before_budget(self) -> Mask:
        """Return which strata were full before the budget was, or at their maximum, (s,)."""
        full = self.full()
        if self._left > 0 or self._last is None:
            return full
        at_maximum: Mask = self.kept >= self._maximum
        last_stratum, last_is_shared = self._last
        if last_is_shared:  # the shared places ended with the budget
            return at_maximum
        full[last_stratum] = at_maximum[last_stratum]
        return full

    def _places_of(self, codes: Indices) -> tuple[Indices, Mask, Mask]:
        """Return the place of each row in its stratum, and whether it is reserved or shared.

        It is neither beyond the maximum.
        """
        place = self.kept[codes] + _count_before(codes)
        is_reserved = place < self._minimum[codes]
        is_shared = ~is_reserved & (place < self._maximum[codes])
        return place, is_reserved, is_shared


def _count_before(codes: Indices) -> Indices:
    """Return how many of the codes before each are the same, (m,)."""
    by_code = np.argsort(codes, kind="stable")
    grouped = codes[by_code]
    count = np.empty(len(codes), np.int64)
    count[by_code] = np.arange(len(codes)) - np.searchsorted(grouped, grouped)
    return count


def filling_rows(strata: Strata, budget: int, kept: Indices) -> dict[int, int]:
    """Return for each full stratum which of the `kept` rows filled it: its place among them.

    -1: the stratum was full from the start. kept: positions, in the order in which they were kept.
    """
    codes = strata.codes[kept]
    place = _count_before(codes)
    uses_shared = place >= strata.minimum[codes]
    shared = budget - int(strata.minimum.sum())
    shared_end = _place_of_last(uses_shared, shared)
    ends = {}
    for stratum in range(len(strata.names)):
        rows = np.flatnonzero(codes == stratum)
        at_maximum = _place_of_nth(rows, int(strata.maximum[stratum]))
        at_minimum = _place_of_nth(rows, int(strata.minimum[stratum]))
        without_shared = None
        if shared_end is not None and at_minimum is not None:
            without_shared = max(shared_end, at_minimum)
        reached = [end for end in (at_maximum, without_shared) if end is not None]
        if reached:
            ends[stratum] = min(reached)
    return ends


def _place_of_last(is_used: Mask, count: int) -> int | None:
    """Return where the `count`-th True is; -1 for none; None if there are fewer."""
    return _place_of_nth(np.flatnonzero(is_used), count)


def _place_of_nth(rows: Indices, count: int) -> int | None:
    """Return the `count`-th of the rising `rows`; -1 for a count of 0; None if there are fewer."""
    if count <= 0:
        return -1
    return int(rows[count - 1]) if len(rows) >= count else None
