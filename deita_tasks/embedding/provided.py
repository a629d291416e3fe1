"""Vectors that the user brings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.components import Fingerprint
from deita_tasks.embedding.base import Embedder
from deita_tasks.models.provided import NoValue, ProvidedComponent
from deita_tasks.records import Conversation, ModelOutput


class ProvidedEmbedder(ProvidedComponent, Embedder):
    """Vectors from a column of lists of numbers: one of the pool's rows, or with `file` one of a
    Parquet file joined to them (see `deita_tasks/models/provided.py`); by default `embedding`. Each
    has to be finite, and as wide as most of those it is read with.
    """

    VERSION: ClassVar[int] = 1

    def fingerprint(self) -> Fingerprint:
        return {"backend": "provided", "version": self.VERSION, **self._source().identity()}

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        """As of every embedder; where no conversation has a vector, d is 1."""
        found: dict[int, NDArray[np.float32]] = {}
        problems: dict[int, str] = {}
        for row, value in enumerate(self._source().values(conversations)):
            try:
                found[row] = vector_in(value)
            except NoValue as error:
                problems[row] = str(error)
        width = Counter(map(len, found.values())).most_common(1)[0][0] if found else 1
        vectors = np.full((len(conversations), width), np.nan, np.float32)
        for row, vector in found.items():
            if len(vector) == width:
                vectors[row] = vector
            else:
                problems[row] = f"its vector has {len(vector)} numbers, where others have {width}"
        return ModelOutput(vectors, np.zeros(len(conversations), np.int32), problems)

    def _usual(self) -> tuple[str, str]:
        return "embedding", "embedding"


def vector_in(value: Any) -> NDArray[np.float32]:
    """The vector that `value` holds, float32 (d,). Raises NoValue where it holds none."""
    if isinstance(value, NoValue):
        raise value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise NoValue(f"{value[:40]!r} is not a list of numbers") from None
    if not isinstance(value, list | np.ndarray) or not len(value):
        raise NoValue(f"{str(value)[:40]!r} is not a list of numbers")
    if isinstance(value, list) and not all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in value
    ):
        raise NoValue("its vector holds something that is not a number")
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiu":
        raise NoValue("its vector holds something that is not a number")
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(value, np.float32)
    except OverflowError:  # an integer of hundreds of digits
        vector = np.array([np.inf], np.float32)
    if not np.isfinite(vector).all():
        raise NoValue("its vector is not finite")
    return vector
