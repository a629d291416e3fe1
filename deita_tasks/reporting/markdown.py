"""A selection in brief, for a place that shows Markdown and tables but no page of ours: the run's
page in the Prefect UI.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

from deita_tasks.reporting.changes import Changes
from deita_tasks.reporting.examples import (
    Pair,
    best_selected,
    closest_calls,
    pairs_of,
    quarantine_groups,
    unscorable_groups,
)
from deita_tasks.reporting.report import (
    ReportData,
    limit_of,
    measure_of,
    measures,
    reach,
    summary_table,
)

FIGURES = {
    "evol_score": "Evol scores of the pool and of the selection",
    "complexity": "Complexity of a user turn",
    "quality": "Quality of a user turn",
    "similarity": "Similarities of rejected rows to the kept row that blocked them, and of "
    "kept rows to "
    "their nearest",
    "map": "Map of the pool and of the selection in two dimensions",
}
MEANINGS = {
    "selected": "in the subset",
    "too_similar": "to a better one that was kept",
    "below_budget": "never reached: the budget was full",
    "duplicate": "of a row before",
    "quarantined": "could not be read",
    "unscorable": "a model gave no score or vector",
}


def markdown(data: ReportData, figures: Mapping[str, bytes], output: str) -> str:
    """The counts, where the result lies, what is different from before, and the figures, which are
    images in the text itself.
    """
    counts = data.manifest.counts
    parts = [
        f"# {counts.selected:,} of {counts.read:,} rows selected",
        _lead(data),
        _places(data, output),
    ]
    rows = [
        (name.replace("_", " "), f"{getattr(counts, name):,}", why)
        for name, why in MEANINGS.items()
    ]
    parts += ["## What became of each row", _table(("decision", "rows", ""), rows)]
    if data.changes is not None:
        parts += ["## Since the version before", *_changes(data.changes)]
    parts += [
        "## Scores",
        _table(("", "pool, mean", "median", "selected, mean", "median"), _measured(data)),
    ]
    parts += [
        f"![{title}]({_image(figures[name])})\n\n*{title}.*"
        for name, title in FIGURES.items()
        if name in figures
    ]
    bad = [*quarantine_groups(data.quarantine), *unscorable_groups(data.ledger)]
    if bad:
        parts += [
            "## Bad rows",
            _table(("reason", "rows"), [(plain(one.reason), f"{one.rows:,}") for one in bad]),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lead(data: ReportData) -> str:
    found = reach(data.ledger, data.manifest)
    if found is None:
        return ""
    told = f"From the best evol score down to rank {found['last']:,} of {found['ranked']:,}"
    told += (
        f", passing over {found['too_similar']:,} as too similar to one already kept."
        if found["too_similar"]
        else "."
    )
    short = found["budget"] > data.manifest.counts.selected
    return (
        f"{told} The budget of {found['budget']:,} was not filled: every row was reached."
        if short
        else told
    )


def _places(data: ReportData, output: str) -> str:
    """Links to a disk or a bucket lose their target in the UI, so places are said as text."""
    files = ", ".join(f"`{name}`" for name in ("manifest.json", *data.manifest.outputs))
    return (
        f"Written to {code(output)}: {files}. Open `report.html` there for the whole report, "
        "with examples."
    )


def _measured(data: ReportData) -> list[tuple[str, ...]]:
    return [(name, *numbers) for name, numbers in summary_table(measures(data))]


def _changes(changes: Changes) -> Iterable[str]:
    yield (
        f"Compared with {code(changes.before)}: {changes.pool_added:,} conversations are new "
        f"in the pool and {changes.pool_removed:,} are "
        f"gone; **{changes.added:,} came into the selection and {changes.dropped:,} "
        "went out of it**."
    )
    if changes.budget[0] != changes.budget[1]:
        yield f"The budget was {changes.budget[0]} and is {changes.budget[1]}."
    if changes.settings:
        yield f"Made differently than before: {', '.join(changes.settings)}."
    yield _table(
        ("", "why", "conversations"),
        [(change, plain(why), f"{count:,}") for change, why, count in changes.reasons()],
    )
    shifts = [
        (one.measure, f"{one.old_mean:.2f}", f"{one.new_mean:.2f}", f"{one.shift:+.2f}")
        for one in changes.drift
        if one.shift is not None
    ]
    if shifts:
        yield _table(("mean score of", "rows that were there", "new rows", "shift"), shifts)


def best_rows(data: ReportData) -> list[dict[str, Any]]:
    """The best of the selection as rows of a table."""
    pairs = pairs_of(best_selected(data.ledger), data.ledger, data.conversations)
    return [{"rank": pair.example.row["rank"], **_asked(pair), **_scores(pair)} for pair in pairs]


def closest_rows(data: ReportData) -> list[dict[str, Any]]:
    """The rejected rows nearest to the limit, each with the kept one that blocked it."""
    limit, measure = limit_of(data.manifest), measure_of(data.manifest)
    rows = []
    for pair in pairs_of(closest_calls(data.ledger, measure), data.ledger, data.conversations):
        blocker = one_line(pair.blocker.snippet) if pair.blocker else ""
        near = {measure: round(float(pair.example.row["similarity"]), 4), "limit": limit}
        rows.append({**near, **_asked(pair), "kept instead": blocker, **_scores(pair)})
    return rows


def _asked(pair: Pair) -> dict[str, Any]:
    """The text comes early: a table of the UI shows what is wide only as far as it has room."""
    return {"asked": one_line(pair.example.snippet)}


def _scores(pair: Pair) -> dict[str, Any]:
    row = pair.example.row
    means = {
        kind: round(sum(row[kind]) / len(row[kind]), 2) if row[kind] else None
        for kind in ("complexity", "quality")
    }
    score = None if row["evol_score"] is None else round(float(row["evol_score"]), 3)
    return {
        "rank": row["rank"],
        "evol score": score,
        **means,
        "turns": len(row["complexity"] or ()),
    }


def _image(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(text: str) -> str:
    """`text` as a span of code, whatever is in it."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def one_line(text: str) -> str:
    """`text` on one line, without characters that act instead of being seen."""
    return " ".join(
        re.sub(
            r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", " ", text
        ).split()
    )


def plain(text: str) -> str:
    """A text of the pool as a text in Markdown: nothing in it is taken for markup, a link or HTML."""
    return re.sub(r"([\\`*_\[\]#|~!])", r"\\\1", html.escape(one_line(text), quote=False))
