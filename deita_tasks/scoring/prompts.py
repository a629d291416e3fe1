"""The scorers' prompts, byte for byte those of the original's llama_scorer.py.

mistral_scorer.py has the same. The odd spaces belong there.
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
    """A prompt and where the pair's own texts are in it.

    `content_spans`: (start, end) in characters, in the order in which they are truncated.
    """

    text: str
    content_spans: tuple[tuple[int, int], ...]


def render(kind: ScoreKind, instruction: str, response: str) -> Prompt:
    """Return the prompt that asks for `kind`.

    Braces in the pair have no meaning: only the template is read as one.
    """
    contents = {"instruction": instruction, "response": response}
    text = ""
    spans: dict[str, tuple[int, int]] = {}
    for literal, name, _, _ in string.Formatter().parse(TEMPLATES[kind]):
        text += literal
        if name is not None:
            start = len(text)
            text += contents[name]
            spans[name] = (start, len(text))
    truncation_order = [name for name in ("response", "instruction") if name in spans]
    return Prompt(text, tuple(spans[name] for name in truncation_order))
