"""One JSON array of objects, however its text is split into lines.

The file is split at the commas of its outermost array, and each element is parsed by itself. So
memory holds one row, and a malformed element affects no other one as long as its quotes and
brackets match. (A streaming parser such as ijson 3.6 stops at the first fault, turns a lone
surrogate into "?", and needs gigabytes for 100 KB of "[".)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from deita_tasks.loading.base import MAX_ROW_BYTES, BrokenFile, Row, row_too_long
from deita_tasks.loading.json_lines import Accumulator, parse_json_row

# The end of an element over MAX_ROW_BYTES is searched for without holding the element, but no
# further than this: a missing quote would otherwise cost the rest of the file.
MAX_SCAN_BYTES = 4 * MAX_ROW_BYTES

# A string up to its end or the block's, a run of brackets, or a comma. The quantifiers are
# possessive, so that matching needs no memory.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[{]++|[\]}]++|,', re.DOTALL)
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_QUOTE, _COMMA, _OPENING = ord('"'), ord(","), frozenset(b"[{")


class _Splitter:
    """Splits the array into its elements; keeps the state of the scan between blocks."""

    def __init__(self, take_rest: Callable[[bytes], None] | None = None) -> None:
        self.take_rest = take_rest or self.check_no_more
        self.depth = 0  # 1 between the elements of the array
        self.in_string = False
        self.escaped = False  # the previous block ended with a backslash
        self.ended = False
        self.number = 0  # of the last element
        self._element = Accumulator()

    def split(self, block: bytes) -> Iterator[Row]:
        """Yield the elements that end in `block`, a bad one as a row with its problem.

        Raises BrokenFile for an element that never ends, and what `take_rest` raises.
        """
        start = position = 0
        if self.in_string:
            position = self._skip_string(block)
        for token in _TOKEN.finditer(block, position):
            kind = block[token.start()]
            if kind == _QUOTE:
                if not token[1]:  # the string continues in the next block
                    self._continue_string(block, token.end())
                    break
            elif kind == _COMMA:
                if self.depth == 1:
                    yield from self._finish_element(block[start : token.start()])
                    start = token.end()
            elif kind in _OPENING:
                if self.depth == 0:
                    start = token.start() + 1
                self.depth += token.end() - token.start()
            elif (end := self._close(block, token.start(), token.end())) is not None:
                yield from self._finish_element(block[start:end])
                self.ended = True
                self.take_rest(block[end + 1 :])
                return
        self._add(block[start:])

    def _close(self, block: bytes, start: int, end: int) -> int | None:
        """Process the closing brackets block[start:end].

        Return the position of the bracket that ends the array, or None.
        """
        inner = min(end - start, self.depth - 1)
        self.depth -= inner
        # The other brackets are between elements. A stray "}" remains part of its element, which
        # is then malformed.
        position = block.find(b"]", start + inner, end)
        return None if position < 0 else position

    def _skip_string(self, block: bytes) -> int:
        """Return where a string that began in an earlier block ends."""
        rest = _REST_OF_STRING.match(block, 1 if self.escaped else 0)
        assert rest is not None  # the pattern matches the empty string
        if rest[1]:
            self.in_string = self.escaped = False
            return rest.end()
        self._continue_string(block, rest.end())
        return len(block)

    def _continue_string(self, block: bytes, end: int) -> None:
        """Remember that a string goes on in the next block.

        end: where its match ended. A backslash left behind it escapes the next block's first byte.
        """
        self.in_string = True
        self.escaped = end < len(block)

    def _add(self, piece: bytes) -> None:
        """Add a piece of the element under way. Raises BrokenFile beyond MAX_SCAN_BYTES."""
        self._element.add(piece)
        if self._element.size > MAX_SCAN_BYTES:
            raise BrokenFile(
                f"record {self.number + 1:,} of the JSON array does not end within "
                f"{MAX_SCAN_BYTES:,} bytes: a quote or a bracket is not closed"
            )

    def _finish_element(self, piece: bytes) -> Iterator[Row]:
        """Yield the element that ends with `piece`, as a row; a bad one has its problem.

        Yields nothing for a blank element, which takes no number either.
        """
        self._add(piece)
        content, size = self._element.take()
        content = content.strip()
        if not content:  # nothing between two commas or after the last one
            return
        self.number += 1
        if size > MAX_ROW_BYTES:
            yield Row(self.number, None, content, row_too_long(size))
        else:
            yield parse_json_row(self.number, content)

    def finish(self) -> Iterator[Row]:
        """Yield the last element of a file that ends early, if the element is complete."""
        for row in self._finish_element(b""):
            if row.columns is None:
                self.number -= 1
            else:
                yield row

    def check_no_more(self, rest: bytes) -> None:
        """Raise BrokenFile if `rest`, which follows the array, is not blank."""
        text = rest.strip()[:40].decode("utf-8", "backslashreplace")
        if text:
            raise BrokenFile(
                f"the array ends after record {self.number:,}, but the file continues with {text!r}"
            )


def rows(
    blocks: Iterable[bytes], take_rest: Callable[[bytes], None] | None = None
) -> Iterator[Row]:
    """Yield the rows of a JSON array. take_rest: gets what follows the array; else that is refused.

    Raises BrokenFile, after the rows before it, for an element that never ends, and for text after
    the array.
    """
    splitter = _Splitter(take_rest)
    for block in blocks:
        if splitter.ended:
            splitter.take_rest(block)
        else:
            yield from splitter.split(block)
    if not splitter.ended:
        yield from splitter.finish()
        raise BrokenFile(
            f"the JSON array is not closed: after record {splitter.number:,} the file ends, or a "
            "quote or a bracket is not closed, so that the rest cannot be split into records"
        )
