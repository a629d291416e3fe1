"""Fuses the elementwise parts of a decoder on a GPU, by torch.compile.

Between its matrix products a decoder reads and writes each number several times: a norm, an
activation, a product of two gates. Compiled, each of them reads and writes once. Only batches of
one size are compiled, so nothing is compiled again by batch: texts longer than a batch, whose size
is their own, take the same modules as they were written.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

log = logging.getLogger(__name__)

FUSED = ("RMSNorm", "MLP")  # what the names of such modules end in, in transformers


def compile_elementwise(base: torch.nn.Module, tokens: int) -> list[str]:
    """Compile the norms and MLPs of a decoder for batches of `tokens` tokens in one row.

    Returns the names of their classes. The first batch waits for the compiler.
    """
    names = set()
    for module in base.modules():
        name = type(module).__name__
        if name.endswith(FUSED):
            _compile(module, tokens)
            names.add(name)
    return sorted(names)


def warm_up(run: Any, names: list[str], location: str) -> None:
    """Run a batch, so that the compiler works now; says in the log how long it took."""
    start = time.monotonic()
    run()
    seconds = time.monotonic() - start
    log.info("%s: compiled %s in %.0f s", location, ", ".join(names), seconds)


def _compile(module: torch.nn.Module, tokens: int) -> None:
    plain = module.forward
    compiled = torch.compile(plain, dynamic=False)

    def forward(hidden_states: torch.Tensor) -> Any:
        is_full = hidden_states.shape[:-1] == (1, tokens)
        return compiled(hidden_states) if is_full else plain(hidden_states)

    module.forward = forward  # type: ignore[method-assign]
