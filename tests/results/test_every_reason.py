"""The reason of every row of a ledger is true: worked out again from all that decided it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from deita_tasks.artifacts.exclusions import read_exclusions
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.references import ReferenceText, write_reference
from deita_tasks.artifacts.selection import DECISIONS_FILE, ReferenceUse, write_selection
from deita_tasks.conversations import Quarantined, SourceRow
from deita_tasks.decisions import LedgerRow, ledger_rows
from deita_tasks.errors import TooFewRows
from deita_tasks.models.token_counter import RowTokens
from deita_tasks.presets import EVERY_ROW, Spec
from deita_tasks.records import ModelOutput
from deita_tasks.selecting import SELECTORS, load_selector
from tests.artifacts.test_evaluation import Models, Row, plans, pools, small_rounds
from tests.artifacts.test_exclusions import contaminate, count, evaluate, parts_of
from tests.support.selection_reference import similarity, unit

__all__ = ["small_rounds"]  # a fixture

LIMIT = 0.8
LIMIT_32 = np.float32(LIMIT)
WINDOW = 20
CANDIDATES = 6
OPTIONS: dict[str, dict[str, Any]] = {
    "diverse": {"max_similarity": LIMIT},
    "semdedup": {"eps": 1 - LIMIT, "groups": 1},
}
WITH_CANDIDATES = ("k_center", "mmr", "facility_location")
BY_SCORE = ("diverse", "top_score", "complexity_only", "quality_only", "semdedup")
UNSHOWN = "the chat template cannot show it: no"


@dataclass
class Case:
    """A strategy, and all that its decisions follow from.

    strata: none, each, half, least, most or nothing. budget, tokens: None for no limit.
    """

    name: str
    rows: list[Row]
    strata: str
    budget: int | None
    tokens: int | None
    sizes: dict[str, RowTokens | str]
    contaminated: list[str]
    kept: list[LedgerRow] = field(default_factory=list)
    stratum_of: dict[str, str | None] = field(default_factory=dict)

    @property
    def divides_tokens(self) -> bool:
        return self.tokens is not None and self.strata not in ("none", "each")

    @property
    def amount(self) -> int:
        """What a mix divides."""
        amount = self.tokens if self.divides_tokens else self.budget
        return EVERY_ROW if amount is None else amount

    @property
    def candidates(self) -> int | None:
        return max(CANDIDATES, self.budget or 0) if self.name in WITH_CANDIDATES else None

    def options(self) -> dict[str, Any]:
        some = 2 if not self.divides_tokens else 11
        strata: dict[str, dict[str, Any]] = {
            "none": {},
            "each": {"strata": "topic", "per_stratum": 2},
            "half": {"mix": "topic=0:0.5,*:0.5"},
            "least": {"mix": f"topic=0:{some}.."},
            "most": {"mix": f"topic=0:..{some}"},
            "nothing": {"mix": "topic=0:0"},
            "clusters": {"clusters": 2},
        }
        options = {"budget": self.budget or EVERY_ROW, **OPTIONS.get(self.name, {})}
        if self.candidates:
            options["candidates"] = self.candidates
        return {**options, **strata[self.strata]}

    # ---- rows

    @cached_property
    def by_id(self) -> dict[str, Row]:
        return {row.conversation.id: row for row in self.rows}

    def length(self, id: str) -> int:
        size = self.sizes[id]
        return min(WINDOW, size.tokens) if isinstance(size, RowTokens) else 0

    def score(self, id: str) -> float:
        row = self.by_id[id]
        if self.name == "length":
            return sum(len(turn.content.split()) for turn in row.conversation.turns)
        assert row.complexity is not None and row.quality is not None
        if self.name == "complexity_only":
            return sum(row.complexity)
        if self.name == "quality_only":
            return sum(row.quality)
        products = [a * b for a, b in zip(row.complexity, row.quality, strict=True)]
        return sum(products) / len(products) if self.name == "mig" else sum(products)

    def place(self, id: str) -> tuple[float, str]:
        return -self.score(id), id

    def problems(self, id: str) -> set[str]:
        """Why a row is no candidate, whatever the filters say."""
        row = self.by_id[id]
        problems = set()
        for kind in ("complexity", "quality"):
            if getattr(row, kind) is None:
                problems.add(f"{kind}: no score")
        if load_selector(self.name, **self.options()).needs_vectors:
            if row.embedding is None:
                problems.add("embedding: no vector")
            elif not any(row.embedding):
                problems.add("embedding: its vector has only zeros")
        return problems

    def excluded(self, id: str) -> str | None:
        size = self.sizes[id]
        if any(turn.content in self.contaminated for turn in self.by_id[id].conversation.turns):
            return "contaminated"
        if isinstance(size, str):
            return "unscorable"
        return "too_long" if size.before_answer >= WINDOW else None

    def ranked(self) -> list[str]:
        """The candidates, the best first."""
        ids = [id for id in self.by_id if not self.excluded(id) and not self.problems(id)]
        return sorted(ids, key=self.place)

    def near(self, id: str) -> dict[str, float]:
        """The similarities of a row to the rows that were kept before it."""
        vector = unit(self.by_id[id].embedding)
        kept = [row.id or "" for row in self.kept]
        before = [other for other in kept if self.place(other) < self.place(id)]
        return {other: similarity(vector, unit(self.by_id[other].embedding)) for other in before}

    # ---- strata

    def label(self, id: str) -> str:
        """The stratum of a row; of clusters that of the ledger."""
        if self.strata == "clusters":
            return str(self.stratum_of[id])
        topic = str(self.by_id[id].conversation.extra["topic"])
        return topic if self.strata == "each" or topic == "0" else "*"

    def limits(self, label: str) -> tuple[int, int]:
        """The least and the most rows, or tokens, of a stratum."""
        whole, some = self.amount, 11 if self.divides_tokens else 2
        available: Counter[str] = Counter()
        for id in self.by_id:
            if not self.excluded(id) and (self.strata != "clusters" or id in self.ranked()):
                available[self.label(id)] += self.length(id) if self.divides_tokens else 1
        first, second = ("0", "1") if self.strata == "clusters" else ("0", "*")
        if self.strata == "each":
            return 0, 2
        if self.strata in ("half", "clusters"):
            quotas = _halves(whole, available[first], available[second])
            return (quotas[label != first],) * 2
        if label != "0":
            return 0, whole
        least = {"least": min(some, available["0"])}.get(self.strata, 0)
        most = {"least": whole, "most": some, "nothing": 0}[self.strata]
        return least, most

    def used(self, kept: Sequence[str]) -> Counter[str]:
        used: Counter[str] = Counter()
        for id in kept:
            used[self.label(id)] += self.length(id) if self.divides_tokens else 1
        return used

    def reserved_for_others(self, label: str, kept: Sequence[str]) -> int:
        used = self.used(kept)
        others = {self.label(id) for id in self.by_id if not self.excluded(id)} - {label}
        return sum(max(0, self.limits(other)[0] - used[other]) for other in others)

    def is_reserved(self, label: str, kept: Sequence[str]) -> bool:
        """Whether all places left are those of others; the last row had the budget's last place."""
        if len(kept) == self.budget:
            kept = kept[:-1]
        reserved = self.reserved_for_others(label, kept)
        has_least = self.used(kept)[label] >= self.limits(label)[0]
        return has_least and 0 < reserved >= self.amount - len(kept)


