"""A component whose values are taken from the store, and computed where it has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import COLUMNS, PartSet
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.scoring.base import Scorer


@dataclass(frozen=True)
class StoredComponent:
    """A component, and the parts that hold what it has computed. Writes none itself.

    name: of the stage. It knows the parts that exist when it is first asked.
    """

    name: str
    component: Scorer | Embedder
    part_set: PartSet

    @cached_property
    def _index(self) -> Mapping[str, pa.Array]:
        """The keys in each part, by digest."""
        return self.part_set.index()

    def values(self, conversations: Sequence[Conversation]) -> pa.Table:
        """Return the values of `conversations` (`COLUMNS`), in their order."""
        keys = [self._key(row) for row in conversations]
        missing = dict(zip(keys, conversations, strict=True))
        tables = list(self._stored(keys))
        for table in tables:
            for key in table["id"].to_pylist():
                missing.pop(key, None)
        if missing:
            computed = self._compute(list(missing), list(missing.values()))
            tables.append(computed)
        found = pa.concat_tables(tables).combine_chunks()
        found_keys = found["id"].combine_chunks()
        places = pc.index_in(pa.array(keys), value_set=found_keys)
        return found.take(places)

    def _key(self, row: Conversation) -> str:
        """Return what the parts keep the values of a conversation by."""
        return row.id if self.part_set.row_key == "id" else row.text_id

    def _stored(self, keys: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of parts that have one of `keys`."""
        wanted = pa.array(keys, pa.string())
        digests = []
        for digest, ids in self._index.items():
            is_here = pc.is_in(wanted, value_set=ids)
            if pc.any(is_here).as_py():
                digests.append(digest)
        for table in self.part_set.tables(digests, COLUMNS):
            is_wanted = pc.is_in(table["id"], value_set=wanted)
            yield table.filter(is_wanted)

    def _compute(self, keys: list[str], conversations: list[Conversation]) -> pa.Table:
        """Return the values that the store does not have."""
        component = self.component
        if isinstance(component, Embedder):
            output = component.compute(conversations)
            return vector_table(keys, output)
        counts = component.score_counts(conversations)
        scores = component.compute_rows(conversations)
        return score_table(keys, counts, *scores)
