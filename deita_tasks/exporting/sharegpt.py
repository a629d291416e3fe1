"""ShareGPT: conversations, a list of {"from": ..., "value": ...}."""

from __future__ import annotations

import json
from typing import ClassVar

from deita_tasks.conversations import Conversation, parse_tools
from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.turns import sharegpt_turns
from deita_tasks.strict_json import JSON


class ShareGPT(JsonLines):
    """selected.jsonl as the original project and most trainers read it.

    Holds every conversation. Tools are JSON text in the column `tools`.
    """

    name: ClassVar[str] = "sharegpt"
    own_columns: ClassVar[tuple[str, ...]] = ("conversations", "tools")
    optional_columns: ClassVar[tuple[str, ...]] = ("tools",)

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """Return conversations as {from, value} with a turn's other fields; tools as JSON text."""
        own = {
            "conversations": sharegpt_turns(conversation),
            "tools": tools_text(conversation.tools),
        }
        return Columns(own, conversation.extra)


def tools_text(tools: JSON) -> JSON:
    """Return tools as LLaMA-Factory reads them: their JSON text; "" if there are none."""
    if not tools or isinstance(tools, str):
        return tools or ""
    return json.dumps(parse_tools(tools), ensure_ascii=False)
