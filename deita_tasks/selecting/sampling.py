"""A reproducible sample of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.selecting.arrays import Indices

POOL_SAMPLE = 500  # rows that stand for a pool of which not every row is scored


def smallest_ids(ids: Sequence[str] | pa.Array | pa.ChunkedArray, count: int) -> Indices:
    """Return the positions of the `count` smallest `ids`, smallest id first.

    Ids are digests, so these rows are a random sample, and the same one for any order of the rows.
    """
    column = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string())
    positions = pc.sort_indices(column)[:count].to_numpy()
    return np.asarray(positions, np.int64)
