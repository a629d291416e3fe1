"""Results in the store: plain values, and no record that names code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.serializers import JSONSerializer

from deita_tasks.errors import DamagedArtifact, StorageError
from deita_tasks.tasks.caching import CACHED, StoreResults
from tests.support.planted_results import KEY, planted, prefect_record

VALUE = {"part": "1" * 64, "rows": 3, "nested": [{"x": 0.5}]}


@pytest.fixture
def results(tmp_path: Path) -> StoreResults:
    return StoreResults(uri=str(tmp_path))


def write(results: StoreResults, value: Any) -> None:
    results.write_path(KEY, json.dumps(prefect_record(value)).encode())


def read(results: StoreResults) -> Any:
    """Read as Prefect does: with the serializer that the record names."""
    record = json.loads(results.read_path(KEY))
    serializer = JSONSerializer(**record["metadata"]["serializer"])
    assert serializer.object_decoder is None
    assert serializer.jsonlib == "json"
    return serializer.loads(record["result"].encode())


def test_a_value_comes_back(results: StoreResults) -> None:
    write(results, VALUE)
    assert read(results) == VALUE


def test_only_the_value_is_stored(results: StoreResults, tmp_path: Path) -> None:
    write(results, VALUE)
    assert json.loads((tmp_path / KEY).read_text()).keys() == {"value", "content_digest"}


def test_the_error_of_a_failed_task_is_not_stored(results: StoreResults, tmp_path: Path) -> None:
    serializer = CACHED["result_serializer"]
    record = prefect_record(0) | {"result": serializer.dumps(ValueError("bad")).decode()}
    results.write_path(KEY, json.dumps(record).encode())
    assert not (tmp_path / KEY).exists()


@pytest.mark.parametrize("name", [name for name, _ in planted(Path("trap"))])
def test_a_planted_record_is_refused(results: StoreResults, tmp_path: Path, name: str) -> None:
    trap = tmp_path / "trap"
    content = dict(planted(trap))[name]
    (tmp_path / KEY).write_text(json.dumps(content))
    with pytest.raises(DamagedArtifact):
        results.read_path(KEY)
    assert not trap.exists()


def test_every_flipped_bit_is_noticed(results: StoreResults, tmp_path: Path) -> None:
    write(results, VALUE)
    content = (tmp_path / KEY).read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / KEY).write_bytes(damaged)
        try:
            assert read(results) == VALUE, f"bit {bit}"  # space, or another way to write a value
        except StorageError:
            continue
