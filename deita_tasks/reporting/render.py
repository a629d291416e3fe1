"""Pages that are one file and ask nothing of the network."""

from __future__ import annotations

from typing import Any

import jinja2


def render(template: str, **values: Any) -> bytes:
    """The page that `template` of this folder makes of `values`; everything in them that is not
    Markup is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deita_tasks.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["number"] = lambda number: (
        "–" if number != number else f"{number:,.2f}"
    )  # NaN: of no rows
    return environment.get_template(template).render(**values).encode("utf-8", "backslashreplace")
