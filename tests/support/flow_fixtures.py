"""Flow tests: a server, components without models, no pauses between retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest

from deita_tasks.embedding import EMBEDDERS
from deita_tasks.presets import PRESETS
from deita_tasks.scoring import SCORERS
from tests.support import components
from tests.support.flow_runs import Run, run
from tests.support.runs import LENGTHS
from tests.support.small_pool import ROWS, write_rows

# The answer of line 31 has no word, so its quality is exactly 1.
SHORT = {
    "messages": [
        {"role": "user", "content": "Short and on bread"},
        {"role": "assistant", "content": "..."},
    ],
    "number": 31,
}
# Line 32 repeats line 4, with other columns; line 33 has no user turn.
AGAIN = {"messages": ROWS[3]["messages"], "number": 32, "note": "again"}
BAD = {"messages": [{"role": "assistant", "content": "Nobody asked."}], "number": 33}
BASE = (
    *ROWS,
    SHORT,
    AGAIN,
    BAD,
)


@contextmanager
def tiny_components() -> Iterator[pytest.MonkeyPatch]:
    from deita_tasks.tasks import caching

    with pytest.MonkeyPatch.context() as patch:
        for name, where in components.TABLES.items():
            patch.setitem(EMBEDDERS if name in EMBEDDERS else SCORERS, name, where)  # type: ignore[arg-type]
        lengths = {kind: {"name": name, "options": {}} for kind, name in LENGTHS.items()}
        patch.setitem(PRESETS, "mini", replace(PRESETS["mini"], **lengths))  # type: ignore[arg-type]
        patch.setattr(caching, "exponential_backoff", lambda backoff_factor: 0.0)
        components.reset()
        yield patch
        components.reset()


@pytest.fixture
def tiny(prefect_server: None) -> Iterator[None]:
    """The preset mini with components that need no model and no time; the report, which is three
    quarters of such a run, is left out.
    """
    with tiny_components() as patch:
        patch.setattr(
            "deita_tasks.results.selection.build_report",
            lambda data: SimpleNamespace(html=b"<!doctype html>", figures={}),
        )
        yield


@pytest.fixture(scope="session")
def base(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The first run over BASE, in a store that was empty: 33 lines, 31 distinct rows, a duplicate,
    a bad one; budget 10.
    """
    folder = tmp_path_factory.mktemp("base")
    write_rows(folder / "pool.jsonl", BASE)
    with tiny_components():
        return run(folder / "pool.jsonl", folder / "store", folder / "out")


@pytest.fixture
def again(base: Run, tiny: None, tmp_path: Path) -> Callable[..., Run]:
    """Run once more over a copy of what the first run left: `again(budget=4)`, `again(rows)`."""
    store = tmp_path / "store"
    copytree(base.store, store)

    def over(rows: Any = None, **given: Any) -> Run:
        pool = (
            base.output.parent / "pool.jsonl"
            if rows is None
            else write_rows(tmp_path / "pool" / "pool.jsonl", rows)
        )
        return run(pool, store, tmp_path / "out", **given)

    return over
