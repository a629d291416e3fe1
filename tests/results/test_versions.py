"""Versions of a selection: names sort by time, `latest` moves last, old versions are removed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard

from deita_tasks import storage
from deita_tasks.errors import OutputExists
from deita_tasks.results import versions
from deita_tasks.results.version_card import write_version_card

pytest_plugins = ["tests.support.s3_fixtures"]

DIGESTS = [character * 32 for character in "abcdef"]
START = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
def output(place: str) -> str:
    return place


def write(output: str, number: int) -> str:
    name = versions.new_name(DIGESTS[number], START + timedelta(hours=number))
    storage.write_json(storage.join(versions.version_uri(output, name), "manifest.json"), {})
    storage.write_bytes(storage.join(versions.version_uri(output, name), "selected.jsonl"), b"{}\n")
    return name


def test_a_name_says_when_and_of_what() -> None:
    assert (
        versions.new_name("0123456789abcdef" + "x" * 16, START)
        == "20260131T235959Z-0123456789abcdef"
    )


def test_latest_is_the_version_it_was_moved_to(output: str) -> None:
    assert versions.latest(output) is None
    first, second = write(output, 0), write(output, 1)
    assert versions.latest(output) is None  # it moves only when told
    versions.move_latest(output, second)
    assert versions.latest(output) == second
    versions.move_latest(output, first)
    assert versions.latest(output) == first
    assert versions.has_digest(first, DIGESTS[0])
    assert not versions.has_digest(second, DIGESTS[0])
    assert not versions.has_digest(None, DIGESTS[0])


def write_with_card(output: str, number: int) -> str:
    name = write(output, number)
    files = [{"split": "train", "path": "selected.jsonl"}]
    front = {"configs": [{"config_name": "a---", "data_files": files}]}
    card = f"---\n{yaml.safe_dump(front)}---\n\n# Version {number}\n"
    storage.write_bytes(
        storage.join(versions.version_uri(output, name), "README.md"), card.encode()
    )
    return name


def read_card(output: str) -> str:
    with storage.open_read(storage.join(output, "README.md")) as handle:
        return handle.read().decode()


def test_the_card_beside_latest_names_the_files_of_that_version_alone(output: str) -> None:
    for number in (0, 1):
        name = write_with_card(output, number)
        versions.move_latest(output, name)
        write_version_card(output, name)
        card = DatasetCard(read_card(output))
        (config,) = card.data["configs"]
        (file,) = config["data_files"]
        assert file["path"] == f"versions/{name}/selected.jsonl"
        assert config["config_name"] == "a---"  # is not the end of the front matter
        assert f"# Version {number}" in card.text


def test_a_card_of_somebody_else_stays(output: str) -> None:
    storage.write_bytes(storage.join(output, "README.md"), b"Mine.\n")
    write_version_card(output, write_with_card(output, 0))
    assert read_card(output) == "Mine.\n"


def test_a_version_without_a_card_gives_none(output: str) -> None:
    write_version_card(output, write(output, 0))
    assert not storage.exists(storage.join(output, "README.md"))


def test_on_a_disk_it_is_a_link_that_programs_can_follow(tmp_path: Path) -> None:
    name = write(str(tmp_path), 0)
    versions.move_latest(str(tmp_path), name)
    assert (tmp_path / "latest" / "selected.jsonl").read_text() == "{}\n"
    assert not os.path.isabs(os.readlink(tmp_path / "latest"))  # the folder may be moved
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "versions"]


def test_on_a_disk_without_links_it_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    name = write(str(tmp_path), 0)
    versions.move_latest(str(tmp_path), name)
    assert (tmp_path / "latest").read_text() == f"{name}\n"
    assert versions.latest(str(tmp_path)) == name


@pytest.mark.parametrize(
    "planted", ["../../etc", "20260131T235959Z-aaaaaaaaaaaaaaaa", "", "\udc80"]
)
def test_a_pointer_to_what_is_no_version_points_to_nothing(planted: str, output: str) -> None:
    storage.write_bytes(storage.join(output, "latest"), planted.encode(errors="surrogateescape"))
    assert versions.latest(output) is None


def test_what_has_no_versions_stands_for_itself(output: str) -> None:
    name = write(output, 0)
    versions.move_latest(output, name)
    assert versions.result_uri(output) == versions.version_uri(output, name)
    for other in (f"{output}/*.jsonl", storage.join(output, "versions", "nothing")):
        assert versions.result_uri(other) == other
    storage.write_json(storage.join(output, "manifest.json"), {})
    assert versions.result_uri(output) == output


def test_the_oldest_go_and_never_the_latest(output: str) -> None:
    names = [write(output, number) for number in range(5)]
    versions.move_latest(output, names[0])
    assert versions.remove_old(output, 2) == names[1:3]
    assert versions.list_versions(output) == [names[0], *names[3:]]
    assert not storage.find(versions.version_uri(output, names[1]))


def test_what_killed_runs_left_goes_after_a_day(output: str) -> None:
    name = write(output, 0)
    draft = f".{name}.0123.new"
    without_manifest = versions.new_name(DIGESTS[1], START)
    for leftover in (draft, without_manifest):
        storage.write_bytes(storage.join(output, "versions", leftover, "selected.jsonl"), b"{}\n")
    assert versions.remove_old(output, 2) == []
    assert entries(output) == {name, draft, without_manifest}  # a run may be under way
    assert versions.remove_old(output, 2, now=datetime.now(UTC) + timedelta(days=2)) == []
    assert entries(output) == {name}


def test_links_of_killed_runs_go_after_a_day(tmp_path: Path) -> None:
    name = write(str(tmp_path), 0)
    versions.move_latest(str(tmp_path), name)
    for draft in (f".latest.{'0' * 32}", f".notes.{'0' * 32}"):
        (tmp_path / draft).symlink_to("versions")
    versions.remove_old(str(tmp_path), 2)
    assert len(list(tmp_path.iterdir())) == 4
    versions.remove_old(str(tmp_path), 2, now=datetime.now(UTC) + timedelta(days=2))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"latest", "versions", f".notes.{'0' * 32}"}


def entries(output: str) -> set[str]:
    files = storage.find(storage.join(output, "versions"))
    return {file.name.split("/")[0] for file in files}


def test_a_version_without_its_manifest_does_not_count(output: str) -> None:
    name = write(output, 0)
    storage.remove(storage.join(versions.version_uri(output, name), "manifest.json"))
    assert versions.list_versions(output) == []


def test_a_version_that_was_not_published_is_found_again(output: str) -> None:
    first, second = write(output, 0), write(output, 1)
    assert versions.unpublished(output, DIGESTS[1], first) == second
    # An older one does not count: a pool that became what it was is a new version.
    assert versions.unpublished(output, DIGESTS[0], second) is None
    assert versions.unpublished(output, DIGESTS[2], first) is None
    assert versions.unpublished(output, DIGESTS[0], None) == first


def test_a_folder_of_something_else_is_left_alone(output: str) -> None:
    versions.check_output(output)
    storage.write_bytes(storage.join(output, "thesis.tex"), b"\\")
    with pytest.raises(OutputExists, match="without versions of ours"):
        versions.check_output(output)


def test_what_the_run_needs_may_not_lie_among_the_versions(output: str) -> None:
    write(output, 0)
    versions.check_output(output, [storage.join(output, "store")])
    with pytest.raises(OutputExists, match="which the run needs"):
        versions.check_output(output, [storage.join(output, "versions", "store")])


@pytest.mark.parametrize("planted", ["latest", "latest/thesis.tex"])
def test_a_latest_of_somebody_else_is_found_before_the_work(planted: str, output: str) -> None:
    write(output, 0)
    versions.check_output(output)
    storage.write_bytes(storage.join(output, planted), b"years of work\n" * 1_000)
    with pytest.raises(OutputExists, match=r"/latest: .*: move it away"):
        versions.check_output(output)
    storage.remove(storage.join(output, "latest"))
    versions.move_latest(output, write(output, 1))
    versions.check_output(output)
