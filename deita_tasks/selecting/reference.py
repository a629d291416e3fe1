"""What some strategies compare the rows of a pool with: target rows, or tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from deita_tasks.selecting.arrays import Array

ReferenceKind = Literal["target", "tags"]


@dataclass(frozen=True)
class Reference:
    """m texts that are not of the pool, and their vectors.

    names: distinct; the ids of target rows, or tags. vectors: (m, d), by the embedder of the pool.
    tags: the tags of each row of the pool, by its id; none for target rows. groups: the group of
    each target row, such as its file; without them all are of one.
    """

    names: Sequence[str]
    vectors: Array
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: Sequence[str] = ()
