"""The arms of a comparison, from the hand-made pool: A, B, C, D (no quality) and E.

Evol scores: A 10, B 9, C 8, E 1. `diverse` at 0.7 selects A and B, which have a similarity of 0.6.
"""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("trl", reason="the extra train is not installed")

from deita_tasks.config import Comparison
from deita_tasks.errors import UsageError
from deita_tasks.models.chat_tokenizer import BaseName, Tokenization, load_tokenizer
from deita_tasks.results.arms import SelectionResult, build_arms, open_selection, prompt_key
from tests.support.handmade import IDS
from tests.support.outputs import write_diverse_output
from tests.support.tiny_base import write_base

LETTERS = {row_id: letter for letter, row_id in IDS.items()}


@pytest.fixture(scope="module")
def tokenization(tmp_path_factory: pytest.TempPathFactory) -> Tokenization:
    return load_tokenizer(BaseName(model=str(write_base(tmp_path_factory.mktemp("base")))))


@pytest.fixture
def selection(tmp_path: Path, tokenization: Tokenization) -> SelectionResult:
    output = write_diverse_output(tmp_path, budget=2, max_similarity=0.7)
    return open_selection(output, str(tmp_path / "store"), tokenization.tokenizer, 256)


def letters(arm: Any) -> str:
    return "".join(sorted(LETTERS[example.id] for example in arm.data.examples))


def arms(selection: SelectionResult, *groups: str, **options: Any) -> dict[str, str]:
    """The rows of each arm, by its name."""
    comparison = Comparison(selection="out", arms=list(groups), **options)
    built, notes = build_arms(selection, comparison)
    assert notes == []
    return {arm.name: letters(arm) for arm in built}


def test_arms_have_as_many_rows_as_the_selection(selection: SelectionResult) -> None:
    found = arms(selection, "random", "longest", "top_score", "everything", draws=8)
    assert found["selection"] == "AB"
    assert found["top_score"] == "AB"
    assert found["longest"][0] == "A", "the only row of two answers"
    assert found["everything"] == "ABCDE"
    draws = [rows for name, rows in found.items() if name.startswith("random")]
    assert len(draws) == 8
    assert all(len(rows) == 2 for rows in draws)
    assert len(set(draws)) > 1


def test_a_draw_stays_when_more_are_drawn(selection: SelectionResult) -> None:
    few, many = (arms(selection, "random", draws=draws) for draws in (2, 5))
    assert few.items() <= many.items()


def test_a_budget_of_tokens(selection: SelectionResult) -> None:
    built, _ = build_arms(
        selection, Comparison(selection="out", arms=["longest", "random"], budget_by="tokens")
    )
    most = built[0].data.survey.tokens
    assert letters(built[1]) == "A" + letters(built[1])[1:]
    assert all(0 < arm.data.survey.tokens <= most for arm in built[1:])


def without_scores(
    selection: SelectionResult, *rows: str, decision: str = "below_budget", **columns: Any
) -> SelectionResult:
    """The ledger of a run that did not need the evol scores of some rows."""
    ledger = selection.ledger
    ids = {IDS[row] for row in rows}
    scores = [
        None if row_id in ids else score
        for row_id, score in zip(
            ledger["id"].to_pylist(), ledger["evol_score"].to_pylist(), strict=True
        )
    ]
    decisions = [
        decision if row_id in ids else earlier
        for row_id, earlier in zip(
            ledger["id"].to_pylist(), ledger["decision"].to_pylist(), strict=True
        )
    ]
    for name, values in (("evol_score", scores), ("decision", decisions)):
        ledger = ledger.set_column(ledger.column_names.index(name), name, pa.array(values))
    # As `read_ledger` fills the column in for ledgers of early versions.
    given = {"evol_upper": scores}
    for name, bound in columns.items():
        given[name] = [bound if row_id in ids else None for row_id in ledger["id"].to_pylist()]
    for name, values in given.items():
        column = pa.array(values, pa.float64())
        ledger = ledger.set_column(ledger.column_names.index(name), name, column)
    selection.ledger = ledger
    return selection


def test_the_best_scores_are_certain_above_every_unknown_one(selection: SelectionResult) -> None:
    found = arms(without_scores(selection, "C", "E", evol_upper=8.5), "top_score")
    assert found["top_score"] == "AB"


@pytest.mark.parametrize(
    "columns", [{}, {"evol_upper": 9.0}, {"evol_upper": 9.0, "decision": "stratum_full"}]
)
def test_best_scores_that_are_not_certain_are_told(
    selection: SelectionResult, columns: dict[str, Any]
) -> None:
    """B has 9: a row that may have as much, or anything, could stand in front of it."""
    uncertain = without_scores(selection, "C", **columns)
    built, notes = build_arms(uncertain, Comparison(selection="out", arms=["top_score"]))
    assert [arm.name for arm in built] == ["selection"]
    assert notes == [
        "top_score is left out: the ledger has too few evol scores to tell the best rows for "
        "certain; select again with --evaluation all"
    ]


def test_prompts_are_compared_without_case_and_spaces(selection: SelectionResult) -> None:
    built, _ = build_arms(selection, Comparison(selection="out", arms=["random"], draws=1))
    assert built[0].prompts == {"a user 0", "b user 0"}
    assert prompt_key("  A  User\n0 ") == "a user 0"


def test_a_pool_that_is_gone_is_told(tmp_path: Path, tokenization: Tokenization) -> None:
    output = write_diverse_output(tmp_path, budget=2, max_similarity=0.7)
    rmtree(tmp_path / "store" / "pools")
    with pytest.raises(UsageError, match="the selection's pool is not in the store; set --store"):
        open_selection(output, str(tmp_path / "store"), tokenization.tokenizer, 256)
    with pytest.raises(UsageError, match="no result of `deita select`"):
        open_selection(str(tmp_path), str(tmp_path / "store"), tokenization.tokenizer, 256)
