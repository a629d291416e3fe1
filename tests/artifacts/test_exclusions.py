"""Excluded rows are no candidates: they have no scores, block nothing, and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deita_tasks.artifacts import evaluation as evaluation_module
from deita_tasks.artifacts.evaluation import Evaluation, LazyPlan
from deita_tasks.artifacts.exclusions import (
    EXCLUDED_FILE,
    EXCLUSIONS,
    TOKENS_FILE,
    are_exclusions,
    read_exclusions,
    read_summary,
    write_contaminated,
    write_window,
)
from deita_tasks.artifacts.part_tables import token_table
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import (
    DECISIONS_FILE,
    KEPT_FILE,
    SelectionSummary,
    write_selection,
)
from deita_tasks.artifacts.token_budget import TokenBudget
from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.errors import StorageError, TooFewRows
from deita_tasks.filtering.decontamination import EvaluationText, EvaluationTexts, OverlapRule
from deita_tasks.models.token_counter import RowTokens
from deita_tasks.presets import EVERY_ROW, Spec
from deita_tasks.selecting import load_selector
from tests.artifacts.test_evaluation import Models, Row, plans, pools, selectors, small_rounds
from tests.support.handmade import A, B, C, D, E, make

__all__ = ["small_rounds"]  # a fixture

DIVERSE: Spec = {"name": "diverse", "options": {"budget": 5, "max_similarity": 0.9}}
UNSHOWN = "the chat template cannot show it: no"


def evaluation(*texts: str) -> EvaluationTexts:
    rows = [
        EvaluationText("test.jsonl", number, 1, "user", text)
        for number, text in enumerate(texts, start=1)
    ]
    return EvaluationTexts(rows, OverlapRule())


def contaminate(folder: Path, pool: Pool, *texts: str) -> str:
    uri = str(folder / "exclusions" / "contaminated")
    write_contaminated(uri, pool, evaluation(*texts))
    return uri


def count(folder: Path, pool: Pool, tokens: dict[str, RowTokens | str], window: int | None) -> str:
    """Write the exclusions of a window over rows with these token counts."""
    part_set = PartSet.create(str(folder), "tokens", {"backend": "by hand"})
    table = token_table(list(tokens), list(tokens.values()))
    digest = part_set.write(ids_digest(table["id"]), [table])
    uri = str(folder / "exclusions" / "window")
    write_window(uri, pool, StageParts(part_set=part_set, digests=[digest]), window)
    return uri


def decisions(summary: SelectionSummary) -> dict[str, dict[str, Any]]:
    rows = summary.read(DECISIONS_FILE).to_pylist()
    return {row["id"]: row for row in rows if row["decision"] != "duplicate"}


def kept(summary: SelectionSummary) -> list[str]:
    ids: list[str] = summary.read(KEPT_FILE)["id"].to_pylist()
    return ids


def test_a_contaminated_row_blocks_nothing(tmp_path: Path) -> None:
    """A is the best row, and blocks C, which has its direction. Without A, C is selected."""
    pool, parts = make(tmp_path)
    whole = write_selection(str(tmp_path / "whole"), pool, parts, DIVERSE)
    assert kept(whole) == [A.id, B.id]
    uri = contaminate(tmp_path, pool, "a USER 1?")
    summary = write_selection(str(tmp_path / "clean"), pool, parts, DIVERSE, exclusions=[uri])
    assert kept(summary) == [B.id, C.id]
    row = decisions(summary)[A.id]
    assert row["decision"] == "contaminated"
    assert row["reason"] == "its turn 3 is turn 1 of test.jsonl:1, word for word"
    columns = ("complexity", "quality", "evol_score", "evol_upper", "rank", "truncated")
    assert [row[column] for column in columns] == [None] * 6
    assert decisions(summary)[B.id]["rank"] == 1
    assert (summary.counts.contaminated, summary.counts.excluded) == (1, 1)
    (found,) = summary.read(EXCLUDED_FILE).to_pylist()
    assert (found["evaluation_uri"], found["evaluation_row"]) == ("test.jsonl", 1)
    assert (found["turn"], found["share"], found["longest_run"]) == (3, 1.0, 3)
    assert found["evaluation_text"] == "a USER 1?"


def test_a_row_beyond_the_window_is_too_long(tmp_path: Path) -> None:
    """Of D, the last of 20 tokens is an answer; of B the first of the window's end."""
    pool, parts = make(tmp_path)
    tokens: dict[str, RowTokens | str] = {
        A.id: RowTokens(1200, 3),
        B.id: RowTokens(11, 10),
        C.id: RowTokens(9, 4),
        D.id: RowTokens(20, 19),
        E.id: UNSHOWN,
    }
    uri = count(tmp_path, pool, tokens, 10)
    summary = write_selection(str(tmp_path / "s"), pool, parts, DIVERSE, exclusions=[uri])
    told = {id: row["decision"] for id, row in decisions(summary).items() if id}
    assert told == {
        A.id: "selected",
        B.id: "too_long",
        C.id: "too_similar",
        D.id: "too_long",
        E.id: "unscorable",
    }
    assert decisions(summary)[B.id]["reason"] == (
        "its first answer begins after 10 of 11 tokens, beyond the training window of 10"
    )
    assert summary.unscorable == {f"tokens: {UNSHOWN}": 1}
    assert summary.tokens is not None
    assert (summary.tokens.selected, summary.tokens.window, summary.tokens.left) == (10, 10, None)
    lengths = {each.share: each.tokens for each in summary.tokens.lengths}
    assert (lengths[0.5], lengths[1.0]) == (11, 1200)  # of 9, 11, 20 and 1200


