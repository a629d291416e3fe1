"""Strict JSON: what RFC 8259 allows and every reader of our outputs can hold, or a reason why not."""

from __future__ import annotations

import json
from math import isinf
from typing import Any

from deita_tasks.loading.base import MAX_DEPTH, BadRow, kind_of


def parse_row(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises BadRow for everything else."""
    if b"\0" in raw:
        raise BadRow("nul_byte", f"a NUL byte at byte {raw.index(0) + 1} of the row")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(
            "invalid_utf8",
            f"byte {error.start + 1} of the row, 0x{raw[error.start]:02x}, is not UTF-8",
        ) from None
    row = parse(text)
    if not isinstance(row, dict):
        raise BadRow("malformed_row", f"the row is {kind_of(row)}; expected a JSON object")
    return row


def parse(text: str) -> Any:
    """The JSON value in `text`: names unique, numbers finite, no NUL and no lone surrogate in any
    text. Raises BadRow.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRow(
            "malformed_row", f"not JSON: {error.msg} at character {error.pos + 1}"
        ) from None
    except RecursionError:
        raise BadRow("malformed_row", f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:  # int() refuses thousands of digits, which take quadratic time
        raise BadRow("malformed_row", "a number with more digits than can be read") from None
    # All that follows is rare, and a search in the text is much cheaper than a walk through the
    # values.
    if (
        "\\ud" in text
        or "\\uD" in text
        or "\\u0000" in text
        or text.count("[") + text.count("{") > MAX_DEPTH
    ):
        check(value)
    return value


def check(value: Any) -> None:
    """Raises BadRow for a NUL or a lone surrogate in any text of `value`, and for nesting beyond
    MAX_DEPTH.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for part in level:
            if isinstance(part, str):
                check_text(part)
            elif isinstance(part, list):
                deeper.extend(part)
            elif isinstance(part, dict):
                deeper.extend(part)
                deeper.extend(part.values())
        if not deeper:
            return
        level = deeper
    raise BadRow("malformed_row", f"nested deeper than {MAX_DEPTH} levels")


def check_text(text: str) -> None:
    """Raises BadRow for a NUL or a lone surrogate in `text`."""
    if "\0" in text:
        raise BadRow("nul_byte", "a text holds the character U+0000")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow(
            "lone_surrogate",
            f"a text holds U+{ord(text[error.start]):04X}, half of a surrogate pair",
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow("malformed_row", f"the name {twice[:40]!r} stands twice in one object")
    return made


def _no_constant(name: str) -> None:
    raise BadRow("malformed_row", f"{name} is not JSON; expected a finite number or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise BadRow("malformed_row", f"the number {digits[:40]} is beyond a double's range")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
)
