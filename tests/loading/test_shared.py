"""A real pool of 110,364 rows."""

from __future__ import annotations

import lzma
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from deita_tasks.conversations import Conversation
from deita_tasks.loading import open_pool

POOL = Path(__file__).parents[2] / "../shared/data/pool_100k.jsonl.xz"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not POOL.exists(), reason=f"{POOL} is not there"),
]


def test_the_pool_of_100k():
    """110,364 rows (82 MB of text, 8,372 multi-turn rows) are all good, in under a minute."""
    pool = open_pool(str(POOL))
    assert (pool.format.name, pool.container, pool.compression) == ("messages", "json_lines", "xz")
    start = time.perf_counter()
    kinds = Counter(type(row) for row in pool)
    assert time.perf_counter() - start < 60
    assert kinds == {Conversation: 110_364}


def test_the_first_rows_in_little_memory():
    tracemalloc.start()
    multi_turn = characters = rows = 0
    for row in open_pool(str(POOL)):
        assert isinstance(row, Conversation)
        assert set(row.extra) == {"source", "licence"}
        rows += 1
        multi_turn += len(row.pairs) > 1
        characters += sum(len(turn.content) for turn in row.turns)
        if rows == 20_000:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (64 + 24) << 20  # the file was written by xz -9, whose window is 64 MiB
    with lzma.open(POOL, "rt", encoding="utf-8") as lines:
        texts = [next(lines) for _ in range(20_000)]
    assert 0 < multi_turn < rows and characters < sum(map(len, texts))
