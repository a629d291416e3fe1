"""Looking after a store: over a local folder, memory:// and S3. The stores are made by hand,
without Prefect.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.compaction import compact
from deita_tasks.artifacts.garbage import abandoned, collect, garbage
from deita_tasks.artifacts.inventory import artifacts, describe
from deita_tasks.artifacts.parts import PartSet, part_digest, score_table, vector_table
from deita_tasks.artifacts.pool import Pool, pool_uri, write_pool
from deita_tasks.artifacts.selection import write_selection
from deita_tasks.artifacts.verify import verify
from deita_tasks.errors import StorageError
from deita_tasks.records import Conversation, ModelOutput, Quarantined, SourceRow, Turn

pytest_plugins = ["tests.support.s3_fixtures"]

LATER = datetime.now(UTC) + timedelta(days=30)
STAGES = {"complexity": "scores/complexity", "quality": "scores/quality", "embedding": "embeddings"}


def conversations(*numbers: int) -> list[Conversation]:
    return [
        Conversation(
            (Turn("user", f"question {number}"), Turn("assistant", "answer " * number)),
            SourceRow("pool.jsonl", number),
        )
        for number in numbers
    ]


def make_pool(store: str, *numbers: int) -> Pool:
    uri = pool_uri(store, storage.digest_of(numbers))
    bad = Quarantined(SourceRow("pool.jsonl", 99), "malformed_row", "not JSON", "{")
    write_pool(
        uri,
        [*conversations(*numbers), bad],
        {
            "inputs": [
                {"uri": "pool.jsonl", "digest": "", "rows": len(numbers) + 1, "format": "messages"}
            ]
        },
    )
    return Pool.open(uri)


def add_part(store: str, stage: str, *numbers: int, **contract: object) -> str:
    """A part in which row n scores 1 + n/100, or has the vector (1, n); its URI."""
    family = PartSet.of(store, STAGES[stage], {"backend": "by_hand", "stage": stage, **contract})
    ids = [conversation.id for conversation in conversations(*numbers)]
    cut = np.zeros(len(numbers), np.int32)
    if stage == "embedding":
        table = vector_table(
            ids, ModelOutput(np.array([[1, number] for number in numbers], np.float32), cut)
        )
    else:
        table = score_table(
            ids,
            [1] * len(ids),
            ModelOutput(np.array([1 + number / 100 for number in numbers], np.float32), cut),
        )
    digest = part_digest(table["id"])
    family.write(digest, table)
    return family.part(digest)


def family_of(uri: str) -> PartSet:
    folder = uri.rsplit("/", 1)[0]
    return PartSet(folder, folder.rsplit("/", 1)[1])


def make_selection(store: str, pool: Pool, budget: int = 2, **contract: object) -> str:
    parts = {}
    for stage, folder in STAGES.items():
        family = PartSet.of(store, folder, {"backend": "by_hand", "stage": stage, **contract})
        parts[stage] = {"family": dataclasses.asdict(family), "parts": family.listed()}
    uri = storage.join(
        store, "selections", storage.digest_of([pool.uri.rsplit("/", 1)[1], budget, contract])
    )
    write_selection(
        uri,
        pool,
        parts,
        {"name": "diverse", "options": {"budget": budget, "max_similarity": 0.9999}},
    )
    return uri


def make_store(store: str) -> str:
    """Pool and selection of rows 1 to 4, in two parts a stage; returns the selection's URI."""
    pool = make_pool(store, 1, 2, 3, 4)
    for stage in STAGES:
        add_part(store, stage, 1, 2)
        add_part(store, stage, 3, 4)
    return make_selection(store, pool)


def names(store: str) -> set[str]:
    return {file.name for file in storage.find(store)}


def garbage_names(store: str, **how: object) -> set[str]:
    return {file.name for file in garbage(store, now=LATER, **how)}


def problems(store: str) -> dict[str, str]:
    return {checked.name: checked.problem for checked in verify(store) if checked.problem}


