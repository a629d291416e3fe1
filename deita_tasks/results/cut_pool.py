"""A pool whose long rows are cut at a turn, so that each fits the window of the training.

It is a pool like any other, with the same rows in the same order. A row that was cut has the id of
what is left of it, so scores and vectors are those of what the training reads; cuts.parquet names
the whole row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from deita_tasks import progress
from deita_tasks.artifacts.parts import StageParts
from deita_tasks.artifacts.pool import Pool, PoolSummary
from deita_tasks.artifacts.pool_writer import CutRow, Cuts, write_pool
from deita_tasks.artifacts.scores import ComputedValues
from deita_tasks.conversations import Conversation, Quarantined, SourceRow
from deita_tasks.errors import StorageError
from deita_tasks.filtering.training_window import cut_at_turn
from deita_tasks.loading import load_layouts
from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.shortened import with_shortened_row
from deita_tasks.models.token_counter import TokenCounter


class TurnCutter:
    """Cuts conversations at a turn, so that they fit a window of so many tokens."""

    def __init__(self, counter: TokenCounter, window: int) -> None:
        self._counter = counter
        self._window = window
        self._layouts: list[RowFormat] = load_layouts()

    def cut(self, whole: Conversation) -> Conversation | None:
        """Return what is left of a conversation that does not fit; None if it cannot be cut."""
        shorter = cut_at_turn(whole, self.fits)
        if shorter is None:
            return None
        return with_shortened_row(shorter, whole, self._layouts)

    def fits(self, conversation: Conversation) -> bool:
        """Return whether a conversation fits; not if the chat template cannot show it."""
        (count,) = self._counter.count([conversation])
        return not isinstance(count, str) and count.tokens <= self._window


def write_cut_pool(
    uri: str, pool: Pool, parts: StageParts, counter: TokenCounter, window: int
) -> PoolSummary:
    """Write the pool under `uri`: `pool` with its long rows cut.

    parts: the token counts of every distinct row of `pool`. A row that cannot be cut stays whole.
    """
    long = _long_ids(pool, parts, window)
    cutter = TurnCutter(counter, window)
    cuts = Cuts(pool.digest, [])

    def rows() -> Iterator[Conversation | Quarantined]:
        """Yield every row in the order of the pool, the long ones cut; adds each cut to `cuts`."""
        for position, whole in pool.read(np.arange(pool.summary.good)):
            shorter = cutter.cut(whole) if whole.id in long else None
            if shorter is not None:
                left_out = len(whole.turns) - len(shorter.turns)
                cuts.rows.append(CutRow(position, whole.id, left_out))
            progress.tick(1)
            yield shorter or whole
        yield from _quarantined(pool)

    return write_pool(uri, rows(), pool.summary.inputs, cuts)


def _long_ids(pool: Pool, parts: StageParts, window: int) -> set[str]:
    """Return the ids of the rows with more tokens than the window.

    Raises StorageError for a row that is in no part.
    """
    ids, _ = pool.distinct
    values = ComputedValues.read("tokens", pool, parts)
    if not values.is_computed.all():
        raise StorageError(f"{parts.part_set.uri}: some rows are in no part; run again")
    counts = values.take(np.arange(len(ids)))
    tokens = pc.list_element(counts["values"].filter(pc.is_valid(counts["values"])), 0)
    counted = ids.filter(pc.is_valid(counts["values"]))
    return set(counted.filter(pc.greater(tokens, window)).to_pylist())


def _quarantined(pool: Pool) -> Iterator[Quarantined]:
    """Yield the rows of the pool that could not be read, as they are: each has its source."""
    for row in pool.quarantine().to_pylist():
        source = SourceRow(row.pop("source_uri"), row.pop("source_row"))
        yield Quarantined(source, **row)
