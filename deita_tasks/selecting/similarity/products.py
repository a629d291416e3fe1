"""A block of candidates against many rows, as one float32 matrix product: on the CPU, or on a GPU
where there is one.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from deita_tasks.errors import UsageError
from deita_tasks.selecting.similarity.exact import Floats, Indices, Pairs

if TYPE_CHECKING:
    import torch


class Rows:
    """A matrix of float32 that grows in rows, `most` of them at most, and copies none while it is
    under 256 MB.

    (Memory that is reserved and not written yet costs nothing.)
    """

    def __init__(self, columns: int, most: int) -> None:
        self.count = 0
        self.most = most
        self._room = np.empty((min(most, 2**26 // max(1, columns)), columns), np.float32)

    @property
    def view(self) -> Floats:
        """The rows so far, (count, columns)."""
        return self._room[: self.count]

    def append(self, rows: Floats) -> None:
        end = self.count + len(rows)
        if end > len(self._room):
            room = np.empty((min(self.most, 2 * end), self._room.shape[1]), np.float32)
            room[: self.count] = self.view
            self._room = room
        self._room[self.count : end] = rows
        self.count = end


class Screen:
    """Multiplies blocks with `rows`, whatever those have grown to, in NumPy.

    The products go to one buffer, which every block reuses: the page faults of fresh memory would
    cost as much as a tenth of the product.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._buffer = np.empty(0, np.float32)

    def compare(self, block: Floats) -> Floats:
        """The largest product of each row of `block` (b, columns) with one of the rows, (b,); -inf
        where there are none.
        """
        rows = self._rows.view
        size = len(block) * len(rows)
        if size > self._buffer.size:
            self._buffer = np.empty(2 * size, np.float32)
        self._products = self._buffer[:size].reshape(len(block), len(rows))
        np.matmul(block, rows.T, out=self._products)
        largest: Floats = self._products.max(axis=1, initial=-np.inf)
        return largest

    def near(self, asked: Indices, thresholds: Floats, most: float = np.inf) -> Pairs | None:
        """Of the rows `asked` of the block last compared: (row of the block, row) of every product
        at or over the row's threshold.

        None where there are more than `most`. (Each row is one short scan. A mask of all products
        would have to be written and read, for the few rows that are asked for.)
        """
        found: list[Indices] = []
        total = 0
        for row, threshold in zip(asked, thresholds, strict=True):
            found.append((self._products[row] >= threshold).nonzero()[0])
            total += len(found[-1])
            if total > most:
                return None
        return np.repeat(asked, [len(indices) for indices in found]), np.concatenate(
            [np.empty(0, np.int64), *found]
        )


class TorchScreen(Screen):
    """Multiplies on a torch device, to which each of the rows goes once; only maxima and near pairs
    come back.
    """

    def __init__(self, rows: Rows, device: str) -> None:
        import torch

        super().__init__(rows)
        self._torch = torch
        self._there = torch.empty((0, rows.view.shape[1]), device=device)
        self._sent = 0

    def compare(self, block: Floats) -> Floats:
        rows = self._send()
        precision = self._torch.get_float32_matmul_precision()
        self._torch.set_float32_matmul_precision(
            "highest"
        )  # the error bound is float32's, not TF32's
        try:
            self._products_there = self._torch.from_numpy(block).to(rows.device) @ rows.T
        finally:
            self._torch.set_float32_matmul_precision(precision)
        if not len(rows):
            return np.full(len(block), -np.inf, np.float32)
        largest: Floats = self._products_there.amax(dim=1).cpu().numpy()
        return largest

    def near(self, asked: Indices, thresholds: Floats, most: float = np.inf) -> Pairs | None:
        products = self._products_there
        rows, least = (
            self._torch.from_numpy(array).to(products.device) for array in (asked, thresholds)
        )
        at_least = products[rows] >= least[:, None]
        if int(at_least.sum()) > most:
            return None
        place, index = at_least.nonzero(as_tuple=True)
        return asked[place.cpu().numpy()], index.cpu().numpy()

    def _send(self) -> torch.Tensor:
        rows = self._rows.view
        if len(rows) > len(self._there):
            there = self._there.new_empty((2 * len(rows), rows.shape[1]))
            there[: self._sent] = self._there[: self._sent]
            self._there = there
        self._there[self._sent : len(rows)] = self._torch.from_numpy(rows[self._sent :]).to(
            self._there.device
        )
        self._sent = len(rows)
        return self._there[: self._sent]


def has_cuda_driver() -> bool:
    """Whether NVIDIA's driver can be loaded. Where it cannot, torch need not be: it takes 2 s to
    import and say that it has no GPU.
    """
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def screens_on(device: str) -> Callable[[Rows], Screen]:
    """What makes Screens for `device`: "cpu", "cuda" or "cuda:1", "auto" for CUDA where there is
    one. UsageError for one that is not.

    On the CPU it is NumPy's: with 2 Zen 3 cores its OpenBLAS makes 140-150 GFLOP/s at these shapes,
    torch's MKL 100-120.
    """
    if device == "cpu" or (device == "auto" and not has_cuda_driver()):
        return Screen
    import torch

    if torch.cuda.is_available():
        return lambda rows: TorchScreen(rows, "cuda" if device == "auto" else device)
    if device != "auto":
        raise UsageError(
            f"device {device!r}: torch {torch.__version__} finds no CUDA device here; use "
            "'auto' or 'cpu'"
        )
    return Screen
