"""Lazy evaluation: the selection of every score and vector, from some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deita_tasks.artifacts import evaluation
from deita_tasks.artifacts.evaluation import Evaluation, LazyPlan
from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import DECISIONS_FILE, KEPT_FILE, write_selection
from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.presets import Spec
from deita_tasks.records import ModelOutput
from deita_tasks.selecting import load_selector

FOLDERS = {
    "complexity": "scores/complexity",
    "quality": "scores/quality",
    "embedding": "embeddings",
}
REACHED = ("selected", "too_similar")
# Few values, so that scores and similarities tie.
SCORES = [1.0, 1.5, 2.0, 3.25, 5.0, 6.0]
COMPONENTS = [-1.0, 0.0, 0.0, 0.25]


@dataclass
class Row:
    """A conversation, and what the models would say of it; None where they have no value."""

    conversation: Conversation
    complexity: list[float] | None
    quality: list[float] | None
    embedding: list[float] | None


@dataclass
class Models:
    """Models that know every row, and count how often each is computed."""

    folder: Path
    rows: list[Row]
    computed: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        conversations = [row.conversation for row in self.rows]
        write_pool(str(self.folder / "pools/pool"), conversations, [])
        self.pool = Pool.open(str(self.folder / "pools/pool"))

    def part_sets(self, selector: Spec) -> dict[str, PartSet]:
        strategy = load_selector(selector["name"], **selector["options"])
        stages = FOLDERS if strategy.needs_vectors else list(FOLDERS)[:2]
        return {
            stage: PartSet.create(str(self.folder), FOLDERS[stage], {"backend": stage})
            for stage in stages
        }

    def compute(self, part_set: PartSet, stage: str, ids: list[str]) -> str:
        """Write a part with the values of `ids`; return its digest."""
        rows = [row for row in self.rows if row.conversation.id in set(ids)]
        ids = [row.conversation.id for row in rows]
        self.computed.setdefault(stage, []).extend(ids)
        table = self._vectors(rows) if stage == "embedding" else self._scores(stage, rows)
        return part_set.write(ids_digest(table["id"]), [table])

    def _scores(self, stage: str, rows: list[Row]) -> pa.Table:
        turns = [len(row.conversation.pairs) for row in rows]
        scores = [
            getattr(row, stage) or [np.nan] * count for row, count in zip(rows, turns, strict=True)
        ]
        problems = {i: "no score" for i, row in enumerate(rows) if getattr(row, stage) is None}
        values = np.array([score for each in scores for score in each], np.float32)
        output = ModelOutput(values, np.zeros(len(values), np.int32))
        return score_table([row.conversation.id for row in rows], turns, output, problems)

    def _vectors(self, rows: list[Row]) -> pa.Table:
        problems = {i: "no vector" for i, row in enumerate(rows) if row.embedding is None}
        values = [row.embedding or [np.nan] * 3 for row in rows]
        output = ModelOutput(np.array(values, np.float32), np.zeros(len(rows), np.int32), problems)
        return vector_table([row.conversation.id for row in rows], output)

    def ids(self, rows: Any) -> list[str]:
        ids: list[str] = self.pool.distinct[0].take(pa.array(rows)).to_pylist()
        return ids


@st.composite
def pools(draw: st.DrawFn) -> list[Row]:
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    rows = []
    for number in range(draw(st.integers(1, 40))):
        count = int(random.choice([1, 1, 1, 2, 4]))
        turns = [
            turn
            for place in range(count)
            for turn in (Turn("user", f"q {number} {place}"), Turn("assistant", "a"))
        ]
        extra = {"topic": str(random.integers(3))}
        conversation = Conversation(tuple(turns), SourceRow("pool.jsonl", number + 1), extra)
        scores = [
            None if random.random() < 0.05 else random.choice(SCORES, count).tolist()
            for _ in range(2)
        ]
        vector = None if random.random() < 0.05 else random.choice(COMPONENTS, 3).tolist()
        rows.append(Row(conversation, *scores, vector))
    return rows


selectors = st.builds(
    lambda name, budget, ranking, evol_score, strata: {
        "name": name.partition(" ")[0],
        "options": {
            "budget": budget,
            **({"ranking": ranking} if name in ("diverse", "top_score") else {}),
            "evol_score": evol_score,
            **strata,
            **({"metric": "euclidean", "min_distance": 0.6} if "euclidean" in name else {}),
            **({"max_similarity": 0.8} if name == "diverse" else {}),
        },
    },
    st.sampled_from(["diverse", "diverse euclidean", "top_score", "quality_only"]),
    st.integers(1, 45),
    st.sampled_from(["evol", "evol", "complexity", "quality"]),
    st.sampled_from(["sum", "mean", "max"]),
    st.sampled_from(
        [
            {},
            {"strata": "topic", "per_stratum": 2},
            {"mix": "topic=0:0.5,*:0.5"},
            {"mix": "topic=0:0.4,1:0.25"},
            {"mix": "topic=0:1..0.5,*:..0.75"},
            {"mix": "topic=0:0.25..,*:1.."},
            {"mix": "topic=2:..1"},
        ]
    ),
)
plans = st.builds(
    LazyPlan,
    stages=st.sampled_from(
        [
            ["complexity", "quality", "embedding"],
            ["quality", "complexity", "embedding"],
            ["complexity", "embedding"],
            ["quality"],
            ["embedding"],
        ]
    ),
    sample=st.just([]),
)


def select_all(models: Models, selector: Spec) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the kept ids and the ledger by id, when everything is computed."""
    part_sets = models.part_sets(selector)
    every_id = [row.conversation.id for row in models.rows]
    parts = {
        stage: StageParts(part_set=part_set, digests=[models.compute(part_set, stage, every_id)])
        for stage, part_set in part_sets.items()
    }
    return read(write_selection(str(models.folder / "all"), models.pool, parts, selector))


