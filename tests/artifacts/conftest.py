"""Fixtures of the artifacts' tests."""

from __future__ import annotations

import pytest

from deita_tasks.artifacts import pool_writer


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of three rows, files of two groups: what a large pool has, in ten rows."""
    monkeypatch.setattr(pool_writer, "GROUP_ROWS", 3)
    monkeypatch.setattr(pool_writer, "FILE_GROUPS", 2)
