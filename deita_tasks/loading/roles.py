"""The names that pools have for the roles of a turn."""

from __future__ import annotations

import re

from deita_tasks.conversations import CALL_ROLES, Role
from deita_tasks.loading.base import BadRow

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",  # OpenAI's later name for the system role
    "user": "user",
    "human": "user",
    "prompter": "user",  # OASST
    "instruction": "user",
    "question": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",  # Gemini and Gemma
    "bot": "assistant",
    "chatbot": "assistant",
    "response": "assistant",
    "answer": "assistant",
    "tool": "tool",
    "function": "tool",  # OpenAI's earlier name
    "function_response": "tool",
    "function_result": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "observation": "tool",
    "ipython": "tool",  # Llama 3.1
}
# Dumps of conversations name the product that answered: chatgpt, gpt4, claude-3-opus, bing.
_PRODUCT = re.compile(
    r"(chat)?gpt|bing|bard|claude|copilot|deepseek|gemini|grok|llama|mistral|qwen|vicuna"
)


def parse_role(name: str, label: str) -> Role:
    """Return the role that `name` stands for; `label` names the turn in the message.

    Raises BadRow.
    """
    if name in ROLES:
        return ROLES[name]
    normalized = normalize(name)
    if normalized in CALL_ROLES or _PRODUCT.match(normalized):
        return "assistant"
    if normalized in ROLES:
        return ROLES[normalized]
    role_names = ", ".join([*ROLES, *sorted(CALL_ROLES), "gpt", "claude"])
    detail = f"{label} has the role {name[:40]!r}; expected one of {role_names}"
    raise BadRow("unknown_role", detail)


def normalize(name: str) -> str:
    """Return a role's name in lower case, with underscores: "Tool Response" is tool_response."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())
