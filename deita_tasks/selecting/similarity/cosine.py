"""Kept rows by cosine similarity, with far fewer multiplications than all pairs have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deita_tasks.errors import UsageError
from deita_tasks.selecting.arrays import Array, Floats, IndexPairs, Indices, Mask
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import (
    exact_similarities,
    largest_per_row,
    screening_error,
)
from deita_tasks.selecting.similarity.limit import KeptRows
from deita_tasks.selecting.similarity.products import BlockProduct, GrowingMatrix, block_product_for

# An exact similarity costs about as much as this many products within a matrix product. Measured at
# d = 384 to 4096.
PAIR_COST = 100
MIN_SKETCH_WIDTH = 8
BLOCK_ROWS = 1024  # compared at once


class CosineKeptRows(KeptRows):
    """Finds the nearest kept rows with a quarter of the arithmetic of the full matrix product.

    A row's sketch is its first s - 1 components and the norm of the rest. By the Cauchy-Schwarz
    inequality, the product of two sketches is at least that of the rows. So a pair whose sketches
    stay under the limit needs no more work. For two rows of similarity c, the product of sketches
    is near c s/d + 1 - s/d: under a limit of 0.9, with s = d/4, for most rows that have little to
    do with each other. The few pairs left get their exact similarity. If they are not few (a low
    limit, or rows that are all alike), sketches of d/2 follow, then the full product.
    """

    def __init__(
        self,
        reader: EmbeddingReader,
        max_rows: int,
        max_similarity: float,
        new_product: Callable[[GrowingMatrix], BlockProduct],
    ) -> None:
        dimensions = reader.dimensions
        self.limit = np.float32(max_similarity)
        self._reader = reader
        self._error = screening_error(dimensions)
        self._rows = GrowingMatrix(dimensions, max_rows)
        self._new_product = new_product
        self._product = new_product(self._rows)
        self._set_sketch_width(dimensions // 4)

    @property
    def sketch_width(self) -> int | None:
        """The width of the sketches in use; None if the full product is."""
        return self._width if self._sketches is not None else None

    def read(self, positions: Indices) -> tuple[Floats, Mask]:
        """Return the rows, normalised; see KeptRows.read."""
        return self._reader.read(positions)

    def append(self, rows: Floats) -> None:
        """Add `rows` (b, d), and their sketches, to the kept rows."""
        self._rows.append(rows)
        if self._sketches is not None:
            self._sketches.append(sketch(rows, self._width))
        self.count = self._rows.count

    def nearest_kept(self, rows: Floats) -> tuple[Floats, Indices]:
        """Return the most similar kept rows, by sketches if they help; see KeptRows."""
        pairs = self._pairs_by_sketches(rows)
        if pairs is None:
            pairs = self._pairs_by_products(rows)
        similarities = self.exact(rows, self._rows.view, pairs)
        return largest_per_row(similarities, pairs, len(rows))

    def approximate(self, left: Floats, right: Floats) -> tuple[Floats, float]:
        """Return the float32 products, (b, k), and one error bound; see KeptRows.approximate."""
        return left @ right.T, self._error

    def exact(self, left: Floats, right: Floats, pairs: IndexPairs) -> Floats:
        """Return the cosines of the pairs, float32 (p,); see KeptRows.exact."""
        return exact_similarities(left, right, pairs)

    def _pairs_by_sketches(self, block: Floats) -> IndexPairs | None:
        """Return all pairs that may exceed the limit; None if too many to be worth it."""
        if self._sketches is None:
            return None
        threshold = self.limit - self._error
        sketches = sketch(block, self._width)
        largest = self._sketch_product.largest(sketches)
        may_exceed_limit = largest >= threshold
        rows = np.flatnonzero(may_exceed_limit)
        size = len(block)
        max_pairs = max(4 * size, size * self.count // PAIR_COST // 2)
        thresholds = np.full(len(rows), threshold)
        pairs = self._sketch_product.pairs_at_least(rows, thresholds, max_pairs)
        if pairs is None:
            self._set_sketch_width(2 * self._width)
        return pairs

    def _pairs_by_products(self, block: Floats) -> IndexPairs:
        """Return, for each row that may exceed the limit, the pairs that may be its closest."""
        largest = self._product.largest(block)
        may_exceed_limit = largest >= self.limit - self._error
        rows = np.flatnonzero(may_exceed_limit)
        thresholds = largest[rows] - np.float32(2 * self._error)
        pairs = self._product.pairs_at_least(rows, thresholds)
        assert pairs is not None
        return pairs

    def _set_sketch_width(self, width: int) -> None:
        """Sketch all kept rows anew; use no sketches if `width` is too small or over d/2."""
        self._width = width
        self._sketches: GrowingMatrix | None = None
        max_width = self._reader.dimensions // 2
        if not MIN_SKETCH_WIDTH <= width <= max_width:
            return
        self._sketches = GrowingMatrix(width, self._rows.max_rows)
        self._sketches.append(sketch(self._rows.view, width))
        self._sketch_product = self._new_product(self._sketches)


def nearest_above(
    rows: Array, texts: Array, limit: float, device: str = "auto"
) -> list[tuple[int, int, float]]:
    """Return (row, text, similarity) of each row above `limit`, with the most similar text.

    rows: (n, d), may be a memory map. texts: (m, d). Of equally similar texts the first counts.
    Vectors that cannot be compared are near to nothing. Raises UsageError for other widths.
    """
    reader, of_texts = EmbeddingReader(rows, len(rows)), EmbeddingReader(texts, len(texts))
    if reader.dimensions != of_texts.dimensions:
        raise UsageError(
            f"texts with vectors of {of_texts.dimensions} dimensions, where the pool's have "
            f"{reader.dimensions}; expected those of the same embedder"
        )
    vectors, is_usable = of_texts.read(np.arange(len(texts)))
    numbers = np.flatnonzero(is_usable)
    if not len(numbers):
        return []
    kept = CosineKeptRows(reader, len(numbers), limit, block_product_for(device))
    kept.append(vectors[numbers])
    found = []
    for start in range(0, len(rows), BLOCK_ROWS):
        positions = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
        block, comparable = reader.read(positions)
        similarities, nearest = kept.nearest_kept(block)
        for row in np.flatnonzero(comparable & kept.exceeds_limit(similarities)):
            text = int(numbers[nearest[row]])
            found.append((start + int(row), text, float(similarities[row])))
    return found


def sketch(rows: Floats, width: int) -> Floats:
    """Return the first width - 1 components of each row and the norm of the rest, rounded up.

    Float32 (n, width).
    """
    first = rows[:, : width - 1]
    rest = rows[:, width - 1 :].astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", rest, rest)) * (1 + 2.0**-22)
    norm_column = norms[:, None].astype(np.float32)
    return np.hstack((first, norm_column))
