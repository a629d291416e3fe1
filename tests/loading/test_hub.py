"""Data sets of the hub by id. The hub itself is replaced: tests reach no network."""

from __future__ import annotations

import sys

import datasets
import pytest

from deita_tasks.errors import InputError, MissingExtra
from deita_tasks.loading import find_pool, read_conversations
from tests.support.loading_pools import good, json_lines

ROWS = [{"prompt": "p", "response": "r"}]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one data set of two splits; gives what was asked of it."""
    requests = []
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_bytes(json_lines([{**ROWS[0], "split": split}]))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    pool = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))

    def load_dataset(path, name, revision):
        requests.append((path, name, revision))
        return pool

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return requests


@pytest.mark.parametrize(
    ("uri", "request_made", "split"),
    [
        ("hf:acme/chats", ("acme/chats", None, None), "train"),
        ("acme/chats", ("acme/chats", None, None), "train"),
        ("hf:acme/chats:en:test", ("acme/chats", "en", None), "test"),
        ("hf:acme/chats::test", ("acme/chats", None, None), "test"),
        ("hf:acme/chats@v1:en", ("acme/chats", "en", "v1"), "train"),
    ],
)
def test_a_data_set_by_its_id(hub, uri, request_made, split):
    (row,) = good(list(read_conversations(uri)))
    assert (hub[0], row.extra) == (request_made, {"split": split})
    (other,) = find_pool(uri).passed_over
    assert other.reason == "another split"


def test_a_local_path_comes_first(hub, tmp_path, monkeypatch):
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "chats").write_bytes(json_lines(ROWS))
    monkeypatch.chdir(tmp_path)
    assert good(list(read_conversations("acme/chats")))[0].extra == {}
    with pytest.raises(InputError, match="no such file"):
        read_conversations("acme/other")
    assert hub == []


def test_what_the_hub_does_not_have(hub, monkeypatch):
    with pytest.raises(InputError, match="no split 'dev'; expected one of train, test"):
        read_conversations("hf:acme/chats::dev")
    with pytest.raises(InputError, match="not the id of a data set"):
        read_conversations("hf:acme")
    for error, message in (
        (datasets.exceptions.DatasetNotFoundError("a\nb"), r"no such data set, or it is private"),
        (ConnectionError("no route"), "the Hugging Face hub cannot be reached"),
        (ValueError("Config name is missing.\nPick one: ['a']"), r"cannot be read \(Config name"),
    ):
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, error=error, **__: throw(error))
        with pytest.raises(InputError, match=message) as caught:
            read_conversations("hf:acme/chats")
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"deita-tasks\[hub\]"):
        read_conversations("hf:acme/chats")


def throw(error: Exception) -> None:
    raise error
