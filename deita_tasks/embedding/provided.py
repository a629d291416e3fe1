"""Vectors that the user provides; no model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.models.provided import DefaultColumns, NoValue, ProvidedComponent, parse_value
from deita_tasks.models.value_file import Value
from deita_tasks.records import ModelOutput


class ProvidedEmbedder(ProvidedComponent, Embedder):
    """Vectors from a column of lists of numbers, by default `embedding`.

    The column is one of the pool's rows, or with `file` one of a file joined to them (see
    deita_tasks/models/provided.py). Each vector must be finite, and as wide as most of the vectors
    that are read with it.
    """

    VERSION: ClassVar[int] = 1

    def fingerprint(self) -> Fingerprint:
        """Return the content that vectors are read from; no model is part of it."""
        return {"backend": "provided", "version": self.VERSION, **self._source().identity()}

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        """Return the vectors, float32 (n, d); d is 1 if no conversation has a vector."""
        vectors: dict[int, NDArray[np.float32]] = {}
        problems: dict[int, str] = {}
        for row, value in enumerate(self._source().values(conversations)):
            try:
                vectors[row] = parse_vector(value)
            except NoValue as error:
                problems[row] = str(error)
        width = _most_common_width(list(vectors.values()))
        values = np.full((len(conversations), width), np.nan, np.float32)
        for row, vector in vectors.items():
            if len(vector) == width:
                values[row] = vector
            else:
                problems[row] = f"its vector has {len(vector)} numbers, others have {width}"
        return ModelOutput(values, np.zeros(len(conversations), np.int32), problems)

    def _default_columns(self) -> DefaultColumns:
        """Return `embedding`, for the pool's rows and for a file alike."""
        return DefaultColumns(in_rows="embedding", in_file="embedding")


def parse_vector(value: Value | NoValue) -> NDArray[np.float32]:
    """Return the vector in `value`, float32 (d,). Raises NoValue if there is none."""
    parsed = parse_value(value, "a list of numbers")
    if not isinstance(parsed, list | np.ndarray) or not len(parsed):
        raise NoValue(f"{str(parsed)[:40]!r} is not a list of numbers")
    if not _has_only_numbers(parsed):
        raise NoValue("its vector holds something that is not a number")
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(parsed, np.float32)
    except OverflowError:  # an integer of hundreds of digits
        vector = np.array([np.inf], np.float32)
    if not np.isfinite(vector).all():
        raise NoValue("its vector is not finite")
    return vector


def _has_only_numbers(vector: list[Any] | NDArray[Any]) -> bool:
    """Return whether a list or a Parquet file's array holds numbers alone; a bool is none."""
    if isinstance(vector, np.ndarray):
        return vector.dtype.kind in "fiu"
    return all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in vector
    )


def _most_common_width(vectors: Sequence[NDArray[np.float32]]) -> int:
    """Return the width of most vectors; 1 if there are none."""
    if not vectors:
        return 1
    return Counter(map(len, vectors)).most_common(1)[0][0]
