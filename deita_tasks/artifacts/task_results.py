"""Results of tasks that Prefect remembers.

<store>/results/<task>-<digest of what it depends on>
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue, field_validator

from deita_tasks.strict_json import JsonRecord

# What Prefect's own decoder takes for a class to call.
CLASS_NAMES = {"__class__", "__exc_type__"}


class StoredResult(JsonRecord):
    """A task's result as it lies in the store: its value, and nothing that says how to read it."""

    value: dict[str, JsonValue]

    @field_validator("value")
    @classmethod
    def _check_names(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Refuse the names by which Prefect's JSON asks for a class or an exception."""
        for name in _field_names(value):
            if name in CLASS_NAMES:
                raise ValueError(f"a field {name!r}; expected plain JSON")
        return value


def _field_names(value: JsonValue) -> Iterator[str]:
    """Yield the names of all fields in a JSON value, at any depth."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _field_names(item)
