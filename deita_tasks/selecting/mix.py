"""The mix of a selection: which share of the budget each value of a column gets.

    source=math:0.3,code:0.3,*:0.4

An amount is a share of the budget if it has a decimal point, else a number of rows; MIN..MAX leaves
a range, and either end may be missing. `*` stands for all other values together; without it, they
get what is left. A budget in tokens is divided alike, and a number is one of tokens.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import NamedTuple

import numpy as np

from deita_tasks.errors import UsageError
from deita_tasks.presets import EVERY_ROW
from deita_tasks.selecting.strata import Sizes, Strata, add_tokens, number_labels

OTHERS = "*"
RANGES = ""  # all ranges together, while places are apportioned
EXAMPLE = "source=math:0.3,code:0.3,*:0.4"


class Amount(NamedTuple):
    """A share of the budget, or a number of rows (or tokens)."""

    number: Fraction
    is_share: bool

    def of(self, budget: int) -> Fraction:
        """Return the rows (or tokens) of the budget, as an exact fraction, not rounded."""
        return self.number * budget if self.is_share else self.number


class Portion(NamedTuple):
    """What a value gets: the least and the most; the same Amount twice is an exact one."""

    least: Amount
    most: Amount

    @property
    def is_exact(self) -> bool:
        """Whether it is one amount, and no range."""
        return self.least == self.most


NOTHING, EVERYTHING = Amount(Fraction(0), False), Amount(Fraction(1), True)
REST = Portion(NOTHING, EVERYTHING)  # of values that are not named: what the others leave


class Mix(NamedTuple):
    """The portions of a column's values, in the order given. `OTHERS` is the last."""

    column: str
    portions: Mapping[str, Portion]

    def divide(self, values: Sequence[str], budget: int, sizes: Sizes | None = None) -> Strata:
        """Return the strata of n rows by their values. sizes: to divide tokens, and not rows.

        Exact amounts are apportioned by largest remainder. A value with fewer rows than its amount
        leaves the rest to the others, in proportion to theirs. Raises UsageError for a value that
        no row has, and for amounts that do not fit the budget.
        """
        if sizes is not None:
            self.check(sizes.budget, "tokens")
        elif budget != EVERY_ROW:  # else the tokens are not counted yet
            self.check(budget)
        names = list(self.portions)
        place_of = {name: place for place, name in enumerate(names)}
        numbers, labels = number_labels(values)
        places = [self._place(str(label), place_of) for label in labels]
        stratum_of = np.array(places, np.int64)
        codes = stratum_of[numbers] if len(labels) else numbers
        rows = np.bincount(codes, minlength=len(names))
        for name, count in zip(names, rows, strict=True):
            if not count and name != OTHERS and len(values):
                raise UsageError(f"mix: no row has {self.column} = {name!r}; it is {_some(labels)}")
        strata = Strata(codes, names, rows, rows, rows, sizes)
        available = rows if sizes is None else add_tokens(strata)
        available_of = dict(zip(names, available.tolist(), strict=True))
        total = budget if sizes is None else sizes.budget
        minimum, maximum = self._limits(total, available_of)
        return replace(strata, minimum=np.array(minimum), maximum=np.array(maximum))

    def _place(self, value: str, place_of: Mapping[str, int]) -> int:
        """Return the stratum of a value; a file is named by the last steps of its path too."""
        if value in place_of:
            return place_of[value]
        if self.column == "source_uri":
            for name, place in place_of.items():
                if value.endswith(f"/{name}"):
                    return place
        return place_of[OTHERS]

    def check(self, budget: int, unit: str = "rows") -> None:
        """Raise UsageError for amounts that do not fit the budget in rows or tokens."""
        least = Fraction(0)
        most = Fraction(0)
        for portion in self.portions.values():
            least += portion.least.of(budget)
            most += portion.most.of(budget)
        if least > budget:
            raise UsageError(
                f"mix: the amounts add up to {float(least):g} {unit}, more than the budget of "
                f"{budget:,}"
            )
        if most < budget:
            raise UsageError(
                f"mix: the amounts add up to {float(most):g} {unit}, fewer than the budget of "
                f"{budget:,}; expected all of it, or no amount for {OTHERS!r}"
            )

    def _limits(self, budget: int, rows: Mapping[str, int]) -> tuple[list[int], list[int]]:
        """Return the least and the most rows (or tokens) to keep of each value. rows: it has.

        The ends of a range are rounded down, so all minima fit what the exact amounts leave.
        """
        exact: dict[str, Fraction] = {}
        ranges: dict[str, tuple[int, int]] = {}
        for name, portion in self.portions.items():
            least = portion.least.of(budget)
            most = portion.most.of(budget)
            if portion.is_exact:
                exact[name] = least
            else:
                ranges[name] = (floor(least), floor(most))
        weights = dict(exact)
        weights[RANGES] = budget - sum(exact.values(), Fraction(0))  # of all ranges together
        capacity = {name: rows[name] for name in exact}
        capacity[RANGES] = sum(min(rows[name], most) for name, (_, most) in ranges.items())
        quotas = apportion(budget, weights, capacity)
        limits = {}
        for name in exact:
            limits[name] = (quotas[name], quotas[name])
        for name, (at_least, at_most) in ranges.items():
            reserved = min(at_least, rows[name])
            limits[name] = (reserved, at_most if weights[RANGES] else reserved)
        in_order = [limits[name] for name in self.portions]
        return [least for least, _ in in_order], [most for _, most in in_order]


