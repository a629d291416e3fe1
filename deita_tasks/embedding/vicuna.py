"""Conversations as text: the vicuna_v1.1 template.

The template is FastChat's (the original's embedder/conversation.py).
"""

from __future__ import annotations

from deita_tasks.conversations import Conversation, Role

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_LABELS: dict[Role, str] = {
    "user": "USER",
    "assistant": "ASSISTANT",
    "system": "SYSTEM",
    "developer": "SYSTEM",
    "tool": "TOOL",
}


def render_vicuna(conversation: Conversation) -> str:
    """Return `SYSTEM_PROMPT USER: ... ASSISTANT: ...</s>USER: ...`.

    A turn without text is its label and a colon. The result is the original's where that is
    defined: user and assistant turns in alternation, without assistant turns before the first user
    turn. The original fails on other conversations. Here a leading system turn replaces the system
    prompt, as in FastChat; later system turns, tool turns and consecutive turns of one role are
    written under their own labels; only an assistant turn ends with </s>.
    """
    turns = list(conversation.turns)
    system = turns.pop(0).content if turns[0].role in ("system", "developer") else ""
    while turns and turns[0].role == "assistant":
        turns.pop(0)
    text = (system or SYSTEM_PROMPT) + " "
    for turn in turns:
        text += _LABELS[turn.role] + ":"
        if turn.text:
            end = "</s>" if turn.role == "assistant" else " "
            text += f" {turn.text}{end}"
    return text
