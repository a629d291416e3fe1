"""Output folders of selections from the hand-made pool (`handmade.py`), without a report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deita_tasks.artifacts.selection import write_selection
from deita_tasks.config import SubsetOptions
from deita_tasks.reporting.report import ReportData
from deita_tasks.results.selection import write_output
from deita_tasks.selecting import load_selector
from tests.support.handmade import FACTS, make


def leave_out_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write an empty report.html: drawing the real one takes seconds."""

    def empty_report(data: ReportData) -> SimpleNamespace:
        return SimpleNamespace(html=b"<!doctype html>", figures={})

    monkeypatch.setattr("deita_tasks.results.selection.build_report", empty_report)


def write_diverse_output(folder: Path, budget: int, **limit: Any) -> str:
    """Select with `diverse` into `folder`/out and return its path. limit: max_similarity = 0.5."""
    pool, stage_parts = make(folder / "store")
    options = {"budget": budget, **(limit or {"max_similarity": 0.5})}
    selection = write_selection(
        str(folder / "selection"), pool, stage_parts, {"name": "diverse", "options": options}
    )
    fingerprint = load_selector("diverse", **options).fingerprint()
    facts = FACTS.model_copy(update={"fingerprints": {"complexity": {}, "selection": fingerprint}})
    output = str(folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_report(patch)
        write_output(
            pool,
            stage_parts,
            selection,
            output,
            SubsetOptions(output_format="messages"),
            facts,
            seed=0,
        )
    return output