def test_what_is_in_a_store(place):
    make_store(place)
    storage.write_bytes(f"{place}/notes.txt", b"somebody's own")
    found = {one.artifact.kind: one for one in describe(place)}
    assert set(found) == {
        "pools",
        "selections",
        "scores/complexity",
        "scores/quality",
        "embeddings",
    }
    assert {kind: one.rows for kind, one in found.items()} == {
        "pools": 5,
        "selections": 2,
        "scores/complexity": 4,
        "scores/quality": 4,
        "embeddings": 4,
    }
    assert found["pools"].stands_for == "pool.jsonl"
    assert found["selections"].stands_for.startswith(
        "diverse budget=2 max_similarity=0.9999 from pool "
    )
    assert found["embeddings"].stands_for == "by_hand"
    assert len(found["embeddings"].artifact.files) == 3  # two parts and fingerprint.json
    total = sum(one.artifact.bytes for one in found.values())
    assert total == sum(file.bytes for file in storage.find(place)) - len("somebody's own")


def test_fingerprints_in_a_few_words():
    from deita_tasks.artifacts.inventory import stands_for

    assert stands_for(
        {
            "backend": "causal_lm",
            "model": "org/m",
            "revision": "0123456789abcdef",
            "dtype": "bfloat16",
            "template": "x" * 99,
        }
    ) == ("causal_lm org/m@0123456789ab bfloat16")
    assert (
        stands_for(
            {"backend": "instruction_length", "kind": "complexity", "middle": 25.0, "version": 1}
        )
        == "instruction_length middle=25.0 version=1"
    )


def test_an_empty_store(place):
    assert artifacts(place) == []
    assert list(verify(place)) == []
    assert list(compact(place)) == []
    assert garbage(place) == []


# ---- gc


def test_what_a_selection_refers_to_stays(place):
    make_store(place)
    assert garbage_names(place) == set()


def test_what_nothing_refers_to_goes(place):
    make_store(place)
    before = names(place)
    make_pool(place, 7, 8)  # a run that never came to select
    for stage in STAGES:
        add_part(place, stage, 1, 2, model="another")
        add_part(place, stage, 7, 8)
    storage.write_bytes(f"{place}/plans/{'0' * 32}.parquet", b"")
    storage.write_bytes(f"{place}/scores/quality/{'1' * 32}/.part-x.parquet.draft", b"half")
    storage.write_bytes(f"{place}/results/quality-{'1' * 32}-{'2' * 32}", b"{}")
    storage.write_bytes(f"{place}/notes.txt", b"somebody's own")
    doomed = names(place) - before - {"notes.txt"}
    assert garbage(place) == []  # all of it is younger than the grace
    assert garbage_names(place) == doomed
    collect(place, garbage(place, now=LATER))
    assert names(place) == before | {"notes.txt"}
    assert problems(place) == {}


