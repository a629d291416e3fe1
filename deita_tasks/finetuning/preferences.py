"""Preferences: prompts with a chosen and a rejected answer, for DPO and for preference accuracy.

Rows have the columns prompt, chosen and rejected, as texts or as lists of chat messages; or chosen
and rejected alone, two conversations that begin alike. These are the layouts that TRL reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from deita_tasks import storage
from deita_tasks.conversations import SourceRow
from deita_tasks.finetuning.examples import LeftOut
from deita_tasks.models.chat import IGNORED, CannotRender, Encoded, encode
from deita_tasks.strict_json import JSON

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]


class Preference(NamedTuple):
    """A prompt and two answers to it, as messages."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    source: SourceRow

    @property
    def id(self) -> str:
        """A digest of prompt and answers."""
        return storage.digest_of([self.prompt, self.chosen, self.rejected])

    @property
    def fields(self) -> dict[str, list[Message]]:
        """The columns that TRL reads."""
        return {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}


class EncodedPreference(NamedTuple):
    """The chosen and the rejected conversation as tokens, with labels on the answers alone."""

    id: str
    chosen: Encoded
    rejected: Encoded


class NotAPreference(Exception):
    """A row without a prompt and two different answers. `str` says why."""


def parse_preference(columns: Mapping[str, JSON], source: SourceRow) -> Preference:
    """Return the preference that a row holds. Raises NotAPreference if it holds none.

    Without a column prompt, it is what both conversations begin with.
    """
    chosen = _messages(columns.get("chosen"), "assistant", "chosen")
    rejected = _messages(columns.get("rejected"), "assistant", "rejected")
    if columns.get("prompt") is None:
        prompt, chosen, rejected = _split_prompt(chosen, rejected)
    else:
        prompt = _messages(columns["prompt"], "user", "prompt")
    if chosen == rejected:
        raise NotAPreference("both answers are the same")
    roles = {message["role"] for message in (*chosen, *rejected)}
    if roles != {"assistant"}:
        raise NotAPreference("an answer has messages that are not the assistant's")
    return Preference(prompt, chosen, rejected, source)


def _messages(value: JSON, role: str, column: str) -> list[Message]:
    """Return the messages of a column; a text alone is one message of `role`.

    Raises NotAPreference for a column that is empty or of another form, for a message without role
    or text, and for tool calls.
    """
    if isinstance(value, str) and value.strip():
        return [{"role": role, "content": value}]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise NotAPreference(f"no text and no list of messages in the column {column}")
    messages = []
    for turn in value:
        is_text = isinstance(turn, Mapping) and isinstance(turn.get("content"), str)
        if not is_text or not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            raise NotAPreference(f"a message in the column {column} has no role or no text")
        if turn.get("tool_calls"):
            raise NotAPreference("tool calls")
        messages.append({"role": str(turn["role"]), "content": str(turn["content"])})
    return messages


def _split_prompt(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Return what both conversations begin with, and how each goes on."""
    shared = 0
    for first, second in zip(chosen, rejected, strict=False):
        if first != second:
            break
        shared += 1
    if not shared:
        raise NotAPreference("no column prompt, and the two conversations begin differently")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def encode_preferences(
    preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[EncodedPreference], list[LeftOut]]:
    """Return preferences as tokens that fit the window, and those left out.

    One of whose answers nothing fits the window has nothing to compare: it is left out.
    """
    encoded: list[EncodedPreference] = []
    left_out: list[LeftOut] = []
    for preference in preferences:
        try:
            answers = [
                _encode_answer(tokenizer, preference.prompt, answer).cut(max_length)
                for answer in (preference.chosen, preference.rejected)
            ]
            if not all(answer.trained for answer in answers):
                raise CannotRender(f"an answer begins beyond the window of {max_length:,} tokens")
        except CannotRender as error:
            left_out.append(LeftOut(preference.source, preference.id, str(error)))
            continue
        encoded.append(EncodedPreference(preference.id, *answers))
    return encoded, left_out


def _encode_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: list[Message], answer: list[Message]
) -> Encoded:
    """Return prompt and answer as tokens, with labels on the answer but not on earlier ones."""
    whole = encode(tokenizer, prompt + answer)
    if not any(message["role"] == "assistant" for message in prompt):
        return whole
    earlier = encode(tokenizer, prompt).trained
    labels: list[int] = []
    for label in whole.labels:
        is_earlier = label != IGNORED and earlier > 0
        earlier -= is_earlier
        labels.append(IGNORED if is_earlier else label)
    return Encoded(whole.input_ids, labels)


def as_rows(preferences: Sequence[Preference]) -> list[dict[str, Any]]:
    """Return preferences as the rows that TRL reads."""
    return [preference.fields for preference in preferences]
