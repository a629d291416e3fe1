"""Pools of agents' and plain conversations, and their subsets as trainers get them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deita_tasks.conversations import Conversation
from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from deita_tasks.exporting.folder import export_folder
from deita_tasks.loading import read_conversations

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add numbers",
        "parameters": {"type": "object", "properties": {"numbers": {"type": "array"}}},
    },
}


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    """A tool call as chat APIs have it."""
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


AGENTS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "How warm is it in Paris?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call(1, "weather", city="Paris")],
            },
            {"role": "tool", "content": "21 C", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "It is 21 degrees warm in Paris."},
        ],
        "tools": [WEATHER],
    },
    {
        "messages": [
            {"role": "user", "content": "What are 2 and 3, and 4 and 5?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call(2, "add", numbers=[2, 3]), call(3, "add", numbers=[4, 5])],
            },
            {"role": "tool", "content": "5", "tool_call_id": "call_2"},
            {"role": "tool", "content": "9", "tool_call_id": "call_3"},
            {"role": "assistant", "content": "They are 5 and 9."},
        ],
        "tools": [ADD, WEATHER],
    },
    {
        "messages": [
            {"role": "user", "content": "Name a fruit."},
            {"role": "assistant", "content": "An apple."},
            {"role": "user", "content": "Thanks!"},
        ],
        "source": "2024-05-01",
    },
]
PLAIN: list[dict[str, Any]] = [
    {"instruction": "Add", "input": "2, 2", "output": "4"},
    {"instruction": "Name a fruit.", "input": "", "output": "An apple.", "label": None},
    {
        "instruction": "And a vegetable?",
        "input": "",
        "output": "A leek.",
        "system": "Be brief.",
        "history": [["Name a fruit.", "An apple."]],
    },
]


def read_pool(rows: list[dict[str, Any]], folder: Path, format: str) -> list[Conversation]:
    """The conversations of a pool of these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    conversations = list(read_conversations(str(path), format=format))
    bad = [row for row in conversations if not isinstance(row, Conversation)]
    assert not bad, bad[0]
    return conversations  # type: ignore[return-value]


def write_subset(
    rows: list[dict[str, Any]], folder: Path, output_format: str, input_format: str = "messages"
) -> Path:
    """Select all rows of a pool into a folder; return the folder."""
    conversations = read_pool(rows, folder / "pool", input_format)
    selected = [ExportRow(row, 9.0 - i, i + 1) for i, row in enumerate(conversations)]
    export_folder(load_exporter(output_format), selected, folder / output_format)
    return folder / output_format
