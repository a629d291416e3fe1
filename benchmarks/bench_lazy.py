"""Measures how much of a pool `evaluation = lazy` computes, and how long it takes beside `all`.

    python benchmarks/bench_lazy.py --rows 10000
    python benchmarks/bench_lazy.py --pool pool_100k.jsonl.xz --no-wall
    python benchmarks/bench_lazy.py --pool pool_100k.jsonl.xz --tokenizer LLAMA_FOLDER

First it times `deita select` with preset mini, cold, with `lazy` and with `all`, and compares the
files that they write. Then it computes the scores of every row once, and replays the rounds over
them at budgets of 1%, 5% and 10% of the pool: for preset mini, and for preset paper with the mini
scores as stand-ins. The tokens of paper are counted with the tokenizer in --tokenizer, which is
that of the embedding model unless it is set.

--pool takes JSON Lines, also .xz; by default it generates conversations. --rows takes so many of
its rows, evenly spread.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

from bench_reuse import generate_conversations
from tokenizers import Tokenizer

from deita_tasks.artifacts.evaluation import Evaluation, LazyPlan, sample_rows
from deita_tasks.artifacts.parts import PartSet, ids_digest
from deita_tasks.artifacts.pool import Pool
from deita_tasks.conversations import Conversation, RowKey
from deita_tasks.embedding.base import Embedder
from deita_tasks.embedding.vicuna import render_vicuna
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.packaged import find_packaged_minilm
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.prompts import render
from deita_tasks.selecting import Selector, load_selector

BUDGETS = (0.01, 0.05, 0.1)
# Stages that preset mini and preset paper compute lazily, in order.
PRESETS = {
    "mini": ["complexity", "embedding"],
    "paper": ["complexity", "quality", "embedding"],
}
STAGES = ("complexity", "quality", "embedding")
WINDOW = 2048  # tokens that the models of preset paper read


class Counted(NamedTuple):
    """What a replay computed: rounds, and shares of rows and tokens by stage."""

    rounds: dict[str, int]
    rows: dict[str, float]
    turns: dict[str, float]
    tokens: dict[str, float]
    all_tokens: float


def select(pool: Path, store: Path, output: Path, *options: str) -> float:
    """Run `deita select`; return its wall time in seconds."""
    command = [sys.executable, "-m", "flows.cli", "select", "--input", str(pool)]
    command += ["--store", str(store), "--output", str(output), *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def compare_wall(pool: Path, budget: int, dtype: str, folder: Path) -> None:
    """Time both evaluations, cold, one after the other."""
    common = ("--budget", str(budget), "--score-dtype", dtype, "--embedding-dtype", dtype)
    seconds = {}
    for evaluation in ("lazy", "all"):
        output = folder / f"out-{evaluation}"
        options = (*common, "--evaluation", evaluation)
        seconds[evaluation] = select(pool, folder / f"store-{evaluation}", output, *options)
        manifest = json.loads((output / "manifest.json").read_text())
        print(
            f"{evaluation}: {seconds[evaluation]:.0f} s; rows computed {manifest['computed']}, "
            f"seconds by stage {manifest['timings']}",
            flush=True,
        )
    files = [(folder / f"out-{name}" / "selected.jsonl").read_bytes() for name in seconds]
    same = "the same" if files[0] == files[1] else "DIFFERENT"
    ratio = seconds["lazy"] / seconds["all"]
    print(f"lazy takes {ratio:.2f} of the time of all; their selections are {same}", flush=True)


class Replay:
    """The rounds of lazy evaluations over a store that has every score."""

    def __init__(self, store: Path, tokenizer: Tokenizer, sampled: bool) -> None:
        self.sampled = sampled
        (uri,) = (path for path in (store / "pools").iterdir() if path.is_dir())
        self.pool = Pool.open(str(uri))
        self.part_sets = {
            "complexity": _part_set(store / "scores/complexity", Scorer.ROW_KEY),
            "quality": _part_set(store / "scores/quality", Scorer.ROW_KEY),
            "embedding": _part_set(store / "embeddings", Embedder.ROW_KEY),
        }
        _, positions = self.pool.distinct
        rows = [row for _, row in self.pool.read(positions)]
        self.turns = np.array([len(row.pairs) for row in rows])
        self.tokens = {stage: _count_tokens(tokenizer, stage, rows) for stage in STAGES}

    def run(self, budget: int, stages: Sequence[str]) -> Counted:
        """Replay the rounds of preset stages at a budget."""
        ids, _ = self.pool.distinct
        strategy = load_selector("diverse", budget=budget)
        plan = LazyPlan(stages=list(stages), sample=sample_rows(ids) if self.sampled else [])
        full = Evaluation(self.pool, strategy, self.part_sets, plan)
        for stage, part_set in self.part_sets.items():
            full.add(stage, part_set.digests())
        with tempfile.TemporaryDirectory() as folder:
            return self._replay(full, Path(folder), strategy, plan)

    def _replay(
        self, full: Evaluation, folder: Path, strategy: Selector, plan: LazyPlan
    ) -> Counted:
        part_sets = {
            stage: PartSet.create(
                str(folder), _folder_of(stage), {"backend": stage}, part_set.row_key
            )
            for stage, part_set in self.part_sets.items()
        }
        state = Evaluation(self.pool, strategy, part_sets, plan)
        rounds = dict.fromkeys(STAGES, 0)
        every_row = np.arange(len(self.turns))
        for stage in STAGES:
            if stage not in plan.stages:
                state.add(stage, [self._copy(full, part_sets[stage], stage, every_row)])
        while (work := state.next_work()) is not None:
            rounds[work.stage] += 1
            digest = self._copy(full, part_sets[work.stage], work.stage, work.rows)
            state.add(work.stage, [digest])
        computed = {stage: state.values[stage].is_computed for stage in STAGES}
        return Counted(
            rounds,
            {stage: float(mask.mean()) for stage, mask in computed.items()},
            {stage: _share(mask, self.turns) for stage, mask in computed.items()},
            {stage: _share(mask, self.tokens[stage]) for stage, mask in computed.items()},
            sum(float(self.tokens[stage][mask].sum()) for stage, mask in computed.items())
            / sum(float(tokens.sum()) for tokens in self.tokens.values()),
        )

    def _copy(
        self, full: Evaluation, part_set: PartSet, stage: str, rows: NDArray[np.int64]
    ) -> str:
        """Copy the values of some rows into a part of their own; return its digest."""
        values = full.values[stage]
        numbers = np.unique(values.key_of_row[rows])
        wanted = values.keys.take(pa.array(numbers))
        tables = [
            table.filter(pc.is_in(table["id"], value_set=wanted))
            for table in full.stage_parts[stage].tables(["id", "values", "cut", "problem"])
        ]
        table = pa.concat_tables(tables).combine_chunks()
        if table.num_rows < len(wanted):
            raise SystemExit(f"{stage}: the store lacks {len(wanted) - table.num_rows} rows")
        return part_set.write(ids_digest(table["id"]), [table])


def _folder_of(stage: str) -> str:
    return "embeddings" if stage == "embedding" else f"scores/{stage}"


def _part_set(folder: Path, row_key: RowKey) -> PartSet:
    (part_folder,) = (path for path in folder.iterdir() if path.is_dir())
    uri, fingerprint = str(part_folder), part_folder.name
    return PartSet(uri=uri, fingerprint=fingerprint, row_key=row_key)


def _share(mask: NDArray[np.bool_], weights: NDArray[np.int64]) -> float:
    return float(weights[mask].sum() / weights.sum())


def _count_tokens(
    tokenizer: Tokenizer, stage: str, rows: Sequence[Conversation]
) -> NDArray[np.int64]:
    """Return the tokens that a model of preset paper reads of each row."""
    counts = np.zeros(len(rows), np.int64)
    for row, conversation in enumerate(rows):
        if stage == "embedding":
            texts = [render_vicuna(conversation)]
        else:
            texts = [render(stage, *pair).text for pair in conversation.pairs]  # type: ignore[arg-type]
        lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)]
        counts[row] = sum(min(length, WINDOW) for length in lengths)
    return counts


def write_pool(pool: str | None, rows: int | None, folder: Path) -> Path:
    """Write the rows of a pool into a file of its own; return the file."""
    path = folder / "pool.jsonl"
    if pool is None:
        lines = generate_conversations(rows or 5_000, seed=0)
    else:
        opened = lzma.open(pool, "rt") if pool.endswith(".xz") else open(pool)  # noqa: SIM115
        with opened as file:
            lines = [line.rstrip("\n") for line in file]
        step = max(1, len(lines) // rows) if rows else 1
        lines = lines[::step][:rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def show(name: str, budget: int, counted: Counted) -> None:
    """Print one replay."""
    cells = [
        f"{stage} {counted.rows[stage]:.1%} of rows, {counted.turns[stage]:.1%} of turns, "
        f"{counted.tokens[stage]:.1%} of tokens in {counted.rounds[stage]} rounds"
        for stage in STAGES
    ]
    print(f"{name}, budget {budget:,}: {'; '.join(cells)}; all tokens {counted.all_tokens:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--budgets", type=int, nargs="*", help="rows; default: 1%%, 5%%, 10%%")
    parser.add_argument("--tokenizer", help="folder or hub id of a checkpoint")
    parser.add_argument("--no-wall", action="store_true", help="only replay")
    parser.add_argument("--dtype", default="float32", help="of the timed runs: float32, bfloat16")
    parser.add_argument("--no-sample", action="store_true", help="leave out the report's sample")
    parser.add_argument("--folder", help="keep what is computed here, and use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        pool = write_pool(options.pool, options.rows, folder)
        rows = sum(1 for _ in pool.open())
        budgets = options.budgets or [max(1, round(rows * share)) for share in BUDGETS]
        if not options.no_wall:
            compare_wall(pool, round(rows * 6000 / 110_364), options.dtype, folder)
        store = folder / "store"
        quiet = ("--overwrite", "--budget")
        select(pool, store, folder / "out", *quiet, str(max(budgets)))
        every_score = ("--strategy", "top_score", "--evaluation", "all")
        select(pool, store, folder / "out", *quiet, str(max(budgets)), *every_score)
        tokenizer = load_tokenizer(
            find_checkpoint(options.tokenizer or str(find_packaged_minilm()))
        )
        replay = Replay(store, tokenizer, not options.no_sample)
        for name, stages in PRESETS.items():
            for budget in budgets:
                show(name, budget, replay.run(budget, stages))


if __name__ == "__main__":
    main()
