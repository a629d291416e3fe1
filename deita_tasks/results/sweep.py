"""Many selections from one pool, side by side: what the store holds, measured and written to the
output folder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks import progress
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import Parts, candidates
from deita_tasks.errors import InputError
from deita_tasks.manifest import SweepManifest, digest_outputs
from deita_tasks.reporting.sweep import Row, SweepData, write_files
from deita_tasks.results.publish import publish
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.compare import Cell, Measures, jaccard, settings, sweep
from deita_tasks.selecting.solve import Solution, solve


def write_sweep(
    pool: Pool,
    parts: Parts,
    grid: Mapping[str, Any],
    output: str,
    facts: Mapping[str, Any],
    device: str = "auto",
) -> dict[str, Any]:
    """Make and measure every selection of `grid` (config.Grid as JSON), and write them under
    `output`, whole or not at all.

    `facts`: the manifest's fields that only the run knows. Returns the manifest, with the table as
    "selections".
    """
    start = time.perf_counter()
    compared = settings(grid["strategies"], grid["similarities"])
    with candidates(pool, parts) as able:
        ids, vectors = able.ids, able.vectors
        if not ids or vectors is None:
            raise InputError(
                f"{pool.uri}: no conversation with scores and a vector; expected some "
                "to choose from"
            )
        sample = smallest(ids, grid["coverage_rows"])
        cells = []
        with progress.bar("sweep", len(compared) * len(grid["budgets"])) as advance:
            for cell in sweep(
                ids, able.ranking, vectors, grid["budgets"], compared, sample, grid["seed"], device
            ):
                cells.append(cell)
                advance(1)
        known = {"candidates": len(ids), "coverage_rows": len(sample)}
    cells.sort(
        key=lambda cell: cell.budget
    )  # stable: the settings stay in one order within each budget
    rows = [_row(cell) for cell in cells]
    overlap = np.array([[jaccard(one.kept, other.kept) for other in cells] for one in cells])
    fingerprints = {
        **facts["fingerprints"],
        "selection": [_fingerprint(cell, grid["seed"]) for cell in cells],
    }
    timings = {**facts["timings"], "sweep": round(time.perf_counter() - start, 3)}
    found = {**facts, "fingerprints": fingerprints, "timings": timings, **known}
    manifest = SweepManifest(inputs=pool.summary["inputs"], pool=pool.address, **found)
    with tempfile.TemporaryDirectory(prefix="deita-") as scratch:
        folder = Path(scratch) / "output"
        folder.mkdir()
        write_files(folder, SweepData(manifest, rows, overlap))
        manifest = manifest.model_copy(update={"outputs": digest_outputs(folder)})
        (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        publish(str(folder), output)
    return {**manifest.model_dump(mode="json"), "selections": [row.fields() for row in rows]}


def smallest(ids: Sequence[str], most: int) -> NDArray[np.int64]:
    """Positions of the `most` smallest of `ids`, ascending. Ids are digests, so they are a random
    sample, the same for any order.
    """
    order = pc.sort_indices(pa.array(ids, pa.string())).to_numpy()[:most]
    return np.sort(order).astype(np.int64)


def _row(cell: Cell) -> Row:
    random = {
        f"random_{name}": getattr(cell.control, name) for name in Measures._fields if name != "kept"
    }
    return Row(
        cell.setting.strategy,
        cell.setting.max_similarity,
        cell.budget,
        **cell.measures._asdict(),
        **random,
    )


def _fingerprint(cell: Cell, seed: int) -> dict[str, Any]:
    return cell.setting.selector(cell.budget, seed).fingerprint()


def find_limit(pool: Pool, parts: Parts, budget: int, device: str = "auto") -> dict[str, Any]:
    """The smallest limit of `diverse` that still yields `budget` rows of `pool`: {max_similarity,
    kept, candidates}.
    """
    with candidates(pool, parts) as able:
        ids, vectors = able.ids, able.vectors
        if not ids or vectors is None:
            raise InputError(
                f"{pool.uri}: no conversation with scores and a vector; expected some "
                "to choose from"
            )
        solution: Solution = solve(
            ids, able.ranking(load_selector("diverse", budget=budget)), vectors, budget, device
        )
    return {**solution._asdict(), "candidates": len(ids)}
