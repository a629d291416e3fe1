"""The scorers' prompts, to the byte (the original's llama_scorer.py; mistral_scorer.py has the
same): odd spaces belong there.
"""

from __future__ import annotations

import string
from typing import NamedTuple

from deita_tasks.records import ScoreKind

TEMPLATES: dict[ScoreKind, str] = {
    "complexity": (
        "You are a helpful assistant. Please identify the complexity score of the following "
        "user query. \n"
        "##Query: {instruction}  \n"
        "##Complexity: "
    ),
    "quality": (
        "You are a helpful assistant. Please identify the quality score of the Response "
        "corresponding to the Question. \n"
        " #Question#:\n{instruction}\n"
        "#Response#:\n{response} \n"
        "##Quality: "
    ),
}


class Prompt(NamedTuple):
    """`text`, and where the pair's own texts lie in it: (start, end) in characters, in the order in
    which they may be cut.
    """

    text: str
    contents: tuple[tuple[int, int], ...]


def render(kind: ScoreKind, instruction: str, response: str) -> Prompt:
    """The prompt that asks for `kind`. No part of the pair is read as a template, whatever braces
    it holds.
    """
    given = {"instruction": instruction, "response": response}
    text = ""
    spans: dict[str, tuple[int, int]] = {}
    for literal, name, _, _ in string.Formatter().parse(TEMPLATES[kind]):
        text += literal
        if name is not None:
            spans[name] = (len(text), len(text) + len(given[name]))
            text += given[name]
    return Prompt(text, tuple(spans[name] for name in ("response", "instruction") if name in spans))
