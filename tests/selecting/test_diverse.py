"""Diverse against the sequential rule, on random pools and on pools made to be hard."""

import itertools
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.errors import UsageError
from deita_tasks.records import Rejection
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.similarity.products import TorchBlockProduct
from tests.support.selection_pools import pools, row_ids
from tests.support.selection_reference import (
    as_floats,
    negative_euclidean,
    negative_manhattan,
    sequential,
    similarity,
    unit,
)

LIMIT = np.float32(0.9)


def select(ids, scores, rows, budget, max_similarity=0.9, strata=None, **options):
    if max_similarity is not None:
        options["max_similarity"] = max_similarity
    selector = load_selector("diverse", budget=budget, device="cpu", **options)
    selection = selector.select(ids, np.asarray(scores, np.float64), rows, strata)
    return list(selection.kept), list(selection.rejected)


@given(
    pools(),
    st.integers(1, 30),
    st.sampled_from([0.9, 0.5, 0.0, -0.4, 1.0, 0.70710677, -1.0]),
    st.integers(1, 30),
    st.randoms(),
)
@settings(max_examples=500, deadline=None)
def test_equals_the_sequential_rule_for_every_block_size_and_input_order(
    pool, budget, max_similarity, block_rows, random
):
    ids, scores, rows = pool
    expected = sequential(ids, scores, rows, budget, max_similarity)
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = [ids[i] for i in order], scores[order], rows[order]
    kept, rejected = select(*shuffled, budget, max_similarity, block_rows=block_rows)
    assert (kept, rejected) == expected
    assert sorted(kept + [rejection.id for rejection in rejected]) == sorted(ids)


@given(
    pools(),
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_strata_that_are_full_are_passed_over(pool, budget, per_stratum, block_rows, random):
    ids, scores, rows = pool
    strata = [random.choice("ab") if random.random() < 0.9 else None for _ in ids]
    options = {"per_stratum": per_stratum, "block_rows": block_rows}
    expected = sequential(ids, scores, rows, budget, 0.9, per_stratum, strata)
    assert select(ids, scores, rows, budget, 0.9, strata, **options) == expected


@given(pools(), st.integers(1, 30), st.sampled_from([0, 0.5, 1, 2, 3, 30]), st.integers(1, 30))
@settings(max_examples=150, deadline=None)
def test_other_metrics_equal_the_sequential_rule(pool, budget, limit, block_rows):
    ids, scores, rows = pool
    closeness_by_metric = {
        "dot": similarity,
        "euclidean": negative_euclidean,
        "manhattan": negative_manhattan,
    }
    for metric, closeness in closeness_by_metric.items():
        if metric == "dot":
            options, signed_limit = {"max_similarity": limit}, limit
        else:
            options, signed_limit = {"max_similarity": None, "min_distance": limit}, -limit
        options |= {"metric": metric, "block_rows": block_rows}
        expected = sequential(
            ids, scores, rows, budget, signed_limit, prepare=as_floats, closeness=closeness
        )
        assert select(ids, scores, rows, budget, **options) == expected


def test_distances_by_hand():
    """Points 3-4-5 apart: a distance equal to the limit is allowed, as a similarity is; a smaller
    one is not.
    """
    rows, scores = np.array([[1, 1], [4, 5], [4, 6], [1, 5]], np.float32), [4, 3, 2, 1]
    options = {"max_similarity": None, "block_rows": 2}
    kept, rejected = select(
        list("abcd"), scores, rows, 4, metric="euclidean", min_distance=5, **options
    )
    assert kept == ["a", "b"]
    assert rejected == [
        Rejection("c", "too_similar", "b", 1.0),
        Rejection("d", "too_similar", "b", 3.0),
    ]
    kept, rejected = select(
        list("abcd"), scores, rows, 4, metric="manhattan", min_distance=3, **options
    )
    assert kept == ["a", "b", "d"]
    assert rejected == [Rejection("c", "too_similar", "b", 1.0)]


@pytest.mark.parametrize("block_rows", [1, 2])
@pytest.mark.parametrize("metric", ["dot", "euclidean", "manhattan"])
def test_other_metrics_are_compared_in_float32_too(metric, block_rows):
    """A distance of 5 - 2**-24 and a product of 2 + 2**-24 are 5 and 2 in float32, and so equal to
    their limits; copies are 0 apart.
    """
    if metric == "dot":
        rows, limit = np.array([[1, 2**-24], [2, 1], [2, 1]], np.float32), {"max_similarity": 2}
    else:
        rows = np.array([[2**-24, 1], [5, 1], [5, 1]], np.float32)
        limit = {"min_distance": 5, "max_similarity": None}
    options = {"metric": metric, "block_rows": block_rows, **limit}
    kept, rejected = select(list("abc"), [3, 2, 1], rows, 3, **options)
    assert kept == ["a", "b"]
    assert rejected == [Rejection("c", "too_similar", "b", 5.0 if metric == "dot" else 0.0)]
    assert not np.signbit(rejected[0].similarity)


@given(pools(), st.integers(1, 24), st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=100, deadline=None)
def test_budgets_nest(pool, small, large, block_rows):
    ids, scores, rows = pool
    small, large = sorted((small, large))
    kept, _ = select(ids, scores, rows, large, block_rows=block_rows)
    assert select(ids, scores, rows, small)[0] == kept[:small]


@given(st.integers(0, 2**32), st.sampled_from([1, 7, 64]), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_equals_the_sequential_rule_in_clusters(seed, block_rows, budget):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, 32))
    rows = (
        centres[rng.integers(0, 12, 80)]
        + rng.uniform(0.1, 0.6, (80, 1)) * rng.standard_normal((80, 32))
    ).astype(np.float32)
    scores = rng.integers(0, 40, 80) / 8
    assert select(row_ids(80), scores, rows, budget, block_rows=block_rows) == sequential(
        row_ids(80), scores, rows, budget, 0.9
    )