def _halves(whole: int, first: int, second: int) -> tuple[int, int]:
    """Two halves, the odd one to the first; what one lacks, the other gets as far as it goes."""
    half = (whole + 1) // 2
    if first < half:
        return first, min(second, whole - first)
    if second < whole - half:
        return min(first, whole - second), second
    return half, whole - half


# ---- whether a reason is true


def check_row(case: Case, row: LedgerRow, ledger: Sequence[LedgerRow]) -> None:
    if row.decision in ("quarantined", "duplicate"):
        check_source(row, ledger)
        return
    assert row.id is not None
    excluded = case.excluded(row.id)
    if row.decision in ("contaminated", "too_long") or excluded:
        assert row.decision == excluded
        check_excluded(case, row)
    elif row.decision == "unscorable":
        assert row.reason in {*case.problems(row.id), "; ".join(sorted(case.problems(row.id)))}
    elif row.decision == "too_similar":
        check_similar(case, row)
    elif row.decision == "stratum_full":
        check_stratum(case, row, ledger)
    elif row.decision == "below_budget":
        check_below(case, row, ledger)
    else:
        assert (row.decision, row.reason) == ("selected", None)
        assert not case.problems(row.id)


def check_source(row: LedgerRow, ledger: Sequence[LedgerRow]) -> None:
    if row.decision == "quarantined":
        assert (row.id, row.reason) == (None, "no_user_turn: by hand")
        return
    first = min(other.source_row for other in ledger if other.id == row.id)
    assert first < row.source_row
    assert row.reason == f"the same conversation as row {first} of pool.jsonl"