def test_without_a_window_no_row_is_too_long(tmp_path: Path) -> None:
    pool, _ = make(tmp_path)
    tokens = dict.fromkeys([A.id, B.id, C.id, D.id, E.id], RowTokens(10**6, 10**6 - 1))
    assert read_summary(count(tmp_path, pool, dict(tokens), None)).counts == {}


def test_the_first_filter_says_why(tmp_path: Path) -> None:
    pool, _ = make(tmp_path)
    long = dict.fromkeys([A.id, B.id, C.id, D.id, E.id], RowTokens(20, 19))
    uris = [contaminate(tmp_path, pool, "B user 0"), count(tmp_path, pool, dict(long), 10)]
    table = read_exclusions(uris).table
    told = dict(zip(table["id"].to_pylist(), table["decision"].to_pylist(), strict=True))
    assert told == {**dict.fromkeys(long, "too_long"), B.id: "contaminated"}


def test_the_excluded_rows_can_still_be_read(tmp_path: Path) -> None:
    pool, _ = make(tmp_path)
    rest = pool.without(pa.array([A.id, C.id]))
    assert rest.distinct[0].to_pylist() == [B.id, D.id, E.id]
    assert rest.distinct[1].tolist() == [1, 4, 5]
    assert rest.text_ids.to_pylist() == [B.id, D.id, E.id]
    assert rest.find([A.id])[A.id].turns == A.turns
    assert pool.distinct[0].to_pylist() == [A.id, B.id, C.id, D.id, E.id]


def test_no_exclusions_change_nothing(tmp_path: Path) -> None:
    pool, parts = make(tmp_path)
    uri = contaminate(tmp_path, pool, "nobody says this")
    clean = write_selection(str(tmp_path / "a"), pool, parts, DIVERSE, exclusions=[uri])
    whole = write_selection(str(tmp_path / "b"), pool, parts, DIVERSE)
    assert clean.read(DECISIONS_FILE) == whole.read(DECISIONS_FILE)
    assert clean.counts == whole.counts
    assert clean.read(EXCLUDED_FILE) == EXCLUSIONS.empty_table()


@pytest.mark.parametrize("name", [EXCLUDED_FILE, TOKENS_FILE, "exclusions.json"])
def test_damage_is_noticed(tmp_path: Path, name: str) -> None:
    pool, _ = make(tmp_path)
    tokens = dict.fromkeys([A.id, B.id, C.id, D.id, E.id], RowTokens(20, 5))
    uri = count(tmp_path, pool, dict(tokens), 10)
    assert are_exclusions(uri)
    file = Path(uri, name)
    file.write_bytes(file.read_bytes()[:20])
    assert not are_exclusions(uri)


# ---- budgets in tokens

EIGHT_EACH = dict.fromkeys([A.id, B.id, C.id, D.id, E.id], RowTokens(8, 2))


