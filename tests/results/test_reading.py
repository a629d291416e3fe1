"""A result is read only if its files are those that its manifest lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from deita_tasks.artifacts.selection import write_selection
from deita_tasks.config import SubsetOptions
from deita_tasks.errors import DamagedArtifact, StorageError
from deita_tasks.results.explain import explain
from deita_tasks.results.reading import damage_of, read_earlier_manifest, read_ledger, read_manifest
from deita_tasks.results.selection import write_output
from tests.artifacts.test_damage import flips
from tests.support.handmade import FACTS, A, make
from tests.support.outputs import leave_out_report


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    leave_out_report(monkeypatch)
    pool, stage_parts = make(tmp_path)
    facts = FACTS.model_copy(update={"fingerprints": {"selection": {"strategy": "diverse"}}})
    selector = {"name": "diverse", "options": {"budget": 5, "max_similarity": 0.9}}
    selection = write_selection(str(tmp_path / "selection"), pool, stage_parts, selector)
    write_output(
        pool,
        stage_parts,
        selection,
        str(tmp_path / "out"),
        SubsetOptions(output_format="messages"),
        facts,
        seed=0,
    )
    return tmp_path / "out"


def test_a_result_as_it_was_written(output: Path) -> None:
    manifest = read_manifest(str(output))
    assert damage_of(str(output)) is None
    assert read_ledger(str(output), manifest.outputs).num_rows == manifest.counts.read
    assert read_earlier_manifest(str(output)).pool == manifest.pool


def test_every_bit_of_the_ledger(output: Path) -> None:
    outputs = read_manifest(str(output)).outputs
    for bit in flips(output / "decisions.parquet", step=31):
        with pytest.raises(DamagedArtifact):
            read_ledger(str(output), outputs)
        assert damage_of(str(output)), f"bit {bit}"


def test_every_bit_of_the_manifest(output: Path) -> None:
    before = read_manifest(str(output))
    for bit in flips(output / "manifest.json", step=3):
        try:
            assert read_manifest(str(output)) == before, f"bit {bit}"
        except StorageError:
            continue


def test_a_wrong_score_is_not_explained(output: Path) -> None:
    assert explain(str(output), A.id).row.id == A.id
    for _ in flips(output / "decisions.parquet", step=997):
        with pytest.raises(DamagedArtifact, match=r"decisions\.parquet"):
            explain(str(output), A.id)


def test_any_damaged_file_is_found(output: Path) -> None:
    for name in read_manifest(str(output)).outputs:
        content = (output / name).read_bytes()
        (output / name).write_bytes(content[:-1])
        assert name in str(damage_of(str(output)))
        (output / name).write_bytes(content)
    (output / "decisions.parquet").unlink()
    assert "no such file" in str(damage_of(str(output)))
