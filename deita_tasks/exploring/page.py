"""The page of the explorer: what Embedding Atlas draws of the table, and in which order.

Texts of the pool are shown as they are. A template escapes them, and Embedding Atlas removes what
could act in a page from every template's output.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow.compute as pc

from deita_tasks.exploring.table import NEIGHBOURS, ROW, ExplorerTable, X, Y

Properties: TypeAlias = dict[str, Any]

PLAIN_TEXT = '<div style="white-space: pre-wrap">{{ value | escape }}</div>'
TEXT_COLUMNS = ("text", "nearest_text")
PAIR = """
<div style="padding: 12px">
  <b>{{ decision | escape }}</b>, MEASURE {{ MEASURE | round: 3 }} to the selected row below
  <div style="white-space: pre-wrap; max-height: 15em; overflow: auto">{{ text | escape }}</div>
  <hr style="margin: 8px 0">
  <div style="white-space: pre-wrap; max-height: 15em; overflow: auto">{{ nearest_text | escape }}
  </div>
</div>
"""
PAIRS_QUERY = "SELECT * FROM $table WHERE nearest_id IS NOT NULL AND $filter"
PAIRS_A_PAGE = 20
GRID = (24, 18)  # columns and rows of the tab with pairs


def page_properties(table: ExplorerTable) -> Properties:
    """Return the properties of the page, as Embedding Atlas reads them from metadata.json."""
    data: Properties = {"id": ROW, "text": "text"}
    if table.has(X):
        data["projection"] = {"x": X, "y": Y}
    if table.has(NEIGHBOURS):
        data["neighbors"] = NEIGHBOURS
    style = {"renderer": "liquid-template", "options": {"template": PLAIN_TEXT}, "display": "full"}
    state = _tabs(table)
    state["columnStyles"] = {name: style for name in TEXT_COLUMNS if table.has(name)}
    return {"data": data, "initialState": state}


def _tabs(table: ExplorerTable) -> Properties:
    """Return the charts, by name, and the tabs that show them."""
    charts = _charts(table)
    layouts: Properties = {"rows": {"type": "list", "name": "Rows", "chartIds": list(charts)}}
    measures = [name for name in table.numbers if name.startswith("nearest_")]
    if measures:
        charts |= _pair_charts(measures[0])
        layouts["pairs"] = _pair_layout()
    return {
        "charts": charts,
        "chartStates": _filters(table),
        "layouts": layouts,
        "layoutOrder": list(layouts),
        "currentLayout": "rows",
    }


def _filters(table: ExplorerTable) -> Properties:
    """Return what is filtered at first: the tab with pairs shows the rejected rows, if any."""
    if not table.has("decision"):
        return {}
    decisions = pc.unique(table.rows["decision"])
    if "too_similar" not in decisions.to_pylist():
        return {}
    return {"pair decision": {"selection": ["too_similar"]}}


def _charts(table: ExplorerTable) -> Properties:
    """Return the charts of the tab with rows, the most important first."""
    charts: Properties = {}
    if table.has(X):
        charts["map"] = _map(table)
    charts["table"] = {"type": "instances", "title": "Rows"}
    first = table.categories[:1]
    others = table.categories[1:]
    for name in first:
        charts[f"count {name}"] = _counts(name)
    for name in table.numbers:
        charts[f"histogram {name}"] = _histogram(name)
    for name in others:
        charts[f"count {name}"] = _counts(name)
    charts["conditions"] = {"type": "predicates", "title": "SQL conditions"}
    return charts


def _map(table: ExplorerTable) -> Properties:
    """Return the map, coloured by decision if there are decisions."""
    data = {"x": X, "y": Y, "text": "text"}
    if table.has("decision"):
        data["category"] = "decision"
    if table.has(NEIGHBOURS):
        data["neighbors"] = NEIGHBOURS
    return {"type": "embedding", "title": "Map", "data": data}


def _counts(name: str) -> Properties:
    """Return bars with the rows of each value, of the filtered rows and of all."""
    return {"type": "count-plot", "title": name, "data": {"field": name}, "labels": "#/#"}


def _histogram(name: str) -> Properties:
    """Return a histogram of all rows, and of the filtered ones in front of them."""
    encoding = {"x": {"field": name}, "y": {"aggregate": "count"}}
    bars = {"mark": "bar", "encoding": encoding}
    every_row = {**bars, "style": {"fillColor": "$markColorFade"}}
    filtered = {**bars, "filter": "$filter"}
    scale = {"type": "scale.type", "channel": "x"}
    return {
        "title": name,
        "layers": [every_row, filtered],
        "selection": {"brush": {"encoding": "x"}},
        "widgets": [scale],
    }


def _pair_charts(measure: str) -> Properties:
    """Return the charts of the tab that shows a row beside the selected row nearest to it."""
    direction = "ascending" if measure == "nearest_distance" else "descending"
    cards = {
        "type": "instances",
        "title": "A row, and the selected row nearest to it",
        "viewMode": "cards",
        "cardTemplate": PAIR.replace("MEASURE", measure),
        "query": PAIRS_QUERY,
        "sort": [{"column": measure, "direction": direction}],
        "pageSize": PAIRS_A_PAGE,
    }
    return {
        "pair decision": _counts("decision"),
        "pair measure": _histogram(measure),
        "pair cards": cards,
    }


def _pair_layout() -> Properties:
    """Return the tab with pairs: counts and histogram on the left, cards beside them."""
    columns, rows = GRID
    side = columns // 4
    middle = rows // 2
    placements = {
        "pair decision": _place(0, 0, side, middle),
        "pair measure": _place(0, middle, side, rows - middle),
        "pair cards": _place(side, 0, columns - side, rows),
    }
    return {
        "type": "dashboard",
        "name": "Pairs",
        "chartIds": list(placements),
        "numColumns": columns,
        "numRows": rows,
        "grids": {f"{columns}x{rows}": {"placements": placements}},
    }


def _place(x: int, y: int, width: int, height: int) -> Properties:
    """Return a place on the grid, in its cells."""
    return {"x": x, "y": y, "width": width, "height": height}
