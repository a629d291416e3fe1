"""The page of the explorer: what Embedding Atlas draws of the table, and in which order."""

from __future__ import annotations

from typing import Any, TypeAlias

from deita_tasks.exploring.table import NEIGHBOURS, ROW, ExplorerTable, X, Y

Chart: TypeAlias = dict[str, Any]

# The columns of the table on the page; a row opened shows all.
TABLE_COLUMNS = (
    *("decision", "rank", "evol_score", "complexity", "quality", "text"),
    *("nearest_similarity", "nearest_distance", "nearest_text", "reason"),
    *("source", "source_row", "language", "turns", "words", "tokens", "truncated", "id"),
)
LONG_COLUMNS = ("text", "nearest_text", "reason")


def page_properties(table: ExplorerTable) -> Chart:
    """Return the properties of the page, as Embedding Atlas reads them from metadata.json."""
    data: Chart = {"id": ROW, "text": "text"}
    if table.has(X):
        data["projection"] = {"x": X, "y": Y}
    if table.has(NEIGHBOURS):
        data["neighbors"] = NEIGHBOURS
    charts = {str(number): chart for number, chart in enumerate(_charts(table), start=1)}
    styles = {name: {"display": "full"} for name in LONG_COLUMNS if table.has(name)}
    return {"data": data, "initialState": {"charts": charts, "columnStyles": styles}}


def _charts(table: ExplorerTable) -> list[Chart]:
    """Return the charts, the most important first."""
    charts = [_map(table)] if table.has(X) else []
    charts.append({"type": "predicates", "title": "SQL conditions"})
    charts.append(_rows(table))
    charts += [_counts(name) for name in table.categories]
    charts += [_histogram(name) for name in table.numbers]
    return charts


def _map(table: ExplorerTable) -> Chart:
    data = {"x": X, "y": Y, "text": "text"}
    if table.has("decision"):
        data["category"] = "decision"
    if table.has(NEIGHBOURS):
        data["neighbors"] = NEIGHBOURS
    return {"type": "embedding", "title": "Map", "data": data}


def _rows(table: ExplorerTable) -> Chart:
    columns = [name for name in TABLE_COLUMNS if table.has(name)]
    others = [name for name in table.rows.column_names if not name.startswith("__")]
    columns += [name for name in others if name not in columns]
    return {"type": "instances", "title": "Rows", "columns": columns}


def _counts(name: str) -> Chart:
    return {"type": "count-plot", "title": name, "data": {"field": name}, "labels": "#/#"}


def _histogram(name: str) -> Chart:
    """Return a histogram of all rows, and of the filtered ones in front of them."""
    encoding = {"x": {"field": name}, "y": {"aggregate": "count"}}
    every_row = {"mark": "bar", "style": {"fillColor": "$markColorFade"}, "encoding": encoding}
    filtered = {"mark": "bar", "filter": "$filter", "encoding": encoding}
    scale = {"type": "scale.type", "channel": "x"}
    return {
        "title": name,
        "layers": [every_row, filtered],
        "selection": {"brush": {"encoding": "x"}},
        "widgets": [scale],
    }
