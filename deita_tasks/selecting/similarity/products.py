"""The products of a block of candidates with many rows, in float32, on a CPU or a GPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from deita_tasks.errors import UsageError
from deita_tasks.selecting.arrays import Floats, IndexPairs, Indices

if TYPE_CHECKING:
    import torch

RESERVED_FLOATS = 2**26  # 256 MB


class GrowingMatrix:
    """A float32 matrix that grows to at most `max_rows` rows, and copies none below 256 MB.

    It reserves the memory at once; memory that is not written yet costs nothing.
    """

    def __init__(self, columns: int, max_rows: int) -> None:
        self.count = 0
        self.max_rows = max_rows
        reserved_rows = min(max_rows, RESERVED_FLOATS // max(1, columns))
        self._buffer = np.empty((reserved_rows, columns), np.float32)

    @property
    def view(self) -> Floats:
        """The rows so far, (count, columns)."""
        return self._buffer[: self.count]

    def append(self, rows: Floats) -> None:
        """Add `rows` (b, columns), at most `max_rows` in all.

        Beyond the reserved memory they move to a larger buffer, which earlier views do not show.
        """
        end = self.count + len(rows)
        if end > len(self._buffer):
            columns = self._buffer.shape[1]
            larger_rows = min(self.max_rows, 2 * end)
            larger = np.empty((larger_rows, columns), np.float32)
            larger[: self.count] = self.view
            self._buffer = larger
        self._buffer[self.count : end] = rows
        self.count = end


class BlockProduct:
    """Multiplies blocks of candidates with the rows of a GrowingMatrix, in NumPy.

    All products go to one reused buffer: the page faults of fresh memory would cost up to a tenth
    of the product.
    """

    def __init__(self, rows: GrowingMatrix) -> None:
        self._rows = rows
        self._buffer = np.empty(0, np.float32)

    def largest(self, block: Floats) -> Floats:
        """Multiply `block` (b, columns) with the rows; return each row's largest product, (b,).

        -inf if there are no rows yet.
        """
        rows = self._rows.view
        shape = len(block), len(rows)
        size = len(block) * len(rows)
        if size > self._buffer.size:
            self._buffer = np.empty(2 * size, np.float32)
        self._products = self._buffer[:size].reshape(shape)
        np.matmul(block, rows.T, out=self._products)
        largest: Floats = self._products.max(axis=1, initial=-np.inf)
        return largest

    def pairs_at_least(
        self, block_rows: Indices, thresholds: Floats, max_pairs: float = np.inf
    ) -> IndexPairs | None:
        """Return every (row of the block, row) whose product is at least the block row's threshold.

        Looks only at `block_rows` of the last block. None if there are more than `max_pairs`. Each
        row is one short scan; a mask of all products would have to be written and read, for only a
        few rows.
        """
        matches: list[Indices] = []
        total = 0
        for row, threshold in zip(block_rows, thresholds, strict=True):
            indices = (self._products[row] >= threshold).nonzero()[0]
            matches.append(indices)
            total += len(indices)
            if total > max_pairs:
                return None
        rows = np.repeat(block_rows, [len(indices) for indices in matches])
        return rows, np.concatenate([np.empty(0, np.int64), *matches])


class TorchBlockProduct(BlockProduct):
    """Multiplies on a torch device. Each row is sent there once; maxima and pairs come back."""

    def __init__(self, rows: GrowingMatrix, device: str) -> None:
        import torch

        super().__init__(rows)
        self._torch = torch
        self._device_rows = torch.empty((0, rows.view.shape[1]), device=device)
        self._sent = 0

    def largest(self, block: Floats) -> Floats:
        """Return each row's largest product, float32 (b,) on the CPU; see BlockProduct.largest.

        The products themselves stay on the device, for `pairs_at_least`.
        """
        rows = self._send_new_rows()
        precision = self._torch.get_float32_matmul_precision()
        # The error bound is that of float32, not of TF32.
        self._torch.set_float32_matmul_precision("highest")
        try:
            self._device_products = self._torch.from_numpy(block).to(rows.device) @ rows.T
        finally:
            self._torch.set_float32_matmul_precision(precision)
        if not len(rows):
            return np.full(len(block), -np.inf, np.float32)
        largest = self._device_products.amax(dim=1)
        result: Floats = largest.cpu().numpy()
        return result

    def pairs_at_least(
        self, block_rows: Indices, thresholds: Floats, max_pairs: float = np.inf
    ) -> IndexPairs | None:
        """Return the pairs as int64 arrays on the CPU; see BlockProduct.pairs_at_least.

        The number of pairs is known before any of them is copied from the device.
        """
        products = self._device_products
        rows = self._torch.from_numpy(block_rows).to(products.device)
        lowest = self._torch.from_numpy(thresholds).to(products.device)
        at_least = products[rows] >= lowest[:, None]
        if int(at_least.sum()) > max_pairs:
            return None
        place, index = at_least.nonzero(as_tuple=True)
        return block_rows[place.cpu().numpy()], index.cpu().numpy()

    def _send_new_rows(self) -> torch.Tensor:
        """Return all rows so far on the device, (count, columns); only new ones are copied."""
        rows = self._rows.view
        count, columns = rows.shape
        sent = self._sent
        if count > len(self._device_rows):
            larger = self._device_rows.new_empty((2 * count, columns))
            larger[:sent] = self._device_rows[:sent]
            self._device_rows = larger
        new_rows = self._torch.from_numpy(rows[sent:])
        self._device_rows[sent:count] = new_rows.to(self._device_rows.device)
        self._sent = count
        return self._device_rows[:count]


def has_cuda_driver() -> bool:
    """Return whether NVIDIA's driver can be loaded.

    If not, torch need not be loaded: it takes 2 s to import and say that it has no GPU.
    """
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def block_product_for(device: str) -> Callable[[GrowingMatrix], BlockProduct]:
    """Return what creates a BlockProduct on `device`: "cpu", "cuda", "cuda:1" or "auto".

    "auto" is CUDA if this machine has it, else the CPU. On the CPU NumPy multiplies: with 2 Zen 3
    cores its OpenBLAS reaches 140-150 GFLOP/s at these shapes, torch's MKL 100-120. Raises
    UsageError for a device that is not there.
    """
    if device == "cpu" or (device == "auto" and not has_cuda_driver()):
        return BlockProduct
    import torch

    if torch.cuda.is_available():
        cuda = "cuda" if device == "auto" else device
        return lambda rows: TorchBlockProduct(rows, cuda)
    if device != "auto":
        raise UsageError(
            f"device {device!r}: torch {torch.__version__} finds no CUDA device here; use "
            "'auto' or 'cpu'"
        )
    return BlockProduct
