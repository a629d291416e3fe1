"""What one model scored, item by item."""

from __future__ import annotations

from deita_tasks.strict_json import JsonRecord


class HeldOutLoss(JsonRecord):
    """Of each held-out row: its id, the loss summed over the tokens of its answers, and these."""

    ids: list[str]
    total: list[float]
    tokens: list[int]


class PreferenceLosses(JsonRecord):
    """Of each pair: its id, and the loss and the tokens of both answers."""

    ids: list[str]
    chosen: list[float]
    chosen_tokens: list[int]
    rejected: list[float]
    rejected_tokens: list[int]


class TaskScores(JsonRecord):
    """A task of the harness: its metric, and the value of each item by the item's number."""

    task: str
    metric: str
    items: dict[str, float]
