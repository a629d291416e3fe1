"""What the evaluation of a trained scorer shows: a figure, and chains side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from deita_tasks.evolving.agreement import CalibrationPoint
from deita_tasks.evolving.chains import Chain
from deita_tasks.reporting.figures import INK, NARROW, POOL, SELECTED, svg
from deita_tasks.templating import one_line

MOST_CHAINS = 20  # side by side
MOST_CHARACTERS = 300  # of a text there


def calibration_figure(points: Sequence[CalibrationPoint]) -> bytes:
    """Return the expected score by judged score as SVG: the mean, and 10th to 90th percentile."""

    def draw(axes: Axes) -> None:
        judged = [point.judged for point in points]
        means = [point.mean for point in points]
        below = [point.mean - point.low for point in points]
        above = [point.high - point.mean for point in points]
        axes.plot([1, 6], [1, 6], color=POOL, linestyle="--", label="equal")
        axes.errorbar(
            judged,
            means,
            yerr=[below, above],
            color=SELECTED,
            ecolor=INK,
            marker="o",
            label="mean, 10th to 90th percentile",
        )
        axes.set_xlabel("judged score")
        axes.set_ylabel("expected score")
        axes.set_xlim(0.7, 6.3)
        axes.set_ylim(0.7, 6.3)
        axes.legend(loc="upper left")

    return svg("calibration", NARROW, draw)


def side_by_side(
    chains: Sequence[Chain], expected: Mapping[tuple[str, int], float]
) -> list[dict[str, str]]:
    """Return a line for each of the first chains: every text with its judged and expected score.

    expected: by chain and round.
    """
    lines = []
    for chain in chains[:MOST_CHAINS]:
        line = {"chain": chain.id[:12]}
        for variant in chain.variants:
            score = expected.get((chain.id, variant.round))
            own = "" if score is None else f", expected {score:.2f}"
            text = one_line(variant.text)[:MOST_CHARACTERS]
            line[f"{variant.round}"] = f"{variant.method}, judged {variant.score}{own}: {text}"
        lines.append(line)
    return lines
