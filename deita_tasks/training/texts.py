"""Labelled texts, and comparisons of responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledTexts:
    """n texts of one source.

    `labels`: (n,). `groups`: (n,), equal for variants of one seed.
    """

    texts: Sequence[str]
    labels: NDArray[np.float64]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of one source, each of two responses to one instruction.

    `better`, `worse`: (n,), positions in the list of pairs.
    """

    better: NDArray[np.int64]
    worse: NDArray[np.int64]

    @classmethod
    def of(cls, ordered: Sequence[tuple[int, int]]) -> Comparisons:
        """Return comparisons from (better, worse) positions; `ordered` may be empty."""
        better, worse = np.array(ordered, np.int64).reshape(-1, 2).T
        return cls(better, worse)

    def select(self, mask: NDArray[np.bool_]) -> Comparisons:
        """Return some of the comparisons, in their order.

        `mask`: bool (n,), True for those to keep.
        """
        return Comparisons(self.better[mask], self.worse[mask])


def normalise_prompt(instruction: str) -> str:
    """Return the words of an instruction, whatever the case, white space and punctuation.

    Instructions that are one prompt have these in common.
    """
    return " ".join(re.findall(r"\w+", instruction.lower()))
