"""The report's figures, as SVG of the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from deita_tasks.selecting.arrays import Doubles, Floats

# Okabe and Ito's colours, which the colour-blind can tell apart (https://jfly.uni-koeln.de/color/);
# the pool is a neutral grey.
POOL, SELECTED, REJECTED, INK, FAINT = "#8a94a3", "#0072b2", "#d55e00", "#1d232b", "#d9dee5"
DECISION_COLOURS = {
    "selected": SELECTED,
    "too_similar": REJECTED,
    "below_budget": POOL,
    "stratum_full": "#f0e442",
    "duplicate": "#cc79a7",
    "quarantined": "#e69f00",
    "unscorable": "#56b4e9",
    "contaminated": "#009e73",
    "too_long": INK,
}
EDGE, PAPER = "#6b7480", "#fdfdfd"
# By colour, the variable of page.css.jinja that stands for it.
PAGE_COLOURS = {
    INK: "ink",
    FAINT: "line",
    EDGE: "soft",
    PAPER: "paper",
    POOL: "pool",
    SELECTED: "blue",
    REJECTED: "orange",
}
STYLE: Any = {
    # text stays text: the page gives it its font, a screen reader its voice
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
}
WIDE, NARROW = (9.0, 2.7), (5.6, 3.3)  # inches; the page scales them
MOST_TURNS = 10
MOST_VECTOR_POINTS = (
    500  # a map of more points is an image inside the SVG, so that the page stays small
)


class Split(NamedTuple):
    """A measure of the pool's rows (or turns) and of the selected ones, each a flat array."""

    pool: NDArray[np.floating | np.integer]
    selected: NDArray[np.floating | np.integer]


