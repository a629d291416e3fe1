"""Tables and links on the page of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from deita_tasks.tasks.ui_artifacts import FILE_LINKS, browse_url, table_cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [(0.9, "0.90"), (12.3456, "12.35"), (0.0, "0.00"), (2e-05, "2e-05"), (-0.0123, "-0.012")],
)
def test_numbers_have_two_decimals(value: float, cell: str) -> None:
    assert table_cell(value) == cell


@pytest.mark.parametrize("value", [150, "diverse", None, True])
def test_what_is_no_fraction_stays(value: object) -> None:
    assert table_cell(value) is value


def test_a_folder_that_is_served_has_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert browse_url(str(tmp_path / "a")) is None
    monkeypatch.setenv(FILE_LINKS, f"{tmp_path}=http://127.0.0.1:4201/")
    assert browse_url(str(tmp_path / "select" / "a b")) == "http://127.0.0.1:4201/select/a%20b"
    assert browse_url(str(tmp_path)) == "http://127.0.0.1:4201"
    assert browse_url(str(tmp_path.parent / "elsewhere")) is None
    assert browse_url(f"{tmp_path}/../elsewhere") is None
    monkeypatch.setenv(FILE_LINKS, "s3://team/results=https://files.example/?at=x")
    assert browse_url("s3://team/results/a") == "https://files.example/?at=x/a"
    assert browse_url(str(tmp_path)) is None