@pytest.mark.parametrize(("limit", "rows"), [(8, 1), (15, 1), (16, 2), (1000, 2)])
def test_a_budget_in_tokens_ends_before_the_row_that_does_not_fit(
    tmp_path: Path, limit: int, rows: int
) -> None:
    pool, parts = make(tmp_path)
    uri = count(tmp_path, pool, dict(EIGHT_EACH), None)
    summary = write_selection(
        str(tmp_path / "s"), pool, parts, DIVERSE, exclusions=[uri], budget_tokens=limit
    )
    assert kept(summary) == [A.id, B.id][:rows]
    assert summary.tokens is not None
    assert (summary.tokens.selected, summary.tokens.left) == (8 * rows, limit - 8 * rows)
    assert f"{limit - 8 * rows:,} are left" in summary.tokens.sentences()[0]


def test_a_later_row_that_would_fit_is_not_taken_instead(tmp_path: Path) -> None:
    """B does not fit after A. C would, and without B before it C would come in."""
    pool, parts = make(tmp_path)
    uri = count(tmp_path, pool, {**EIGHT_EACH, B.id: RowTokens(100, 2)}, None)
    spec: Spec = {"name": "top_score", "options": {"budget": 5}}
    del parts["embedding"]
    summary = write_selection(
        str(tmp_path / "s"), pool, parts, spec, exclusions=[uri], budget_tokens=30
    )
    assert kept(summary) == [A.id]
    assert decisions(summary)[C.id]["decision"] == "below_budget"


def test_a_budget_without_room_for_a_row_is_refused(tmp_path: Path) -> None:
    pool, parts = make(tmp_path)
    uri = count(tmp_path, pool, dict(EIGHT_EACH), None)
    with pytest.raises(TooFewRows, match="first row that would be selected has 8 tokens"):
        write_selection(
            str(tmp_path / "s"), pool, parts, DIVERSE, exclusions=[uri], budget_tokens=7
        )
    with pytest.raises(StorageError, match="no tokens are counted"):
        write_selection(str(tmp_path / "s"), pool, parts, DIVERSE, budget_tokens=7)


def random_tokens(rows: list[Row], seed: int) -> dict[str, RowTokens | str]:
    lengths = np.random.default_rng(seed).integers(2, 30, len(rows)).tolist()
    ids = [row.conversation.id for row in rows]
    return {id: RowTokens(length, 1) for id, length in zip(ids, lengths, strict=True)}


def parts_of(models: Models, selector: Spec) -> dict[str, StageParts]:
    ids = [row.conversation.id for row in models.rows]
    return {
        stage: StageParts(part_set=part_set, digests=[models.compute(part_set, stage, ids)])
        for stage, part_set in models.part_sets(selector).items()
    }


without_mix = selectors.filter(lambda selector: "mix" not in selector["options"])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=pools(),
    selector=without_mix,
    seed=st.integers(0, 1000),
    limit=st.integers(1, 400),
    more=st.integers(0, 200),
)
def test_budgets_in_tokens_nest_and_are_never_exceeded(
    rows: list[Row],
    selector: Spec,
    seed: int,
    limit: int,
    more: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("budgets")
    models = Models(folder, rows)
    parts = parts_of(models, selector)
    tokens = random_tokens(rows, seed)
    uri = count(folder, models.pool, tokens, 20)

    def select(budget: int) -> list[str]:
        place = str(folder / f"s{budget}")
        try:
            summary = write_selection(
                place, models.pool, parts, selector, exclusions=[uri], budget_tokens=budget
            )
        except TooFewRows:
            return []
        assert summary.tokens is not None
        in_window = [min(20, tokens[id].tokens) for id in kept(summary)]  # type: ignore[union-attr]
        assert summary.tokens.selected == sum(in_window) <= budget
        return kept(summary)

    smaller, larger = select(limit), select(limit + more)
    assert larger[: len(smaller)] == smaller
    by_rows = kept(write_selection(str(folder / "rows"), models.pool, parts, selector))
    assert by_rows[: len(larger)] == larger
    if len(larger) < len(by_rows):
        used = sum(min(20, tokens[id].tokens) for id in by_rows[: len(larger) + 1])  # type: ignore[union-attr]
        assert used > limit + more, "the next row would have fitted"


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=pools(),
    selector=without_mix,
    plan=plans,
    seed=st.integers(0, 1000),
    limit=st.integers(30, 400),
)
def test_a_budget_in_tokens_selects_the_same_from_what_is_needed(
    rows: list[Row],
    selector: Spec,
    plan: LazyPlan,
    seed: int,
    limit: int,
    tmp_path_factory: pytest.TempPathFactory,
    small_rounds: None,
) -> None:
    if selector["name"] != "diverse":
        plan = LazyPlan(stages=[stage for stage in plan.stages if stage != "embedding"], sample=[])
    folder = tmp_path_factory.mktemp("lazy")
    models = Models(folder / "all", rows)
    uri = count(folder, models.pool, random_tokens(rows, seed), None)
    whole = write_selection(
        str(folder / "whole"),
        models.pool,
        parts_of(models, selector),
        selector,
        exclusions=[uri],
        budget_tokens=limit,
    )
    lazy = Models(folder / "lazy", rows)
    parts = evaluate(lazy, selector, plan, read_exclusions([uri]).budget(limit))
    summary = write_selection(
        str(folder / "some"), lazy.pool, parts, selector, plan, [uri], budget_tokens=limit
    )
    assert kept(summary) == kept(whole)
    assert summary.tokens == whole.tokens
    told = decisions(summary)
    for id, row in decisions(whole).items():
        if row["decision"] in ("selected", "too_similar"):
            names = ("decision", "nearest_id", "similarity")
            assert [told[id][name] for name in names] == [row[name] for name in names]
        if told[id]["evol_score"] is not None:
            assert told[id]["evol_score"] == row["evol_score"]


