"""Times complexity, quality and embedding by `causal_lm` on a GPU, and the other ways beside it.

    python benchmarks/bench_gpu.py --device cuda
    python benchmarks/bench_gpu.py --device cuda --pool pool_100k.jsonl.xz --compile
    python benchmarks/bench_gpu.py                     # a toy on a CPU, to try the command

On a GPU the checkpoint is a LLaMA of 7B shape in bfloat16, on a CPU a toy in float32, both with
random weights. The ways, each over the same texts, by turns:

- causal_lm: as this project computes them, without and with --compile
- padded: batches of 8 and 32 in the order of the pool, padded on the left, as most scripts do
- one by one: the original's loop, `generate` for a score and a whole pass for a vector
- vLLM: its prefill of the same prompts, where vLLM is installed (an environment of its own)

It prints texts and tokens a second, the share of the machine's own rate of a large matrix product
(of the operations that are needed, so padding is no work), and the peak of the GPU's memory. Each
way takes the time that --seconds gives it: slow ways read a sample of the texts, every n-th by
length. Set --batch-tokens for a card of 24 GB.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from models import (
    LLAMA_7B,
    TOY,
    Shape,
    count_operations,
    elapsed,
    every_nth,
    list_computed_texts,
    matmul_ceiling,
    sample_conversations,
    save_random_llama,
)
from transformers.utils.logging import disable_progress_bar

from deita_tasks.conversations import Conversation
from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.causal_lm import CausalLMEmbedder
from deita_tasks.records import ScoreKind
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.causal_lm import CausalLMScorer

Texts = list[list[int]]
WINDOW = 2048


class Task(NamedTuple):
    """Texts of one kind as token ids, and how `causal_lm` computes them.

    `load(compiled)` returns the component; `run(component, count)` computes the first texts.
    """

    name: str
    texts: Texts
    load: Callable[[bool], Any]
    run: Callable[[Any, int], object]


class Timing(NamedTuple):
    """What a way took for some of the texts: seconds, and bytes of the GPU at the peak."""

    texts: Texts
    seconds: float
    peak: int


def main() -> None:
    options = parse_options()
    disable_progress_bar()
    torch.manual_seed(0)
    shape = TOY if options.device == "cpu" else LLAMA_7B
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    rows = sample_conversations(options.pool, options.conversations)
    with tempfile.TemporaryDirectory() as name:
        folder = save_random_llama(Path(name), shape, dtype, options.device)
        ceiling = matmul_ceiling(dtype, options.device)
        print(f"{describe_machine(options.device)}; matrix products {ceiling / 1e12:.2f} TFLOP/s")
        for task in make_tasks(folder, rows, options):
            time_task(task, folder, shape, ceiling, options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", help="file to draw conversations from")
    parser.add_argument("--conversations", type=int, help="how many; default: 6000, on a CPU 48")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-tokens", type=int, help="of causal_lm; default: its own")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each way, about")
    options = parser.parse_args()
    if options.conversations is None:
        options.conversations = 48 if options.device == "cpu" else 6000
    return options


def describe_machine(device: str) -> str:
    if device == "cpu":
        return f"{torch.get_num_threads()} threads of a CPU, float32"
    return f"{torch.cuda.get_device_name(device)}, bfloat16, torch {torch.__version__}"


def make_tasks(
    folder: Path, rows: Sequence[Conversation], options: argparse.Namespace
) -> list[Task]:
    """Return the three kinds of work of preset paper."""
    shared = {
        "model": str(folder),
        "device": options.device,
        "dtype": "float32" if options.device == "cpu" else "bfloat16",
        "batch_tokens": options.batch_tokens,
        "max_length": WINDOW,
    }
    pairs = [pair for row in rows for pair in row.pairs][: len(rows)]

    def scoring(kind: ScoreKind) -> Task:
        def load(compiled: bool) -> CausalLMScorer:
            return cast(
                CausalLMScorer, load_scorer("causal_lm", kind=kind, compile=compiled, **shared)
            )

        tokens = load(False).encoder.tokenize(pairs)
        texts = [text.ids for text in tokens]
        return Task(kind, texts, load, lambda scorer, count: scorer.compute(pairs[:count]))

    def load_embedding(compiled: bool) -> CausalLMEmbedder:
        return cast(CausalLMEmbedder, load_embedder("causal_lm", compile=compiled, **shared))

    texts = [text.ids for text in load_embedding(False)._tokenize(rows)]
    embedding = Task(
        "embedding", texts, load_embedding, lambda embedder, count: embedder.compute(rows[:count])
    )
    return [scoring("complexity"), scoring("quality"), embedding]


def time_task(
    task: Task, folder: Path, shape: Shape, ceiling: float, options: argparse.Namespace
) -> None:
    """Time each way over a task's texts, and print a table of Markdown."""
    mean = sum(map(len, task.texts)) / len(task.texts)
    print(f"\n{task.name}: {len(task.texts):,} texts, {mean:.0f} tokens on average\n")
    print("| | texts/s | tokens/s | share of the matrix rate | peak memory, GB |")
    print("|---|---|---|---|---|")

    def show(name: str, timing: Timing, operations: float) -> None:
        tokens = sum(map(len, timing.texts))
        share = operations / timing.seconds / ceiling
        peak = f"{timing.peak / 1e9:.1f}" if timing.peak else ""
        print(
            f"| {name} | {len(timing.texts) / timing.seconds:,.1f} "
            f"| {tokens / timing.seconds:,.0f} | {share:.0%} | {peak} |",
            flush=True,
        )

    for compiled in (False, True) if options.compile else (False,):
        name = "causal_lm, compiled" if compiled else "causal_lm"
        timing, operations = time_causal_lm(task, compiled, shape, options)
        show(name, timing, operations)
    for name, timing in time_others(task, folder, options):
        show(name, timing, sum(count_operations(len(text), 0, shape) for text in timing.texts))


