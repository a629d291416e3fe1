"""The limit that yields a wanted number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from deita_tasks.selecting import load_selector

STEPS = 10_000  # limits are looked for in ten-thousandths: what a person would write down


class Solution(NamedTuple):
    """`max_similarity` yields `kept` rows. `kept_below`: what the next smaller limit yields; None where there is no smaller one."""

    max_similarity: float
    kept: int
    kept_below: int | None


def solve(ids: Sequence[str], evol_scores: NDArray[Any], embeddings: NDArray[Any], budget: int) -> Solution:
    """The smallest (most diverse) limit of `diverse`, in ten-thousandths, that still yields `budget` rows; by bisection.

    A smaller limit keeps fewer rows, but for rare cases: a row that is let in can block more than the one that it replaced. So the answer
    is a place where the count crosses the budget: this limit yields it and the next smaller one does not. Where even a limit
    of 1 yields fewer rows than `budget`, that is the solution, with `kept` below the budget.
    """
    counts: dict[int, int] = {}

    def kept(step: int) -> int:
        if step not in counts:
            selector = load_selector("diverse", budget=budget, max_similarity=step / STEPS)
            counts[step] = len(selector.select(ids, evol_scores, embeddings).kept)
        return counts[step]

    low, high = -STEPS, STEPS
    if kept(high) < budget:
        return Solution(1.0, kept(high), None)
    if kept(low) >= budget:
        return Solution(-1.0, kept(low), None)
    while high - low > 1:
        middle = (low + high) // 2
        if kept(middle) >= budget:
            high = middle
        else:
            low = middle
    return Solution(high / STEPS, kept(high), kept(low))
