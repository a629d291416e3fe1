"""Strict JSON text, for any value that an input column can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


def strict_json(value: Any) -> str:
    """`value` as JSON that UTF-8 can encode. NaN and the infinities, which JSON does not have,
    become null; where there is a lone surrogate, which UTF-8 does not have, everything outside
    ASCII is written as \\u escapes.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        value = without_nan(value)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if encodable(text) else json.dumps(value, allow_nan=False)


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold `text`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_nan(value: Any) -> Any:
    """`value` with null for each number that JSON cannot write."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return value
