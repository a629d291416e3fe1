"""Settings that differ between two selections, by value: `selection.budget: 60 -> 80`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from deita_tasks.addresses import without_password

# "export" has the options of the subset; the others are fingerprints.
STAGES = (
    "complexity",
    "quality",
    "embedding",
    "decontamination",
    "tokens",
    "selection",
    "export",
)
MAX_CHARACTERS = 80
HIDDEN = "***"
SECRET = re.compile(r"(^|_)(key|password|secret|token)$")


class SettingChange(NamedTuple):
    """A setting that differs, with nested names joined by dots; None for no value."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name}: {_short(self.before)} -> {_short(self.after)}"


def compare_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[SettingChange]:
    """Return what differs between the settings of two selections, by stage.

    Values of secrets and passwords in addresses are hidden.
    """
    values = dict(_flat(before)), dict(_flat(after))
    names = dict.fromkeys([*values[0], *values[1]])
    changes = [SettingChange(name, values[0].get(name), values[1].get(name)) for name in names]
    return [_safe(change) for change in changes if change.before != change.after]


def describe_settings(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the settings of changes.json, a line each."""
    return [str(SettingChange(**fields)) for fields in settings]


def _flat(stages: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for stage in STAGES:
        yield from _flat_values(stages.get(stage), stage)


def _flat_values(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, nested in value.items():
        yield from _flat_values(nested, f"{name}.{key}")


def _safe(change: SettingChange) -> SettingChange:
    if SECRET.search(change.name.rsplit(".", 1)[-1]):
        return SettingChange(change.name, HIDDEN, HIDDEN)
    return SettingChange(change.name, _hide(change.before), _hide(change.after))


def _hide(value: Any) -> Any:
    """Return a JSON value without the passwords of the addresses in it."""
    text = json.dumps(value)
    return json.loads(without_password(text))


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
