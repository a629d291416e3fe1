"""Which version a name means, and going back to one: what `latest`, the card and the record say."""

from __future__ import annotations

import json

import pytest
import yaml
from huggingface_hub import DatasetCard

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, UsageError
from deita_tasks.results import refusals, versions
from deita_tasks.results.history import (
    Move,
    find_result,
    find_version,
    list_history,
    use_version,
)
from tests.support.report_data import manifest

pytest_plugins = ["tests.support.s3_fixtures"]

NAMES = [f"202601{day:02}T030000Z-{digit * 16}" for day, digit in ((9, "a"), (10, "b"), (11, "c"))]
CHANGES = {"pool": {}, "selection": {"added": 3, "dropped": 2}}


def write_version(output: str, number: int) -> str:
    """Version `number` as a run leaves it: files, card and, last, the manifest that lists them."""
    uri = versions.version_uri(output, NAMES[number])
    data_files = [{"split": "train", "path": "selected.jsonl"}]
    front = {"configs": [{"config_name": "default", "data_files": data_files}]}
    files = {"selected.jsonl": "{}\n", "README.md": f"---\n{yaml.safe_dump(front)}---\n\n# Card\n"}
    if number:
        files["changes.json"] = json.dumps({**CHANGES, "before": NAMES[number - 1]})
    for name, text in files.items():
        storage.write_bytes(storage.join(uri, name), text.encode())
    outputs = {name: storage.describe(storage.join(uri, name)) for name in files}
    text = manifest(10 + number, outputs=outputs).to_json()
    storage.write_bytes(storage.join(uri, "manifest.json"), text.encode())
    return NAMES[number]


@pytest.fixture
def output(place: str) -> str:
    """Three versions; `latest` is the third."""
    for number in range(3):
        write_version(place, number)
    versions.move_latest(place, NAMES[2])
    return place


def card_path(output: str) -> str:
    with storage.open_read(storage.join(output, "README.md")) as handle:
        card = DatasetCard(handle.read().decode())
    (config,) = card.data["configs"]
    return str(config["data_files"][0]["path"])


def states(output: str) -> list[str]:
    return [version.state for version in list_history(output)]


def test_the_list_says_what_became_of_each(output: str) -> None:
    first, _, third = list_history(output)
    assert (first.version, first.state, first.selected, first.read) == (
        NAMES[0],
        "earlier",
        10,
        1015,
    )
    assert (first.before, first.joined, first.left) == (None, None, None)
    assert (third.state, third.before, third.joined, third.left) == ("latest", NAMES[1], 3, 2)
    refusals.refuse(output, NAMES[1], "too few")
    incomplete = "20260112T030000Z-dddddddddddddddd"
    storage.write_bytes(storage.join(versions.version_uri(output, incomplete), "selected"), b"")
    assert states(output) == ["earlier", "refused", "latest", "incomplete"]
    versions.move_latest(output, NAMES[1])
    assert states(output) == ["earlier", "latest", "not published", "incomplete"]
    manifest_uri = storage.join(versions.version_uri(output, NAMES[0]), "manifest.json")
    storage.write_bytes(manifest_uri, b"{}")
    assert states(output)[0] == "damaged"
    with pytest.raises(UsageError, match="is incomplete: a run is writing it"):
        use_version(output, incomplete)
    assert versions.latest(output) == NAMES[1]


def test_a_name_its_beginning_and_words(output: str) -> None:
    assert find_version(output, NAMES[0]) == NAMES[0]
    assert find_version(output, "20260109") == NAMES[0]
    assert find_version(output, "latest") == NAMES[2]
    assert find_version(output, "previous") == NAMES[1]
    with pytest.raises(UsageError, match=r"'2026011': 2 versions of .* begin with this"):
        find_version(output, "2026011")
    for unknown in ("2025", ""):
        with pytest.raises(UsageError, match=f"'{unknown}': no version of .* expected latest"):
            find_version(output, unknown)
    use_version(output, NAMES[0])
    with pytest.raises(UsageError, match="no version comes before the latest"):
        find_version(output, "previous")
    with pytest.raises(UsageError, match="no complete version here"):
        find_version(storage.join(output, "versions"), "latest")


def test_a_version_that_was_compared_with_one_that_is_gone_has_no_previous(output: str) -> None:
    storage.remove(versions.version_uri(output, NAMES[1]))
    with pytest.raises(UsageError, match=f"{NAMES[1]}, the version before the latest, is gone"):
        find_version(output, "previous")


def test_a_folder_stands_for_its_result_or_its_latest_version(output: str) -> None:
    uri = versions.version_uri(output, NAMES[0])
    assert find_result(NAMES[0], output) == uri
    assert find_result(uri, output) == find_result(uri) == uri
    assert find_result(output) == versions.version_uri(output, NAMES[2])
    with pytest.raises(UsageError, match=r"no result here .* set --output"):
        find_result("latest")


def test_going_back_and_forward(output: str) -> None:
    assert use_version(output, "previous") == Move(
        before=NAMES[2], after=NAMES[1], withdrawn=[NAMES[2]]
    )
    assert versions.latest(output) == NAMES[1]
    assert card_path(output) == f"versions/{NAMES[1]}/selected.jsonl"
    assert states(output) == ["earlier", "latest", "withdrawn"]
    assert use_version(output, NAMES[0]).withdrawn == [NAMES[1]]
    assert states(output) == ["latest", "withdrawn", "withdrawn"]
    assert use_version(output, NAMES[0]).before == NAMES[0]
    forward = use_version(output, NAMES[2])
    assert (forward.before, forward.withdrawn) == (NAMES[0], [])
    assert states(output) == ["earlier", "earlier", "latest"]
    assert card_path(output) == f"versions/{NAMES[2]}/selected.jsonl"


def test_going_back_over_a_version_withdraws_that_too(output: str) -> None:
    assert use_version(output, NAMES[0]).withdrawn == NAMES[1:]
    assert states(output) == ["latest", "withdrawn", "withdrawn"]


def test_a_version_that_was_never_the_latest_is_not_withdrawn(output: str) -> None:
    versions.move_latest(output, NAMES[1])
    assert use_version(output, NAMES[0]).withdrawn == [NAMES[1]]
    assert states(output) == ["latest", "withdrawn", "not published"]


def test_a_damaged_version_is_not_used(output: str) -> None:
    place = storage.join(versions.version_uri(output, NAMES[0]), "selected.jsonl")
    storage.write_bytes(place, b"{}\n{}\n")
    with pytest.raises(DamagedArtifact, match="is damaged, and latest stays"):
        use_version(output, NAMES[0])
    assert versions.latest(output) == NAMES[2]
