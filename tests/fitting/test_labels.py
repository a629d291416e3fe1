"""Reading the labels of the mini scorers."""

from __future__ import annotations

from pathlib import Path

from fitting.labels import CONSTRAINTS, GENERAL, read_complexity
from tests.support.labels import TOPICS, append_rows, write_labels


def test_general_prompts_are_in_no_other_source_that_is_fitted_to(tmp_path: Path) -> None:
    write_labels(tmp_path)
    prompt = f"{GENERAL} asks: Tell me about tea."
    row = {"source": CONSTRAINTS[0], "instruction": prompt, "label": 0.0, "group": "tea"}
    append_rows(tmp_path / "complexity.jsonl.xz", [row])
    sources = read_complexity(tmp_path)
    assert prompt in sources[GENERAL].texts
    assert prompt not in sources[CONSTRAINTS[0]].texts
    assert len(sources[CONSTRAINTS[0]].texts) == len(TOPICS) * 6