def at_cosine(target):
    """A float32 row whose normalised first component is exactly `target`; so that is its similarity
    to (1, 0).
    """
    for steps in itertools.count():
        for sign in (1, -1):
            row = np.array(
                [target, np.sqrt(1 - np.float64(target) ** 2) + sign * steps * 2.0**-26], np.float32
            )
            if np.float32(unit(row)[0]) == target:
                return row
    raise AssertionError


@pytest.mark.parametrize("block_rows", [1, 2, 512])
def test_one_ulp_around_the_limit(block_rows):
    below, above = np.nextafter(LIMIT, np.float32(0)), np.nextafter(LIMIT, np.float32(1))
    for target, stays in ((below, True), (LIMIT, True), (above, False)):
        rows = np.stack([np.array([1, 0], np.float32), at_cosine(target)])
        kept, rejected = select(["first", "second"], [2, 1], rows, 2, block_rows=block_rows)
        assert kept == (["first", "second"] if stays else ["first"])
        assert rejected == (
            [] if stays else [Rejection("second", "too_similar", "first", float(above))]
        )


def around_the_limit(count, dimensions, seed):
    """Row 0, then rows whose similarity to it lies within about two float32 steps of the limit,
    each as dense as any embedding.
    """
    rng = np.random.default_rng(seed)
    first = rng.standard_normal(dimensions)
    first /= np.linalg.norm(first)
    rows = [first]
    for cosine in float(LIMIT) + rng.uniform(-1.5e-7, 1.5e-7, count):
        orthogonal = rng.standard_normal(dimensions)
        orthogonal -= (orthogonal @ first) * first
        sine = np.sqrt(1 - cosine**2)
        rows.append(cosine * first + sine * orthogonal / np.linalg.norm(orthogonal))
    return np.array(rows, np.float32)


@pytest.mark.parametrize("dimensions", [16, 384])
@pytest.mark.parametrize("block_rows", [1, 3, 50, 512])
def test_rows_inside_the_rounding_band_are_decided_by_the_exact_similarity(dimensions, block_rows):
    rows = around_the_limit(120, dimensions, seed=3)
    units = np.array([unit(row) for row in rows], np.float32)
    exact = np.array([similarity(units[0].astype(float), row) for row in units[1:].astype(float)])
    naive = np.array([np.add.reduce(units[0] * row, dtype=np.float32) for row in units[1:]])
    assert {-1, 0, 1} <= set(np.round((exact - LIMIT) / np.spacing(LIMIT)).astype(int))
    assert ((naive > LIMIT) != (exact > LIMIT)).any(), (
        "float32 sums decide alike: the rows are not hard enough"
    )
    scores = np.arange(len(rows), 0, -1)
    assert select(row_ids(len(rows)), scores, rows, 121, block_rows=block_rows) == sequential(
        row_ids(len(rows)), scores, rows, 121, 0.9
    )


