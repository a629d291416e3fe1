"""Prompts to token ids.

The ids of the digits are checked; a prompt is truncated to the model's window in its content alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deita_tasks.conversations import Conversation
from deita_tasks.errors import ModelError
from deita_tasks.models.tokenizer import Tokens
from deita_tasks.records import Forecast, ScoreKind
from deita_tasks.scoring.prompts import Prompt, render

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIGITS = "123456"


def find_digit_ids(tokenizer: Tokenizer, kind: ScoreKind) -> list[int]:
    """Return the token ids of "1" to "6" as the first token after the prompt for `kind`.

    Raises ModelError if a digit is not exactly one token there: split in two, merged with the
    prompt's last space, or unknown.
    """
    prompt = render(kind, "Write a haiku.", "Rain on the old pond.").text
    prompt_ids = tokenizer.encode(prompt).ids
    digit_ids: list[int] = []
    for digit in DIGITS:
        ids = tokenizer.encode(prompt + digit).ids
        if ids[:-1] != prompt_ids:
            last = max(0, len(prompt_ids) - 2)
            ending = [tokenizer.id_to_token(token_id) for token_id in ids[last:]]
            raise ModelError(
                f"the tokenizer does not give {digit!r} a token of its own after "
                f"{prompt[-14:]!r}: the prompt then ends in {ending}; expected the prompt's tokens "
                "and one more, as in the tokenizers of LLaMA, Mistral, Llama-3 and Qwen"
            )
        digit_ids.append(ids[-1])
    if len(set(digit_ids)) < len(digit_ids):
        raise ModelError(
            f"the tokenizer gives the digits 1 to 6 the ids {digit_ids}: expected six different "
            "ones"
        )
    return digit_ids


def tokenize(tokenizer: Tokenizer, prompts: Sequence[Prompt], max_length: int) -> list[Tokens]:
    """Return the token ids of the prompts, each truncated to `max_length`.

    Tokens are taken out of the middle of the response, and once that is gone out of the middle of
    the instruction. Their beginnings and ends stay, and so does every token of the template, above
    all its end, which asks for the score.
    """
    encodings = tokenizer.encode_batch_fast([prompt.text for prompt in prompts])
    tokens: list[Tokens] = []
    for encoding, prompt in zip(encodings, prompts, strict=True):
        if len(encoding.ids) <= max_length:
            tokens.append(Tokens(encoding.ids, 0))
        else:
            tokens.append(_truncate(tokenizer, prompt, max_length))
    return tokens


def forecast(
    tokenizer: Tokenizer,
    kind: ScoreKind,
    digits: Sequence[int],
    max_length: int,
    conversations: Sequence[Conversation],
) -> Forecast:
    """Return what a scorer's model would read of `conversations`, prompts included.

    `tokens` and `truncated_tokens` are sums over the pairs of a conversation. A prompt that cannot
    be truncated to `max_length` adds no tokens.
    """
    read = np.zeros(len(conversations), np.int64)
    truncated = np.zeros(len(conversations), np.int64)
    for row, conversation in enumerate(conversations):
        prompts = [render(kind, *pair) for pair in conversation.pairs]
        tokens = tokenize(tokenizer, prompts, max_length)
        read[row] = sum(len(prompt.ids) for prompt in tokens)
        truncated[row] = sum(prompt.truncated_tokens for prompt in tokens)
    return Forecast(max_length, digits, read, truncated)


def _truncate(tokenizer: Tokenizer, prompt: Prompt, max_length: int) -> Tokens:
    """Return the token ids of a prompt over the limit, without the middle of its contents.

    No ids, and the whole excess as truncated, if the contents have too few tokens to leave out.
    """
    encoding = tokenizer.encode(prompt.text)  # with offsets, which encode_batch_fast omits
    excess = len(encoding.ids) - max_length
    dropped: set[int] = set()
    for start, end in prompt.content_spans:
        content = [
            position
            for position, (first, last) in enumerate(encoding.offsets)
            if start <= first < last <= end
        ]
        count = min(len(content), excess - len(dropped))
        middle = (len(content) - count + 1) // 2
        dropped.update(content[middle : middle + count])
    # A token that spans template and content stays, so a limit a few tokens above the template's
    # length may be too small.
    if len(dropped) < excess:
        return Tokens([], excess)
    ids = [token for position, token in enumerate(encoding.ids) if position not in dropped]
    return Tokens(ids, excess)
