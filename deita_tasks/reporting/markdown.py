"""A selection in brief, as Markdown and tables: for the run's page in the Prefect UI."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from pydantic import JsonValue

from deita_tasks.findings import describe_vanished
from deita_tasks.reporting.changes import Changes
from deita_tasks.reporting.examples import (
    Example,
    ExamplePair,
    best_selected,
    closest_calls,
    group_quarantined,
    group_unscorable,
    pair_examples,
)
from deita_tasks.reporting.report import ReportData
from deita_tasks.reporting.statistics import (
    distributions,
    limit_measure,
    ranking_name,
    selection_limit,
    selection_reach,
    summary_table,
)
from deita_tasks.templating import escape_markdown, one_line

BEST_TEXT = 48  # characters
PAIR_TEXT = 36  # of each of two texts side by side
MOST_DECIMALS = 6

FIGURES = {
    "evol_score": "Evol scores of the pool and of the selection",
    "complexity": "Complexity of a user turn",
    "quality": "Quality of a user turn",
    "similarity": "Similarities of rejected rows to the selected row that blocked them, and "
    "of selected rows to their nearest",
    "map": "Map of the pool and of the selection in two dimensions",
}
MEANINGS = {
    "selected": "in the subset",
    "too_similar": "to a selected row with a better score",
    "below_budget": "not reached before the selection ended",
    "stratum_full": "its stratum had all the rows that it gets",
    "duplicate": "same conversation as an earlier row",
    "quarantined": "unreadable",
    "unscorable": "no score, vector or token count",
    "contaminated": "repeats an evaluation text",
    "too_long": "no answer within the training window",
}


def markdown(
    data: ReportData, figures: Mapping[str, bytes], output: str, browse: str | None = None
) -> str:
    """Return the counts, where the result is, what changed, and the figures as inline images.

    browse: the output folder's address in a browser, None if it has none.
    """
    counts = data.manifest.counts
    parts = [
        f"# {counts.selected:,} of {counts.read:,} rows selected",
        _lead(data),
        describe_files(output, ("manifest.json", *data.manifest.outputs), browse),
        "`report.html` is the whole report, with examples.",
    ]
    rows = [
        (name.replace("_", " "), f"{getattr(counts, name):,}", why)
        for name, why in MEANINGS.items()
    ]
    parts += ["## Decisions", _table(("decision", "rows", ""), rows), _notes(data)]
    if data.changes is not None:
        parts += ["## Changes since the previous version", *_changes(data.changes)]
    parts += [
        "## Scores",
        _table(("", "pool, mean", "median", "selected, mean", "median"), _measured(data)),
    ]
    parts += [
        f"![{title}]({image(figures[name])})\n\n*{title}.*"
        for name, title in FIGURES.items()
        if name in figures
    ]
    bad = [*group_quarantined(data.quarantine), *group_unscorable(data.ledger)]
    if bad:
        parts += [
            "## Bad rows",
            _table(
                ("reason", "rows"),
                [(escape_markdown(group.reason), f"{group.rows:,}") for group in bad],
            ),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lead(data: ReportData) -> str:
    """Return how far down the ranking the selection went; "" where that is not known."""
    reach = selection_reach(data.ledger, data.manifest)
    if reach is None:
        return ""
    ranking = escape_markdown(ranking_name(data.manifest))
    lead = f"From the best {ranking} down to rank {reach.last:,} of {reach.ranked:,}"
    if reach.too_similar:
        lead += f", rejecting {reach.too_similar:,} as too similar to a selected one"
    if reach.unfilled is None:
        return f"{lead}."
    return f"{lead}. The budget of {reach.unfilled:,} was not filled: every row was reached."


def _notes(data: ReportData) -> str:
    """Return what to know beside the counts, as a list."""
    findings = data.manifest.findings
    vanished = [
        f"**Warning**: {escape_markdown(describe_vanished(value))}." for value in findings.vanished
    ]
    known = findings.sentences(data.manifest.counts.model_dump())
    sentences = map(escape_markdown, [*known, *data.manifest.filter_sentences()])
    return "\n".join(f"- {note}" for note in [*sentences, *vanished])


def describe_files(output: str, names: Iterable[str], browse: str | None) -> str:
    """Return where the files of a result are.

    As text without an address for a browser: the UI drops links to a disk or a bucket.
    """
    files = [f"[{name}]({browse}/{quote(name)})" if browse else f"`{name}`" for name in names]
    return f"Written to {code(output)}: {', '.join(files)}."


def _measured(data: ReportData) -> list[tuple[str, ...]]:
    """Return a row for each measure: name, then mean and median of pool and of selection."""
    splits = distributions(data.ledger, data.shapes)
    summary = summary_table(splits, ranking_name(data.manifest))
    return [(escape_markdown(name), *numbers) for name, numbers in summary]


def _changes(changes: Changes) -> Iterable[str]:
    """Yield the parts of the section on changes, from the counts down to examples.

    Texts of the pool are escaped, as they could be Markdown.
    """
    yield (
        f"Compared with {code(changes.before)}: {changes.pool_added:,} conversations "
        f"were added to the pool and {changes.pool_removed:,} removed; **{changes.added:,} joined "
        f"the selection and {changes.dropped:,} left it**."
    )
    if changes.settings:
        yield "Settings that changed:"
        yield "\n".join(f"- {code(str(setting))}" for setting in changes.settings)
    yield _table(
        ("", "why", "conversations"),
        [(change, escape_markdown(why), f"{count:,}") for change, why, count in changes.reasons()],
    )
    sentences = [drift.sentence() for drift in changes.drift]
    yield "\n".join(f"- {sentence}" for sentence in sentences if sentence is not None)
    for change, title in (("added", "joined"), ("dropped", "left")):
        rows = [
            (escape_markdown(row.snippet), escape_markdown(row.reason))
            for row in changes.examples
            if row.change == change
        ]
        if rows:
            yield _table((title, "why"), rows)


def best_rows(data: ReportData) -> list[dict[str, JsonValue]]:
    """Return the best of the selection as rows of a table, their numbers with two decimals.

    Best first, in the order and number of `best_selected`.
    """
    pairs = pair_examples(best_selected(data.ledger), data.ledger, data.conversations)
    return [{**_scores(pair), "question": _beginning(pair.example, BEST_TEXT)} for pair in pairs]


def closest_rows(data: ReportData) -> list[dict[str, JsonValue]]:
    """Return the rejected rows closest to the limit, each with the row that blocked it.

    Similarities, or distances, have as many decimals as tell them from the limit.
    """
    limit, measure = selection_limit(data.manifest), limit_measure(data.manifest)
    rows = []
    calls = closest_calls(data.ledger, measure)
    for pair in pair_examples(calls, data.ledger, data.conversations):
        similarity = float(pair.example.row.similarity or 0)
        row: dict[str, JsonValue] = {measure: _told_from(similarity, limit)}
        row["limit"] = _decimals(limit)
        row["evol score"] = _decimals(pair.example.row.evol_score)
        row["question"] = _beginning(pair.example, PAIR_TEXT)
        row["selected instead"] = _beginning(pair.blocker, PAIR_TEXT) if pair.blocker else ""
        rows.append(row)
    return rows


def _beginning(example: Example, characters: int) -> str:
    """Return a text that leaves room for the scores: the UI cuts off what does not fit."""
    text = one_line(example.snippet)
    if len(text) <= characters:
        return text
    return f"{text[: characters - 1].rstrip()}…"


def _scores(pair: ExamplePair) -> dict[str, JsonValue]:
    """Return what a table shows beside a text; complexity and quality are means over its turns."""
    row = pair.example.row
    return {
        "rank": row.rank,
        "evol score": _decimals(row.evol_score),
        "complexity": _decimals(_mean(row.complexity)),
        "quality": _decimals(_mean(row.quality)),
        "turns": len(row.complexity or ()),
    }


def _decimals(value: float | None) -> str | None:
    """Return a number with two decimals, as text: JSON would drop its zeros."""
    return None if value is None else f"{value:.2f}"


def _told_from(value: float, limit: float | None) -> str:
    """Return a number with two decimals, or with as many as tell it from the limit."""
    for digits in range(2, MOST_DECIMALS):
        text = f"{value:.{digits}f}"
        if limit is None or float(text) != limit:
            return text
    return f"{value:.{MOST_DECIMALS}f}"


def _mean(scores: list[float] | None) -> float | None:
    """Return the mean over the turns of a row; None for a row without scores."""
    return sum(scores) / len(scores) if scores else None


def image(svg: bytes) -> str:
    """Return an SVG as the address of an inline image."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table. Cells stand as they are: the caller escapes texts of a pool."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(text: str) -> str:
    """Return `text` as a span of code, backquotes included.

    A longer fence and spaces stand around a text that has backquotes itself.
    """
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"
