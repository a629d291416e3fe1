"""`deita versions` over two versions made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deita_tasks.results import versions
from tests.support.handmade import A, B
from tests.support.outputs import write_diverse_output

NAMES = ["20260109T030000Z-" + "a" * 16, "20260110T030000Z-" + "b" * 16]


def deita(*arguments: str) -> int:
    from flows.cli.app import main

    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    return int(exit.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Limit 0.5 keeps A alone; 0.99 keeps B too, which is as near to A as 0.6."""
    folder = tmp_path_factory.mktemp("made")
    for name, limit in zip(NAMES, (0.5, 0.99), strict=True):
        result = write_diverse_output(folder / name, 5, max_similarity=limit)
        shutil.move(result, folder / "versions" / name)
    return folder


@pytest.fixture
def output(made: Path, tmp_path: Path) -> str:
    output = str(tmp_path / "selections")
    shutil.copytree(made / "versions", Path(output) / "versions")
    versions.move_latest(output, NAMES[1])
    return output


def test_ls_and_use(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert deita("versions", "ls", "--output", output) == 0
    heads, first, second = capsys.readouterr().out.splitlines()
    assert heads.split() == ["version", "state", "selected", "rows", "joined", "left"]
    assert first.split() == [NAMES[0], "earlier", "1", "7"]
    assert second.split() == [NAMES[1], "latest", "2", "7"]
    assert deita("versions", "use", "20260109", "--output", output) == 0
    moved = capsys.readouterr().out
    assert f"{output}/latest: {NAMES[1]} -> {NAMES[0]}\n" in moved
    assert f"no run publishes {NAMES[1]} again" in moved
    assert versions.latest(output) == NAMES[0]
    assert deita("versions", "ls", "--output", output, "--json") == 0
    states = [version["state"] for version in json.loads(capsys.readouterr().out)]
    assert states == ["latest", "withdrawn"]
    assert deita("explain", A.id, "--output", output) == 0
    assert "A user 0" in capsys.readouterr().out
    assert deita("explain", B.id, "--output", output) == 0
    assert "decision    too similar" in capsys.readouterr().out, "the version that latest names"
    assert deita("versions", "use", NAMES[0], "--output", output) == 0
    assert "already" in capsys.readouterr().out


def test_diff(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert deita("versions", "diff", NAMES[0], "latest", "--output", output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{NAMES[0]} -> {NAMES[1]}"
    assert "pool        0 conversations added, 0 removed" in lines
    assert "selection   1 joined, 0 left" in lines
    assert "setting     selection.max_similarity: 0.5 -> 0.99" in lines
    assert "joined      1: its similarity is within the new limit" in lines
    row = lines.index("joined, 1 of 1, the best first:") + 1
    assert lines[row].startswith(B.id[:12])
    assert f"its similarity is within the new limit (0.6000 to {A.id[:12]})" in lines[row]
    assert lines[row + 1] == "  B user 0"
    folders = [versions.version_uri(output, name) for name in reversed(NAMES)]
    assert deita("versions", "diff", *folders, "--json") == 0
    changes = json.loads(capsys.readouterr().out)
    assert (changes["before"], changes["after"]) == (NAMES[1], NAMES[0])
    assert changes["selection"] == {"added": 0, "dropped": 1}
    (example,) = changes["examples"]
    assert (example["id"], example["change"]) == (B.id, "dropped")
    assert [turn["content"] for turn in example["turns"]] == [turn.content for turn in B.turns]


def test_texts_that_are_gone_are_said_to_be(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = str(tmp_path / "moved")
    arguments = ("versions", "diff", *NAMES, "--output", output, "--store", moved)
    assert deita(*arguments) == 0
    assert "(its text is gone" in capsys.readouterr().out


def test_show(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert deita("versions", "show", "--output", output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"version     {NAMES[1]}"
    assert "            2 selected" in lines
    assert "            selection.max_similarity: 0.99" in lines
    assert deita("versions", "show", NAMES[0], "--output", output, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["version"], facts["counts"]["selected"]) == (NAMES[0], 1)
    assert facts["settings"]["selection.max_similarity"] == 0.5
    assert facts["changes"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["ls", "--output", "nowhere"], "no complete version here"),
        (["use", "2026", "--output", "OUTPUT"], "2 versions of"),
        (["diff", "--output", "OUTPUT"], "no version comes before the latest"),
        (["diff", "./nowhere"], "--output is required, or the folders of two results"),
        (["show"], "--output is required, or the folder of a result"),
        (["show", "./nowhere"], "no result here"),
    ],
)
def test_mistakes_are_told_in_a_line(
    output: str, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [output if word == "OUTPUT" else word for word in arguments]
    assert deita("versions", *words) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
