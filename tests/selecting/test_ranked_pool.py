"""The ranks of a pool, and the decisions on them."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.selecting import load_selector
from deita_tasks.selecting.ranked_pool import RankedPool

NAN, INF = float("nan"), float("inf")


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0, NAN, INF]), max_size=30), st.randoms())
def test_ranks_are_those_of_a_sort_by_score_then_id(scores, random):
    ids = [f"{i:02d}" for i in range(len(scores))]
    random.shuffle(ids)
    positions = range(len(scores))
    finite = [i for i in positions if abs(scores[i]) < INF]
    candidates = sorted(finite, key=lambda i: (-scores[i], ids[i]))
    unscorable = sorted(set(positions) - set(finite), key=ids.__getitem__)
    pool = RankedPool(ids, scores)
    assert pool.order.tolist() == candidates + unscorable
    assert pool.candidate_count == len(finite)


def test_a_pool_costs_bytes_a_row_and_no_objects():
    """65 bytes a row at the peak, of which 2 * 16 for the set that finds repeated ids; a Rejection
    alone would be 88.
    """
    ids, scores = [f"{i:032x}" for i in range(200_000)], np.random.default_rng(0).random(200_000)
    tracemalloc.start()
    selection = load_selector("top_score", budget=1000).select(ids, scores, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(selection.rejected) == 199_000
    assert peak < 110 * len(ids)