def time_causal_lm(
    task: Task, compiled: bool, shape: Shape, options: argparse.Namespace
) -> tuple[Timing, float]:
    """Time `causal_lm` over as many texts as it computes in the time; count its operations."""
    component = task.load(compiled)
    model = component._model.get(component._load_model)
    first = max(1, len(task.texts) // 16)
    task.run(component, first)  # kernels are chosen, memory is reserved
    seconds = elapsed(lambda: task.run(component, first), options.device)
    count = min(len(task.texts), max(1, int(first * options.seconds / seconds)))
    timing = measure(lambda: task.run(component, count), task.texts[:count], options.device)
    computed = list_computed_texts(model, timing.texts)
    operations = sum(count_operations(length, skipped, shape) for length, skipped in computed)
    component.release()
    free()
    return timing, operations


def time_others(task: Task, folder: Path, options: argparse.Namespace) -> list[tuple[str, Timing]]:
    """Time the ways that are not ours, each over a sample of the texts."""
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = model.to(options.device).eval()
    ways: dict[str, tuple[int, Callable[[Texts], object]]] = {
        f"padded, {rows} at a time": (rows, padded(model, rows, task.name)) for rows in (8, 32)
    }
    ways["one by one"] = (1, one_by_one(model, task.name))
    timings = []
    with torch.inference_mode():
        for name, (rows, run) in ways.items():
            try:
                timings.append((name, time_sample(run, task.texts, rows, options)))
            except torch.OutOfMemoryError:
                print(f"| {name} | out of memory | | | |", flush=True)
    del model, ways, run
    free()
    if importlib.util.find_spec("vllm"):
        timings.append(("vLLM, prefill", time_vllm(folder, task.texts, options)))
    return timings


def time_sample(
    run: Callable[[Texts], object], texts: Texts, rows: int, options: argparse.Namespace
) -> Timing:
    """Time a way over as many texts as it computes in the time, at least one batch."""
    trial = [texts[i] for i in every_nth([len(text) for text in texts], 2 * rows)]
    run(trial)
    seconds = elapsed(lambda: run(trial), options.device) / len(trial)
    count = min(len(texts), max(rows, int(options.seconds / seconds)))
    # in the order of the pool: a script that does not sort by length pads as much
    sample = [texts[i] for i in sorted(every_nth([len(text) for text in texts], count))]
    return measure(lambda: run(sample), sample, options.device)


def measure(run: Callable[[], object], texts: Texts, device: str) -> Timing:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds = elapsed(run, device)
    peak = 0 if device == "cpu" else torch.cuda.max_memory_allocated()
    return Timing(texts, seconds, peak)


def padded(model: Any, rows: int, task: str) -> Callable[[Texts], object]:
    """Return plain batches: padded on the left to their longest text, with a mask."""

    def run(texts: Texts) -> None:
        for start in range(0, len(texts), rows):
            batch = texts[start : start + rows]
            width = max(map(len, batch))
            ids = torch.tensor([[0] * (width - len(text)) + text for text in batch])
            mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in batch])
            inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
            if task == "embedding":
                model.base_model(**inputs, use_cache=False).last_hidden_state[:, -1].float().cpu()
            else:
                model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1].float().cpu()

    return run


def one_by_one(model: Any, task: str) -> Callable[[Texts], object]:
    """Return the original's loop: two generated tokens for a score, all states for a vector."""

    def score(ids: torch.Tensor) -> None:
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=2,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=0,
        )
        output.scores[0][0].float().cpu()

    def embed(ids: torch.Tensor) -> None:
        model(ids, output_hidden_states=True).hidden_states[-1][0, -1].float().cpu()

    compute = embed if task == "embedding" else score

    def run(texts: Texts) -> None:
        for text in texts:
            compute(torch.tensor([text], device=model.device))

    return run


def time_vllm(folder: Path, texts: Texts, options: argparse.Namespace) -> Timing:
    """Time vLLM's prefill: one token generated for each prompt, its prefix cache on."""
    from vllm import LLM, SamplingParams

    engine = LLM(model=str(folder), max_model_len=WINDOW + 1, enable_prefix_caching=True)
    sampling = SamplingParams(max_tokens=1, temperature=0.0)

    def run(some: Texts) -> None:
        engine.generate([{"prompt_token_ids": text} for text in some], sampling, use_tqdm=False)

    timing = time_sample(run, texts, 256, options)
    return timing._replace(peak=0)  # it takes all memory that it is given


def free() -> None:
    """Give memory back before the next model is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
