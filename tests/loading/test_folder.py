"""Which files of a folder are read, and what is said of the others."""

from __future__ import annotations

import json
import os

import datasets
import pyarrow as pa
import pytest

from deita_tasks import storage
from deita_tasks.conversations import Quarantined
from deita_tasks.errors import InputError
from deita_tasks.loading import find_pool, load_layouts, open_pool, read_conversations
from tests.support.loading_pools import COMPRESSORS, PARQUET, PLAIN, SAMPLES, good, json_lines

pytest_plugins = ["tests.support.s3_fixtures"]

ROWS = [{"prompt": "p", "response": "r"}]
LINES = json_lines(ROWS)


def names(pool: str) -> tuple[list[str], dict[str, str]]:
    """Return the names of the files read, and the reasons by name for the others."""
    found = find_pool(pool, load_layouts())
    start = pool.rsplit("/", 1)[-1]
    passed_over = {file.uri.split(f"{start}/", 1)[-1]: file.reason for file in found.passed_over}
    return [file.split(f"{start}/", 1)[-1] for file in found.files], passed_over


def test_the_content_decides_about_names_that_say_nothing(place):
    data = {
        "part-00004": LINES,
        "b.txt": COMPRESSORS["bzip2"](LINES),
        "c.data": PARQUET["parquet"](ROWS),
        "d.txt": PLAIN["csv"](ROWS),
        "e.log": LINES + b"cut off",
    }
    others = {
        "notes.txt": b"[1] a footnote\n",
        "_SUCCESS": b"",
        "old/x.tar.gz": COMPRESSORS["gzip"](b"x" * 257 + b"ustar"),
        "photo.png": LINES,
        ".git/config": b"x",
        ".git/more": b"x",
    }
    for name, content in {**data, **others}.items():
        storage.write_bytes(f"{place}/{name}", content)
    files, passed_over = names(place)
    assert files == sorted(data)
    assert sorted(passed_over) == [".git", "_SUCCESS", "notes.txt", "old/x.tar.gz", "photo.png"]
    rows = list(read_conversations(place))
    assert [row.detail for row in rows if isinstance(row, Quarantined)] == [
        "not JSON: Expecting value at character 1"
    ]
    assert len(rows) == len(data) + 1


def test_linked_folders_are_read_once(tmp_path):
    real = tmp_path / "real"
    pool = tmp_path / "pool"
    for folder in (real, pool):
        folder.mkdir()
    (real / "b.jsonl").write_bytes(LINES)
    (pool / "a.jsonl").write_bytes(LINES)
    (pool / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (pool / "more").symlink_to(real)
    (pool / "again").symlink_to(real)
    (real / "loop").symlink_to(pool)
    os.mkfifo(pool / "pipe.jsonl")
    files, passed_over = names(str(pool))
    assert files == ["a.jsonl", "again/b.jsonl"]
    assert passed_over == {
        "again/loop": f"the same folder as {pool}",
        "gone.jsonl": "a link to nothing",
        "more": f"the same folder as {pool}/again",
        "pipe.jsonl": "not a regular file",
    }


def test_what_datasets_saved(tmp_path):
    split = datasets.Dataset.from_list(SAMPLES["messages"][0])
    pool = datasets.DatasetDict({"train": split, "test": split})
    pool.save_to_disk(str(tmp_path / "saved"))
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(tmp_path / "saved/train/cache-12ab.arrow"), table.schema) as writer:
        writer.write_table(table)
    files, passed_over = names(str(tmp_path / "saved"))
    assert files == ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]
    assert "a cache of datasets" in passed_over["train/cache-12ab.arrow"]
    assert set(passed_over) > {"dataset_dict.json", "train/state.json", "test/dataset_info.json"}
    rows = good(list(read_conversations(str(tmp_path / "saved"))))
    assert [row.turns for row in rows] == SAMPLES["messages"][1] * 2


def test_an_arrow_stream_without_its_end_is_incomplete(tmp_path):
    path = tmp_path / "a.arrow"
    path.write_bytes(PARQUET["arrow_stream"](ROWS * 4)[:-8])
    with pytest.raises(InputError, match=r"a\.arrow: the Arrow stream has no end mark"):
        open_pool(str(path))


SIDECARS = {
    "dataset_info.json": {"mine": {"file_name": "mine.json", "formatting": "sharegpt"}},
    "manifest.json": {"format_version": 1, "inputs": [], "outputs": {}, "parameters": {}},
    "state.json": {"_data_files": [], "_fingerprint": "x"},
}


@pytest.mark.parametrize("name", SIDECARS)
def test_a_sidecar_is_told_by_its_content_too(tmp_path, name):
    (tmp_path / "mine.json").write_bytes(LINES)
    (tmp_path / name).write_text(json.dumps(SIDECARS[name]))
    assert names(str(tmp_path))[0] == ["mine.json"]
    assert names(str(tmp_path / "*.json"))[0] == [str(tmp_path / "mine.json")]
    (tmp_path / name).write_bytes(LINES)  # a pool of that name
    assert sorted(names(str(tmp_path))[0]) == sorted(["mine.json", name])


def test_data_of_no_known_format_is_an_error_and_not_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b").write_bytes(b'{"x": 1}\n')
    with pytest.raises(InputError, match="b: unknown format: its rows have 'x'"):
        read_conversations(str(tmp_path))


ODD_NAMES = ["a::b.jsonl", "c:d.jsonl", "50% off?.jsonl", "a#1*.jsonl", "[x].jsonl", "ü ñ.JSONL"]


def test_odd_names(tmp_path, monkeypatch):
    folder = tmp_path / "odd dir::[x] 5%"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / name).write_bytes(LINES)
        assert len(good(list(read_conversations(str(folder / name))))) == 1
    monkeypatch.chdir(folder)
    for pool in (str(folder), f"{folder}/*", "a::b.jsonl", "c:d.jsonl"):
        assert good(list(read_conversations(pool)))
    assert len(names(str(folder))[0]) == len(find_pool(f"{folder}/*").files) == len(ODD_NAMES)
