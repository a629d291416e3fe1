"""What a store holds: over a local folder, memory:// and S3."""

from __future__ import annotations

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.compaction import compact
from deita_tasks.artifacts.garbage import find_garbage
from deita_tasks.artifacts.inventory import describe_fingerprint, list_artifacts, summarise
from deita_tasks.artifacts.verify import verify
from deita_tasks.strict_json import DIGEST_FIELD
from tests.support.small_store import make_store, problems

pytest_plugins = ["tests.support.s3_fixtures"]


def test_what_is_in_a_store(place):
    make_store(place)
    storage.write_bytes(f"{place}/notes.txt", b"somebody's own")
    summaries = {summary.artifact.kind: summary for summary in summarise(place)}
    assert {kind: summary.rows for kind, summary in summaries.items()} == {
        "pools": 5,
        "selections": 2,
        "scores/complexity": 4,
        "scores/quality": 4,
        "embeddings": 4,
    }
    assert summaries["pools"].stands_for == "pool.jsonl"
    assert summaries["selections"].stands_for.startswith(
        "diverse budget=2 max_similarity=0.9999 from pool "
    )
    assert summaries["embeddings"].stands_for == "by_hand"
    assert len(summaries["embeddings"].artifact.files) == 3  # two parts and fingerprint.json
    total = sum(summary.artifact.bytes for summary in summaries.values())
    assert total == sum(file.bytes for file in storage.find(place)) - len("somebody's own")


def test_a_selection_of_an_early_version_does_not_say_what_it_stands_for(place):
    selection = make_store(place)
    fields = storage.read_json(f"{selection}/selection.json")
    del fields["made_of"], fields[DIGEST_FIELD]
    storage.write_json(f"{selection}/selection.json", fields)
    summaries = {summary.artifact.kind: summary for summary in summarise(place)}
    assert summaries["selections"].rows == 2
    assert summaries["selections"].stands_for == "? from pool ?"


def test_what_is_unfinished_or_damaged_is_listed_without_rows(place):
    selection = make_store(place)
    storage.write_bytes(f"{place}/pools/{'0' * 32}/rows-00000.parquet", b"half")
    storage.write_json(f"{selection}/selection.json", {"counts": {}})
    rows = [(summary.artifact.kind, summary.rows) for summary in summarise(place)]
    assert ("pools", None) in rows
    assert ("selections", None) in rows


def test_a_damaged_part_is_counted_apart(place):
    make_store(place)
    (part, *_) = [file.name for file in storage.find(place) if "embeddings/" in file.name][1:]
    storage.write_bytes(f"{place}/{part}", b"PAR1")
    summaries = {summary.artifact.kind: summary for summary in summarise(place)}
    assert summaries["embeddings"].rows == 2
    assert summaries["embeddings"].stands_for == "by_hand; damaged parts: 1"


@pytest.mark.parametrize("content", [[], None, {"backend": "another"}])
def test_a_fingerprint_of_something_else_is_damage(tmp_path, content):
    store = str(tmp_path)
    make_store(store)
    (file,) = (tmp_path / "embeddings").rglob("fingerprint.json")
    storage.write_json(str(file), content)
    summaries = {summary.artifact.kind: summary for summary in summarise(store)}
    assert summaries["embeddings"].rows is None
    assert "fingerprint.json: stands for" in summaries["embeddings"].stands_for
    assert list(problems(store)) == [str(file.relative_to(tmp_path))]


def test_fingerprints_in_a_few_words():
    model = {
        "backend": "causal_lm",
        "model": "org/m",
        "revision": "0123456789abcdef",
        "dtype": "bfloat16",
        "template": "x" * 99,
    }
    assert describe_fingerprint(model) == "causal_lm org/m@0123456789ab bfloat16"
    formula = {"backend": "instruction_length", "kind": "complexity", "middle": 25.0, "version": 1}
    assert describe_fingerprint(formula) == "instruction_length middle=25.0 version=1"


def test_an_empty_store(place):
    assert list_artifacts(place) == []
    assert list(summarise(place)) == []
    assert list(verify(place)) == []
    assert list(compact(place)) == []
    assert find_garbage(place) == []
