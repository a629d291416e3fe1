"""A run of reselect that is killed in its second shard of vectors: a process of its own.

python -m tests.support.killed_reselect INPUT STORE OUTPUT BUDGET
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from deita_tasks.config import Advanced, Selection, Source, Versions
from deita_tasks.conversations import Conversation
from deita_tasks.records import ModelOutput
from tests.support import components
from tests.support.flow_fixtures import tiny_components


class KilledEmbedder(components.TopicEmbedder):
    """Computes one shard."""

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        if components.embedded:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().compute(conversations)


def main() -> None:
    from flows.reselect import reselect_subset

    source, store, output, budget = sys.argv[1:]
    components.TABLES["sentence_transformers"] = f"{__name__}:KilledEmbedder"
    with tiny_components():
        reselect_subset(
            source=Source(input=[source]),
            export=Versions(output=output),
            selection=Selection(budget=int(budget)),
            advanced=Advanced(store=store, shard_rows=4),
        )


if __name__ == "__main__":
    main()
