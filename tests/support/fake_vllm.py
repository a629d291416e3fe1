"""A stand-in for the package `vllm`, with the true log-probabilities of a tiny checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from tests.support.checkpoints import reference_model

WINDOW = 256  # of the tiny checkpoints


class SamplingParams:
    def __init__(self, *, max_tokens: int, temperature: int, logprob_token_ids: list[int]) -> None:
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.logprob_token_ids = logprob_token_ids


class FakeVLLM(ModuleType):
    """The module `vllm`. `engines`, `prompts` and `sampling` record how it is used.

    `change(number, logprobs)` may change what it returns for the prompt of that number, from 1.
    """

    SamplingParams = SamplingParams

    def __init__(self) -> None:
        super().__init__("vllm")
        self.__spec__: Any = SimpleNamespace(name="vllm")
        self.engines: list[dict[str, Any]] = []
        self.prompts: list[list[int]] = []
        self.sampling: list[SamplingParams] = []
        self.change: Callable[[int, dict[int, Any]], dict[int, Any]] = lambda _, logprobs: logprobs

    def LLM(self, model: str, **options: Any) -> Engine:
        self.engines.append({"model": model, **options})
        if options["max_model_len"] > WINDOW:
            raise ValueError(
                "User-specified max_model_len is greater than the derived max_model_len"
            )
        return Engine(self, Path(model), options["max_model_len"])


class Engine:
    def __init__(self, module: FakeVLLM, folder: Path, max_model_len: int) -> None:
        self.module = module
        self.model = reference_model(folder)
        self.max_model_len = max_model_len

    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: SamplingParams,
        *,
        use_tqdm: bool,
    ) -> list[SimpleNamespace]:
        self.module.sampling.append(sampling_params)
        return [self.answer(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    def answer(self, ids: list[int], sampling: SamplingParams) -> SimpleNamespace:
        assert len(ids) + sampling.max_tokens <= self.max_model_len, "longer than max_model_len"
        self.module.prompts.append(ids)
        with torch.no_grad():
            every = self.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)
        sampled = int(every.argmax())
        logprobs = {
            token: SimpleNamespace(logprob=float(every[token]), rank=None)
            for token in {*sampling.logprob_token_ids, sampled}
        }
        changed = self.module.change(len(self.module.prompts), logprobs)
        completion = SimpleNamespace(token_ids=[sampled], logprobs=[changed])
        return SimpleNamespace(outputs=[completion])
