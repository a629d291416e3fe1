"""One JSON object: with the rows in a list under a key ({"data": [...]}), or itself the one row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from deita_tasks.loading import json_array
from deita_tasks.loading.base import BrokenFile, Row

# Keys under which programs put the list of all rows.
ROW_KEYS = ("data", "rows", "train", "examples", "instances", "records", "samples", "items")
MAX_REST_BYTES = 1 << 20  # of the members after the list

_MEMBER = re.compile(r'\s*"((?:[^"\\]|\\.)*+)"\s*:\s*', re.DOTALL)
_LIST = re.compile(r"\[\s*[{\]]")
_NEXT = re.compile(r"\s*,")
_skip_value = json.JSONDecoder().raw_decode


def find_list(head: bytes) -> tuple[str, int] | None:
    """Return the key of the list of rows in an object, and where the list begins in `head`.

    In bytes from 0. None if `head`, the beginning of the object, holds none of ROW_KEYS with a
    list that is empty or begins with an object.
    """
    text = head.decode("latin-1")  # a character a byte
    position = text.find("{") + 1
    while member := _MEMBER.match(text, position):
        position = member.end()
        if member[1] in ROW_KEYS and _LIST.match(text, position):
            return member[1], position
        try:
            position = _skip_value(text, position)[1]
        except (ValueError, RecursionError):
            return None
        comma = _NEXT.match(text, position)
        if comma is None:
            return None
        position = comma.end()
    return None


def rows_in_list(blocks: Iterable[bytes], head_bytes: int) -> Iterator[Row]:
    """Yield the rows in the list of an object, as those of a JSON array.

    head_bytes: within which the list begins. Raises BrokenFile, after the rows, if the object holds
    another list of rows or is not complete.
    """
    stream = iter(blocks)
    head = b""
    for block in stream:
        head = (head + block).lstrip()
        if len(head) >= head_bytes:
            break
    found = find_list(head[:head_bytes])
    assert found is not None  # by it the container was detected
    key, start = found
    rest = _Rest(key)
    yield from json_array.rows(chain([head[start:]], stream), rest.add)
    rest.check()


def whole(blocks: Iterable[bytes]) -> Iterator[Row]:
    """Yield an object that goes over several lines as one row."""
    return json_array.rows(chain([b"["], blocks, [b"]"]))


class _Rest:
    """The members of an object after its list of rows."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._text = b""

    def add(self, piece: bytes) -> None:
        """Add what a block holds behind the list. Raises BrokenFile beyond MAX_REST_BYTES."""
        self._text += piece
        if len(self._text) > MAX_REST_BYTES:
            raise BrokenFile(
                f"more than {MAX_REST_BYTES:,} bytes follow the list {self._key!r}; expected one "
                "list of rows in the object: write each list to a file of its own"
            )

    def check(self) -> None:
        """Raise BrokenFile unless the object ends here and has no second list of rows."""
        try:
            members = json.loads(b'{"":0' + self._text)
        except (ValueError, RecursionError) as error:
            raise BrokenFile(
                f"the JSON object is not complete after its list {self._key!r} ({error})"
            ) from error
        others = [key for key, value in members.items() if _is_rows(value)]
        if others:
            raise BrokenFile(
                f"the object holds rows under {self._key!r} and under {others[0]!r}; expected one "
                "list: write each to a file of its own"
            )


def _is_rows(value: object) -> bool:
    """Return whether a member is a list of objects, to judge by its first element."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
