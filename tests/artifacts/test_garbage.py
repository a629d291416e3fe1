"""What a store no longer needs: over a local folder, memory:// and S3."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.garbage import find_abandoned_uploads, find_garbage, remove_garbage
from deita_tasks.artifacts.inventory import list_artifacts, summarise
from deita_tasks.artifacts.runs import RunMark
from deita_tasks.artifacts.verify import verify
from deita_tasks.errors import StorageError
from deita_tasks.strict_json import DIGEST_FIELD
from tests.support.small_store import (
    FOLDERS,
    add_part,
    file_names,
    garbage_names,
    make_pool,
    make_selection,
    make_store,
    part_set,
    problems,
)

pytest_plugins = ["tests.support.s3_fixtures"]

LATER = datetime.now(UTC) + timedelta(days=30)


def test_what_a_selection_refers_to_stays(place):
    make_store(place)
    assert garbage_names(place, now=LATER) == set()


def test_what_nothing_refers_to_goes(place):
    make_store(place)
    before = file_names(place)
    make_pool(place, 7, 8)  # a run that never came to select
    for stage in FOLDERS:
        add_part(place, stage, 1, 2, model="another")
        add_part(place, stage, 7, 8)
    storage.write_bytes(f"{place}/plans/{'0' * 32}.parquet", b"")
    storage.write_bytes(
        f"{place}/scores/quality/{'1' * 32}/.part-{'2' * 32}-{'3' * 64}.parquet.{'4' * 32}", b"half"
    )
    storage.write_bytes(f"{place}/results/quality-{'1' * 32}-{'2' * 32}", b"{}")
    storage.write_bytes(f"{place}/notes.txt", b"somebody's own")
    unused = file_names(place) - before - {"notes.txt"}
    assert find_garbage(place) == []  # all of it is younger than the grace
    assert garbage_names(place, now=LATER) == unused
    remove_garbage(place, find_garbage(place, now=LATER))
    assert file_names(place) == before | {"notes.txt"}
    assert problems(place) == {}


def test_what_prefect_remembers_of_what_stays_stays(place):
    selection = make_store(place)
    fingerprint = add_part(place, "quality", 1, 2).rsplit("/", 2)[1]
    (pool,) = [artifact.digest for artifact in list_artifacts(place) if artifact.kind == "pools"]
    for name in (
        f"quality-{fingerprint}-{'1' * 32}",
        f"select-rows-{selection.rsplit('/', 1)[1]}",
        f"load-pool-{pool}",
    ):
        storage.write_bytes(f"{place}/results/{name}", b"{}")
    assert garbage_names(place, now=LATER) == set()


def test_models_stay_with_what_was_measured_and_trainings_go(place):
    """What killed trainings left goes after the grace, a model only if it is to be forgotten."""
    make_store(place)
    before = file_names(place)
    address, digest = "a" * 32, "b" * 32
    model = {"preparation": {"base_name": "org/base"}, "files": {}}
    model["preparation"]["job"] = {"recipe": {"stage": "sft"}, "rows": 10, "seed": 3}
    storage.write_json(f"{place}/models/{address}/model.json", model)
    storage.write_bytes(f"{place}/models/{address}/adapter_model.safetensors", b"")
    storage.write_bytes(f"{place}/results/evaluate-model-{address}-{digest}", b"{}")
    lasting = file_names(place) - before
    reply = f"replies/{digest[:2]}/{digest}.json"
    storage.write_bytes(f"{place}/{reply}", b"{}")  # paid for: it stays whatever is forgotten
    before |= {reply}
    storage.write_bytes(f"{place}/chains/{digest}/chains.json", b"{}")
    storage.write_bytes(f"{place}/trainings/{digest}/checkpoint-4/optimizer.pt", b"")
    storage.write_bytes(f"{place}/trainings/{digest}/claim.json", b"{}")
    storage.write_bytes(f"{place}/evaluations/{digest}/held_out.parquet", b"")
    storage.write_bytes(f"{place}/models/notes.txt", b"somebody's own")
    passing = file_names(place) - before - lasting - {"models/notes.txt"}
    assert garbage_names(place) == set()
    assert garbage_names(place, now=LATER) == passing
    assert garbage_names(place, now=LATER, forget=timedelta(days=20)) >= lasting | passing
    assert reply not in garbage_names(place, now=LATER, forget=timedelta(days=20))
    summaries = {each.artifact.kind: each for each in summarise(place)}
    assert summaries["models"].rows == 10
    assert summaries["models"].stands_for == "org/base after sft, seed 3"
    assert summaries["trainings"].rows is None


@pytest.mark.parametrize(
    "content", ["without made_of", "of a later version", "not an object", "truncated"]
)
def test_a_selection_that_does_not_say_what_it_was_made_of_keeps_all(place, caplog, content):
    selection = make_store(place)
    make_pool(place, 7, 8)
    fields = storage.read_json(f"{selection}/selection.json")
    del fields[DIGEST_FIELD]
    if content == "without made_of":
        del fields["made_of"]
    elif content == "of a later version":
        fields["made_of"] = {"pools": [fields["made_of"]["pool"]]}
    else:
        fields = []
    storage.write_json(f"{selection}/selection.json", fields)
    if content == "truncated":
        storage.write_bytes(f"{selection}/selection.json", b'{"counts": {"re')
    assert garbage_names(place, now=LATER) == set()
    assert "does not say what it was made of" in caplog.text


def test_old_selections_can_be_forgotten(place):
    make_store(place)
    assert garbage_names(place, now=LATER, forget=timedelta(days=60)) == set()
    assert garbage_names(place, now=LATER, forget=timedelta(days=20)) == file_names(place)


def test_a_part_stays_while_one_of_its_rows_is_needed(place):
    pool = make_pool(place, 1, 2)
    for stage in FOLDERS:
        add_part(place, stage, 2, 50)
        add_part(place, stage, 1)
    make_selection(place, pool)
    unused = add_part(place, "quality", 51)
    assert {f"{place}/{name}" for name in garbage_names(place, now=LATER)} == {unused}


def test_a_pool_may_hold_a_row_twice(tmp_path):
    store = str(tmp_path)
    pool = make_pool(store, 1, 2, 1)
    for stage in FOLDERS:
        add_part(store, stage, 1, 2)
    make_selection(store, pool)
    unused = add_part(store, "quality", 51)
    assert {f"{store}/{name}" for name in garbage_names(store, now=LATER)} == {unused}


def test_a_pool_that_is_gone_keeps_its_parts(tmp_path):
    """`verify --remove` has removed it: the next run loads it again, and looks for its scores."""
    store = str(tmp_path)
    make_store(store)
    (pool,) = (tmp_path / "pools").iterdir()
    storage.remove(str(pool))
    assert garbage_names(store, now=LATER) == set()


def test_a_folder_that_cannot_be_listed_stops_the_search(tmp_path, monkeypatch):
    """A store without the selections in it would be garbage from end to end."""
    store = str(tmp_path)
    selection = make_store(store)
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path) == os.path.dirname(selection):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="not allowed"):
        find_garbage(store, now=LATER)


# ---- files of other people


FOREIGN = (
    "notes.txt",
    ".DS_Store",
    "pools/notes.txt",
    "pools/mine/rows-00000.parquet",
    "pools/{pool}/README",
    "pools/{pool}/deeper/pool.json",
    "selections/first/manifest.json",
    f"selections/{'0' * 32}/selected.jsonl",
    f"selections/{'0' * 32}/.nfs0000",
    "scores/part.parquet",
    f"scores/mine/{'0' * 32}/part-{'0' * 64}.parquet",
    f"scores/quality/{'0' * 32}/part-{'0' * 63}.parquet",
    f"scores/quality/{'0' * 32}/.part.parquet.{'1' * 32}",
    f"embeddings/{'0' * 32}/vectors.npy",
    "plans/next-year.parquet",
    "results/first.json",
    "runs/notes.json",
    f"{'0' * 32}.parquet",
)


def test_only_files_of_our_layout_are_removed(tmp_path):
    store = str(tmp_path)
    make_store(store)
    (pool,) = (tmp_path / "pools").iterdir()
    foreign = {name.format(pool=pool.name) for name in FOREIGN}
    for name in foreign:
        storage.write_bytes(f"{store}/{name}", b"somebody's own")
    listed = {file.name for artifact in list_artifacts(store) for file in artifact.files}
    assert listed == file_names(store) - foreign
    next(pool.glob("rows-*")).write_bytes(b"damaged")
    assert list(problems(store)) == [f"pools/{pool.name}"]
    list(verify(store, remove=True))
    assert foreign < file_names(store)
    files = find_garbage(store, now=LATER, forget=timedelta(0))
    remove_garbage(store, files)
    assert file_names(store) == foreign


# ---- runs under way


def run_mark(store: str, pool: str, **times: datetime) -> str:
    """Write the mark of a run over `pool` by the parts of make_store; return its URI."""
    mark = RunMark(
        begun=times.get("begun", datetime.now(UTC)),
        pool=pool,
        fingerprints={stage: part_set(store, stage).fingerprint for stage in FOLDERS},
        selection="5" * 32,
    )
    uri = f"{store}/runs/{'6' * 32}.json"
    storage.write_record(uri, mark)
    return uri


def test_what_a_run_needs_stays(place):
    pool = make_pool(place, 1, 2)
    for stage in FOLDERS:
        add_part(place, stage, 1, 2)
    everything = file_names(place)
    add_part(place, "quality", 51)
    now, no_grace = datetime.now(UTC), timedelta(0)
    later = now + timedelta(minutes=50)  # the run began late, and its mark is alive
    run_mark(place, pool.digest, begun=later + timedelta(hours=1))
    unused = file_names(place) - everything - {f"runs/{'6' * 32}.json"}
    assert garbage_names(place, grace=no_grace, now=later) == unused
    mark = run_mark(place, "7" * 32, begun=later + timedelta(hours=1))  # a pool still to be loaded
    left = garbage_names(place, grace=no_grace, now=later)
    assert {name.split("/")[0] for name in left} == {"pools"}
    run_mark(place, pool.digest, begun=now)  # what is younger than the run, it may have written
    assert garbage_names(place, grace=no_grace, now=later) == set()
    storage.write_bytes(mark, b"{half")
    assert garbage_names(place, grace=no_grace, now=later) == set()
    assert garbage_names(place, grace=no_grace, now=LATER) == file_names(place)


def test_a_selection_that_a_run_uses_again_is_not_forgotten(tmp_path):
    store = str(tmp_path)
    digest = make_store(store).rsplit("/", 1)[1]
    os.rename(f"{store}/selections/{digest}", f"{store}/selections/{'5' * 32}")
    (pool,) = (tmp_path / "pools").iterdir()
    later = datetime.now(UTC) + timedelta(minutes=50)
    options = {"grace": timedelta(0), "forget": timedelta(0), "now": later}
    assert garbage_names(store, **options) == file_names(store)
    run_mark(store, pool.name, begun=later + timedelta(hours=1))
    assert garbage_names(store, **options) == set()


def test_a_run_that_begins_stops_the_removal(place, caplog):
    pool = make_pool(place, 1, 2)
    files = find_garbage(place, now=LATER)
    before = file_names(place)
    mark = run_mark(place, pool.digest)
    assert remove_garbage(place, files) == 0
    assert before <= file_names(place)
    assert "a run has begun: 3 files stay; run gc again" in caplog.text
    assert remove_garbage(place, files, known_runs={mark}) == 3


def test_a_pool_that_cannot_be_read_keeps_its_parts(place):
    """Scores may have cost days, and nobody knows then which of them are needed."""
    make_store(place)
    add_part(place, "quality", 51)
    (file,) = [name for name in file_names(place) if name.endswith("rows-00000.parquet")]
    storage.write_bytes(f"{place}/{file}", b"damaged")
    assert garbage_names(place, now=LATER) == set()


# ---- uploads


def test_uploads_that_nobody_finished_are_aborted(s3):
    """A killed run leaves the pieces of an upload in the bucket, where no listing shows them."""
    store = f"s3://{s3.bucket()}/place"
    fs, path = storage.filesystem(store)
    bucket = path.split("/")[0]
    ours = f"pools/{'1' * 32}/rows-00000.parquet"
    foreign = {"place/pools/backup.tar", f"placebo/{ours}"}
    for key in (f"place/{ours}", *foreign):
        begun = fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        fs.call_s3(
            "upload_part",
            Bucket=bucket,
            Key=key,
            UploadId=begun["UploadId"],
            PartNumber=1,
            Body=b"x" * 10,
        )
    uploads = find_abandoned_uploads(store, now=LATER)
    assert [upload.key for upload in uploads] == [f"place/{ours}"]
    soon = uploads[0].begun + timedelta(days=6)
    assert find_abandoned_uploads(store, now=soon) == []  # it may be under way
    remove_garbage(store, [], uploads)
    assert find_abandoned_uploads(store, now=LATER) == []
    left = fs.call_s3("list_multipart_uploads", Bucket=bucket)["Uploads"]
    assert {upload["Key"] for upload in left} == foreign
    assert find_abandoned_uploads("memory://elsewhere", now=LATER) == []


def test_an_upload_under_way_is_left_alone(monkeypatch):
    upload = storage.Upload(f"plans/{'1' * 32}.parquet", "id", LATER)
    monkeypatch.setattr(storage, "unfinished_uploads", lambda store: [upload])
    for minutes, abandoned in ((59, []), (61, [upload])):
        now = LATER + timedelta(minutes=minutes)
        assert find_abandoned_uploads("memory://x", grace=timedelta(0), now=now) == abandoned


def test_uploads_that_may_not_be_listed_stay(monkeypatch, caplog):
    def refuse(store: str) -> list[storage.Upload]:
        raise StorageError("AccessDenied")

    monkeypatch.setattr(storage, "unfinished_uploads", refuse)
    assert find_abandoned_uploads("s3://x", now=LATER) == []
    assert "AccessDenied" in caplog.text
