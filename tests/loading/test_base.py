"""The base class of input formats."""

from __future__ import annotations

import inspect

from deita_tasks.conversations import SourceRow
from deita_tasks.loading import base
from tests.support.docstrings import run_example


def test_the_example_in_the_docstring_is_a_format() -> None:
    names = run_example(inspect.getdoc(base.RowFormat), base)
    layout = names["QuestionAnswer"]()
    row = {"question": "Why?", "answer": "Because.", "id": 7}
    conversation = layout.conversation(row, SourceRow("pool", 1))
    assert [(turn.role, turn.content) for turn in conversation.turns] == [
        ("user", "Why?"),
        ("assistant", "Because."),
    ]
    assert conversation.extra == {"id": 7}
