"""Cosine: the nearest kept row is the same whether sketches or full products find it, and both of
them are used.
"""

import numpy as np
import pytest

from deita_tasks.selecting.similarity.cosine import CosineKeptRows
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.products import BlockProduct
from tests.selecting.test_diverse import select
from tests.support.selection_pools import row_ids
from tests.support.selection_reference import sequential


def rows_of_similarity(mean, n, dimensions, seed=0):
    """Rows whose similarities to one another are about `mean`, and for each tenth a near copy of an
    earlier one.
    """
    rng = np.random.default_rng(seed)
    rows = np.sqrt(mean) * rng.choice([-1, 1], dimensions) + np.sqrt(
        1 - mean
    ) * rng.standard_normal((n, dimensions))
    rows[10::10] = rows[rng.integers(0, 10, len(rows[10::10]))] + 0.1 * rng.standard_normal(
        (len(rows[10::10]), dimensions)
    )
    return rows.astype(np.float32)


@pytest.mark.parametrize(
    ("mean", "max_similarity", "width"),
    [(0, 0.9, 64), (0.7, 0.9, 128), (0.7, 0.75, None), (0, 0.3, None)],
)
def test_sketches_widen_where_they_settle_too_little(mean, max_similarity, width):
    raw, limit = rows_of_similarity(mean, 3000, 256), np.float32(max_similarity)
    space = CosineKeptRows(EmbeddingReader(raw, 3000), 3000, max_similarity, BlockProduct)
    rows, _ = space.read(np.arange(3000))
    for start in range(0, 3000, 250):
        block = rows[start : start + 250]
        similarity, index = space.nearest_kept(block)
        if start:
            products = block.astype(float) @ rows[:start].T.astype(float)
            near = products.max(axis=1) > limit
            assert near.any()
            assert (index == products.argmax(axis=1))[near].all()
            np.testing.assert_array_equal(
                similarity[near], products.max(axis=1).astype(np.float32)[near]
            )
            assert (similarity[~near] <= limit).all()
        space.append(block)
    assert space.sketch_width == width


@pytest.mark.parametrize("mean", [0, 0.7])
@pytest.mark.parametrize("max_similarity", [0.9, 0.75, 0.3])
@pytest.mark.parametrize("block_rows", [1, 32, 512])
def test_selects_by_the_sequential_rule_however_wide_the_sketches(mean, max_similarity, block_rows):
    rows, scores = rows_of_similarity(mean, 160, 64, seed=1), np.random.default_rng(2).random(160)
    expected = sequential(row_ids(160), scores, rows, 90, max_similarity)
    assert select(row_ids(160), scores, rows, 90, max_similarity, block_rows=block_rows) == expected
