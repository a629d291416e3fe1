"""Publishing a result: on a local disk, in memory, on S3, and where a folder cannot be renamed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from deita_tasks import storage
from deita_tasks.errors import StorageError
from deita_tasks.results import publish as publishing

pytest_plugins = ["tests.support.s3_fixtures"]


def result(folder: Path, **files: str) -> str:
    """A finished result in `folder`, its manifest naming its files."""
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    names = [name.replace("__", "/") for name in files]
    (folder / "manifest.json").write_text(
        json.dumps({"outputs": dict.fromkeys(names), "of": files})
    )
    return str(folder)


def contents(uri: str) -> dict[str, str]:
    texts = {}
    for file in storage.find(uri):
        with storage.open_read(f"{uri}/{file.name}") as handle:
            texts[file.name] = handle.read().decode()
    texts.pop("manifest.json", None)
    return texts


def test_a_result_takes_the_place_of_another(place, tmp_path):
    output = f"{place}/results of ü"
    publishing.publish(
        result(tmp_path / "a", selected="old", data__part="old", only_old="x"), output
    )
    assert contents(output) == {"selected": "old", "data/part": "old", "only_old": "x"}
    publishing.publish(
        result(tmp_path / "b", selected="new", data__part="new", only_new="y"), output
    )
    assert contents(output) == {"selected": "new", "data/part": "new", "only_new": "y"}
    assert storage.read_json(f"{output}/manifest.json")["of"]["selected"] == "new"
    assert not publishing.is_unfinished(output)
    assert publishing.foreign_files(output) == []
    assert {file.name.split("/")[0] for file in storage.find(place)} == {"results of ü"}
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_foreign_files_are_named(place, tmp_path):
    publishing.publish(result(tmp_path / "a", selected="x"), place)
    storage.write_bytes(f"{place}/notes.txt", b"mine")
    assert publishing.foreign_files(place) == ["notes.txt"]


def test_a_draft_of_the_marker_is_ours(tmp_path, monkeypatch):
    pretend_mount_point(monkeypatch)
    output = str(tmp_path / "output")
    publishing.publish(result(tmp_path / "a", selected="x"), output)
    storage.write_bytes(f"{output}/..unfinished.{'0' * 32}", b"half")
    assert publishing.foreign_files(output) == []
    publishing.publish(result(tmp_path / "b", selected="y"), output)
    assert contents(output) == {"selected": "y"}


def pretend_mount_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every folder look like a mount point, which cannot be renamed."""
    monkeypatch.setattr(os.path, "ismount", lambda path: True)


def test_a_mount_point_is_filled_in_place(tmp_path, monkeypatch):
    pretend_mount_point(monkeypatch)
    output = tmp_path / "output"
    output.mkdir()
    inode = output.stat().st_ino
    publishing.publish(result(tmp_path / "a", selected="old", only_old="x"), str(output))
    publishing.publish(result(tmp_path / "b", selected="new"), str(output))
    assert contents(str(output)) == {"selected": "new"}
    assert output.stat().st_ino == inode


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def die_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Kill the process after so many remote writes: no clean-up reaches the store either."""
    file_system = type(storage.filesystem("memory://")[0])
    count = 0

    def counting(write):
        def counted(self, *arguments, **options):
            nonlocal count
            count += 1
            if count > writes:
                monkeypatch.setattr(storage, "remove", lambda uri: None)
                raise Killed
            return write(self, *arguments, **options)

        return counted

    monkeypatch.setattr(file_system, "put_file", counting(file_system.put_file))
    monkeypatch.setattr(file_system, "cp_file", counting(file_system.cp_file))


@pytest.mark.parametrize("writes", range(6))
def test_killed_while_a_result_moves_in(tmp_path, monkeypatch, writes):
    """At any moment a reader finds the whole old result, or none; the next run finishes."""
    output = f"memory://{tmp_path.name}/output"
    publishing.publish(result(tmp_path / "a", selected="old", only_old="x"), output)
    with monkeypatch.context() as patch:
        die_after(patch, writes)
        with pytest.raises(Killed):
            publishing.publish(result(tmp_path / "b", selected="new", more="new"), output)
    if storage.exists(f"{output}/manifest.json"):
        texts = contents(output)
        assert texts["selected"] == "old"
        assert texts["only_old"] == "x"
    else:
        assert publishing.is_unfinished(output)
    assert publishing.foreign_files(output) == []  # ours to replace
    publishing.publish(result(tmp_path / "c", selected="last"), output)
    assert contents(output) == {"selected": "last"}


def test_killed_between_two_renames(tmp_path):
    output = tmp_path / "output"
    publishing.publish(result(tmp_path / "a", selected="old"), str(output))
    os.rename(output, tmp_path / f".output.{'0' * 32}.old")  # as a killed run leaves it
    publishing.recover(str(output))
    assert contents(str(output)) == {"selected": "old"}
    (tmp_path / f".output.{'1' * 32}.old").mkdir()
    publishing.recover(str(output))
    assert contents(str(output)) == {"selected": "old"}
    assert os.listdir(tmp_path) == ["output"]


def test_a_failure_leaves_the_old_result(tmp_path, monkeypatch):
    output = tmp_path / "output"
    publishing.publish(result(tmp_path / "a", selected="old"), str(output))
    rename = os.rename
    targets: list[str] = []

    def fail_once(source: str, target: str) -> None:
        targets.append(target)
        if target == str(output) and source.endswith(".new"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(StorageError, match="Input/output error"):
        publishing.publish(result(tmp_path / "b", selected="new"), str(output))
    assert contents(str(output)) == {"selected": "old"}
    assert sorted(os.listdir(tmp_path)) == ["b", "output"] or os.listdir(tmp_path) == ["output"]
    assert len(targets) > 2


def test_a_full_disk_leaves_the_old_result(tmp_path, monkeypatch):
    output = tmp_path / "output"
    publishing.publish(result(tmp_path / "a", selected="old"), str(output))

    def full(source: str, target: str) -> None:
        Path(target).mkdir()
        (Path(target) / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(StorageError, match="the disk is full"):
        publishing.publish(result(tmp_path / "b", selected="new"), str(output))
    assert contents(str(output)) == {"selected": "old"}
    assert sorted(os.listdir(tmp_path)) == ["b", "output"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    publishing.publish(result(tmp_path / "a", selected="x"), str(tmp_path / "link"))
    publishing.publish(result(tmp_path / "b", selected="y"), str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert contents(str(tmp_path / "real")) == {"selected": "y"}


def test_names_in_a_manifest_reach_nothing_outside(place, tmp_path):
    """Files elsewhere that a foreign manifest names are not removed."""
    publishing.publish(result(tmp_path / "a", selected="x"), f"{place}/output")
    storage.write_bytes(f"{place}/precious", b"1")
    storage.write_json(
        f"{place}/output/manifest.json", {"outputs": {"../precious": {}, "/etc/hosts": {}}}
    )
    publishing.publish(result(tmp_path / "b", selected="y"), f"{place}/output")
    assert contents(f"{place}/output") == {"selected": "y"}
    assert storage.exists(f"{place}/precious")
