"""The page of the explorer: what Embedding Atlas draws of the table, and in which order.

Texts of the pool are shown as they are. A template escapes them, and Embedding Atlas removes what
could act in a page from every template's output.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

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
        pairs = _pair_charts(measures[0])
        layouts["pairs"] = _pair_layout(pairs)
        charts |= pairs
    is_rejected = table.has("decision") and "too_similar" in table.rows["decision"].to_pylist()
    states = {"pair decision": {"selection": ["too_similar"]}} if measures and is_rejected else {}
    return {
        "charts": charts,
        "chartStates": states,
        "layouts": layouts,
        "layoutOrder": list(layouts),
        "currentLayout": "rows",
    }


def _charts(table: ExplorerTable) -> Properties:
    """Return the charts of the tab with rows, the most important first."""
    charts = {"map": _map(table)} if table.has(X) else {}
    charts["table"] = {"type": "instances", "title": "Rows"}
    charts |= {f"count {name}": _counts(name) for name in table.categories[:1]}
    charts |= {f"histogram {name}": _histogram(name) for name in table.numbers}
    charts |= {f"count {name}": _counts(name) for name in table.categories[1:]}
    charts["conditions"] = {"type": "predicates", "title": "SQL conditions"}
    return charts


def _map(table: ExplorerTable) -> Properties:
    data = {"x": X, "y": Y, "text": "text"}
    if table.has("decision"):
        data["category"] = "decision"
    if table.has(NEIGHBOURS):
        data["neighbors"] = NEIGHBOURS
    return {"type": "embedding", "title": "Map", "data": data}


def _counts(name: str) -> Properties:
    return {"type": "count-plot", "title": name, "data": {"field": name}, "labels": "#/#"}


def _histogram(name: str) -> Properties:
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
    return {"pair decision": _counts("decision"), "pair measure": _histogram(measure)} | {
        "pair cards": cards
    }


def _pair_layout(charts: Iterable[str]) -> Properties:
    columns, rows = GRID
    side = columns // 4
    decision, measure, cards = charts
    placements = {
        decision: {"x": 0, "y": 0, "width": side, "height": rows // 2},
        measure: {"x": 0, "y": rows // 2, "width": side, "height": rows - rows // 2},
        cards: {"x": side, "y": 0, "width": columns - side, "height": rows},
    }
    return {
        "type": "dashboard",
        "name": "Pairs",
        "chartIds": list(placements),
        "numColumns": columns,
        "numRows": rows,
        "grids": {f"{columns}x{rows}": {"placements": placements}},
    }
