"""Where a model runs, with which number type, and in batches of which size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from deita_tasks.errors import UsageError

if TYPE_CHECKING:
    import torch

# Types of options that several components have.
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Annotated[
    str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, ...")
]
BatchTokens: TypeAlias = Annotated[
    int | None, Field(ge=1, description="tokens per batch, padding included; default: by device")
]


def choose_device(device: str) -> str:
    """Return `device`; for "auto" the CUDA device if there is one, else the CPU."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_device(device: str) -> str:
    """Return the device as `choose_device` does, and check that it is there.

    Raises UsageError for a CUDA device that this process does not see, before any weights are read.
    """
    import torch

    device = choose_device(device)
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return device
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise UsageError(
            f"device = {device!r}: torch {torch.__version__} sees {count} CUDA devices; use auto "
            "or cpu"
        )
    return device


def choose_dtype(dtype: Dtype, device: str) -> str:
    """Return `dtype`; for "auto" bfloat16 if the hardware multiplies it natively, else float32.

    CUDA devices do, and CPUs with AMX. bfloat16 moves a score by up to 0.02, and its rounding
    depends on the hardware and the number of threads. Use float32 if results must agree to 1e-5 on
    every machine.
    """
    if dtype != "auto":
        return dtype
    device = choose_device(device)
    native = device.startswith("cuda") or (device == "cpu" and _has_amx())
    return "bfloat16" if native else "float32"


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch number type called `name`, such as "bfloat16"; not "auto"."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def default_batch_tokens(device: str) -> int:
    """Return the tokens per batch, padding included, that suit a device.

    Enough to keep it busy, few enough for the caches of a CPU or the memory of a GPU. On a CPU with
    512 KB of L2, 256 to 1,024 tokens were equally fast, for a 110M LLaMA and for a 22M MiniLM;
    2,048 took 30% longer.
    """
    return 1024 if device == "cpu" else 32768


def tokens_per_batch(device: str, dtype: str, wanted: int | None) -> int:
    """Return the tokens of a batch: `wanted`, or by default what suits the device.

    `wanted` counts for nothing where it would change how products are rounded.
    """
    if wanted is None or rounds_by_rows(device, dtype):
        return default_batch_tokens(device)
    return wanted


def rounds_by_rows(device: str, dtype: str) -> bool:
    """Return whether a product of matrices is rounded depending on how many rows it has.

    Measured: in bfloat16, on a CPU with AMX; in float32 on one thread it is not.
    """
    return device == "cpu" and dtype != "float32"


def free_memory(device: str) -> int:
    """Return the bytes of models that a device takes: cpu, or cuda-0 by the machine's number.

    The free memory of a GPU that this process sees; of a CPU, half of the machine's memory.
    """
    import torch

    kind, _, number = device.partition("-")
    index = int(number) if number.isdigit() else 0
    if kind == "cuda" and index < torch.cuda.device_count():
        free, _total = torch.cuda.mem_get_info(index)
        return int(free)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def batch_threads(device: str) -> int | None:
    """Return how many batches `run_batches` computes at a time: torch's threads on a CPU.

    None on other devices: one at a time, in the caller's thread.
    """
    import torch

    return torch.get_num_threads() if device == "cpu" else None


def fixed_batch_tokens(device: str, gpu_tokens: int) -> int:
    """Return the tokens of every batch of a decoder: 1,024 on a CPU, else `gpu_tokens`.

    A product's last bits depend on this number, so on a CPU no option changes it. A number that
    cannot be cut into equal pieces for the threads is rounded up: elementwise functions take the
    last few numbers of a piece by another formula, so a piece must end where a vector does.
    """
    import torch

    if device != "cpu":
        return gpu_tokens
    step = 8 * torch.get_num_threads()
    return -(-1024 // step) * step


def _has_amx() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware; False if torch cannot tell."""
    import torch

    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # no public name up to torch 2.13
    return bool(probe and probe())
