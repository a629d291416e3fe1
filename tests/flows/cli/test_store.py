"""`deita store`: its commands over a store made by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_store import FOLDERS, add_part, file_names, make_store


def deita(*arguments: str) -> int:
    from flows.cli.app import main

    with pytest.raises(SystemExit) as exit:
        main(["store", *arguments])
    return int(exit.value.code or 0)


def test_the_commands(tmp_path, capsys):
    store = str(tmp_path / "store")
    make_store(store)
    for stage in FOLDERS:
        add_part(store, stage, 50)
    assert deita("ls", "--store", store) == 0
    output = capsys.readouterr().out
    assert "pool.jsonl" in output
    assert "diverse budget=2 max_similarity=0.9999 from pool" in output
    assert deita("du", "--store", store) == 0
    assert "scores/complexity" in capsys.readouterr().out
    before = file_names(store)
    assert deita("gc", "--store", store, "--dry-run", "--grace-days", "0") == 0
    output = capsys.readouterr().out
    assert "3 files" in output
    assert "would be removed" in output
    assert file_names(store) == before
    assert deita("gc", "--store", store, "--grace-days", "0") == 0
    assert len(file_names(store)) == len(before) - 3
    capsys.readouterr()
    assert deita("compact", "--store", store) == 0
    assert capsys.readouterr().out.count(" 2 ") == 3
    assert deita("verify", "--store", store) == 0
    assert capsys.readouterr().out == "8 artifacts checked, 0 damaged\n"
    part = next((tmp_path / "store").rglob("part-*.parquet"))
    part.write_bytes(b"nonsense")
    assert deita("verify", "--store", store) == 1
    captured = capsys.readouterr()
    assert part.name in captured.out
    assert captured.err.startswith("deita: ")
    assert captured.err.count("\n") == 1
    assert deita("verify", "--store", store, "--remove") == 0
    assert not part.exists()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_a_terminal(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Where a row would break over lines, what an artifact stands for has lines of its own."""
    make_store(str(tmp_path / "a-store"))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert deita("ls", "--store", str(tmp_path / "a-store")) == 0
    header, *lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert header.split() == ["kind", "digest", "rows", "files", "size", "written"]
    assert max(map(len, lines)) <= columns
    numbers = [line for line in lines if not line.startswith("    ")]
    assert {line.split()[0] for line in numbers} >= {"pools", "selections", "scores/quality"}
    assert all(re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d$", line) for line in numbers)
    below = "".join(line.strip() for line in lines if line.startswith("    "))
    assert "pool.jsonl" in below


@pytest.mark.parametrize("name", ["ls", "du", "gc", "verify", "compact"])
def test_a_mistyped_store_is_not_an_empty_one(tmp_path, capsys, name):
    assert deita(name, "--store", str(tmp_path / "nowhere")) == 2
    assert "no store here; expected the folder or s3:// URI" in capsys.readouterr().err
