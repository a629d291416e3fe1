"""Selecting: which conversations to keep, and why not the others. One file per strategy."""

from typing import Any

from deita_tasks.catalogue import SELECTORS
from deita_tasks.components import load_component
from deita_tasks.selecting.base import Selector

__all__ = ["SELECTORS", "Selector", "load_selector"]


def load_selector(name: str, **options: Any) -> Selector:
    """Return the strategy `name` of SELECTORS. Raises UsageError for a wrong name or option."""
    selector: Selector = load_component(SELECTORS, "strategy", name, options)
    return selector
