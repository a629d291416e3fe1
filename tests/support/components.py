"""Components for flow tests: real ones to the flow, which does not know that no model is behind
them, and made to fail on demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.records import ModelOutput
from deita_tasks.scoring.length import ResponseLength
from tests.support.small_pool import TOPICS

embedded: list[str] = []  # ids, in the order in which they were asked for
scored: list[str] = []  # responses
faults: dict[str, int] = {}  # a word -> how many more shards with it fail as a whole
problems: dict[str, str] = {}  # a word -> why a single text with it has no value


def reset() -> None:
    """Nothing was computed and nothing fails."""
    for state in (embedded, scored, faults, problems):
        state.clear()


def fail_where_asked(texts: Sequence[str]) -> None:
    """Raises what a machine that runs out of something would."""
    for word, left in faults.items():
        if left and any(word in text for text in texts):
            faults[word] -= 1
            raise RuntimeError(f"a hiccup at {word!r}")


def problems_of(texts: Sequence[str]) -> dict[int, str]:
    return {
        i: why for i, text in enumerate(texts) for word, why in problems.items() if word in text
    }


def vector_of(text: str) -> list[float]:
    """One axis a topic, and one that tells lengths apart, so that rows of one topic are alike in
    different degrees.
    """
    return [float(topic in text) for topic in TOPICS] + [len(text.split()) % 7 / 4]


class TopicEmbedder(Embedder):
    """Vectors of seven numbers that can be worked out by hand; a text without a topic and of 7 k
    words is the zero vector.
    """

    PROBED: ClassVar[bool] = False

    model: str = "tests/topics"

    def fingerprint(self) -> Fingerprint:
        return {"backend": "topics", "version": 1, "model": self.model}

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        texts = [" ".join(turn.content for turn in one.turns) for one in conversations]
        fail_where_asked(texts)
        embedded.extend(one.id for one in conversations)
        vectors = np.array([vector_of(text) for text in texts], np.float32)
        return ModelOutput(vectors, np.zeros(len(texts), np.int32), {})


class WatchedLength(ResponseLength):
    """The real scorer and its fingerprint; what it is asked for is written down, and it fails where
    it was told to.
    """

    PROBED: ClassVar[bool] = False

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        responses = [response for _, response in pairs]
        fail_where_asked(responses)
        scored.extend(responses)
        measured = super().compute(pairs)
        why = problems_of(responses)
        values = measured.values.copy()
        values[list(why)] = np.nan
        return ModelOutput(values, measured.truncated_tokens, why)


TABLES = {
    "sentence_transformers": f"{__name__}:TopicEmbedder",
    "response_length": f"{__name__}:WatchedLength",
}
