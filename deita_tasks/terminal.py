"""Text on a terminal: none of it can act, wherever it comes from.

Names of files and columns, texts of a pool and messages of libraries all pass here: in the consoles
of the commands and in progress bars. (`flows/cli/printing.py` does the same for logs and errors.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# Control characters but tab and newline; characters that end a line or change its direction; halves
# of surrogate pairs.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """Return `text` with everything that could act on a terminal as readable escapes."""
    return UNSAFE.sub(_escape_character, text.replace("\r\n", "\n"))


def _escape_character(match: re.Match[str]) -> str:
    """Return a character as \\x1b or \\u202e, as Python writes it."""
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class SafeConsole(Console):
    """A console that escapes every text and interprets no markup; its own styles work."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as Text, before Rich takes some control characters away unseen."""
        return super().render_str(escape(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of anything that is printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape(segment.text))
