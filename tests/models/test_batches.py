import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.models.batches import BatchLimit, run_batches


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 500))
def test_every_row_once_within_the_budget_longest_first(lengths, budget):
    batches: list[list[int]] = []
    assert run_batches(lengths, budget, batches.append) == []
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_a_batch_that_is_full_enough_takes_no_much_shorter_rows():
    batches: list[list[int]] = []
    run_batches([100, 100, 100, 70, 80, 10, 5, 5], 1000, batches.append)
    assert batches == [
        [0, 1, 2, 4],
        [3, 5, 6, 7],
    ]  # 70 is under 75; [70, 10, 5, 5] is under a quarter of the 1,000


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(error):
    finished: list[list[int]] = []

    def run(batch):
        if sum(lengths[i] for i in batch) > 20:
            raise error
        finished.append(batch)

    lengths = [10, 10, 10, 50, 10, 10, 10, 10, 10]
    assert run_batches(lengths, 100, run) == [3]  # too long even alone
    assert sorted(i for batch in finished for i in batch) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert max(map(len, finished)) == 2  # 80 tokens, then 40, then 20


def test_a_lowered_budget_holds_for_the_calls_that_follow():
    failed: list[int] = []
    finished: list[int] = []

    def run(batch):
        if 10 * len(batch) > 25:
            failed.append(len(batch))
            raise torch.OutOfMemoryError("CUDA out of memory")
        finished.append(len(batch))

    limit = BatchLimit()
    for _ in range(3):
        assert run_batches([10] * 8, 100, run, limit) == []
    assert failed == [8, 4]  # 80 tokens, then 40, in the first call alone
    assert finished == [2] * 12
    run_batches([10] * 3, 10, run, limit)
    assert finished[12:] == [1] * 3  # what is asked for is less still


def test_other_errors_are_not_swallowed():
    def run(batch):
        raise RuntimeError("index out of range")

    with pytest.raises(RuntimeError, match="index"):
        run_batches([1], 10, run)
