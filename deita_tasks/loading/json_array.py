"""One JSON array of objects, however it is laid out in lines.

The file is cut at the commas of its outermost array, and each piece is parsed by itself. So memory
holds one row, and a malformed element costs that element alone as long as its quotes and brackets
match. (A streaming parser, ijson 3.6 for one, stops at the first fault, makes "?" of a lone
surrogate, and 100 KB of "[" cost it gigabytes.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from deita_tasks.loading.base import KEPT, MAX_ROW, BrokenFile, Row, too_long
from deita_tasks.loading.json_lines import json_row

# What is over MAX_ROW is scanned for its end without being held, but not for ever: a lost quote
# would cost the rest of the file.
MAX_SCAN = 4 * MAX_ROW

# A string as far as the block holds it, a run of brackets, or a comma. Possessive, so that matching
# takes no memory of its own.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[{]++|[\]}]++|,', re.DOTALL)
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_QUOTE, _COMMA, _OPENING = ord('"'), ord(","), frozenset(b"[{")


class _Cutter:
    """Where the scan of the array stands, between blocks."""

    def __init__(self) -> None:
        self.depth = 0  # 1 between the elements of the array
        self.in_string = False
        self.escaped = False  # the last byte of the block before was a backslash
        self.ended = False
        self._held: list[bytes] = []
        self._size = 0
        self.number = 0

    def cut(self, block: bytes) -> Iterator[Row]:
        """The elements that end in `block`."""
        start = position = 0
        if self.in_string:
            position = self._rest_of_string(block)
        for token in _TOKEN.finditer(block, position):
            kind = block[token.start()]
            if kind == _QUOTE:
                if not token[1]:  # it goes on in the next block
                    self._open_string(block, token.end())
                    break
            elif kind == _COMMA:
                if self.depth == 1:
                    yield from self._element(block[start : token.start()])
                    start = token.end()
            elif kind in _OPENING:
                if self.depth == 0:
                    start = token.start() + 1
                self.depth += token.end() - token.start()
            elif (end := self._close(block, token.start(), token.end())) is not None:
                yield from self._element(block[start:end])
                self.ended = True
                self.refuse_more(block[end + 1 :])
                return
        self._hold(block[start:])

    def _close(self, block: bytes, start: int, end: int) -> int | None:
        """Takes the closing brackets in block[start:end]; the place of the one that ends the array,
        or None.
        """
        inner = min(end - start, self.depth - 1)
        self.depth -= inner
        # What is left stands between elements: a stray "}" stays part of its element, which is then
        # malformed by itself.
        place = block.find(b"]", start + inner, end)
        return None if place < 0 else place

    def _rest_of_string(self, block: bytes) -> int:
        rest = _REST_OF_STRING.match(block, 1 if self.escaped else 0)
        assert rest is not None  # it matches the empty string
        if rest[1]:
            self.in_string = self.escaped = False
            return rest.end()
        self._open_string(block, rest.end())
        return len(block)

    def _open_string(self, block: bytes, end: int) -> None:
        self.in_string, self.escaped = True, end < len(block)

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= MAX_ROW:
            self._held.append(piece)
        else:
            self._held = [(b"".join(self._held) + piece[:KEPT])[:KEPT]]
        if self._size > MAX_SCAN:
            raise BrokenFile(
                f"record {self.number + 1:,} of the JSON array does not end within "
                f"{MAX_SCAN:,} bytes: a quote or a bracket has no partner"
            )

    def _element(self, piece: bytes) -> Iterator[Row]:
        self._hold(piece)
        content, size = b"".join(self._held).strip(), self._size
        self._held, self._size = [], 0
        if not content:  # nothing between two commas, or after the last: no row is there
            return
        self.number += 1
        yield (
            Row(self.number, None, content, too_long(size))
            if size > MAX_ROW
            else json_row(self.number, content)
        )

    def last(self) -> Iterator[Row]:
        """The element that the end of the file cut off from what followed, if it is whole."""
        for row in self._element(b""):
            if row.columns is None:
                self.number -= 1
            else:
                yield row

    def refuse_more(self, rest: bytes) -> None:
        """Raises BrokenFile where anything follows the array."""
        if rest.strip():
            shown = rest.strip()[:40].decode("utf-8", "backslashreplace")
            raise BrokenFile(
                f"the array ends after record {self.number:,}, but the file goes on with {shown!r}"
            )


def rows(blocks: Iterable[bytes]) -> Iterator[Row]:
    """The rows of a JSON array. Raises BrokenFile, after the rows before it, for an element that
    never ends and for text after it.
    """
    cutter = _Cutter()
    for block in blocks:
        if cutter.ended:
            cutter.refuse_more(block)
        else:
            yield from cutter.cut(block)
    if not cutter.ended:
        yield from cutter.last()
        raise BrokenFile(
            f"the JSON array is not closed: after record {cutter.number:,} the file breaks "
            "off, or a quote or a bracket there has no "
            "partner, so that what follows cannot be told apart into records"
        )
