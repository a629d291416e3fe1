"""What some strategies compare the rows of a pool with: target rows, or tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deita_tasks.selecting.arrays import Array


@dataclass(frozen=True)
class Reference:
    """m texts that are not of the pool, and their vectors.

    names: distinct; the ids of target rows, or tags. vectors: (m, d), by the embedder of the pool.
    tags: the tags of each row of the pool, by its id; none for target rows.
    """

    names: Sequence[str]
    vectors: Array
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)
