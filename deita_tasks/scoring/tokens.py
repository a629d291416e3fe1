"""From prompts to token ids: the ids of the digits, proved; and prompts cut to the model's window
in their content alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deita_tasks.errors import ModelError
from deita_tasks.records import Conversation, Forecast, ScoreKind
from deita_tasks.scoring.prompts import Prompt, render

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIGITS = "123456"


class Tokens(NamedTuple):
    """`ids`: the prompt's token ids, none where it cannot be cut to the limit. `truncated_tokens`: tokens of its
    content that were left out.
    """

    ids: list[int]
    truncated_tokens: int


def digit_ids(tokenizer: Tokenizer, kind: ScoreKind) -> list[int]:
    """The token ids of "1" to "6" as the first token after the prompt for `kind`.

    Raises ModelError where a digit is not exactly one token there: split in two, merged with the
    prompt's last space, or unknown.
    """
    prompt = render(kind, "Write a haiku.", "Rain on the old pond.").text
    before = tokenizer.encode(prompt).ids
    found: list[int] = []
    for digit in DIGITS:
        after = tokenizer.encode(prompt + digit).ids
        if after[:-1] != before:
            ends = [tokenizer.id_to_token(i) for i in after[max(0, len(before) - 2) :]]
            raise ModelError(
                f"the tokenizer does not give {digit!r} a token of its own after "
                f"{prompt[-14:]!r}: the prompt then ends in {ends}; "
                "expected the prompt's tokens and one more, as in the tokenizers of LLaMA, "
                "Mistral, Llama-3 and Qwen"
            )
        found.append(after[-1])
    if len(set(found)) < len(found):
        raise ModelError(
            f"the tokenizer gives the digits 1 to 6 the ids {found}: expected six different ones"
        )
    return found


def tokenize(tokenizer: Tokenizer, prompts: Sequence[Prompt], max_length: int) -> list[Tokens]:
    """Token ids of the prompts, each cut to `max_length`.

    What is over is taken out of the middle of the response, and of the instruction once the
    response is gone; heads and tails stay, and so does every token of the template, the end that
    asks for the score above all.
    """
    encodings = tokenizer.encode_batch_fast([prompt.text for prompt in prompts])
    return [
        Tokens(encoding.ids, 0)
        if len(encoding.ids) <= max_length
        else _cut(tokenizer, prompt, max_length)
        for encoding, prompt in zip(encodings, prompts, strict=True)
    ]


def forecast(
    tokenizer: Tokenizer,
    kind: ScoreKind,
    digits: Sequence[int],
    max_length: int,
    conversations: Sequence[Conversation],
) -> Forecast:
    """What a scorer's model would read of `conversations`, prompts and all."""
    tokens = [
        tokenize(tokenizer, [render(kind, *pair) for pair in one.pairs], max_length)
        for one in conversations
    ]
    read = np.array([sum(len(prompt.ids) for prompt in prompts) for prompts in tokens], np.int64)
    return Forecast(
        max_length,
        digits,
        read,
        np.array(
            [sum(prompt.truncated_tokens for prompt in prompts) for prompts in tokens], np.int64
        ),
    )


def _cut(tokenizer: Tokenizer, prompt: Prompt, max_length: int) -> Tokens:
    encoding = tokenizer.encode(prompt.text)  # with offsets, which encode_batch_fast does not keep
    over = len(encoding.ids) - max_length
    dropped: set[int] = set()
    for start, end in prompt.contents:
        inside = [i for i, (a, b) in enumerate(encoding.offsets) if start <= a < b <= end]
        here = min(len(inside), over - len(dropped))
        first = (len(inside) - here + 1) // 2
        dropped.update(inside[first : first + here])
    if (
        len(dropped) < over
    ):  # a token that spans template and content stays, so this can happen a few tokens above the template's length
        return Tokens([], over)
    return Tokens([token for i, token in enumerate(encoding.ids) if i not in dropped], over)
