"""Small pools for the tests of selection strategies."""

import numpy as np
from hypothesis import strategies as st


def row_ids(count):
    return [f"row-{i:04d}" for i in range(count)]


@st.composite
def pools(draw):
    """Ids, scores and vectors of a hard pool.

    Small integers give copies, opposite and orthogonal rows and equal similarities; normal deviates
    give everything between. Some components and scores are not finite.
    """
    n, d = draw(st.integers(0, 24)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        rows = rng.integers(-2, 3, (n, d))
    else:
        rows = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-3, 4, (n, 1))
    rows = rows.astype(draw(st.sampled_from([np.float32, np.float16])))
    if n and draw(st.booleans()):
        bad_value = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        rows[rng.integers(0, n, 3), rng.integers(0, d, 3)] = bad_value
    values = [1.0, 2.0, 2.5, 9.0, np.nan, np.inf, -np.inf]
    scores = rng.choice(values, n, p=[0.3, 0.2, 0.2, 0.15, 0.05, 0.05, 0.05])
    return [f"id{i}" for i in rng.permutation(n)], scores, rows