def check_excluded(case: Case, row: LedgerRow) -> None:
    assert row.id is not None and row.reason is not None
    size, turns = case.sizes[row.id], case.by_id[row.id].conversation.turns
    if row.decision == "contaminated":
        found = re.fullmatch(
            r"its turn (\d+) is turn 1 of test\.jsonl:(\d+), word for word", row.reason
        )
        assert found is not None
        repeated = case.contaminated[int(found[2]) - 1]
        assert turns[int(found[1]) - 1].content == repeated
    elif isinstance(size, str):
        assert row.reason == f"tokens: {UNSHOWN}"
    else:
        assert row.reason == (
            f"its first answer begins after {size.before_answer} of {size.tokens} tokens, beyond "
            f"the training window of {WINDOW}"
        )


def check_similar(case: Case, row: LedgerRow) -> None:
    assert row.id is not None and case.name in OPTIONS
    near = case.near(row.id)
    assert near[row.nearest_id or ""] == row.similarity == max(near.values()) > LIMIT_32


def check_stratum(case: Case, row: LedgerRow, ledger: Sequence[LedgerRow]) -> None:
    assert row.id is not None and row.reason is not None
    label = case.label(row.id)
    assert row.stratum == label
    kept = [other.id or "" for other in case.kept]
    least, most = case.limits(label)
    used = case.used(kept)[label]
    column = "cluster" if case.strata == "clusters" else "topic"
    name = f"{column} = {label}"
    if not most:
        assert row.reason == f"{name} gets no rows"
    elif case.divides_tokens:
        most = min(most, case.amount)
        assert row.reason == (
            f"{name} has {used:,} of at most {most:,} tokens, and its next row did not fit what "
            "was left for it"
        )
        free = case.amount - sum(case.used(kept).values())
        left = min(most - used, free - case.reserved_for_others(label, kept))
        if any(case.label(other.id or "") != label for other in without_place(ledger)):
            left = min(left, max(0, least - used))  # a row of theirs ended what is shared
        waiting = waiting_rows(case, ledger, label)
        assert max(map(case.length, waiting)) > left
        if case.name in BY_SCORE:
            assert case.length(waiting[0]) > left
    elif used >= most:
        assert row.reason == f"{name} has all of its {most} rows"
        assert used == most
    else:
        assert row.reason == f"{name} has {used} rows, and the places left are reserved for others"
        assert case.is_reserved(label, kept)


def without_place(ledger: Sequence[LedgerRow]) -> list[LedgerRow]:
    return [row for row in ledger if row.decision in ("below_budget", "stratum_full")]


def waiting_rows(case: Case, ledger: Sequence[LedgerRow], label: str | None = None) -> list[str]:
    """The rows that no place was left for and that nothing blocks, the best first."""
    waiting = []
    for row in without_place(ledger):
        assert row.id is not None
        if case.problems(row.id) or (label is not None and case.label(row.id) != label):
            continue
        if label is None and row.decision == "stratum_full":
            continue
        if case.name in OPTIONS and max(case.near(row.id).values(), default=-1) > LIMIT_32:
            continue
        waiting.append(row.id)
    return sorted(waiting, key=case.place)


def check_below(case: Case, row: LedgerRow, ledger: Sequence[LedgerRow]) -> None:
    assert row.id is not None
    kept = [other.id or "" for other in case.kept]
    if case.strata != "none" and not case.divides_tokens:
        label = case.label(row.id)
        _, most = case.limits(label)
        assert case.used(kept)[label] < most
        assert not (case.budget and case.is_reserved(label, kept))
    place = case.ranked().index(row.id) if not case.problems(row.id) else -1
    is_candidate = case.candidates is None or place < case.candidates
    if not is_candidate:
        assert row.reason == f"not among the {case.candidates} best rows, the only candidates"
    elif row.reason is None:
        assert len(kept) == case.budget
    else:
        assert case.tokens is not None and len(kept) != case.budget
        left = case.tokens - sum(map(case.length, kept))
        assert row.reason == (
            f"the next row does not fit the {left:,} tokens left of the budget of {case.tokens:,}"
        )
        waiting = waiting_rows(case, ledger)
        assert max(map(case.length, waiting)) > left >= 0
        if case.name in BY_SCORE:
            assert case.length(waiting[0]) > left


