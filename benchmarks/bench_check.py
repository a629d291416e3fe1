"""Times the check of a record against a finished selection, for a given score and vector.

    python benchmarks/bench_check.py
    python benchmarks/bench_check.py --kept 10000 --blocked 30000 --dimensions 384

The selection is made by `diverse` from random rows in groups, so that rows block each other; the
records are rows of the same kind. Each is compared with a second selection that has the record in
its pool, and timed in the same process. With --models also what the models of `mini` take for one
record, loaded and warm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from deita_tasks.selecting.diverse import Diverse
from deita_tasks.selecting.insertion import FinishedWalk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=int, default=10_000)
    parser.add_argument("--pool", type=int, default=40_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--models", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = _rows(rng, options.pool + options.records, options.dimensions)
    scores = rng.gamma(4, 3, len(rows))
    ids = [f"{number:032x}" for number in rng.permutation(len(rows))]
    size = options.pool
    strategy = Diverse(budget=options.kept, device="cpu")
    start = time.perf_counter()
    result = strategy.select(ids[:size], scores[:size], rows[:size])
    run_seconds = time.perf_counter() - start
    start = time.perf_counter()
    walk = _open(strategy, result, ids, scores, rows)
    open_seconds = time.perf_counter() - start
    seconds: dict[str, list[float]] = {}
    for number in range(size, len(rows)):
        start = time.perf_counter()
        insertion = walk.insert(ids[number], scores[number], rows[number])
        elapsed = time.perf_counter() - start
        seconds.setdefault(insertion.decision, []).append(elapsed)
    print(f"{len(result.kept):,} kept of {size:,} rows; selected in {run_seconds:.2f} s")
    print(f"opened in {open_seconds:.2f} s; a record, median (slowest):")
    for decision, times in seconds.items():
        median, slowest = 1e3 * statistics.median(times), 1e3 * max(times)
        ratio = run_seconds / statistics.median(times)
        print(
            f"  {decision:13} {len(times):4} records  {median:7.2f} ms ({slowest:.2f} ms), "
            f"1/{ratio:.0f} of the selection"
        )
    if options.models:
        _time_models()


def _rows(rng: np.random.Generator, count: int, dimensions: int) -> Any:
    """Return rows around a third as many centres, so that rows of a centre block each other."""
    centres = rng.standard_normal((count // 3, dimensions), np.float32)
    rows = centres[rng.integers(0, len(centres), count)]
    return rows + 0.3 * rng.standard_normal((count, dimensions), np.float32)


def _open(strategy: Diverse, result: Any, ids: list[str], scores: Any, rows: Any) -> FinishedWalk:
    reached, blockers = list(result.kept), [-1] * len(result.kept)
    places = {id: place for place, id in enumerate(reached)}
    has_more = False
    for rejection in result.rejected:
        has_more |= rejection.reason == "below_budget"
        if rejection.reason == "too_similar":
            reached.append(rejection.id)
            blockers.append(places[rejection.nearest_id])
    numbers = {id: number for number, id in enumerate(ids)}
    at = np.array([numbers[id] for id in reached])
    nearest = np.array(blockers, np.int64)
    budget = strategy.budget
    return FinishedWalk(strategy, budget, reached, scores[at], nearest, rows[at], not has_more)


def _time_models() -> None:
    from models import sample_conversations

    from deita_tasks.embedding import load_embedder
    from deita_tasks.scoring import load_scorer

    conversations = sample_conversations(None, 20)
    components: list[Any] = [load_scorer("mini", kind=kind) for kind in ("complexity", "quality")]
    components.append(load_embedder("sentence_transformers"))
    times = []
    for conversation in conversations:
        start = time.perf_counter()
        for component in components:
            compute = getattr(component, "compute_rows", component.compute)
            compute([conversation])
        times.append(time.perf_counter() - start)
    median = 1e3 * statistics.median(times[1:])
    print(
        f"models of mini, a record: {median:.0f} ms; the first, which loads them, {times[0]:.1f} s"
    )


if __name__ == "__main__":
    main()
