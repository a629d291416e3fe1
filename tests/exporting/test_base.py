"""The base class of output formats."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from deita_tasks.exporting import base, jsonl
from tests.support.docstrings import run_example
from tests.support.report_data import conversation, rows


def test_the_example_in_the_docstring_is_a_format(tmp_path: Path) -> None:
    names = run_example(inspect.getdoc(base.Exporter), base, jsonl)
    exporter = names["Text"](scores=False)
    (path,) = exporter.export(rows(conversation("u: Why?", "a: Because.")), tmp_path)
    assert json.loads(path.read_text()) == {"text": "Why?\nBecause."}
