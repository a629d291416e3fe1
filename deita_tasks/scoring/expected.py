"""The expected score: a next-token distribution as a number (section 2.3).

The original's is in scorer/base.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def expected_score(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the softmax over the logits of the tokens "1" to "6", times 1 to 6.

    (n, 6) -> float32 (n,) in [1, 6]. Raw logits and log-probabilities give the same score. A row
    with a logit that is not finite is NaN: nothing is imputed.
    """
    exact = np.asarray(logits, np.float64)
    finite = np.all(np.isfinite(exact), axis=1, keepdims=True)
    exact = np.where(finite, exact, 0.0)
    weights = np.exp(exact - exact.max(axis=1, keepdims=True))
    # not a matrix product: its last bit may depend on the number of rows
    scores = (weights * np.arange(1.0, 7.0)).sum(axis=1) / weights.sum(axis=1)
    return np.where(finite[:, 0], scores, np.nan).astype(np.float32)
