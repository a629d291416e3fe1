"""The lengths of rows in tokens, by quantile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from deita_tasks.strict_json import JsonRecord

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class LengthQuantile(JsonRecord):
    """The length of a row at a share of all rows, from the shortest on. tokens: in the row."""

    share: float
    tokens: NonNegativeInt

    def __str__(self) -> str:
        name = "longest" if self.share == 1 else f"{self.share:.0%}"
        return f"{name} {self.tokens:,}"


def length_quantiles(lengths: Sequence[int] | NDArray[np.int64]) -> list[LengthQuantile]:
    """Return the lengths at QUANTILES; [] for no rows.

    Each is the length of a row, never between two: the least that so many rows do not exceed.
    """
    if not len(lengths):
        return []
    values = np.quantile(lengths, QUANTILES, method="inverted_cdf")
    return [
        LengthQuantile(share=share, tokens=int(value))
        for share, value in zip(QUANTILES, values, strict=True)
    ]