def test_several_kept_rows_inside_the_band_of_one_candidate():
    """Twelve rows of a cosine half way between two float32 to a centre that comes last: which is
    the nearest hangs on their rounding.
    """
    centre = np.eye(1, 40)
    cosine = float(np.float32(0.95)) + 2.0**-25
    around = np.hstack(
        [np.full((12, 1), cosine), np.sqrt(1 - cosine**2) * np.eye(12), np.zeros((12, 27))]
    )
    nearest = set()
    for seed in range(8):
        turned = (
            np.vstack([around, centre])
            @ np.linalg.qr(np.random.default_rng(seed).standard_normal((40, 40)))[0]
        )
        rows, scores = turned.astype(np.float32), np.arange(13, 0, -1)
        expected = sequential(row_ids(13), scores, rows, 13, 0.93)
        nearest |= {rejection.nearest_id for rejection in expected[1]}
        for block_rows in (1, 5, 12, 13):
            assert select(row_ids(13), scores, rows, 13, 0.93, block_rows=block_rows) == expected
    assert len(nearest) >= 3


def test_of_equally_similar_kept_rows_the_best_ranked_blocks():
    rows = np.array([[3, 4, 0], [3, -4, 0], [1, 0, 0]], np.float32)
    for block_rows in (1, 2, 3):
        kept, rejected = select(["b", "a", "c"], [1, 1, 0], rows, 3, 0.5, block_rows=block_rows)
        assert kept == ["a", "b"]
        assert rejected == [Rejection("c", "too_similar", "a", float(np.float32(0.6)))]


def test_of_two_close_rows_the_better_survives():
    rows = np.array([[1, 0.01], [1, 0.02], [0, 1]], np.float32)
    assert select(["poor", "good", "other"], [2, 5, 1], rows, 3)[0] == ["good", "other"]


def test_a_row_near_a_rejected_one_is_kept():
    """At 0, 20 and 40 degrees: the second is too near the first, the third only near the second.
    The original, in batches, drops it
    """
    angles = np.radians([0, 20, 40])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for block_rows in (1, 2, 3):
        assert select(["a", "b", "c"], [3, 2, 1], rows, 3, block_rows=block_rows)[0] == ["a", "c"]


def test_a_row_blocked_from_outside_its_block_may_be_nearer_to_one_inside():
    angles = np.radians([0, 90, 27, 25])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for block_rows in (1, 2, 4):
        kept, rejected = select(list("abcd"), [4, 3, 2, 1], rows, 4, 0.9, block_rows=block_rows)
        assert kept == ["a", "b", "c"]
        assert (rejected[0].id, rejected[0].nearest_id) == ("d", "c")


def test_vectors_are_judged_only_when_their_turn_comes():
    rows = np.array([[np.nan, 1], [1, 0], [0, 0], [0, 1], [np.inf, 0], [1, 1]], np.float32)
    for block_rows in (1, 2, 6):
        kept, rejected = select(list("abcdef"), [6, 5, 4, 3, 2, 1], rows, 2, block_rows=block_rows)
        assert kept == ["b", "d"]
        assert rejected == [
            Rejection("a", "unscorable"),
            Rejection("c", "unscorable"),
            Rejection("e", "below_budget"),
            Rejection("f", "below_budget"),
        ]


@pytest.mark.parametrize(
    "rows",
    [np.full((40, 8), 7, np.float16), np.zeros((40, 8), np.float32)],
    ids=["identical", "zero"],
)
def test_all_rows_alike(rows):
    kept, rejected = select(row_ids(40), np.ones(40), rows, 10, block_rows=16)
    assert (kept, rejected) == sequential(row_ids(40), np.ones(40), rows, 10, 0.9)
    assert {rejection.reason for rejection in rejected} == (
        {"too_similar"} if rows.any() else {"unscorable"}
    )


def test_a_budget_over_the_pool():
    assert select(["a", "b"], [1, 2], np.eye(2, dtype=np.float32), 99) == (["b", "a"], [])
    assert select(["a", "b"], [np.nan, np.nan], np.eye(2, dtype=np.float32), 99)[0] == []


def test_the_scale_of_a_row_does_not_matter():
    rows = np.array([[3e38, 3e38], [1e-45, 1e-45], [0, 5e-40]], np.float32)
    kept, rejected = select(["a", "b", "c"], [3, 2, 1], rows, 3)
    assert kept == ["a", "c"]
    assert rejected[0][:3] == ("b", "too_similar", "a")


@pytest.mark.parametrize("mode", ["r", "r+", "c", "w+"])
def test_reads_a_memory_map_of_float16(tmp_path, mode):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((70, 4)).astype(np.float16)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float16, mode, shape=rows.shape)
    if mode in ("c", "w+"):  # what is written has to outlive the reading, on the disk or not
        rows[:10] = 1
        mapped[:] = rows
    scores = rng.random(70)
    assert select(row_ids(70), scores, mapped, 30, block_rows=8) == sequential(
        row_ids(70), scores, rows, 30, 0.9
    )
    assert np.array_equal(mapped, rows)


