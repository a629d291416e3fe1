"""Pages that are one file and ask nothing of the network."""

from __future__ import annotations

from typing import Any

from deita_tasks.reporting.composition import shorten
from deita_tasks.templating import template_environment


def render(template: str, **values: Any) -> bytes:
    """The page that `template` of this folder makes of `values`; everything in them that is not
    Markup is escaped.
    """
    environment = template_environment("deita_tasks.reporting", autoescape=True)
    environment.filters["shorten"] = shorten
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["number"] = lambda number: (
        "–" if number != number else f"{number:,.2f}"
    )  # NaN: of no rows
    return environment.get_template(template).render(**values).encode("utf-8", "backslashreplace")
