"""The similarity that decides: the same number whoever computes it."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting.similarity import exact as similarity
from deita_tasks.selecting.similarity.cosine import sketch
from deita_tasks.selecting.similarity.exact import (
    ROUNDING,
    exact_similarities,
    normalise_rows,
    screening_error,
)
from tests.support.selection_reference import unit


def exactly(left, right):
    return np.array(
        [
            np.float32(math.fsum(a.astype(float) * b.astype(float)))
            for a, b in zip(left, right, strict=True)
        ]
    )


def each(n):
    return np.arange(n), np.arange(n)


@given(st.integers(0, 2**32), st.integers(1, 70), st.booleans())
@settings(max_examples=100, deadline=None)
def test_similarities_are_the_exactly_rounded_sums(seed, dimensions, sparse):
    rng = np.random.default_rng(seed)
    rows, _ = normalise_rows(
        rng.standard_normal((60, dimensions))
        * (rng.random((60, dimensions)) < (0.1 if sparse else 1))
    )
    pairs = rng.integers(0, 60, (2, 200))
    assert np.array_equal(
        exact_similarities(rows, rows, (pairs[0], pairs[1])),
        exactly(rows[pairs[0]], rows[pairs[1]]),
    )


def test_sums_half_way_between_two_floats(monkeypatch):
    """0.75 + 2**-25 lies half way between two float32; a last term of either sign, far below
    float64's last place there, tells the side.
    """
    left = np.array(
        [[1, 2**-25, 2**-40], [1, 2**-25, 0], [1, 2**-25, -(2**-40)], [1, -1, 2**-40]], np.float32
    )
    right = np.array([[0.75, 1, 2**-10]] * 3 + [[0.75, 0.75, 2**-10]], np.float32)
    step = np.float32(2**-24)
    assert exact_similarities(left, right, each(4)).tolist() == [0.75 + step, 0.75, 0.75, 2.0**-50]
    monkeypatch.setattr(similarity, "CHUNK_COMPONENTS", 1)  # one pair at a time
    assert exact_similarities(left, right, each(4)).tolist() == [0.75 + step, 0.75, 0.75, 2.0**-50]


def test_no_negative_zero():
    zero = exact_similarities(
        np.array([[-1, 0]], np.float32), np.array([[0, 1]], np.float32), each(1)
    )
    assert zero == 0 and not np.signbit(zero[0])


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 7, 384]))
@settings(max_examples=30, deadline=None)
def test_a_float32_product_stays_within_the_screening_error(seed, dimensions):
    rng = np.random.default_rng(seed)
    rows, _ = normalise_rows(np.abs(rng.standard_normal((40, dimensions))))
    error = np.abs(
        (rows @ rows[::-1].T).astype(float) - rows.astype(float) @ rows[::-1].astype(float).T
    )
    assert error.max() <= screening_error(dimensions) - ROUNDING + 1e-13


def test_the_screening_error_covers_the_worst_order_of_summation():
    """One large product first, then 2**16 that each lie just under half a step of the running sum,
    which loses them all.
    """
    terms = 2**16
    small = np.float32(np.sqrt(2.0**-25 * 0.99))
    row = np.full(terms + 1, small, np.float32)
    row[0] = np.float32(np.sqrt(0.998))
    products = row * row
    running = np.add.accumulate(products, dtype=np.float32)[-1]
    loss = math.fsum(row.astype(float) ** 2) - float(running)
    assert running == products[0]
    assert screening_error(terms + 1) / 4 < loss < screening_error(terms + 1) - ROUNDING


@given(st.integers(0, 2**32), st.sampled_from([2, 8, 32]), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_sketches_never_underrate_a_similarity(seed, width, apart):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal(64) * (rng.random(64) < 0.5)
    rows, _ = normalise_rows(centre + apart * rng.standard_normal((30, 64)))
    sketches = sketch(rows, width)
    assert sketches.shape == (30, width) and sketches.dtype == np.float32
    exact, over = (side.astype(float) @ side.astype(float).T for side in (rows, sketches))
    assert (over >= exact - 1e-15).all()
    assert np.abs(np.diag(over) - 1).max() < 1e-6


def test_normalised_by_hand():
    rows, fit = normalise_rows(
        np.array([[3, 4], [0, -2], [np.nan, 1], [0, 0], [np.inf, 1]], np.float32)
    )
    assert fit.tolist() == [True, True, False, False, False]
    assert rows.dtype == np.float32
    assert rows[:2].tolist() == [[np.float32(0.6), np.float32(0.8)], [0, -1]]


@given(st.integers(0, 2**32), st.integers(1, 33), st.sampled_from([np.float16, np.float32]))
@settings(max_examples=60, deadline=None)
def test_normalised_equals_the_reference_and_does_not_depend_on_company(seed, dimensions, dtype):
    rows = np.random.default_rng(seed).standard_normal((9, dimensions)).astype(dtype)
    together, fit = normalise_rows(rows)
    assert fit.all()
    assert np.array_equal(together, np.array([unit(row) for row in rows], np.float32))
    for i in range(9):
        assert np.array_equal(normalise_rows(rows[i : i + 1])[0][0], together[i])
        assert np.array_equal(normalise_rows(np.asfortranarray(rows)[i:])[0][0], together[i])
