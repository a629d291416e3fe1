"""Settings that differ between two selections, by value: `selection.budget: 60 -> 80`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from deita_tasks.addresses import without_password
from deita_tasks.presets import EVERY_ROW

# "export" has the options of the subset; the others are fingerprints.
STAGES = ("complexity", "quality", "embedding", "decontamination", "tokens", "selection", "export")
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
    old = dict(_flat(before))
    new = dict(_flat(after))
    changes = []
    for name in {**old, **new}:
        change = SettingChange(name, old.get(name), new.get(name))
        if change.before != change.after:
            changes.append(_safe(change))
    return changes


def describe_settings(settings: Iterable[Mapping[str, Any] | str]) -> list[str]:
    """Return the settings of changes.json, a line each; early versions named only the stage."""
    lines = []
    for setting in settings:
        if isinstance(setting, str):
            lines.append(f"{setting}: changed")
        else:
            lines.append(str(SettingChange(**setting)))
    return lines


def _flat(stages: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each setting of STAGES by its full name."""
    for stage in STAGES:
        yield from _flat_values(stages.get(stage), stage)


def _flat_values(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the values below `name`, or `value` itself if it has no names."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, nested in value.items():
        yield from _flat_values(nested, f"{name}.{key}")


def _safe(change: SettingChange) -> SettingChange:
    """Return the change without secrets."""
    name = change.name
    *_, last = name.split(".")
    if SECRET.search(last):
        return SettingChange(name, HIDDEN, HIDDEN)
    before = _hide(change.before)
    after = _hide(change.after)
    return SettingChange(name, before, after)


def _hide(value: Any) -> Any:
    """Return a JSON value without the passwords of the addresses in it."""
    text = json.dumps(value)
    return json.loads(without_password(text))


def _short(value: Any) -> str:
    """Return a value as a person reads it."""
    if value is None:
        return "none"
    if value == EVERY_ROW:
        return "all"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]} …"
