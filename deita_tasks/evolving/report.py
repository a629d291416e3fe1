"""What a trained scorer's result shows: its calibration, and chains side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from pydantic import JsonValue

from deita_tasks.evolving.agreement import Agreement, CalibrationPoint
from deita_tasks.evolving.chains import Chain
from deita_tasks.evolving.evaluation import ScorerFigures
from deita_tasks.reporting import figures
from deita_tasks.reporting.markdown import image
from deita_tasks.templating import escape_markdown, one_line

CALIBRATION_SIZE = (4.2, 3.6)  # inches
TEXT_LENGTH = 300  # characters of a text in a table

# The expected scores of a chain's texts, in their order.
Expected = Mapping[str, Sequence[float | None]]


def calibration_svg(points: Sequence[CalibrationPoint]) -> bytes:
    """Return the expected score by judged score, as SVG."""
    return figures.svg("calibration", CALIBRATION_SIZE, _calibration(points))


def calibration_png(points: Sequence[CalibrationPoint]) -> bytes:
    """Return the expected score by judged score, as PNG."""
    return figures.png(CALIBRATION_SIZE, _calibration(points))


def _calibration(points: Sequence[CalibrationPoint]) -> Callable[[Axes], None]:
    """Draw a mean for each judged score, with a line from the 10th to the 90th percentile."""

    def draw(axes: Axes) -> None:
        """Draw the mean and the range of the expected scores, 1 to 6, over each judged score."""
        axes.plot([1, 6], [1, 6], color=figures.FAINT, label="equal")
        judged = [point.judged for point in points]
        low = [point.low for point in points]
        high = [point.high for point in points]
        axes.vlines(judged, low, high, color=figures.POOL, label="10th to 90th percentile")
        means = [point.mean for point in points]
        axes.plot(judged, means, "o", color=figures.SELECTED, label="mean")
        axes.set_xlim(0.7, 6.3)
        axes.set_ylim(0.7, 6.3)
        axes.set_xlabel("judged score")
        axes.set_ylabel("expected score")
        axes.legend(loc="upper left")

    return draw


def agreement_rows(agreements: Sequence[Agreement]) -> list[list[str]]:
    """Return a line of a table for each scorer: name, texts, and both rank correlations."""
    return [
        [
            escape_markdown(found.name),
            f"{found.texts:,}",
            _correlation(found.across),
            _correlation(found.within),
        ]
        for found in agreements
    ]


def _correlation(value: float | None) -> str:
    """Return a correlation with three decimals, a dash for none."""
    return "–" if value is None else f"{value:.3f}"


def chain_rows(chains: Sequence[Chain], expected: Expected) -> list[dict[str, JsonValue]]:
    """Return a line of a table for each text of some chains, the text with both its scores."""
    rows: list[dict[str, JsonValue]] = []
    for chain in chains:
        scores = expected.get(chain.id) or [None] * len(chain.variants)
        for variant, score in zip(chain.variants, scores, strict=True):
            row: dict[str, JsonValue] = {"chain": chain.id[:12], "round": variant.round}
            row |= {"method": variant.method, "text": _beginning(variant.text)}
            row |= {"judged": variant.score, "expected": None if score is None else round(score, 2)}
            rows.append(row)
    return rows


def chains_beside(chains: Sequence[Chain], expected: Expected) -> list[dict[str, JsonValue]]:
    """Return chains side by side: a line for each round, a column for each chain."""
    names = [f"chain {number}" for number in range(1, len(chains) + 1)]
    rows: list[dict[str, JsonValue]] = []
    for turn in range(max((len(chain.variants) for chain in chains), default=0)):
        row: dict[str, JsonValue] = {"round": turn}
        for name, chain in zip(names, chains, strict=True):
            row[name] = _cell(chain, turn, expected)
        rows.append(row)
    return rows


def _cell(chain: Chain, turn: int, expected: Expected) -> str:
    """Return what the report shows of a chain at a turn: method, scores and beginning of the text.

    After the end of a chain: why it ended, or nothing if it has all its turns.
    """
    if turn >= len(chain.variants):
        return "" if chain.ended is None else f"ended: {one_line(chain.ended)}"
    variant = chain.variants[turn]
    scores = expected.get(chain.id)
    score = None if scores is None else scores[turn]
    found = "" if score is None else f", expected {score:.2f}"
    return f"[{variant.method}; judged {variant.score}{found}] {_beginning(variant.text)}"


def _beginning(text: str) -> str:
    """Return a text on one line, its first TEXT_LENGTH characters and "…" if it is longer."""
    line = one_line(text)
    return line if len(line) <= TEXT_LENGTH else f"{line[:TEXT_LENGTH]} …"


def figures_markdown(found: ScorerFigures, notes: Sequence[str]) -> str:
    """Return what was measured, for the page of a run: the sentence, both tables, the figure."""
    heading = "# Above the number of words" if found.is_above_words else "# Not above words"
    parts = [heading, escape_markdown(found.sentence)]
    parts += [f"- {escape_markdown(note)}" for note in notes]
    for title, agreements in (("Held-out chains", found.held_out), ("Labels", found.labelled)):
        if agreements:
            parts += [f"## {title}", _table(agreements)]
    drawing = image(calibration_svg(found.calibration))
    parts.append(f"![Expected score by judged score]({drawing})")
    return "\n\n".join(parts) + "\n"


def _table(agreements: Sequence[Agreement]) -> str:
    """Return the agreements as a Markdown table, a row for each scorer."""
    heads = ["scorer", "texts", "over all texts", "within a chain"]
    lines = [heads, ["---"] * len(heads), *agreement_rows(agreements)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
