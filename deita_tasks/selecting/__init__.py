"""Selecting: which conversations to keep, and why not the others; one file a strategy."""

from typing import Any

from deita_tasks.components import Table, load_component
from deita_tasks.selecting.base import Selector

SELECTORS: Table = {
    "diverse": "deita_tasks.selecting.diverse:Diverse",
    "top_score": "deita_tasks.selecting.top_score:TopScore",
    "random": "deita_tasks.selecting.random:Random",
    "complexity_only": "deita_tasks.selecting.top_score:ComplexityOnly",
    "quality_only": "deita_tasks.selecting.top_score:QualityOnly",
    "length": "deita_tasks.selecting.top_score:Length",
    "k_center": "deita_tasks.selecting.k_center:KCenter",
    "facility_location": "deita_tasks.selecting.facility_location:FacilityLocation",
    "mmr": "deita_tasks.selecting.mmr:MMR",
}


def load_selector(name: str, **options: Any) -> Selector:
    """The strategy `name` of SELECTORS. Raises UsageError for a wrong name or option."""
    selector: Selector = load_component(SELECTORS, "strategy", name, options)
    return selector