def test_reads_only_as_far_as_the_selection_gets():
    class Watched(np.ndarray):
        read: ClassVar[list[int]] = []

        def __getitem__(self, key):
            if isinstance(key, np.ndarray):
                self.read.extend(key.tolist())
            return super().__getitem__(key)

    rows = np.eye(64, dtype=np.float32).view(Watched)
    select(row_ids(64), np.arange(64, 0, -1), rows, 5, block_rows=4)
    assert sorted(Watched.read) == list(range(8))


def test_selects_alike_through_torch(monkeypatch):
    rng = np.random.default_rng(2)
    rows = np.vstack(
        [around_the_limit(60, 48, seed=9), rng.standard_normal((60, 48)).astype(np.float32)]
    )
    scores = rng.permutation(121)
    by_numpy = select(row_ids(121), scores, rows, 80, 0.9, block_rows=16)
    monkeypatch.setattr(
        "deita_tasks.selecting.diverse.block_product_for",
        lambda device: lambda rows: TorchBlockProduct(rows, "cpu"),
    )
    assert select(row_ids(121), scores, rows, 80, 0.9, block_rows=16) == by_numpy


@pytest.mark.parametrize(
    ("ids", "scores", "rows", "message"),
    [
        (
            ["a", "b"],
            [1, 2],
            np.eye(3),
            r"embeddings of shape \(3, 3\) for 2 ids: expected \(2, d\)",
        ),
        (["a", "b"], [1, 2], np.ones((2, 1, 4)), r"embeddings of shape \(2, 1, 4\) for 2 ids"),
        (["a", "b"], [1, 2], None, r"embeddings are missing"),
        (
            ["a", "b"],
            [1, 2],
            np.array([["x"], ["y"]]),
            r"embeddings of <U1: expected float32 or float16",
        ),
    ],
)
def test_vectors_that_do_not_match_are_refused(ids, scores, rows, message):
    with pytest.raises(UsageError, match=message):
        select(ids, scores, rows, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"budget": 0},
        {"budget": -1},
        {},
        {"budget": 5, "max_similarity": 1.5},
        {"budget": 5, "max_similarity": float("nan")},
        {"budget": 5, "threshold": 0.9},
        {"budget": 5, "block_rows": 0},
        {"budget": 5, "device": "gpu"},
        {"budget": 5, "min_distance": 1},
        {"budget": 5, "metric": "dot"},
        {"budget": 5, "metric": "euclidean"},
        {"budget": 5, "metric": "euclidean", "max_similarity": 0.9},
        {"budget": 5, "metric": "manhattan", "min_distance": -1},
        {"budget": 5, "metric": "manhattan", "min_distance": 1, "max_similarity": 0.9},
        {"budget": 5, "per_stratum": 0},
        {"budget": 5, "ranking": "beauty"},
        {"budget": 5, "evol_score": "median"},
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(options):
    with pytest.raises(UsageError, match="strategy 'diverse'"):
        load_selector("diverse", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_torch_is_not_waited_for_where_there_is_no_driver():
    code = (
        "import sys, numpy as np; from deita_tasks.selecting import load_selector;"
        "from deita_tasks.selecting.similarity import products; products.has_cuda_driver = "
        "lambda: False;"
        "assert load_selector('diverse', budget=1).select(['a', 'b'], np.array([1, 2]), "
        "np.eye(2)).kept == ['b'];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_refused_before_anything_is_read():
    with pytest.raises(
        UsageError,
        match=r"device 'cuda:1': torch .* finds no CUDA device here; use 'auto' or 'cpu'",
    ):
        load_selector("diverse", budget=5, device="cuda:1")


def test_the_fingerprint_holds_what_changes_the_result_and_nothing_else():
    default = load_selector("diverse", budget=5).fingerprint()
    assert default["strategy"] == "Diverse"
    assert default["max_similarity"] == 0.9
    assert load_selector("diverse", budget=5, block_rows=3, device="cpu").fingerprint() == default
    for options in (
        {"budget": 6},
        {"max_similarity": 0.8},
        {"evol_score": "mean"},
        {"ranking": "quality"},
        {"per_stratum": 3},
    ):
        assert load_selector("diverse", **{"budget": 5, **options}).fingerprint() != default