def read(summary: Any) -> tuple[list[str], dict[str, dict[str, Any]]]:
    ledger = {row["id"]: row for row in summary.read(DECISIONS_FILE).to_pylist()}
    return summary.read(KEPT_FILE)["id"].to_pylist(), ledger


def select_lazily(
    models: Models, selector: Spec, plan: LazyPlan, chance: np.random.Generator | None = None
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the same, when only what is needed is computed.

    chance: then the store has some values already, and the evaluation stops and begins again.
    """
    part_sets = models.part_sets(selector)
    digests: dict[str, list[str]] = {stage: [] for stage in part_sets}
    every_id = [row.conversation.id for row in models.rows]
    for stage, part_set in part_sets.items():
        if stage not in plan.stages:
            digests[stage].append(models.compute(part_set, stage, every_id))
        elif chance is not None:
            some = [id for id in every_id if chance.random() < 0.3]
            if some:
                digests[stage].append(models.compute(part_set, stage, some))
    models.computed.clear()
    state = begin(models, selector, plan, part_sets, digests)
    while (work := state.next_work()) is not None:
        ids = models.ids(work.rows)
        if chance is not None and chance.random() < 0.3:
            ids = ids[: 1 + int(chance.integers(len(ids)))]  # the rest is lost
        digest = models.compute(part_sets[work.stage], work.stage, ids)
        digests[work.stage].append(digest)
        if chance is not None and chance.random() < 0.3:
            state = begin(models, selector, plan, part_sets, digests)
        else:
            state.add(work.stage, [digest])
    parts = {
        stage: StageParts(part_set=part_set, digests=digests[stage])
        for stage, part_set in part_sets.items()
    }
    name = "lazy" if chance is None else "again"
    return read(write_selection(str(models.folder / name), models.pool, parts, selector, plan))


def begin(
    models: Models,
    selector: Spec,
    plan: LazyPlan,
    part_sets: Mapping[str, PartSet],
    digests: Mapping[str, list[str]],
) -> Evaluation:
    strategy = load_selector(selector["name"], **selector["options"])
    state = Evaluation(models.pool, strategy, part_sets, plan)
    for stage in part_sets:
        state.add(stage, digests[stage])
    return state


def is_ranked(row: Mapping[str, Any]) -> bool:
    return row["decision"] == "selected" and row["rank"] is not None


def is_possible(selector: Spec, rows: list[Row]) -> bool:
    """Whether a mix fits the budget, and the pool has the values that it names."""
    mix = selector["options"].get("mix", "topic=")
    named = {value for value in "012" if f"{value}:" in mix}
    try:
        load_selector(selector["name"], **selector["options"])
    except UsageError:
        return False
    return named <= {str(row.conversation.extra["topic"]) for row in rows}


@pytest.fixture
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(evaluation, "MIN_ROUND_ROWS", 2)
    yield


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=pools(),
    selector=selectors,
    plan=plans,
    seed=st.integers(0, 1000),
    sampled=st.integers(0, 4),
)
def test_the_selection_is_that_of_everything(
    rows: list[Row],
    selector: Spec,
    plan: LazyPlan,
    seed: int,
    sampled: int,
    tmp_path_factory: pytest.TempPathFactory,
    small_rounds: None,
) -> None:
    assume(is_possible(selector, rows))
    plan = LazyPlan(stages=plan.stages, sample=list(range(min(sampled, len(rows)))))
    if selector["name"] != "diverse":
        plan = LazyPlan(stages=[s for s in plan.stages if s != "embedding"], sample=plan.sample)
    kept, ledger = select_all(Models(tmp_path_factory.mktemp("all"), rows), selector)
    models = Models(tmp_path_factory.mktemp("lazy"), rows)
    lazily_kept, lazily = select_lazily(models, selector, plan)
    assert lazily_kept == kept
    for id, row in lazily.items():
        whole = ledger[id]
        if whole["decision"] in REACHED or row["decision"] in REACHED:
            for column in ("decision", "nearest_id", "similarity"):
                assert row[column] == whole[column], (id, column)
        assert row["stratum"] == whole["stratum"]
        if row["decision"] in ("selected", "unscorable") or whole["decision"] != "unscorable":
            assert row["decision"] == whole["decision"]
            assert row["decision"] == "unscorable" or row["reason"] == whole["reason"]
        if whole["evol_score"] is not None and row["evol_lower"] is not None:
            assert row["evol_lower"] <= whole["evol_score"] <= row["evol_upper"]
        if row["evol_score"] is not None:
            assert row["evol_score"] == whole["evol_score"]
        if row["rank"] is not None:
            assert row["rank"] == whole["rank"]
        for kind in ("complexity", "quality"):
            assert row[kind] is None or row[kind] == whole[kind]
    last = max((row["rank"] for row in lazily.values() if is_ranked(row)), default=0)
    for id, row in lazily.items():
        if row["rank"] is not None and row["rank"] <= last:
            assert row["decision"] == ledger[id]["decision"]
    for stage, ids in models.computed.items():
        assert len(ids) == len(set(ids)), f"{stage}: a row was computed twice"
    # What the store has from other runs, and interruptions, change nothing: not one byte.
    again = Models(tmp_path_factory.mktemp("again"), rows)
    chance = np.random.default_rng(seed)
    assert select_lazily(again, selector, plan, chance) == (lazily_kept, lazily)


def test_scores_outside_the_range_are_refused(tmp_path: Path) -> None:
    conversation = Conversation((Turn("user", "q"), Turn("assistant", "a")))
    models = Models(tmp_path, [Row(conversation, [6.5], [2.0], [1.0, 0.0, 0.0])])
    selector: Spec = {"name": "top_score", "options": {"budget": 1}}
    plan = LazyPlan(stages=["complexity", "quality"], sample=[])
    with pytest.raises(ComputeError, match=r"complexity: scores from 6.5 to 6.5, where lazy"):
        select_lazily(models, selector, plan)
