"""What a strategy ranks and strata by, over the hand-made pool (`handmade.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deita_tasks.artifacts import candidates as candidates_module
from deita_tasks.artifacts.candidates import all_candidates
from deita_tasks.artifacts.part_tables import vector_table
from deita_tasks.artifacts.parts import StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import is_selection, write_selection
from deita_tasks.decisions import ledger_rows
from deita_tasks.errors import StorageError, UsageError
from deita_tasks.presets import Spec
from tests.support.handmade import IDS, INPUTS, A, B, C, make, model_output

DIVERSE: Spec = {"name": "diverse", "options": {"budget": 5, "max_similarity": 0.9}}


def test_candidates_have_a_value_of_every_stage(tmp_path: Path) -> None:
    pool, stage_parts = make(tmp_path)
    with all_candidates(pool, stage_parts) as candidates:
        assert candidates.ids == [A.id, B.id, C.id]  # D has no quality, E no vector
        assert candidates.scores["evol_score"].to_pylist() == [10, 9, 8]
        expected = np.array([[1, 0], [1.2, 1.6], [3, 0]], np.float32)
        assert np.array_equal(candidates.vectors, expected)
    del stage_parts["embedding"]
    with all_candidates(pool, stage_parts) as candidates:
        assert candidates.ids == [A.id, B.id, C.id, IDS["E"]]
        assert candidates.vectors is None


def test_vectors_that_do_not_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, stage_parts = make(tmp_path / "store")
    in_memory = write_selection(str(tmp_path / "a"), pool, stage_parts, DIVERSE)
    monkeypatch.setattr(candidates_module, "MEMORY_BYTES", 0)
    with all_candidates(pool, stage_parts) as candidates:
        assert isinstance(candidates.vectors, np.memmap)
    in_a_file = write_selection(str(tmp_path / "b"), pool, stage_parts, DIVERSE)
    assert in_memory.files == in_a_file.files


@pytest.mark.parametrize("memory", [2**29, 0])
def test_a_vector_without_a_direction_is_unscorable_whatever_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(candidates_module, "MEMORY_BYTES", memory)
    pool, stage_parts = make(tmp_path / "store")
    part_set = stage_parts["embedding"].part_set
    table = vector_table([A.id, B.id, C.id], model_output([[1, 0], [0, 0], [np.nan, 1]]))
    digests = [part_set.write("0" * 32, [table]), *stage_parts["embedding"].digests]
    stage_parts["embedding"] = StageParts(part_set=part_set, digests=digests[:1])
    pools = write_pool(str(tmp_path / "store" / "pools" / "q"), iter([A, B, C]), INPUTS)
    pool = Pool(str(tmp_path / "store" / "pools" / "q"), pools)
    reasons = {
        B.id: "embedding: its vector has only zeros",
        C.id: "embedding: its vector has numbers that are not finite",
    }
    for number, spec in enumerate(
        [
            *({"name": "diverse", "options": {"budget": n, "max_similarity": 0.9}} for n in (1, 3)),
            *({"name": "random", "options": {"budget": n, "seed": 0}} for n in (1, 3)),
            {"name": "top_score", "options": {"budget": 1}},
        ]
    ):
        selection = write_selection(str(tmp_path / str(number)), pool, stage_parts, spec)
        ledger = ledger_rows(selection.read("decisions.parquet"))
        assert {row.id: row.reason for row in ledger if row.decision == "unscorable"} == reasons
        assert selection.counts.selected == 1


def test_a_row_in_no_part_is_an_error(tmp_path: Path) -> None:
    pool, stage_parts = make(tmp_path / "store")
    quality = stage_parts["quality"]
    first_part = StageParts(part_set=quality.part_set, digests=quality.digests[:1])
    uri = str(tmp_path / "selection")
    with pytest.raises(StorageError, match="3 of 5 rows are in no part; run again"):
        write_selection(uri, pool, {**stage_parts, "quality": first_part}, DIVERSE)
    assert not is_selection(uri)


@pytest.mark.parametrize(
    ("name", "options", "letters"),
    [
        ("complexity_only", {"budget": 2}, "AB"),  # 2 + 1, 3, 2: the tie goes by id
        ("quality_only", {"budget": 2}, "AC"),  # 3 + 4, 3, 4
        ("top_score", {"budget": 1, "evol_score": "mean"}, "B"),  # 5, 9, 8
        ("top_score", {"budget": 1, "evol_score": "max"}, "B"),  # 6, 9, 8
        ("length", {"budget": 1}, "A"),  # four turns of three words
        ("top_score", {"budget": 3, "strata": "source_uri", "per_stratum": 1}, "A"),  # one file
        ("top_score", {"budget": 3, "strata": "line", "per_stratum": 1}, "ABC"),  # a line each
    ],
)
def test_rankings_and_strata_by_hand(
    name: str, options: dict[str, object], letters: str, tmp_path: Path
) -> None:
    pool, stage_parts = make(tmp_path)
    del stage_parts["embedding"]
    selector: Spec = {"name": name, "options": options}
    summary = write_selection(str(tmp_path / "selection"), pool, stage_parts, selector)
    kept = pq.read_table(tmp_path / "selection" / "kept.parquet")["id"].to_pylist()
    assert sorted(kept) == sorted(IDS[letter] for letter in letters)
    assert summary.counts.selected == len(letters)


def test_strata_by_a_column_that_is_not_there(tmp_path: Path) -> None:
    pool, stage_parts = make(tmp_path)
    options = {"budget": 3, "strata": "topic", "per_stratum": 1}
    selector: Spec = {"name": "diverse", "options": options}
    with pytest.raises(UsageError, match="'topic': 5 of 5 rows have no such column"):
        write_selection(str(tmp_path / "selection"), pool, stage_parts, selector)
