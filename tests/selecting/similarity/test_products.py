"""The products of blocks with many rows."""

import numpy as np

from deita_tasks.selecting.similarity.products import (
    BlockProduct,
    GrowingMatrix,
    TorchBlockProduct,
)


def test_torch_finds_the_products_that_numpy_finds():
    rng = np.random.default_rng(1)
    rows = GrowingMatrix(24, 3000)
    products = BlockProduct(rows), TorchBlockProduct(rows, "cpu")
    block_rows = np.arange(0, 50, 3)
    thresholds = np.full(17, 8.0, np.float32)
    for _ in range(4):
        block = rng.standard_normal((50, 24)).astype(np.float32)
        largest, torch_largest = (product.largest(block) for product in products)
        np.testing.assert_allclose(largest, torch_largest, rtol=1e-5)
        (row, index), (torch_row, torch_index) = (
            product.pairs_at_least(block_rows, thresholds) for product in products
        )
        assert row.tolist() == torch_row.tolist()
        assert index.tolist() == torch_index.tolist()
        for product in products:
            assert product.pairs_at_least(block_rows, thresholds, len(row)) is not None
            assert product.pairs_at_least(block_rows, thresholds, len(row) - 1) is None
        rows.append(rng.standard_normal((700, 24)).astype(np.float32))
    assert len(row) > 100
