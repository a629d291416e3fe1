from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.models.batches import BatchLimit, padded_width, run_batches
from tests.support.threads import torch_threads


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 300), max_size=60), st.integers(1, 500), st.sampled_from([None, 1, 3])
)
def test_every_row_once_in_batches_of_one_width_within_the_budget(lengths, budget, threads):
    batches: list[list[int]] = []
    assert run_batches(lengths, budget, batches.append, threads=threads) == []
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        (width,) = {padded_width(lengths[i]) for i in batch}
        assert len(batch) == 1 or len(batch) * width <= budget


def test_a_width_is_the_length_rounded_up_to_sixteen():
    assert [padded_width(length) for length in (0, 1, 16, 17, 250)] == [16, 16, 16, 32, 256]
    batches: list[list[int]] = []
    run_batches([17, 16, 40, 1, 32, 33], 96, batches.append)
    assert batches == [[2, 5], [0, 4], [1, 3]]  # 48, 32 and 16 wide


def test_each_batch_has_one_thread_of_torch_and_the_callers_threads_stay():
    threads: list[int] = []

    def run(batch):
        torch.ones(100_000).exp()  # the first use of torch in a thread
        threads.append(torch.get_num_threads())

    with torch_threads(2):
        run_batches([16] * 8, 16, run, threads=2)
        assert threads == [1] * 8
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:  # a new thread has what the caller has
            assert pool.submit(torch.get_num_threads).result() == 2


def test_batches_that_do_not_fit_memory_beside_each_other_run_alone():
    calls = count()
    crowd = Barrier(2)
    finished: list[list[int]] = []

    def run(batch):
        if next(calls) < 2:
            crowd.wait(10)
            raise MemoryError
        finished.append(batch)

    assert run_batches([16] * 4, 16, run, threads=2) == []
    assert sorted(finished) == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("threads", [None, 2])
def test_out_of_memory_halves_the_batch_and_goes_on(error, threads):
    finished: list[list[int]] = []

    def run(batch):
        if sum(lengths[i] for i in batch) > 32:
            raise error
        finished.append(batch)

    lengths = [16, 16, 16, 80, 16, 16, 16, 16, 16]
    assert run_batches(lengths, 160, run, threads=threads) == [3]  # too long even alone
    assert sorted(i for batch in finished for i in batch) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert max(map(len, finished)) == 2  # 128 tokens, then 64, then 32


def test_a_lowered_budget_holds_for_the_calls_that_follow():
    failed: list[int] = []
    finished: list[int] = []

    def run(batch):
        if 16 * len(batch) > 40:
            failed.append(len(batch))
            raise torch.OutOfMemoryError("CUDA out of memory")
        finished.append(len(batch))

    limit = BatchLimit()
    for _ in range(3):
        assert run_batches([16] * 8, 160, run, limit) == []
    assert failed == [8, 4]  # 128 tokens, then 64, in the first call alone
    assert finished == [2] * 12
    run_batches([16] * 3, 16, run, limit)
    assert finished[12:] == [1] * 3  # what is asked for is less still


def test_other_errors_are_not_swallowed():
    def run(batch):
        raise RuntimeError("index out of range")

    with pytest.raises(RuntimeError, match="index"):
        run_batches([1], 10, run)
