"""Texts in Markdown."""

from __future__ import annotations

import pytest

from deita_tasks.templating import escape_markdown, one_line


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain, (text) - 1.5", "plain, (text) - 1.5"),
        ("# [a](b) | `c` ~d~ *e* _f_ !", r"\# \[a\](b) \| \`c\` \~d\~ \*e\* \_f\_ \!"),
        (r"a\b", r"a\\b"),
        ("<b>&amp;</b>", "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
        ("---\n\n# a\r\n\tb", r"--- \# a b"),
    ],
)
def test_nothing_in_a_text_is_markup(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


def test_characters_that_act_instead_of_being_visible_are_removed() -> None:
    assert one_line("a\x00b\x1b[31m\u202ec\u2028d\ud800 é") == "a b [31m c d é"
