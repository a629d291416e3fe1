"""A shard by itself: what it finds in the store, and how it ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.artifacts.claims import Claim
from deita_tasks.artifacts.shards import Shard, plan_shards
from deita_tasks.tasks.model_cache import ShardLimits, Stopped, stop_event
from deita_tasks.tasks.stages import score_shard
from tests.support.small_store import make_pool, part_set

SPEC = {"name": "response_length", "options": {"kind": "quality"}}


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """The arguments of the task for a pool of three rows."""
    store = str(tmp_path)
    pool = make_pool(store, 1, 2, 3)
    scores = part_set(store, "quality")
    (shard,) = plan_shards(scores, store, *pool.distinct, None).missing
    return {
        "key": "x",
        "title": "x",
        "shard": shard.to_dict(),
        "part_set": scores.to_dict(),
        "pool": pool.uri,
        "spec": SPEC,
        "limits": ShardLimits().to_dict(),
    }


def test_a_shard_that_another_run_has_computed_meanwhile(arguments: dict[str, Any]) -> None:
    first = score_shard.fn(**arguments)
    second = score_shard.fn(**arguments)
    assert (first["computed"], second["computed"]) == (3, 0)
    assert first["parts"] == second["parts"]


def test_the_wait_for_a_claim_ends_with_the_run(arguments: dict[str, Any], tmp_path: Path) -> None:
    scores = part_set(str(tmp_path), "quality")
    claim = Claim(owner="0" * 32, host="another machine", process=1)
    digest = Shard.model_validate(arguments["shard"]).digest
    Path(scores.claim(digest)).write_text(claim.model_dump_json())
    end = threading.Event()
    token = stop_event.set(end)
    threading.Timer(1.0, end.set).start()
    try:
        with pytest.raises(Stopped):
            score_shard.fn(**arguments)
    finally:
        stop_event.reset(token)
    assert scores.digests() == []
