"""Compare many selections of one pool, and write the comparison to the output folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType

import numpy as np

from deita_tasks import progress
from deita_tasks.artifacts.candidates import Candidates, StagesParts, all_candidates
from deita_tasks.artifacts.pool import Pool
from deita_tasks.config import Grid
from deita_tasks.errors import InputError
from deita_tasks.manifest import RunFacts, SweepManifest
from deita_tasks.reporting.sweep import SweepData, SweepRow, write_files
from deita_tasks.results.publish import publish_result
from deita_tasks.results.records import LimitSolution, Sweep
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.arrays import Floats, Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.compare import (
    ComparedSelection,
    Measures,
    StrategySetting,
    jaccard,
    list_settings,
    sweep,
)
from deita_tasks.selecting.reference import Reference, ReferenceKind
from deita_tasks.selecting.sampling import smallest_ids
from deita_tasks.selecting.solve import solve
from deita_tasks.storage import absolute


def write_sweep(
    pool: Pool,
    stage_parts: StagesParts,
    grid: Grid,
    output: str,
    facts: RunFacts,
    device: str = "auto",
    references: Mapping[ReferenceKind, Reference] = MappingProxyType({}),
) -> Sweep:
    """Make and measure every selection of `grid`; write them to `output`, whole or not at all.

    references: what strategies compare rows with, by kind.
    """
    start = time.perf_counter()
    rank_by = load_selector("diverse", budget=1, rank_by=grid.rank_by)
    with _open_comparable(pool, stage_parts, rank_by) as (candidates, vectors):
        sample = np.sort(smallest_ids(candidates.ids, grid.coverage_rows))
        settings = list_settings(grid.strategies, grid.similarities, references, grid.rank_by)
        cells = _compare(candidates, vectors, grid, settings, sample, device)
        rows = len(candidates.ids)
    overlap = np.array([[jaccard(cell.kept, other.kept) for other in cells] for cell in cells])
    seconds = round(time.perf_counter() - start, 3)
    manifest = SweepManifest(
        **{
            **dict(facts),
            "fingerprints": {
                **facts.fingerprints,
                "selection": [_fingerprint(cell, grid.seed) for cell in cells],
            },
            "timings": {**facts.timings, "sweep": seconds},
        },
        inputs=pool.summary.inputs,
        pool=absolute(pool.uri),
        candidates=rows,
        coverage_rows=len(sample),
    )
    data = SweepData(manifest, [_row(cell) for cell in cells], overlap)
    manifest = publish_result(output, manifest, partial(write_files, data=data))
    return Sweep(uri=output, manifest=manifest, selections=[row.fields() for row in data.rows])


@contextmanager
def _open_comparable(
    pool: Pool, stage_parts: StagesParts, strategy: Selector
) -> Iterator[tuple[Candidates, Floats]]:
    """Give the candidates of a pool, as `strategy` ranks them, and their vectors.

    Raises InputError where there are none.
    """
    with all_candidates(pool, stage_parts, strategy) as candidates:
        if not candidates.ids or candidates.vectors is None:
            raise InputError(
                f"{pool.uri}: no conversation with scores and a vector; expected some to choose "
                "from"
            )
        yield candidates, candidates.vectors


def _compare(
    candidates: Candidates,
    vectors: Floats,
    grid: Grid,
    settings: Sequence[StrategySetting],
    sample: Indices,
    device: str,
) -> list[ComparedSelection]:
    """Return the selections of `grid`, measured, by budget."""
    selections = sweep(
        candidates.ids,
        candidates.ranking,
        vectors,
        grid.budgets,
        settings,
        sample,
        grid.seed,
        device,
    )
    cells = []
    with progress.bar("sweep", len(settings) * len(grid.budgets)) as advance:
        for cell in selections:
            cells.append(cell)
            advance(1)
    return sorted(cells, key=lambda cell: cell.budget)  # stable: settings keep their order


def _row(cell: ComparedSelection) -> SweepRow:
    """Return the measures of a selection beside those of the random one of the same budget."""
    control = {
        f"random_{name}": getattr(cell.control, name) for name in Measures._fields if name != "kept"
    }
    setting = cell.setting
    measures = cell.measures._asdict()
    return SweepRow(setting.strategy, setting.max_similarity, cell.budget, **measures, **control)


def _fingerprint(cell: ComparedSelection, seed: int) -> dict[str, object]:
    """Return the options that decide the selection, for the manifest."""
    return dict(cell.setting.load(cell.budget, seed).fingerprint())


def find_limit(
    pool: Pool,
    stage_parts: StagesParts,
    budget: int,
    device: str = "auto",
    rank_by: str | None = None,
) -> LimitSolution:
    """Return the smallest limit of `diverse` that still selects `budget` rows of `pool`."""
    strategy = load_selector("diverse", budget=budget, rank_by=rank_by)
    with _open_comparable(pool, stage_parts, strategy) as (candidates, vectors):
        ranking = candidates.ranking(strategy)
        solution = solve(candidates.ids, ranking, vectors, budget, device)
        return LimitSolution(
            max_similarity=solution.max_similarity,
            kept=solution.kept,
            candidates=len(candidates.ids),
        )