# ---- the selections


def budgets(strata: str) -> st.SearchStrategy[tuple[int | None, int | None]]:
    rows, tokens = st.integers(2, 12), st.integers(25, 150)
    either = [st.tuples(rows, st.none()), st.tuples(st.none(), tokens)]
    if strata in ("none", "each"):
        either += [st.tuples(rows, tokens), st.just((None, None))]
    return st.one_of(either)


@st.composite
def cases(draw: st.DrawFn, name: str) -> Case:
    rows = draw(pools())
    strata = draw(
        st.sampled_from(["none", "none", "each", "half", "least", "most", "nothing", "clusters"])
    )
    budget, tokens = draw(budgets(strata))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    sizes: dict[str, RowTokens | str] = {}
    for row in rows:
        length = int(random.integers(2, 30))
        chance = random.random()
        size = RowTokens(length, length - 1 if chance < 0.2 else 1)
        sizes[row.conversation.id] = UNSHOWN if chance > 0.95 else size
    texts = [row.conversation.turns[-2].content for row in rows if random.random() < 0.1]
    case = Case(name, rows, strata, budget, tokens, sizes, ["never said", *texts])
    topics = {row.conversation.extra["topic"] for row in rows}
    if strata in ("half", "least", "most", "nothing"):
        left = [id for id in case.by_id if not case.excluded(id)]
        assume({"0"} < topics and any(case.label(id) == "0" for id in left))
    assume(len(case.ranked()) > 1)
    return case


def reference(folder: Path, name: str) -> ReferenceUse | None:
    """What relevance and mig compare rows with."""
    if load_selector(name, budget=1).reference_kind is None:
        return None
    uri = str(folder / "reference")
    vectors = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1]], np.float32)
    texts = [ReferenceText(topic, topic) for topic in "012"]
    write_reference(uri, texts, ModelOutput(vectors, np.zeros(3, np.int32)))
    return ReferenceUse(uri=uri, tags="topic" if name == "mig" else None)


def write_all(models: Models, case: Case) -> None:
    """Write the pool with a bad row and two rows of the pool again."""
    rows = [row.conversation for row in case.rows]
    bad = Quarantined(SourceRow("pool.jsonl", 90), "no_user_turn", "by hand", "{}")
    again = [
        row.__class__(row.turns, SourceRow("pool.jsonl", 91 + place), row.extra)
        for place, row in enumerate(rows[:2])
    ]
    uri = str(models.folder / "pools" / "whole")
    write_pool(uri, [*rows, bad, *again], [])
    models.pool = Pool.open(uri)


@pytest.mark.parametrize("name", SELECTORS)
@given(data=st.data())
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_reason_is_true(
    name: str,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
    small_rounds: None,
) -> None:
    case = data.draw(cases(name))
    folder = tmp_path_factory.mktemp("case")
    models = Models(folder, case.rows)
    write_all(models, case)
    exclusions = [
        contaminate(folder, models.pool, *case.contaminated),
        count(folder, models.pool, case.sizes, WINDOW),
    ]
    options = case.options()
    selector: Spec = {"name": name, "options": options}
    strategy = load_selector(name, **options)
    is_open = case.divides_tokens or not strategy.stops_at_budget or case.strata == "clusters"
    plan = None
    if not is_open and (case.budget or case.tokens) and name != "length":
        plan = data.draw(st.one_of(st.none(), plans))
    if plan is not None:
        stages = [stage for stage in plan.stages if stage in models.part_sets(selector)]
        plan = plan.model_copy(update={"stages": stages})
    left_out = read_exclusions(exclusions)
    whole, models.pool = models.pool, left_out.leave_out(models.pool)
    if plan is None:
        parts = parts_of(models, selector)
    else:
        parts = evaluate(models, selector, plan, left_out.budget(case.tokens))
    uri = str(folder / "selection")
    try:
        summary = write_selection(
            uri, whole, parts, selector, plan, exclusions, case.tokens, reference(folder, name)
        )
    except TooFewRows:
        return
    ledger = ledger_rows(summary.read(DECISIONS_FILE))
    case.kept = [row for row in ledger if row.decision == "selected"]
    case.stratum_of = {row.id: row.stratum for row in ledger if row.id}
    order = {id: place for place, id in enumerate(summary.read("kept.parquet")["id"].to_pylist())}
    case.kept.sort(key=lambda row: order[row.id])
    for row in ledger:
        check_row(case, row, ledger)
