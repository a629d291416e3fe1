"""The command that fits the mini scorers, on labels with a known rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deita_tasks.scoring.mini.features import response_features
from deita_tasks.scoring.mini.head import Head
from fitting import mini
from fitting.labels import (
    CONSTRAINTS,
    GENERAL,
    HARMLESS,
    MEASURED,
    QUALITY_FAMILIES,
    SAME_PROMPTS,
)
from tests.support.labels import DEMANDS, TOPICS, write_labels

QUALITY_SOURCES = [name for names in QUALITY_FAMILIES.values() for name in names]


def write_held_out(path: Path) -> None:
    rows = [
        {"instruction": f"Say something on {topic}. {' '.join(DEMANDS[:level])}", "label": level}
        for topic in TOPICS
        for level in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_figures(output: str) -> dict[str, list[str]]:
    """The figures that the command printed, by source."""
    lines = [line for line in output.splitlines() if line]
    rows = [line.split() for line in lines if not line.startswith(("complexity,", "quality,"))]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.slow
def test_from_labels_to_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(tmp_path)
    held_out = tmp_path / "mine.jsonl"
    write_held_out(held_out)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        arguments = ["--data", tmp_path, "--held-out", held_out, "--output", folder]
        mini.main([str(argument) for argument in arguments])
        output = capsys.readouterr().out
    for name in ("complexity.safetensors", "quality.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()

    figures = read_figures(output)
    complexity_sources = ["mine", GENERAL, SAME_PROMPTS, *CONSTRAINTS, *MEASURED]
    assert set(figures) == {*complexity_sources, HARMLESS, *QUALITY_SOURCES}
    assert figures["mine"][0] == "24" and float(figures["mine"][1]) > 0.8
    assert all(float(figures[name][1]) > 0.8 for name in (GENERAL, *CONSTRAINTS))
    assert all(float(figures[name][1]) == 1 for name in QUALITY_SOURCES)

    head = Head.load(first / "quality.safetensors")
    responses = ("One two three four five.", "a " * 30)
    features = [response_features("On tea", response) for response in responses]
    varied, repetitive = head.total(head.standardise(features))
    assert varied > repetitive


def test_a_held_out_file_cannot_take_the_place_of_a_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path)
    (tmp_path / f"{GENERAL}.jsonl").write_text('{"instruction": "Name a tree.", "label": 1}\n')
    with pytest.raises(SystemExit):
        mini.main(["--data", str(tmp_path), "--held-out", str(tmp_path / f"{GENERAL}.jsonl")])
    assert f"there is already a source named {GENERAL}" in capsys.readouterr().err
