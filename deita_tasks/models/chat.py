"""A conversation as chat models read it: as messages, and as tokens with loss on the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import TemplateError

from deita_tasks.conversations import CHAT_KEYS, CONTENT_PARTS, Conversation, Turn, TurnKeys
from deita_tasks.strict_json import JSON

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token without loss, by torch's convention


class Encoded(NamedTuple):
    """A row of t tokens. labels: the token's id where there is loss, else IGNORED."""

    input_ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> int:
        """The number of tokens under loss."""
        return sum(label != IGNORED for label in self.labels)

    def cut(self, max_length: int) -> Encoded:
        """Return the first `max_length` tokens; loss on those after them is lost with them."""
        return Encoded(self.input_ids[:max_length], self.labels[:max_length])


class CannotRender(Exception):
    """A chat template cannot show a conversation. `str` says why."""


def chat_turns(conversation: Conversation) -> list[dict[str, JSON]]:
    """Return the turns as chat APIs have them: role, content, and what else each holds."""
    return [_chat_turn(turn) for turn in conversation.turns]


def _chat_turn(turn: Turn) -> dict[str, JSON]:
    """Return a turn with the keys of chat APIs; its content is a list if it has parts."""
    content = turn.fields.get(CONTENT_PARTS, turn.content)
    own: dict[str, JSON] = {"role": turn.role, "content": content}
    return with_fields(own, turn.fields, CHAT_KEYS)


def with_fields(
    own: dict[str, JSON], fields: Mapping[str, JSON], keys: TurnKeys
) -> dict[str, JSON]:
    """Return a turn with its fields; a field with the name of a key gets another one.

    That is "input_" and its name. `own` is changed, and returned. The parts of a content are no
    field where the content itself shows them.
    """
    for name, value in fields.items():
        if name == CONTENT_PARTS and keys == CHAT_KEYS:
            continue
        if name in keys:
            name = f"input_{name}"
        own[name] = value
    return own


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, JSON]], tools: JSON = None
) -> Encoded:
    """Return a conversation as tokens, with loss on what the template marks as the assistant's.

    Raises CannotRender if the template refuses it, or marks nothing.
    """
    renderer: Any = tokenizer
    try:
        output = renderer.apply_chat_template(
            list(messages),
            tools=tools or None,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CannotRender(f"the chat template cannot show it: {reason}") from error
    ids, mask = list(output["input_ids"]), output["assistant_masks"]
    if not any(mask):
        raise CannotRender("the chat template shows no word of the assistant")
    labels = [id if marked else IGNORED for id, marked in zip(ids, mask, strict=True)]
    return Encoded(ids, labels)
