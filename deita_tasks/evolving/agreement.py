"""How well scores agree with the judge's: across all texts, within chains, and by judged score."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from deita_tasks.strict_json import JsonRecord
from deita_tasks.training.fit import spearman

WORDS = "number of words"


class Agreement(JsonRecord):
    """Rank correlations (Spearman) of something with the judged scores.

    across: over all texts. within: mean over chains. None where either side is constant. chains:
    those that count in `within`.
    """

    name: str
    texts: NonNegativeInt
    across: float | None
    within: float | None
    chains: NonNegativeInt


class CalibrationPoint(JsonRecord):
    """The texts with one judged score. mean, low, high: of the expected score; low and high are
    its 10th and 90th percentile.
    """

    judged: int = Field(ge=1, le=6)
    texts: NonNegativeInt
    mean: float
    low: float
    high: float


Floats = NDArray[np.float64]


def rank_correlation(values: Floats, judged: Floats) -> float | None:
    """Return Spearman's rank correlation of two arrays (n,), -1 to 1; equal values share a rank.

    None for fewer than 2 values, or if a side is constant: there is no ranking to compare.
    """
    if len(values) < 2:
        return None
    found = spearman(values, judged)
    return None if math.isnan(found) else found


def agreement(
    name: str, values: Floats, judged: Floats, groups: Sequence[str] | None = None
) -> Agreement:
    """Return how `values` agree with the judged scores, both (n,). groups: the chain of each."""
    places_of: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups or ()):
        places_of[group].append(place)
    within: list[float] = []
    for places in places_of.values():
        found = rank_correlation(values[places], judged[places])
        # A scorer that gives all texts of a chain one score has not ranked them.
        if found is None and np.ptp(judged[places]) > 0:
            found = 0.0
        if found is not None:
            within.append(found)
    return Agreement(
        name=name,
        texts=len(values),
        across=rank_correlation(values, judged),
        within=math.fsum(within) / len(within) if within else None,
        chains=len(within),
    )


def calibration(values: Floats, judged: Floats) -> list[CalibrationPoint]:
    """Return the expected scores by judged score, for each that occurs."""
    points = []
    for score in sorted({int(value) for value in judged}):
        found = values[judged == score]
        low, high = np.percentile(found, [10, 90])
        points.append(
            CalibrationPoint(
                judged=score,
                texts=len(found),
                mean=float(found.mean()),
                low=float(low),
                high=float(high),
            )
        )
    return points


def compare_with_words(scorer: Agreement, words: Agreement) -> str:
    """Return a sentence that says where the scorer is above the number of words, and where not."""
    parts = [
        _compare("over all texts", scorer.across, words.across),
        _compare("within a chain", scorer.within, words.within),
    ]
    return f"Rank correlation with the judge: {'; '.join(parts)}."


def is_above_words(scorer: Agreement, words: Agreement) -> bool:
    """Return whether the scorer is above the number of words, over all texts and within chains."""
    pairs = ((scorer.across, words.across), (scorer.within, words.within))
    known = [(own, other) for own, other in pairs if own is not None]
    return bool(known) and all(other is None or own > other for own, other in known)


def _compare(place: str, own: float | None, other: float | None) -> str:
    """Return a part of the sentence: the scorer's correlation beside that of the words.

    Without one of the words, any correlation is above. Without one of its own there is nothing
    to compare.
    """
    if own is None:
        return f"{place} none can be computed"
    beside = "none" if other is None else f"{other:.3f}"
    relation = "above" if other is None or own > other else "NOT above"
    return f"{place} {own:.3f}, {relation} that of the number of words ({beside})"
