"""`deita align`, `compare` and `train-scorer`: mistakes told in one line, before any training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli.app import main

ALIGN = ("align", "--input", "data.jsonl", "--output", "out")
COMPARE = ("compare", "--selection", "selection", "--base", "model", "--output", "out")
SCORER = (
    *("train-scorer", "--input", "data.jsonl", "--output", "out", "--base", "model"),
    *("--rewrite-url", "http://localhost:1/v1", "--rewrite-model", "m"),
)

Deita = Callable[..., tuple[int, str]]


@pytest.fixture
def deita(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_server: None,
    offline: None,
) -> Deita:
    """Run `deita` beside a file of one conversation; return its status and its line of error."""
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "Why?", "response": "So."}
    Path("data.jsonl").write_text(f"{json.dumps(row)}\n")

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        last = printed.err.strip().splitlines()[-1]
        assert not Path("out").exists()
        return int(ended.value.code or 0), last

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (ALIGN, "--base is required (or set it in the section 'training' of --config)"),
        ((*ALIGN, "--base", "m", "--recipe", "best"), "training.recipe: 'best'"),
        (
            (*ALIGN, "--base", "m", "--epochs", "0"),
            "training.epochs: 0 arrived; expected more than 0",
        ),
        ((*ALIGN, "--base", "m", "--max-lenght", "9"), "did you mean --max-length?"),
        ((*COMPARE, "--arms", "best"), "comparison.arms[0]: 'best' arrived"),
        ((*COMPARE, "--judge-url", "http://x/v1"), "a judge needs both judge_url and judge_model"),
        (SCORER, "--kind is required (or set it in the section 'source' of --config)"),
        ((*SCORER, "--kind", "length"), "source.kind: 'length' arrived"),
        (
            (*SCORER, "--kind", "quality", "--held-out-share", "1"),
            "measures.held_out_share: 1 arrived; expected at most 0.5",
        ),
    ],
)
def test_a_wrong_option(arguments: tuple[str, ...], expected: str, deita: Deita) -> None:
    status, told = deita(*arguments)
    assert status == 2
    assert expected in told


@pytest.mark.flow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((*ALIGN, "--base", "no-such-folder"), "no such folder, and not a hub id"),
        ((*ALIGN, "--base", "s3://bucket/model"), "models are not read from addresses"),
        ((*ALIGN[:2], "none.jsonl", *ALIGN[3:], "--base", "m"), "none.jsonl"),
        ((*ALIGN[:-1], "data.jsonl", "--base", "m"), "data.jsonl"),
        (COMPARE, "nothing to measure with; set held_out, pairs or tasks"),
        ((*SCORER, "--kind", "quality"), "no such folder, and not a hub id"),
        ((*COMPARE, "--tasks", "arc_easy"), "pip install 'deita-tasks[eval]'"),
    ],
)
def test_a_wrong_value(arguments: tuple[str, ...], expected: str, deita: Deita) -> None:
    pytest.importorskip("trl", reason="the extra train is not installed")
    status, told = deita(*arguments)
    assert status == 2
    assert expected in told


@pytest.mark.parametrize(
    "command", [(*ALIGN, "--base", "model"), COMPARE, (*SCORER, "--kind", "quality")]
)
def test_a_missing_extra_is_one_line(
    command: tuple[str, ...], deita: Deita, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    status, told = deita(*command)
    assert status == 2
    assert told == (
        f"deita: '{command[0]}' needs the package 'trl', which is not installed: pip install "
        "'deita-tasks[train]'"
    )
