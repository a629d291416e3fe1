"""Conversations as text: the vicuna_v1.1 template (FastChat's; the original's
embedder/conversation.py), or the answers alone.
"""

from __future__ import annotations

from deita_tasks.records import Conversation, Role

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_LABELS: dict[Role, str] = {
    "user": "USER",
    "assistant": "ASSISTANT",
    "system": "SYSTEM",
    "tool": "TOOL",
}


def vicuna(conversation: Conversation) -> str:
    """`SYSTEM_PROMPT USER: ... ASSISTANT: ...</s>USER: ...`; a turn without text is its label and a
    colon.

    As the original where that is defined: user and assistant turns in alternation, what the
    assistant says before any user left out. Where it is not (there it fails): a leading system turn
    takes the place of the system prompt, as in FastChat; a later one, a tool turn and two turns of
    one role in a row are written under their own labels, and only an assistant's turn ends with
    </s>.
    """
    turns = list(conversation.turns)
    system = turns.pop(0).content if turns[0].role == "system" else ""
    while turns and turns[0].role == "assistant":
        turns.pop(0)
    text = (system or SYSTEM_PROMPT) + " "
    for turn in turns:
        text += _LABELS[turn.role] + ":"
        if turn.content:
            text += f" {turn.content}" + ("</s>" if turn.role == "assistant" else " ")
    return text


def answers(conversation: Conversation) -> str:
    """The assistant's turns after the first user turn, joined by newlines (the original's
    `only_answer`).
    """
    roles = [turn.role for turn in conversation.turns]
    start = roles.index("user") if "user" in roles else len(roles)
    return "\n".join(
        turn.content for turn in conversation.turns[start:] if turn.role == "assistant"
    )
