"""The figures of a sweep's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from deita_tasks.reporting.figures import POOL

MEASURES = {
    "mean_evol_score": "mean evol score",
    "coverage_mean": "mean distance to the selection",
    "coverage_worst": "largest distance to the selection",
    "redundancy": "mean similarity to the nearest",
}
MARKERS = "osD^vP*X"
OTHERS = [
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#6a3d9a",
]  # Okabe and Ito's, as in figures.py, and a violet
WIDE_RANGE = 30  # budgets that differ by more than so many times stand on a logarithmic axis


def colours(settings: Sequence[str]) -> dict[str, str]:
    """One for each distinct setting: blues, the darker the higher the limit, for a strategy with
    limits; grey for random.
    """
    names = list(dict.fromkeys(settings))
    limited = [name for name in names if " " in name]
    blues = matplotlib.colormaps["Blues"](np.linspace(0.45, 0.8, max(1, len(limited))))
    shades = {
        name: matplotlib.colors.to_hex(shade) for name, shade in zip(limited, blues, strict=False)
    }
    others = iter(OTHERS * len(names))
    shades["random"] = POOL
    return {name: shades[name] if name in shades else next(others) for name in names}


def lines(
    points: Mapping[str, Sequence[tuple[int, float]]], colour_of: Mapping[str, str], label: str
) -> Callable[[Axes], None]:
    """A line for each setting over the number of rows kept, random's dashed."""

    def draw(axes: Axes) -> None:
        """Draw the settings one over another, random behind them all.

        The axis is logarithmic where sizes differ by more than WIDE_RANGE times.
        """
        for number, (name, line) in enumerate(points.items()):
            if name == "random":
                look: dict[str, Any] = {
                    "color": POOL,
                    "linestyle": (0, (4, 3)),
                    "linewidth": 1.8,
                    "zorder": 1,
                }
            else:
                look = {
                    "color": colour_of[name],
                    "marker": MARKERS[number % len(MARKERS)],
                    "markersize": 5,
                    "linewidth": 1.8,
                }
            axes.plot(*zip(*line, strict=True), label=name, **look)
        kept = sorted({size for line in points.values() for size, _ in line})
        if kept[0] and kept[-1] / kept[0] > WIDE_RANGE:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("conversations kept")
        axes.set_ylabel(label)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=3,
            handlelength=2.2,
            borderaxespad=0.2,
            columnspacing=1.2,
        )

    return draw


def heat_map(overlap: NDArray[np.float64], names: Sequence[str]) -> Callable[[Axes], None]:
    """Return what draws overlaps, float64 (n, n) in [0, 1], with the number in each square."""

    def draw(axes: Axes) -> None:
        """Draw the squares without an axis of colours: each has its number."""
        axes.imshow(
            overlap, cmap="Blues", vmin=0, vmax=1.25, aspect="auto"
        )  # so that the darkest shade still lets a number be read
        for (i, j), value in np.ndenumerate(overlap):
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if value > 0.7 else "black",
            )
        axes.set_xticks(range(len(names)), names, rotation=40, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return draw
