"""Where a model runs and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from deita_tasks.errors import UsageError

if TYPE_CHECKING:
    import torch

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Annotated[
    str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, ...")
]


def choose_device(device: str) -> str:
    """`device` itself, or for "auto" the CUDA device if there is one, else the CPU."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def present_device(device: str) -> str:
    """As choose_device. Raises UsageError for a CUDA device that this process does not see: before
    weights are read for it.
    """
    import torch

    device = choose_device(device)
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device = {device!r}: torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices here; ask for auto or cpu"
        )
    return device


def choose_dtype(dtype: Dtype, device: str) -> str:
    """`dtype` itself, or for "auto" bfloat16 where the hardware multiplies it natively (CUDA, CPUs
    with AMX), else float32.

    bfloat16 moves a score by up to 0.02, and its rounding depends on the shape of the batch: where
    a result has to be the same to 1e-5 on every machine and in every batch, ask for float32.
    """
    if dtype != "auto":
        return dtype
    device = choose_device(device)
    if device.startswith("cuda"):
        return "bfloat16"
    return "bfloat16" if device == "cpu" and _has_amx() else "float32"


def torch_dtype(name: str) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def default_batch_tokens(device: str) -> int:
    """Tokens in a batch, padding included: enough to keep the device busy, few enough for its
    caches (CPU) or its memory (GPU).

    On a CPU with 512 KB of L2, 256 to 1,024 tokens were alike, for a 110M LLaMA and for a 22M
    MiniLM; 2,048 cost 30% more.
    """
    return 1024 if device == "cpu" else 32768


def _has_amx() -> bool:
    import torch

    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # no public name up to torch 2.13
    return bool(probe and probe())
