"""Batches of one fixed size, so that a text's result does not depend on the texts beside it.

A matrix product takes its sums in an order that depends on how many rows it has. On a CPU with AMX,
products of 768 x 768 in bfloat16 differ in their last bits between 32 and 64 rows, and so do those
of 2,048 x 768 in float32 on two threads. With one number of rows, a row's sum is the same wherever
it stands and whatever stands beside it. So each batch is filled up to its full size.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from deita_tasks.models.batch_progress import report_share
from deita_tasks.models.batches import BatchLimit, fits_in_memory, padded_width
from deita_tasks.models.stopping import raise_if_stopped

log = logging.getLogger(__name__)

LONG_TEXT_STEP = 1024  # tokens; a text over the size of a batch is filled up to a multiple


class FixedBatch(NamedTuple):
    """The positions of some texts, and the tokens that they are filled up to."""

    positions: list[int]
    tokens: int


Plan: TypeAlias = Callable[[Sequence[int], Sequence[int], int], list[FixedBatch]]


def run_fixed_batches(
    lengths: Sequence[int],
    tokens: int,
    run: Callable[[FixedBatch], None],
    plan: Plan,
    limit: BatchLimit,
) -> list[int]:
    """Call `run` with batches that cover every position of `lengths`.

    `plan(lengths, positions, tokens)` makes batches of `tokens` tokens. When memory runs out, their
    size is halved for the batches that follow, and for later calls with the same `limit`. Returns
    the positions of texts that did not fit even alone.
    """
    tokens = limit.lower(tokens)
    batches = deque(plan(lengths, range(len(lengths)), tokens))
    too_long: list[int] = []
    while batches:
        raise_if_stopped()
        batch = batches.popleft()
        if fits_in_memory(run, batch):
            left = sum(len(other.positions) for other in batches)
            report_share(len(lengths) - left, len(lengths))
            continue
        if len(batch.positions) == 1 and lengths[batch.positions[0]] > tokens // 2:
            too_long += batch.positions
            continue
        log.warning(
            "out of memory with a batch of %d tokens; continuing with %d tokens per batch, which "
            "can change the last digits of the values that follow",
            tokens,
            tokens // 2,
        )
        tokens //= 2
        limit.tokens = tokens
        rest = list(batch.positions)
        for other in batches:
            rest += other.positions
        batches = deque(plan(lengths, rest, tokens))
    return too_long


def plan_packed(lengths: Sequence[int], positions: Sequence[int], tokens: int) -> list[FixedBatch]:
    """Return batches whose texts stand one after the other, `tokens` tokens in all.

    Each text, the longest first, goes into the first batch that has room for it. A longer one is
    a batch of its own, of a size that depends on its length alone.
    """
    step = min(LONG_TEXT_STEP, tokens) or padded_width(1)
    batches: list[FixedBatch] = []
    rooms: list[int] = []
    first = 0  # the batches before this one are full
    for position in _longest_first(lengths, positions):
        length = lengths[position]
        if length > tokens:
            batches.append(FixedBatch([position], -(-length // step) * step))
            rooms.append(0)
            continue
        while first < len(rooms) and rooms[first] == 0:
            first += 1
        index = first
        while index < len(rooms) and rooms[index] < length:
            index += 1
        if index == len(rooms):
            batches.append(FixedBatch([], tokens))
            rooms.append(tokens)
        batches[index].positions.append(position)
        rooms[index] -= length
    return batches


def plan_padded(
    lengths: Sequence[int], positions: Sequence[int], tokens: int, multiple: int = 1
) -> list[FixedBatch]:
    """Return batches of one width, with the rows that fit in `tokens` tokens.

    A width has a whole `multiple` of rows, or one row.
    """
    batches: list[FixedBatch] = []
    width, rows = 0, 0
    for position in _longest_first(lengths, positions):
        needed = padded_width(lengths[position])
        if needed != width or len(batches[-1].positions) == rows:
            width = needed
            rows = tokens // width
            rows -= rows % multiple
            rows = max(rows, 1)
            batches.append(FixedBatch([], rows * width))
        batches[-1].positions.append(position)
    return batches


def _longest_first(lengths: Sequence[int], positions: Sequence[int]) -> list[int]:
    """Return `positions` by length, the longest first, so that memory runs out at the start."""
    return sorted(positions, key=lambda position: (-lengths[position], position))
