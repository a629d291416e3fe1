"""Kill a run at random moments, again and again: python -m tests.support.kill_runs --times 50

Each run is killed with SIGKILL, the command itself or one of its workers, after a random number of
seconds; then the same command finishes. Its selection has to be that of an undisturbed run, and the
store has to be without damage. A third of the runs computes in the command, a third in worker
processes, a third on Dask.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from deita_tasks.artifacts.verify import verify
from tests.support.runs import ROOT, command, finish, start

RUNNERS = ("thread", "process", "dask")


def descendants(process: int) -> list[int]:
    """Return the ids of all processes below a process."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *descendants(child)]
    return found


def is_worker(process: int) -> bool:
    words = Path(f"/proc/{process}/cmdline").read_bytes()
    return b"spawn_main" in words or b"nanny" in words


def kill_once(arguments: list[str], seconds: float, dice: random.Random) -> str:
    """Start the command and kill it, or one of its workers, after `seconds`; return what ended."""
    process = start(arguments)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        pass
    else:
        return "finished before"
    workers = [child for child in descendants(process.pid) if is_worker(child)]
    victim = dice.choice(workers) if workers and dice.random() < 0.5 else process.pid
    os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=300)
    return "command killed" if victim == process.pid else "worker killed"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    pool = str(ROOT / "examples" / "pool.jsonl")
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        begun = time.monotonic()
        finish(command(pool, f"{folder}/whole", f"{folder}/expected", "--shard-rows", "28"))
        longest = time.monotonic() - begun
        expected = (folder / "expected" / "selected.jsonl").read_bytes()
        for number in range(options.times):
            runner = RUNNERS[number % len(RUNNERS)]
            store, output = folder / "store", folder / "out"
            more = ["--shard-rows", "28", "--runner", runner, "--workers", "2"]
            arguments = command(pool, str(store), str(output), *more)
            outcome = kill_once(arguments, dice.uniform(1, longest), dice)
            damage = [result for result in verify(str(store)) if result.problem]
            assert not damage, damage
            if not output.exists():
                finish(arguments)
            assert (output / "selected.jsonl").read_bytes() == expected, number
            outcomes[f"{runner}: {outcome}"] += 1
            print(number, runner, outcome, flush=True)
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(output)
    print(*(f"{name}: {count}" for name, count in sorted(outcomes.items())), sep="\n")


if __name__ == "__main__":
    main()