def apportion(
    places: int, weights: Mapping[str, Fraction], capacity: Mapping[str, int]
) -> dict[str, int]:
    """Return how many of the `places` each name gets: in proportion, by largest remainder.

    Equal remainders go by name, those of `OTHERS` last. A name gets no more than its capacity; what
    it leaves is apportioned among the others.
    """
    open_names = sorted(name for name in weights if weights[name] > 0)
    quotas = dict.fromkeys(weights, 0)
    while open_names:
        shares = _largest_remainder(places, {name: weights[name] for name in open_names})
        dry = [name for name in open_names if shares[name] > capacity[name]]
        if not dry:
            return {**quotas, **shares}
        for name in dry:
            quotas[name] = capacity[name]
            places -= capacity[name]
        open_names = [name for name in open_names if name not in dry]
    return quotas


def _largest_remainder(places: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Hamilton's rule: the whole parts, and one more for the largest remainders."""
    total = sum(weights.values(), Fraction(0))
    exact = {name: places * weight / total for name, weight in weights.items()}
    quotas = {name: floor(share) for name, share in exact.items()}

    def order(name: str) -> tuple[Fraction, bool, str]:
        """Return the sort key of a name: the largest remainder first.

        Equal remainders go by name, RANGES and OTHERS last.
        """
        return quotas[name] - exact[name], name in (RANGES, OTHERS), name

    by_remainder = sorted(weights, key=order)
    for name in by_remainder[: places - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def share_evenly(labels: Sequence[Hashable], budget: int, sizes: Sizes | None = None) -> Strata:
    """Return strata of which each gets the same share; one with fewer rows leaves the rest.

    sizes: to divide tokens, and not rows.
    """
    codes, names = number_labels(labels)
    rows = np.bincount(codes, minlength=len(names))
    texts = [str(name) for name in names]
    strata = Strata(codes, texts, rows, rows, rows, sizes)
    available = rows if sizes is None else add_tokens(strata)
    capacity = dict(zip(texts, available.tolist(), strict=True))
    places = budget if sizes is None else sizes.budget
    quotas = apportion(places, dict.fromkeys(texts, Fraction(1)), capacity)
    limits = np.array([quotas[text] for text in texts], np.int64)
    return replace(strata, minimum=limits, maximum=limits)


def limit_each(labels: Sequence[Hashable], limit: int) -> Strata:
    """Return strata of which each has at most `limit` rows to keep, and none reserved."""
    codes, names = number_labels(labels)
    nothing = np.zeros(len(names), np.int64)
    rows = np.bincount(codes, minlength=len(names))
    return Strata(codes, [str(name) for name in names], nothing, nothing + limit, rows)


def parse_mix(text: str) -> Mix:
    """Return the Mix that a text stands for. Raises ValueError for any other text."""
    column, equals, entries = text.partition("=")
    if not equals or not column.strip() or not entries.strip():
        raise ValueError(f"{text!r}: expected COLUMN=VALUE:SHARE,..., such as {EXAMPLE}")
    portions: dict[str, Portion] = {}
    for entry in next(csv.reader([entries], skipinitialspace=True)):
        value, colon, amount = entry.strip().rpartition(":")
        if not colon or not value:
            raise ValueError(f"{entry!r}: expected VALUE:SHARE, such as math:0.3")
        if value in portions:
            raise ValueError(f"{value!r} occurs twice")
        portions[value] = _parse_portion(amount)
    others = portions.pop(OTHERS, None)
    portions[OTHERS] = others or REST
    return Mix(column.strip(), portions)


def _parse_portion(text: str) -> Portion:
    """Return the least and the most that `text` allows: "A", "A..B", "A.." or "..B".

    An open end is nothing below and everything above. Raises ValueError for a wrong amount.
    """
    least, dots, most = text.partition("..")
    if not dots:
        amount = _parse_amount(text)
        return Portion(amount, amount)
    return Portion(
        _parse_amount(least) if least.strip() else NOTHING,
        _parse_amount(most) if most.strip() else EVERYTHING,
    )


def _parse_amount(text: str) -> Amount:
    """Return a share of the budget if `text` has a decimal point, else a number of rows.

    So "1.0" is the whole budget and "1" is one row. Held as a fraction, so 0.1 is exactly a tenth.
    Raises ValueError for a negative number, a share above 1, or part of a row.
    """
    try:
        number = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        number = Fraction(-1)
    is_share = "." in text
    is_too_much = is_share and number > 1
    is_broken = not is_share and number.denominator != 1
    if number < 0 or is_too_much or is_broken:
        raise ValueError(
            f"{text.strip()!r}: expected a share of the budget from 0.0 to 1.0, or a number of rows"
        )
    return Amount(number, is_share)


def _some(labels: Sequence[Hashable]) -> str:
    """Return the first few labels in a sentence."""
    texts = sorted(str(label) for label in labels)
    more = f" or {len(texts) - 8} others" if len(texts) > 8 else ""
    return ", ".join(texts[:8]) + more
