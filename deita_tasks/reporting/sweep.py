"""The files of a sweep: the table, the overlap of its selections, and a page with both.

sweep.csv     one line for each selection
overlap.csv   the Jaccard overlap of each pair of selections, a square matrix
sweep.html    the table, each setting as the budget grows, and how alike the selections are
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from deita_tasks.manifest import SweepManifest
from deita_tasks.reporting import figures, sweep_figures
from deita_tasks.reporting.parameters import explain_parameters
from deita_tasks.reporting.render import render

MAX_MAPS = 6  # budgets whose overlap is drawn


class SweepRow(NamedTuple):
    """A selection of the sweep. The measures are those of `selecting/compare.py`, NaN for none;
    random_...: of as many rows at random.
    """

    strategy: str
    max_similarity: float | None
    budget: int
    kept: int
    mean_evol_score: float
    coverage_mean: float
    coverage_worst: float
    redundancy: float
    random_mean_evol_score: float
    random_coverage_mean: float
    random_coverage_worst: float
    random_redundancy: float

    @property
    def setting(self) -> str:
        """diverse 0.9"""
        limit = "" if self.max_similarity is None else f" {self.max_similarity}"
        return self.strategy + limit

    @property
    def name(self) -> str:
        """diverse-0.9-6000"""
        return f"{self.setting} {self.budget}".replace(" ", "-")

    def fields(self) -> dict[str, JsonValue]:
        """Return the values by name as JSON: None for NaN."""
        values = self._asdict()
        return {"selection": self.name} | {
            name: None if value != value else value for name, value in values.items()
        }


@dataclass(frozen=True)
class SweepData:
    """What the files of a sweep show.

    rows: by budget, the settings in one order, random last. overlap: float64 (rows, rows), Jaccard.
    """

    manifest: SweepManifest
    rows: Sequence[SweepRow]
    overlap: NDArray[np.float64]


def write_files(folder: Path, data: SweepData) -> None:
    """Write sweep.csv, overlap.csv and sweep.html into `folder`."""
    lines = [[_round(value) for value in row.fields().values()] for row in data.rows]
    _write_csv(folder / "sweep.csv", [list(data.rows[0].fields()), *lines])
    names = [row.name for row in data.rows]
    overlaps = data.overlap.tolist()
    matrix = [[name, *map(_round, line)] for name, line in zip(names, overlaps, strict=True)]
    _write_csv(folder / "overlap.csv", [["selection", *names], *matrix])
    (folder / "sweep.html").write_bytes(build_page(data))


def _write_csv(path: Path, lines: Sequence[Sequence[JsonValue]]) -> None:
    """Write lines that end in "\\n" on every system, so that equal sweeps give equal bytes."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows(lines)


def _round(value: JsonValue) -> JsonValue:
    """Round to six decimals: all that a float32 similarity can tell."""
    return round(value, 6) if isinstance(value, float) else value


def build_page(data: SweepData) -> bytes:
    """Return sweep.html; equal data give equal bytes."""
    rows = data.rows
    colours = sweep_figures.colours([row.setting for row in rows])
    plots = {
        measure: sweep_figures.lines(_curves(rows, measure), colours, label)
        for measure, label in sweep_figures.MEASURES.items()
    }
    drawings = {
        measure: figures.svg(measure, figures.NARROW, plot) for measure, plot in plots.items()
    }
    budgets = list(dict.fromkeys(row.budget for row in rows))
    maps = [(budget, _overlap_map(data, budget)) for budget in budgets[-MAX_MAPS:]]
    return render(
        "sweep.html.jinja",
        manifest=data.manifest,
        rows=rows,
        budgets=budgets,
        settings=list(colours),
        figures={name: figures.on_page(drawing) for name, drawing in drawings.items()},
        maps=[(budget, figures.on_page(drawing)) for budget, drawing in maps],
        parameters=explain_parameters(data.manifest),
        measures=list(sweep_figures.MEASURES),
        short=[row for row in rows if row.kept < row.budget],
    )


def _curves(rows: Sequence[SweepRow], measure: str) -> dict[str, list[tuple[int, float]]]:
    """Return for each setting its points: rows kept, and the measure.

    Random has a point for every size that a selection has.
    """
    curves: dict[str, dict[int, float]] = {row.setting: {} for row in rows}
    for row in rows:
        curves[row.setting][row.kept] = getattr(row, measure)
        curves["random"][row.kept] = getattr(row, f"random_{measure}")
    return {setting: sorted(points.items()) for setting, points in curves.items()}


def _overlap_map(data: SweepData, budget: int) -> bytes:
    """Return the heat map of the overlaps between the selections of one budget."""
    positions = [i for i, row in enumerate(data.rows) if row.budget == budget]
    names = [data.rows[i].setting for i in positions]
    size = (1.9 + 0.62 * len(names), 1.2 + 0.46 * len(names))
    overlap = data.overlap[np.ix_(positions, positions)]
    return figures.svg(f"overlap {budget}", size, sweep_figures.heat_map(overlap, names))
