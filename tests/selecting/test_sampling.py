"""The sample of the smallest ids."""

import pyarrow as pa

from deita_tasks.selecting.sampling import smallest_ids


def test_the_sample_is_the_smallest_ids_in_any_order():
    assert smallest_ids(["d", "b", "c", "a"], 2).tolist() == [3, 1]
    assert smallest_ids(["a", "d", "b", "c"], 2).tolist() == [0, 2]
    assert smallest_ids(["b", "a"], 9).tolist() == [1, 0]
    assert smallest_ids(pa.chunked_array([["d", "b"], ["c", "a"]]), 2).tolist() == [3, 1]
    assert smallest_ids([], 3).tolist() == []
