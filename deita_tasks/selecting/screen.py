"""Every row kept so far against a block of candidates, as one float32 matrix product: on the CPU, or on a GPU where there is one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deita_tasks.errors import UsageError
from deita_tasks.selecting.similarity import Pairs


class Screen:
    """Holds the kept rows, normalised, and says which of them come near the rows of a block. This one multiplies in NumPy.

    The products go to one buffer, which every block reuses: the page faults of fresh memory would cost as much as a tenth of the product.
    """

    def __init__(self, dimensions: int, most: int) -> None:
        self.count = 0
        self._most = most
        self._kept = np.empty((0, dimensions), np.float32)
        self._buffer = np.empty(0, np.float32)

    @property
    def kept(self) -> NDArray[np.float32]:
        """The rows so far, (count, d), in the order in which they came."""
        return self._kept[: self.count]

    def append(self, rows: NDArray[np.float32]) -> None:
        end = self.count + len(rows)
        if end > len(self._kept):
            self._reserve(end)
        self._kept[self.count : end] = rows
        self.count = end

    def compare(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """The largest product of each row of `block` (b, d) with a kept row, (b,); -inf where there is none."""
        size = len(block) * self.count
        if size > self._buffer.size:
            self._buffer = np.empty(len(block) * len(self._kept), np.float32)
        self._products = self._buffer[:size].reshape(len(block), self.count)
        np.matmul(block, self.kept.T, out=self._products)
        largest: NDArray[np.float32] = self._products.max(axis=1, initial=-np.inf)
        return largest

    def near(self, rows: NDArray[np.int64], thresholds: NDArray[np.float32]) -> Pairs:
        """Of the block last compared: (row, index of a kept row) of every product at or over the threshold of its row; only of `rows`.

        Row by row, as each is one short scan: a mask of all products would be written and read for the few rows that are asked for.
        """
        found = [np.flatnonzero(self._products[row] >= threshold) for row, threshold in zip(rows, thresholds, strict=True)]
        return np.repeat(rows, [len(indices) for indices in found]), np.concatenate([np.empty(0, np.int64), *found])

    def _reserve(self, rows: int) -> None:
        """Room for `rows` and as many again, but never for more than there can be: in all, each row is copied about once."""
        grown = np.empty((min(self._most, max(2 * rows, 1024)), self._kept.shape[1]), np.float32)
        grown[: self.count] = self.kept
        self._kept = grown


class TorchScreen(Screen):
    """A Screen that multiplies on a torch device, where the kept rows lie too; only maxima and near pairs come back to the host."""

    def __init__(self, dimensions: int, most: int, device: str) -> None:
        import torch

        self._torch, self._device = torch, device
        self._rows = torch.empty((0, dimensions), device=device)
        super().__init__(dimensions, most)

    def append(self, rows: NDArray[np.float32]) -> None:
        start = self.count
        super().append(rows)
        self._rows[start : self.count] = self._torch.from_numpy(rows).to(self._device)

    def compare(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        kept = self._rows[: self.count]
        if not len(kept):
            self._on_device = kept.new_empty((len(block), 0))
            return np.full(len(block), -np.inf, np.float32)
        precision = self._torch.get_float32_matmul_precision()
        self._torch.set_float32_matmul_precision("highest")  # the error bound is float32's, not TF32's
        try:
            self._on_device = self._torch.from_numpy(block).to(self._device) @ kept.T
        finally:
            self._torch.set_float32_matmul_precision(precision)
        largest: NDArray[np.float32] = self._on_device.amax(dim=1).cpu().numpy()
        return largest

    def near(self, rows: NDArray[np.int64], thresholds: NDArray[np.float32]) -> Pairs:
        wanted = self._torch.from_numpy(rows).to(self._device)
        least = self._torch.from_numpy(thresholds).to(self._device)
        place, index = (self._on_device[wanted] >= least[:, None]).nonzero(as_tuple=True)
        return rows[place.cpu().numpy()], index.cpu().numpy()

    def _reserve(self, rows: int) -> None:
        super()._reserve(rows)
        grown = self._rows.new_empty(self._kept.shape)
        grown[: self.count] = self._rows[: self.count]
        self._rows = grown


def open_screen(dimensions: int, most: int, device: str) -> Screen:
    """The Screen for `device`: "cpu", "cuda" or "cuda:1", or "auto" for CUDA where there is one. Raises UsageError for one that is absent.

    On the CPU it is NumPy's: with 2 Zen 3 cores its OpenBLAS makes 140-150 GFLOP/s at these shapes, torch's MKL 100-120.
    """
    if device == "cpu":
        return Screen(dimensions, most)
    import torch

    if torch.cuda.is_available():
        return TorchScreen(dimensions, most, "cuda" if device == "auto" else device)
    if device != "auto":
        raise UsageError(f"device {device!r}: torch {torch.__version__} finds no CUDA device here; use 'auto' or 'cpu'")
    return Screen(dimensions, most)
