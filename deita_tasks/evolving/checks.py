"""What is wrong with a rewrite, found without a model.

The words of refusals are English; a rewrite in another language is checked for all else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from deita_tasks.evolving.templates import literals
from deita_tasks.records import ScoreKind
from deita_tasks.words import count_words

# Words that a rewrite may have beyond its parent. The prompt asks for 10 to 20 more in an
# instruction, and models add a few more than they are asked for.
MOST_ADDED: dict[ScoreKind, int] = {"complexity": 60, "quality": 600}
PROMPT_RUN = 8  # words in a row of the prompt that a text does not have by chance
THOUGHT_END = "</think>"
_REFUSAL = re.compile(
    r"\W*(?:(?:i'?m|i am) (?:very |so )?(?:sorry|afraid|unable|not able)|sorry\b|apologies|"
    r"as an ai\b|i (?:can(?:no|')t|won'?t|will not|must decline)\b)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


def rewrite_problem(
    kind: ScoreKind, text: str, earlier: Iterable[str], template: str, code: str
) -> str | None:
    """Return why `text` is no rewrite, None if nothing is wrong.

    earlier: the texts of the chain so far, its parent last. template, code: of the prompt.
    """
    chain = list(earlier)
    words = _words(text)
    if not words:
        return "it is empty"
    if words in map(_words, chain):
        return "it copies an earlier text of the chain"
    if _REFUSAL.match(text) and not _REFUSAL.match(chain[-1]):
        return "it is a refusal"
    if code in text or _shares_a_run(words, _words(literals(template)), _words(chain[-1])):
        return "it repeats the prompt's own words"
    if THOUGHT_END in text and THOUGHT_END not in chain[-1]:
        return "it holds a model's thoughts: let the server take them out (--reasoning-parser)"
    limit = count_words(chain[-1]) + MOST_ADDED[kind]
    if count_words(text) > limit:
        return f"it has {count_words(text):,} words, more than {limit:,}"
    return None


def _words(text: str) -> list[str]:
    """Return the words of a text, whatever the case, white space and punctuation."""
    return _WORD.findall(text.lower())


def _shares_a_run(words: list[str], prompt: list[str], parent: list[str]) -> bool:
    """Return whether a run of PROMPT_RUN words is the prompt's, and not the parent's too."""
    return bool((_runs(words) & _runs(prompt)) - _runs(parent))


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    """Return all runs of PROMPT_RUN words in a row; none if there are fewer words."""
    starts = range(len(words) - PROMPT_RUN + 1)
    return {tuple(words[start : start + PROMPT_RUN]) for start in starts}
