"""Fuse the elementwise parts of a decoder by torch.compile.

Between its matrix products a decoder reads and writes each number several times: a norm, an
activation, a product with a gate. Compiled, each of these reads and writes once. Only batches of
the usual size are compiled, so the compiler never runs again for a batch: a text longer than a
batch, whose size is its own, goes through the modules as they are written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

FUSED = ("RMSNorm", "MLP")  # ends of the names of such modules in transformers
# Without it the compiler may time several kernels, and take another one in the next process.
DETERMINISTIC: dict[str, str | int | bool | Callable[..., Any]] = {"deterministic": True}


def compile_elementwise(base: torch.nn.Module, tokens: int) -> list[str]:
    """Compile the norms and MLPs of a decoder for packed batches of `tokens` tokens.

    Returns the names of their classes, sorted. The first such batch waits for the compiler.
    """
    names = set()
    for module in base.modules():
        name = type(module).__name__
        if name.endswith(FUSED):
            module.forward = _for_full_batches(module.forward, tokens)  # type: ignore[method-assign]
            names.add(name)
    return sorted(names)


def _for_full_batches(forward: Callable[..., Any], tokens: int) -> Callable[..., Any]:
    """Return a module's `forward`, compiled for hidden states of (1, tokens, ...)."""
    compiled = torch.compile(forward, dynamic=False, options=DETERMINISTIC)

    def choose(hidden_states: torch.Tensor) -> Any:
        """Run the compiled code on batches of the usual size: others would compile it again."""
        is_full = hidden_states.shape[:2] == (1, tokens)
        return compiled(hidden_states) if is_full else forward(hidden_states)

    return choose
