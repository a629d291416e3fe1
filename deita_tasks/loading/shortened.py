"""The row of a conversation that was cut at a turn, in the layout that it came in."""

from __future__ import annotations

from collections.abc import Iterable

from deita_tasks.conversations import Conversation
from deita_tasks.loading.base import BadRow, RowFormat


def with_shortened_row(
    shorter: Conversation, whole: Conversation, layouts: Iterable[RowFormat]
) -> Conversation:
    """Return `shorter`, a beginning of `whole`, with the row of `whole` cut as well.

    The row is right if reading it gives `shorter`; in a layout that cannot be cut, it stays empty.
    """
    left_out = len(whole.turns) - len(shorter.turns)
    for layout in layouts:
        if not layout.matches(whole.row):
            continue
        try:
            columns = layout.without_last(whole.row, left_out)
            read = None if columns is None else layout.conversation(columns, whole.source)
        except BadRow:
            continue
        if read is not None and (read.id, read.extra) == (shorter.id, shorter.extra):
            return read
    return shorter
