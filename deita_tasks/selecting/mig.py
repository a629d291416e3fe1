"""MIG: the rows that add most information to a graph of tags."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from deita_tasks.errors import UsageError
from deita_tasks.presets import MIG_SIMILARITY
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Doubles, Floats, Indices, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.evol import TurnAggregation
from deita_tasks.selecting.greedy import keep_picks
from deita_tasks.selecting.reference import Reference, ReferenceKind
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import exact_similarities, screening_error, true_pairs
from deita_tasks.selecting.strata import Strata

# The published program's constants of the information of a tag, (x + A) ** B.
A, B = 1e-6, 0.8
BLOCK_ROWS = 1024


class MIG(Selector):
    """Greedily the row of the largest information gain (Chen et al. 2025, arXiv 2504.13835).

    A row spreads its score evenly over its tags, and each tag's part over the tags similar to it:
    tags are joined where the cosine of their vectors is at least `tag_similarity`, and a column of
    the graph adds up to 1. The information of a selection is the sum over tags of
    (x + 1e-6) ** 0.8, where x is what its rows have given the tag. As in the published program, the
    gain of a row is its part times the derivative, so a tag that has much counts little.

    The reference has the tags of each row, and the vector of each tag. The score is complexity *
    quality, the mean over turns. Equal gains go by (-evol_score, id). No vector of a row is needed.
    A row that is not picked is below_budget.
    """

    needs_embeddings: ClassVar[bool] = False
    reference_kind: ClassVar[ReferenceKind | None] = "tags"

    tag_similarity: float = Field(default=MIG_SIMILARITY, gt=0, le=1)
    evol_score: TurnAggregation = "mean"

    def select(
        self,
        ids: Sequence[str],
        evol_scores: Array,
        embeddings: Array | None = None,
        strata: Sequence[Hashable] | Strata | None = None,
    ) -> SelectorResult:
        """See Selector.select. `embeddings` are not read."""
        pool = self.rank_pool(ids, evol_scores, strata)
        graph = TagGraph.build(self.reference, self.tag_similarity)
        ranks = np.arange(pool.candidate_count)
        scores = np.asarray(evol_scores, np.float64)
        parts = []
        for position in pool.order[ranks].tolist():
            tags = self.reference.tags.get(ids[position], ())
            parts.append(graph.spread(float(scores[position]), tags))
        keep_picks(pool, ranks, _InformationGains(parts, len(graph.names)), self.budget)
        return pool.result()


class Part(NamedTuple):
    """What a row gives to tags: their numbers, ascending, and how much each gets."""

    tags: Indices
    amounts: Doubles


class TagGraph:
    """Tags, and how much of what one is given goes to each tag similar to it.

    names: ascending. neighbours: for each tag the Part of an amount of 1.
    """

    def __init__(self, names: Sequence[str], neighbours: Sequence[Part]) -> None:
        self.names = names
        self._numbers = {name: number for number, name in enumerate(names)}
        self._neighbours = neighbours

    @classmethod
    def build(cls, reference: Reference, similarity: float) -> TagGraph:
        """Return the graph of the tags of `reference`, joined from this similarity on."""
        order = sorted(range(len(reference.names)), key=reference.names.__getitem__)
        names = [reference.names[position] for position in order]
        reader = EmbeddingReader(np.asarray(reference.vectors), len(names))
        rows, comparable = reader.read(np.array(order, np.int64))
        weights: list[dict[int, float]] = []
        for tag in range(len(names)):
            weights.append({tag: 1.0})
        for left, right, weight in _similar_pairs(rows, comparable, similarity):
            weights[left][right] = weight
        totals = [math.fsum(row.values()) for row in weights]
        neighbours = []
        for row in weights:
            amounts = {tag: weight / totals[tag] for tag, weight in row.items()}
            neighbours.append(_to_part(amounts))
        return cls(names, neighbours)

    def spread(self, score: float, tags: Iterable[str]) -> Part:
        """Return what a row of this score gives to each tag.

        Raises UsageError for a tag that is not in the graph.
        """
        distinct = sorted(set(tags))
        unknown = [tag for tag in distinct if tag not in self._numbers]
        if unknown:
            raise UsageError(f"tag {unknown[0]!r} has no vector; expected one for every tag")
        amounts: dict[int, float] = {}
        for name in distinct:
            number = self._numbers[name]
            part = self._neighbours[number]
            share = score / len(distinct)
            for tag, amount in zip(part.tags.tolist(), part.amounts.tolist(), strict=True):
                before = amounts.get(tag, 0.0)
                amounts[tag] = before + share * amount
        return _to_part(amounts)


def _to_part(amounts: Mapping[int, float]) -> Part:
    """Return amounts by tag number as a Part, its tags ascending: int64 (t,) and float64 (t,)."""
    tags = sorted(amounts)
    in_order = [amounts[tag] for tag in tags]
    return Part(np.array(tags, np.int64), np.array(in_order))


def _similar_pairs(
    rows: Floats, comparable: Mask, similarity: float
) -> Iterable[tuple[int, int, float]]:
    """Yield (tag, other tag, cosine) of those with at least this cosine, in both directions."""
    limit = np.float32(similarity)
    error = screening_error(rows.shape[1])
    usable = np.flatnonzero(comparable)
    for start in range(0, len(usable), BLOCK_ROWS):
        block = usable[start : start + BLOCK_ROWS]
        products = rows[block] @ rows[usable].T
        left, right = true_pairs(products >= limit - np.float32(error))
        pairs = block[left], usable[right]
        cosines = exact_similarities(rows, rows, pairs)
        for tag, other, cosine in zip(*pairs, cosines, strict=True):
            if tag != other and cosine >= limit:
                yield int(tag), int(other), float(cosine)


class _InformationGains:
    """Picks the row of the largest gain by the lazy greedy algorithm (Minoux 1978).

    Gains only fall as tags get more, so a gain that is up to date and the largest is the next pick.
    parts: of the rows, best score first.
    """

    def __init__(self, parts: Sequence[Part], tags: int) -> None:
        self._parts = parts
        self._given = np.zeros(tags)
        self._is_open = np.ones(len(parts), bool)
        self._picks = 0
        self._heap = []
        for row in range(len(parts)):
            self._heap.append((-self._gain(row), row, 0))
        heapq.heapify(self._heap)

    def find_next(self) -> int | None:
        """Return the row of the largest gain; None if all that are left are excluded."""
        while self._heap:
            _, row, updated = self._heap[0]
            if not self._is_open[row]:
                heapq.heappop(self._heap)
            elif updated == self._picks:
                return row
            else:
                entry = (-self._gain(row), row, self._picks)
                heapq.heapreplace(self._heap, entry)
        return None

    def pick(self, row: int) -> None:
        """Pick the row that was found."""
        self._given[self._parts[row].tags] += self._parts[row].amounts
        self._picks += 1
        self.exclude(np.array([row]))

    def exclude(self, rows: Indices | Mask) -> None:
        """Never pick these rows (indices or a mask)."""
        self._is_open[rows] = False

    def _gain(self, row: int) -> float:
        """Return how much the information rises, to first order, if this row is picked next.

        The information of a tag that was given x is (x + A)**B. The sum is exact until it is
        rounded once, so the order of the tags does not matter.
        """
        part = self._parts[row]
        slopes = B * (self._given[part.tags] + A) ** (B - 1)
        return math.fsum(part.amounts * slopes)


def tags_of(values: Mapping[str, object]) -> dict[str, list[str]]:
    """Return the tags of each row, by id, for a Reference.

    values: of a column: a list of texts, one text, or nothing. Raises UsageError for anything else.
    """
    tags = {}
    for row_id, value in values.items():
        found = [value] if isinstance(value, str) else value or []
        if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
            raise UsageError(f"row {row_id}: tags {str(value)[:60]!r}; expected a list of texts")
        tags[row_id] = [tag for tag in found if tag.strip()]
    return tags