def evaluate(
    models: Models, selector: Spec, plan: LazyPlan, budget: TokenBudget | None
) -> dict[str, StageParts]:
    """Compute what the selection needs, round after round; return the parts."""
    strategy = load_selector(selector["name"], **selector["options"])
    part_sets = models.part_sets(selector)
    state = Evaluation(models.pool, strategy, part_sets, plan, token_budget=budget)
    ids = [row.conversation.id for row in models.rows]
    for stage in part_sets:
        if stage not in plan.stages:
            state.add(stage, [models.compute(part_sets[stage], stage, ids)])
    while (work := state.next_work()) is not None:
        some = models.ids(work.rows)
        state.add(work.stage, [models.compute(part_sets[work.stage], work.stage, some)])
    return state.stage_parts


def test_a_budget_in_tokens_leaves_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 rows of 10 tokens, 3 fit into 39. The models look at few more than these."""
    monkeypatch.setattr(evaluation_module, "MIN_ROUND_ROWS", 2)
    rows = []
    for number in range(100):
        turns = (Turn("user", f"q {number}"), Turn("assistant", "a"))
        row = Conversation(turns, SourceRow("pool.jsonl", number + 1))
        rows.append(Row(row, [6.0 - number / 50], [6.0], None))
    models = Models(tmp_path, rows)
    tokens = dict.fromkeys([row.conversation.id for row in rows], RowTokens(10, 2))
    uri = count(tmp_path, models.pool, dict(tokens), None)
    plan = LazyPlan(stages=["complexity", "quality"], sample=[])
    spec: Spec = {"name": "top_score", "options": {"budget": EVERY_ROW}}
    evaluate(models, spec, plan, read_exclusions([uri]).budget(39))
    assert len(models.computed["complexity"]) == 100  # all of them have the same bound
    assert len(models.computed["quality"]) <= 6


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=pools(), selector=without_mix, data=st.data())
def test_a_contaminated_row_is_never_selected(
    rows: list[Row], selector: Spec, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The selection is that of a pool that never had these rows."""
    folder = tmp_path_factory.mktemp("contaminated")
    models = Models(folder / "all", rows)
    numbers = data.draw(st.sets(st.sampled_from(range(len(rows)))))
    texts = [rows[number].conversation.turns[0].content for number in numbers]
    uri = contaminate(folder, models.pool, "never said", *texts)
    summary = write_selection(
        str(folder / "clean"), models.pool, parts_of(models, selector), selector, exclusions=[uri]
    )
    told = decisions(summary)
    bad = {rows[number].conversation.id for number in numbers}
    assert {id for id, row in told.items() if row["decision"] == "contaminated"} == bad
    assert bad.isdisjoint(kept(summary))
    others = [row for row in rows if row.conversation.id not in bad]
    if others:
        rest = Models(folder / "rest", others)
        alone = write_selection(
            str(folder / "alone"), rest.pool, parts_of(rest, selector), selector
        )
        assert kept(alone) == kept(summary)
        names = ("decision", "rank", "evol_score", "nearest_id", "similarity", "reason")
        for id, row in decisions(alone).items():
            assert [row[name] for name in names] == [told[id][name] for name in names]