def svg(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> bytes:
    """What `draw` draws, as an SVG element without prologue, dates or metadata; `name` keeps its
    ids apart from other figures'.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        buffer = _save(size, draw, format="svg", transparent=True)
    text = buffer.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2).encode()


def on_page(drawing: bytes) -> Markup:
    """Return a figure for a page, whose style sheet sets its colours for light and dark mode.

    Not escaped: figures are drawn here, and matplotlib escapes the names in them.
    """
    text = drawing.decode()
    for colour, name in PAGE_COLOURS.items():
        text = text.replace(f": {colour}", f": var(--{name})")
    return Markup(text)


def png(size: tuple[float, float], draw: Callable[[Axes], None]) -> bytes:
    """Return what `draw` draws as a PNG file on white, without dates or versions."""
    with matplotlib.rc_context(STYLE):
        return _save(size, draw, format="png", facecolor="white", metadata={"Software": None})


def _save(size: tuple[float, float], draw: Callable[[Axes], None], **options: Any) -> bytes:
    """Return a figure's file, 200 dots an inch where it holds pixels.

    Equal numbers give equal bytes as long as `options` leave out dates and versions.
    """
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=200, **options)
    return buffer.getvalue()


def decisions(counts: Mapping[str, int]) -> Callable[[Axes], None]:
    """Return what draws the input rows by decision.

    counts: of every decision in DECISION_COLOURS, and of the rows "read".
    """

    def draw(axes: Axes) -> None:
        """Draw a bar for each decision, the number and its share of the rows read beside it."""
        names = list(DECISION_COLOURS)
        numbers = [counts[name] for name in names]
        axes.barh(
            [name.replace("_", " ") for name in names],
            numbers,
            color=list(DECISION_COLOURS.values()),
            height=0.72,
        )
        for i, number in enumerate(numbers):
            axes.annotate(
                f"{number:,}{share(number, counts['read'])}",
                (number, i),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([])
        axes.set_xlim(0, max(1, *numbers) * 1.18)
        axes.set_xlabel("input rows", loc="left")

    return draw


def share(number: int, total: int) -> str:
    """Return " (12.3%)", to stand after a number; "" where the total is 0.

    A share that would round to 0.0% is "under 0.1%".
    """
    if not total:
        return ""
    return " (under 0.1%)" if 0 < number / total < 0.0005 else f" ({number / total:.1%})"


def histogram(
    split: Split,
    label: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Callable[[Axes], None]:
    """Two histograms over one another, each as shares of its own group, so that groups of any size
    compare.
    """

    def draw(axes: Axes) -> None:
        """Draw both groups over the same bins; values outside the edges count in the outer bins."""
        edges = bin_edges(split.pool, limits, log)
        for values, colour, filled, name in (
            (split.pool, POOL, True, "pool"),
            (split.selected, SELECTED, False, "selected"),
        ):
            if len(values):
                shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
                kind: dict[str, Any] = (
                    {"facecolor": colour, "alpha": 0.45}
                    if filled
                    else {"edgecolor": colour, "linewidth": 1.9}
                )
                heights = np.where(
                    shares > 0, shares, np.nan
                )  # no line along the axis where there is nothing
                axes.stairs(heights, edges, fill=filled, label=f"{name} ({len(values):,})", **kind)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        finish(axes, label, f"share of {unit}")

    return draw


def bin_edges(
    values: NDArray[np.floating | np.integer],
    limits: tuple[float, float] | None,
    log: bool,
    bins: int = 40,
) -> Doubles:
    """Edges over `limits`, or over `values` but their highest thousandth, which the last bin takes
    in too.
    """
    if limits is None:
        limits = (
            (float(np.min(values)), float(np.quantile(values, 0.999)))
            if len(values)
            else (0.0, 1.0)
        )
    low, high = max(limits[0], 1.0) if log else limits[0], limits[1]
    if high <= low:
        low, high = (low, low * 2) if log else (low - 0.5, low + 0.5)
    return np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)


def turns(split: Split) -> Callable[[Axes], None]:
    """Return what draws bars by number of user turns, MOST_TURNS and more in one."""

    def draw(axes: Axes) -> None:
        """Draw a pair of bars for each number of turns, as shares of their group."""
        most = int(
            min(MOST_TURNS, max((values.max() for values in split if len(values)), default=1))
        )
        places = np.arange(1, most + 1)
        for values, colour, shift, name in (
            (split.pool, POOL, -0.2, "pool"),
            (split.selected, SELECTED, 0.2, "selected"),
        ):
            if len(values):
                shares = np.bincount(np.clip(values, 1, most).astype(np.int64), minlength=most + 1)[
                    1:
                ] / len(values)
                axes.bar(
                    places + shift, shares, 0.4, color=colour, label=f"{name} ({len(values):,})"
                )
        axes.set_xticks(
            places, [*map(str, places[:-1]), f"{most}+" if most == MOST_TURNS else str(most)]
        )
        finish(axes, "user turns", "share of conversations")

    return draw


def similarities(rejected: Floats, kept: Floats, limit: float | None) -> Callable[[Axes], None]:
    """How near rejected rows are to the row that blocked them, and kept rows to their nearest kept
    neighbour.
    """

    def draw(axes: Axes) -> None:
        """Draw both groups over the same bins, and the limit as a dashed line if there is one."""
        edges = similarity_edges(float(np.concatenate([rejected, kept]).min(initial=1.0)), limit)
        for values, colour, name in (
            (kept, SELECTED, "selected: to the nearest other selected row"),
            (rejected, REJECTED, "rejected: to the selected row that blocked it"),
        ):
            if len(values):
                shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
                axes.stairs(
                    shares,
                    edges,
                    fill=True,
                    facecolor=colour,
                    alpha=0.6,
                    label=f"{name} ({len(values):,})",
                )
        if limit is not None:
            axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
            shift, side = (-5, "right") if limit > edges[[0, -1]].mean() else (5, "left")
            placement: dict[str, Any] = {
                "xycoords": axes.get_xaxis_transform(),
                "textcoords": "offset points",
                "ha": side,
                "va": "top",
            }
            axes.annotate(f"limit {limit:g}", (limit, 1.0), xytext=(shift, -2), **placement)
        finish(axes, "cosine similarity", "share of rows")

    return draw


def similarity_edges(lowest: float, limit: float | None, width: float = 0.0125) -> Doubles:
    """Edges from `lowest` or below to 1 or above, one of them at `limit`, so that no bin holds both
    kept and rejected rows.
    """
    start = 1.0 if limit is None else limit
    below, above = (
        np.ceil(max(start - lowest, width) / width - 1e-9),
        np.ceil((1 - start) / width - 1e-9),
    )
    return np.asarray(start + width * np.arange(-below, above + 1))


def scatter(
    pool: Doubles,
    selected: Doubles,
    totals: tuple[int, int],
    explained: tuple[float, float],
    topics: Sequence[Doubles] = (),
) -> Callable[[Axes], None]:
    """The pool's points with the selected ones over them; `totals`: of how many rows each is a
    sample. topics: where to write 1, 2, ...
    """

    def draw(axes: Axes) -> None:
        """Draw the points; both axes have one scale and no ticks: only distances mean something."""
        as_image = len(pool) + len(selected) > MOST_VECTOR_POINTS
        look: dict[str, Any] = {
            "s": 7.0 if as_image else 14.0,
            "linewidths": 0,
            "rasterized": as_image,
        }
        groups = (
            (pool, POOL, 0.45, "pool", totals[0]),
            (selected, SELECTED, 0.75, "selected", totals[1]),
        )
        for points, colour, alpha, name, total in groups:
            label = f"{name} ({len(points):,} of {total:,})"
            axes.scatter(points[:, 0], points[:, 1], c=colour, alpha=alpha, label=label, **look)
        disc = {"boxstyle": "circle,pad=0.25", "facecolor": PAPER, "edgecolor": INK}
        for number, place in enumerate(topics, 1):
            axes.text(place[0], place[1], str(number), ha="center", va="center", bbox=disc)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_xticks([])  # a position has no unit
        axes.set_yticks([])
        axes.set_xlabel(f"first principal component ({explained[0]:.1%} of the variance)")
        axes.set_ylabel(f"second ({explained[1]:.1%})")
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=2,
            markerscale=2.2,
            handletextpad=0.2,
            borderaxespad=0.2,
        )

    return draw


def map_size(points: Doubles, width: float = 7.2) -> tuple[float, float]:
    """Return width and height, in inches, of a map of `points` (n, 2) with axes of equal scale.

    The height follows the points, but lies between 0.45 and 0.95 of the width; labels take 0.6
    more.
    """
    across, down = np.ptp(points, axis=0)
    return width, float(np.clip(width * down / across, 0.45 * width, 0.95 * width)) + 0.6


def finish(axes: Axes, x: str, y: str) -> None:
    """Label both axes, show shares as per cent, and put a legend above if anything has a name."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    axes.margins(x=0.01)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=3,
            handlelength=1.4,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
