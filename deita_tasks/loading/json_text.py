"""Strict JSON: parse what RFC 8259 allows and every reader of our outputs can hold.

Except for NaN, Infinity and -Infinity, which Python's json.dump writes: they become null, as they
do in Parquet.
"""

from __future__ import annotations

import json
import re
from math import isinf

from deita_tasks.loading.base import MAX_DEPTH, BadRow, check_no_nul, describe_type, not_utf8
from deita_tasks.strict_json import JSON

BOM = "\ufeff"
# How the repr() of a list or dict of texts begins.
PYTHON_LITERAL = re.compile(r"\s*(?:\[\s*)?(?:[\[{(]\s*['(]|(?:array|dict|OrderedDict)\()")


def parse_row(raw: bytes) -> dict[str, JSON]:
    """Return the JSON object in `raw`. Raises BadRow for anything else."""
    check_no_nul(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, "the row") from None
    row = parse(text)
    if not isinstance(row, dict):
        raise BadRow("malformed_row", f"the row is {describe_type(row)}; expected a JSON object")
    return row


def parse(text: str) -> JSON:
    """Return the JSON value in `text`.

    Raises BadRow for invalid JSON, for a name that occurs twice in an object, a number that is out
    of range, a NUL or a lone surrogate in any text, and nesting beyond MAX_DEPTH.
    """
    try:
        value: JSON = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if text.startswith(BOM):  # a file that began here, before another was put in front
            return parse(text.removeprefix(BOM))
        raise BadRow("malformed_row", _explain(text, error)) from None
    except RecursionError:
        raise BadRow("malformed_row", f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:  # int() refuses thousands of digits, which take quadratic time
        raise BadRow("malformed_row", "a number with more digits than can be read") from None
    # Bad values are rare, and a search in the text is much cheaper than a walk through the values.
    may_hold_bad_text = any(escape in text for escape in ("\\ud", "\\uD", "\\u0000"))
    if may_hold_bad_text or text.count("[") + text.count("{") > MAX_DEPTH:
        check_value(value)
    return value


def without_items(value: JSON, items: int) -> JSON:
    """Return a list, or its JSON text, without its last `items`, of the same kind; None if empty.

    Raises BadRow for anything else.
    """
    listed = parse(value) if isinstance(value, str) else value
    if not isinstance(listed, list):
        raise BadRow("malformed_row", f"{describe_type(value)}; expected a list")
    left = listed[: len(listed) - items] if items < len(listed) else []
    if not left:
        return None
    return json.dumps(left, ensure_ascii=False) if isinstance(value, str) else left


def _explain(text: str, error: json.JSONDecodeError) -> str:
    """Return why `text` is not JSON, with a remedy for the two commonest mistakes.

    Characters are counted from 1.
    """
    if PYTHON_LITERAL.match(text):
        return "a Python literal (single quotes), not JSON; write it with json.dumps()"
    if error.msg == "Extra data" and text[error.pos] == "{":
        return "several JSON objects one after another; expected each in a line (with jq: jq -c)"
    return f"not JSON: {error.msg} at character {error.pos + 1}"


def check_value(value: JSON) -> None:
    """Raise BadRow for a NUL or a lone surrogate in any text, and for nesting beyond MAX_DEPTH."""
    level: list[JSON] = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[JSON] = []
        for item in level:
            if isinstance(item, str):
                check_text(item)
            elif isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, dict):
                deeper.extend(item)
                deeper.extend(item.values())
        if not deeper:
            return
        level = deeper
    raise BadRow("malformed_row", f"nested deeper than {MAX_DEPTH} levels")


def check_text(text: str) -> None:
    """Raise BadRow for a NUL or a lone surrogate in `text`."""
    if "\0" in text:
        raise BadRow("nul_byte", "a text contains the character U+0000")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code_point = ord(text[error.start])
        detail = f"a text contains U+{code_point:04X}, half of a surrogate pair"
        raise BadRow("lone_surrogate", detail) from None


def _build_object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    """Return the members by name, in the text's order.

    Raises BadRow for a name that occurs twice: a dict would lose the first value in silence.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise BadRow("malformed_row", f"the name {duplicate[:40]!r} occurs twice in one object")
    return members


def _parse_float(digits: str) -> float:
    """Return the number. Raises BadRow for one like 1e999, which would become infinite."""
    number = float(digits)
    if isinf(number):
        raise BadRow("malformed_row", f"the number {digits[:40]} is out of range for a double")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_build_object, parse_constant=lambda name: None, parse_float=_parse_float
)