def test_uploads_that_nobody_finished_are_given_up(s3):
    """A killed run leaves the pieces of an upload in the bucket, where no listing shows them."""
    store = f"s3://{s3.bucket()}/place"
    fs, path = storage.filesystem(store)
    bucket = path.split("/")[0]
    for key in ("place/scores/quality/part", "placebo/part"):  # the second is not ours
        begun = fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        fs.call_s3(
            "upload_part",
            Bucket=bucket,
            Key=key,
            UploadId=begun["UploadId"],
            PartNumber=1,
            Body=b"x" * 10,
        )
    found = abandoned(store, now=LATER)
    assert abandoned(store, now=found[0].begun + timedelta(days=6)) == []  # it may be under way
    assert [upload.key for upload in found] == ["place/scores/quality/part"]
    collect(store, [], found)
    assert abandoned(store, now=LATER) == []
    left = fs.call_s3("list_multipart_uploads", Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["placebo/part"]
    assert abandoned("memory://elsewhere", now=LATER) == []


def test_an_upload_under_way_is_left_alone_and_so_is_gc_where_one_may_not_look(monkeypatch, caplog):
    begun = storage.Upload("key", "id", LATER)
    monkeypatch.setattr(storage, "unfinished_uploads", lambda store: [begun])
    assert abandoned("s3://x", grace=timedelta(0), now=LATER + timedelta(minutes=59)) == []
    assert abandoned("s3://x", grace=timedelta(0), now=LATER + timedelta(minutes=61)) == [begun]
    monkeypatch.setattr(
        storage,
        "unfinished_uploads",
        lambda store: (_ for _ in ()).throw(StorageError("AccessDenied")),
    )
    assert abandoned("s3://x", now=LATER) == []
    assert "AccessDenied" in caplog.text


def test_what_prefect_remembers_of_what_stays_stays(place):
    selection = make_store(place)
    part = add_part(place, "quality", 1, 2).rsplit("part-", 1)[1].removesuffix(".parquet")
    pool = names(place) and next(one.digest for one in artifacts(place) if one.kind == "pools")
    for name in (
        f"quality-{'1' * 32}-{part}",
        f"select-rows-{selection.rsplit('/', 1)[1]}",
        f"load-pool-{pool}",
    ):
        storage.write_bytes(f"{place}/results/{name}", b"{}")
    assert garbage_names(place) == set()


def test_a_selection_that_does_not_say_what_it_was_made_of_keeps_all(place):
    selection = make_store(place)
    make_pool(place, 7, 8)
    summary = storage.read_json(f"{selection}/selection.json")
    del summary["made_of"]
    storage.write_json(f"{selection}/selection.json", summary)
    assert garbage_names(place) == set()


def test_old_selections_can_be_forgotten(place):
    make_store(place)
    assert garbage_names(place, forget=timedelta(days=60)) == set()
    assert garbage_names(place, forget=timedelta(days=20)) == names(place)


def test_a_part_stays_while_one_of_its_rows_is_needed(place):
    pool = make_pool(place, 1, 2)
    parts = [add_part(place, stage, 2, 50) for stage in STAGES] + [
        add_part(place, stage, 1) for stage in STAGES
    ]
    make_selection(place, pool)
    gone = add_part(place, "quality", 51)
    assert {f"{place}/{name}" for name in garbage_names(place)} == {gone}
    assert len(parts) == 6


def test_a_pool_that_cannot_be_read_keeps_its_parts(place):
    """Scores may have cost days; which of them are needed is not known then."""
    make_store(place)
    add_part(place, "quality", 51)
    file = next(name for name in names(place) if name.endswith("rows-00000.parquet"))
    storage.write_bytes(f"{place}/{file}", b"damaged")
    assert garbage_names(place) == set()


# ---- verify


def test_a_whole_store(place):
    make_store(place)
    checked = list(verify(place))
    assert problems(place) == {}
    assert (
        len(checked) == 2 + 3 * 3
    )  # a pool, a selection; of each family its description and two parts


@pytest.mark.parametrize(
    "what",
    [
        "rows-00000.parquet",
        "quarantine.parquet",
        "decisions.parquet",
        "kept.parquet",
        "fingerprint.json",
    ],
)
@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_all_damage_is_found(tmp_path, what, how):
    store = str(tmp_path / "store")
    make_store(store)
    file = sorted(path for path in (tmp_path / "store").rglob("*") if what in path.name)[0]
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[len(content) // 3] ^= 4
    else:
        del content[len(content) // 2 :]
    file.write_bytes(content)
    found = problems(store)
    assert len(found) == 1
    assert next(iter(found)) in (str(file.relative_to(store)), str(file.parent.relative_to(store)))


def test_a_flipped_bit_in_a_part_is_found_or_changes_nothing(tmp_path):
    """A part has no digest beside it: the checksums of its pages and the name made of its ids have
    to do.
    """
    store = str(tmp_path)
    path = Path(add_part(store, "quality", *range(1, 60)))
    whole, table = path.read_bytes(), storage.read_table(str(path))
    positions, found = range(0, len(whole), 23), 0
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        if problems(store):
            found += 1
        else:
            assert storage.read_table(str(path)).equals(table), position
    assert found > len(positions) / 2


def test_deleted_files_and_a_wrong_name(place):
    selection = make_store(place)
    storage.remove(f"{selection}/kept.parquet")
    part = add_part(place, "quality", 1)
    with storage.open_read(part) as handle:
        content = handle.read()
    storage.remove(part)
    storage.write_bytes(part.replace("part-", "part-")[:-40] + f"{'0' * 32}.parquet", content)
    found = problems(place)
    assert sorted(why.split(": ")[1] for why in found.values()) == [
        "is not there",
        "its ids are not those that its name stands for",
    ]


def test_what_a_killed_run_left_is_not_damage(place):
    make_store(place)
    unfinished = make_pool(place, 7, 8).uri
    storage.remove(f"{unfinished}/pool.json")
    storage.write_bytes(f"{place}/selections/{'0' * 32}/decisions.parquet", b"half")
    assert problems(place) == {}


def test_damage_can_be_removed(place):
    make_store(place)
    uri = add_part(place, "quality", 1, 2)
    storage.write_bytes(uri, b"PAR1")
    assert [checked.problem for checked in verify(place, remove=True) if checked.problem]
    assert not storage.exists(uri)
    assert problems(place) == {}


# ---- compact


def test_small_parts_become_few(place):
    make_store(place)
    for number in range(10, 14):
        add_part(place, "embedding", number, number + 1)  # each shares a row with the next
    uri = add_part(place, "embedding", 1, 2)
    family, wanted = family_of(uri), [one.id for one in conversations(*range(1, 5), *range(10, 15))]
    before = family.gather(family.listed())
    done = {one.folder: (one.before, one.after) for one in compact(place)}
    assert done == {"scores/complexity/" + names_of(place, "scores/complexity"): (2, 1)} | {
        "scores/quality/" + names_of(place, "scores/quality"): (2, 1),
        "embeddings/" + family.fingerprint: (6, 1),
    }
    (merged,) = family.listed()
    after = family.gather([merged])
    assert sorted(after["id"].to_pylist()) == sorted(wanted)
    assert dict(zip(after["id"].to_pylist(), after["values"].to_pylist(), strict=True)) == dict(
        zip(before["id"].to_pylist(), before["values"].to_pylist(), strict=True)
    )
    assert problems(place) == {}
    assert list(compact(place)) == []


def names_of(store: str, kind: str) -> str:
    return next(one.digest for one in artifacts(store) if one.kind == kind)


def test_large_parts_and_damaged_ones_are_left_alone(place):
    large = add_part(place, "quality", *range(1, 9))
    damaged = add_part(place, "quality", 20, 21)
    storage.write_bytes(damaged, b"nonsense")
    for number in range(30, 37):
        add_part(place, "quality", number)
    (done,) = compact(place, merged_rows=5)
    assert (done.before, done.after) == (8, 3)  # the large one, and 7 rows as 5 + 2
    assert storage.exists(large)
    assert storage.exists(damaged)


def test_a_reader_beside_compaction_finds_all_rows(place):
    make_store(place)
    family = family_of(add_part(place, "quality", 1, 2))
    planned = family.listed()
    list(compact(place))
    assert family.listed() != planned
    assert family.gather(planned).num_rows == 4


def test_a_part_that_goes_while_it_is_merged_stops_the_merge(place, monkeypatch):
    from deita_tasks.artifacts import compaction

    make_store(place)
    family = family_of(add_part(place, "quality", 1, 2))
    listed = family.listed()
    held = family.index()
    storage.remove(family.part(listed[1]))
    assert compaction._merge(family, held) == 2
    assert family.listed() == listed[:1]


# ---- the command line


def deita(*arguments: str) -> int:
    from flows.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main(["store", *arguments])
    return int(ended.value.code or 0)


def test_the_commands(tmp_path, capsys):
    store = str(tmp_path / "store")
    make_store(store)
    for stage in STAGES:
        add_part(store, stage, 50)
    assert deita("ls", "--store", store) == 0
    said = capsys.readouterr().out
    assert "pool.jsonl" in said
    assert "diverse budget=2 max_similarity=0.9999 from pool" in said
    assert deita("du", "--store", store) == 0
    assert "scores/complexity" in capsys.readouterr().out
    before = names(store)
    assert deita("gc", "--store", store, "--dry-run", "--grace-days", "0") == 0
    assert "3 files" in (said := capsys.readouterr().out)
    assert "would go" in said
    assert names(store) == before
    assert deita("gc", "--store", store, "--grace-days", "0") == 0
    assert len(names(store)) == len(before) - 3
    capsys.readouterr()
    assert deita("compact", "--store", store) == 0
    assert capsys.readouterr().out.count(" 2 ") == 3
    assert deita("verify", "--store", store) == 0
    assert capsys.readouterr().out == "8 artifacts checked, 0 damaged\n"
    part = next(path for path in (tmp_path / "store").rglob("part-*.parquet"))
    part.write_bytes(b"nonsense")
    assert deita("verify", "--store", store) == 1
    told = capsys.readouterr()
    assert part.name in told.out
    assert told.err.startswith("deita: ")
    assert told.err.count("\n") == 1
    assert deita("verify", "--store", store, "--remove") == 0
    assert not part.exists()


def test_a_mistyped_store_is_not_an_empty_one(tmp_path, capsys):
    for name in ("ls", "du", "gc", "verify", "compact"):
        assert deita(name, "--store", str(tmp_path / "nowhere")) == 2
        assert "no store here; expected the folder or s3:// URI" in capsys.readouterr().err
