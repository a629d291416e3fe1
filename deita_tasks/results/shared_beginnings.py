"""Rows that were compared by what they share: a long beginning, such as a document."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.conversations import Conversation
from deita_tasks.reporting.statistics import with_decision

# Most of what embedders with windows of 256 or 512 tokens read at once.
SHARED_CHARACTERS = 1_000
MIN_WORDS = SHARED_CHARACTERS // 20  # of so many characters, in any language


def count_shared_beginnings(pool: Pool, ledger: pa.Table) -> int:
    """Return how many too similar rows begin like the row that blocked them, and answer otherwise.

    The first SHARED_CHARACTERS are the same, and the last responses differ. Reads the texts of
    these rows, a row group at a time.
    """
    pairs = with_decision(ledger, "too_similar").select(["id", "nearest_id"])
    ids, positions = pool.distinct
    rows = pool.index(["n_words"]).take(pa.array(positions))
    words = rows["n_words"].combine_chunks()
    is_long = pc.greater_equal(words, MIN_WORDS)
    long_ids = ids.filter(is_long)
    is_row_long = pc.is_in(pairs["id"], value_set=long_ids)
    is_nearest_long = pc.is_in(pairs["nearest_id"], value_set=long_ids)
    pairs = pairs.filter(pc.and_(is_row_long, is_nearest_long))
    row_ids, nearest_ids = [column.combine_chunks() for column in pairs.columns]
    involved = pa.concat_arrays([row_ids, nearest_ids])
    is_involved = pc.is_in(ids, value_set=involved).to_numpy(zero_copy_only=False)
    beginnings: dict[str, int] = {}
    answers: dict[str, int] = {}
    for _, conversation in pool.read(positions[is_involved]):
        last_pair = conversation.pairs[-1]
        beginnings[conversation.id] = hash(_beginning(conversation))
        answers[conversation.id] = hash(last_pair.response)
    count = 0
    for row, nearest in zip(row_ids.to_pylist(), nearest_ids.to_pylist(), strict=True):
        begins_alike = beginnings[row] == beginnings[nearest]
        answers_alike = answers[row] == answers[nearest]
        if begins_alike and not answers_alike:
            count += 1
    return count


def _beginning(conversation: Conversation) -> str:
    """Return the first SHARED_CHARACTERS; the id of a conversation that has fewer."""
    text = "\n\n".join(turn.content for turn in conversation.turns)
    if len(text) < SHARED_CHARACTERS:
        return conversation.id
    return text[:SHARED_CHARACTERS]
