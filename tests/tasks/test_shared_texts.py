"""Rows with the same text share their scores and vectors, whatever else differs between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks import storage
from deita_tasks.artifacts import candidates as candidates_module
from deita_tasks.artifacts.candidates import StagesParts, open_candidates, read_scores
from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import PartSet, StageParts
from deita_tasks.artifacts.pool import Pool, pool_uri
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import write_selection
from deita_tasks.artifacts.shards import plan_shards
from deita_tasks.conversations import Conversation, RowKey, SourceRow, Turn
from deita_tasks.embedding import EMBEDDERS, load_embedder
from deita_tasks.manifest import InputFile
from deita_tasks.records import ModelOutput
from deita_tasks.results import selection as selection_module
from deita_tasks.scoring import load_scorer
from deita_tasks.tasks.model_cache import ShardLimits
from deita_tasks.tasks.stages import embed_shard, score_shard
from tests.support import components
from tests.support.small_pool import TOPICS
from tests.support.small_store import FOLDERS, garbage_names
from tests.support.small_store import make_pool as make_plain_pool

SPECS: dict[str, Any] = {
    "complexity": {"name": "instruction_length", "options": {"kind": "complexity"}},
    "quality": {"name": "response_length", "options": {"kind": "quality"}},
    "embedding": {"name": "sentence_transformers", "options": {}},
}
DIVERSE: Any = {"name": "diverse", "options": {"budget": 3, "max_similarity": 0.97}}


@pytest.fixture(autouse=True, scope="module")
def topics() -> Iterable[None]:
    """Vectors that need no model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EMBEDDERS, "sentence_transformers", f"{components.__name__}:TopicEmbedder")  # type: ignore[arg-type]
        yield


def chat(*contents: str, **parts: Any) -> Conversation:
    """User and assistant in turn. parts: fields of the conversation."""
    roles = ("user", "assistant")
    turns = [Turn(roles[place % 2], text) for place, text in enumerate(contents)]
    return Conversation(tuple(turns), **parts)


def load(store: str, rows: Sequence[Conversation]) -> Pool:
    placed = [
        Conversation(row.turns, SourceRow("pool", line), row.extra, row.tools)
        for line, row in enumerate(rows, 1)
    ]
    uri = pool_uri(store, storage.digest_of([row.id for row in placed]))
    write_pool(uri, placed, [InputFile(uri="pool", digest="", rows=len(rows), format="messages")])
    return Pool.open(uri)


def compute(store: str, pool: Pool, stage: str, row_key: RowKey = "text_id") -> tuple[Any, int]:
    """Run the stage's shards of two rows; return its parts, and how many rows it has computed."""
    part_set = PartSet.create(store, FOLDERS[stage], {"stage": stage}, row_key)
    task = embed_shard if stage == "embedding" else score_shard
    plan = plan_shards(part_set, store, *pool.distinct_by(row_key), 2)
    results = [
        task.fn(
            key="x",
            title="x",
            shard=shard.to_dict(),
            part_set=part_set.to_dict(),
            pool=pool.uri,
            spec=SPECS[stage],
            limits=ShardLimits().to_dict(),
        )
        for shard in [*plan.present, *plan.missing]
    ]
    digests = [digest for result in results for digest in result["parts"]]
    computed = sum(result["computed"] for result in results)
    return StageParts(part_set=part_set, digests=digests), computed


def each_by_itself(store: str, pool: Pool) -> StagesParts:
    """The values of each conversation, computed alone and kept by its id."""
    rows = [conversation for _, conversation in pool.read(pool.distinct[1])]
    parts = {}
    for stage, spec in SPECS.items():
        if stage == "embedding":
            embedder = load_embedder(spec["name"], **spec["options"])
            tables = [vector_table([row.id], embedder.compute([row])) for row in rows]
        else:
            scorer: Any = load_scorer(spec["name"], **spec["options"])
            tables = [
                score_table([row.id], [len(row.pairs)], *scorer.compute_rows([row])) for row in rows
            ]
        part_set = PartSet.create(store, FOLDERS[stage], {"alone": stage})
        digest = part_set.write("0" * 32, [pa.concat_tables(tables)])
        parts[stage] = StageParts(part_set=part_set, digests=[digest])
    return parts


def decisions(store: str, pool: Pool, parts: StagesParts) -> list[Any]:
    """What a selection of three rows writes: its ledger and the ids that it keeps."""
    summary = write_selection(storage.join(store, "selection"), pool, parts, DIVERSE)
    return [pq.read_table(f"{summary.uri}/{name}").to_pylist() for name in sorted(summary.files)]


# ---- by hand


def test_one_text_with_many_images_is_computed_once(tmp_path: Path) -> None:
    store = str(tmp_path)
    rows = [
        chat("What is on it?", "A cat in the stars.", extra={"image": f"{number}.png"})
        for number in range(21)
    ]
    pool = load(store, rows)
    assert len({row.id for row in rows}) == len(pool.distinct[0]) == 21
    results = {stage: compute(store, pool, stage) for stage in SPECS}
    assert [computed for _, computed in results.values()] == [1, 1, 1]
    ledger, kept = decisions(store, pool, {stage: parts for stage, (parts, _) in results.items()})
    assert len(kept) == 1
    assert len({row["id"] for row in ledger}) == 21
    assert sorted(row["decision"] for row in ledger) == ["selected"] + ["too_similar"] * 20


def test_values_are_shared_between_pools(tmp_path: Path) -> None:
    store = str(tmp_path)
    plain = chat("Why?", "Because of the rivers.")
    first = load(store, [plain])
    second = load(store, [chat("Why?", "Because of the rivers.", tools=[{"name": "map"}]), plain])
    third = load(store, [chat("Why?", "Because of the rivers.", extra={"images": ["a.png"]})])
    for stage in SPECS:
        counts = [compute(store, pool, stage)[1] for pool in (first, second, third)]
        assert counts == [1, 0, 0]


def test_parts_of_plain_rows_have_their_ids(tmp_path: Path) -> None:
    """So what early versions computed is used, and a pool of such rows keeps its ids once."""
    pool = make_plain_pool(str(tmp_path), 1, 2, 3, 2)
    assert pool.text_ids is pool.distinct[0]
    ids = pool.index(["id"])["id"]
    assert pool.keys_of(ids, "text_id") is ids
    assert pool.distinct_by("text_id")[1].tolist() == [0, 1, 2]


def test_what_is_read_from_rows_is_their_own(tmp_path: Path, monkeypatch: Any) -> None:
    spec = {"name": "provided", "options": {"kind": "quality"}}
    monkeypatch.setitem(SPECS, "quality", spec)
    scores = [2.0, 5.0, 3.0]
    rows = [
        chat("Why?", "So.", extra={"image": f"{score}.png", "quality_scores": [score]})
        for score in scores
    ]
    store = str(tmp_path)
    pool = load(store, rows)
    row_key = load_scorer("provided", kind="quality").ROW_KEY
    quality, computed = compute(store, pool, "quality", row_key)
    complexity, _ = compute(store, pool, "complexity")
    table, _ = read_scores(pool, {"complexity": complexity, "quality": quality})
    assert computed == 3
    assert table["quality"].to_pylist() == [[score] for score in scores]
    assert load_embedder("provided").ROW_KEY == "id"


@pytest.mark.parametrize("row_key", ["id", "text_id"])
def test_gc_keeps_parts_by_either_key(tmp_path: Path, row_key: RowKey) -> None:
    store = str(tmp_path)
    pool = load(store, [chat("A?", "a", extra={"image": "1"}), chat("B?", "b", tools=["t"])])
    parts = {stage: compute(store, pool, stage, row_key)[0] for stage in SPECS}
    unused = parts["quality"].part_set.write("0" * 32, [unused_table()])
    uri = storage.join(store, "selections", "0" * 32)
    write_selection(uri, pool, parts, DIVERSE)
    later = storage.find(store)[0].modified.replace(year=9999)
    garbage = {name for name in garbage_names(store, now=later) if not name.startswith("plans/")}
    assert {f"{store}/{name}" for name in garbage} == {parts["quality"].part_set.part(unused)}


def unused_table() -> pa.Table:
    scorer: Any = load_scorer("response_length", kind="quality")
    return score_table(["f" * 32], [1], scorer.compute([("a", "b")]))


def test_shared_vectors_that_do_not_fit_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(tmp_path)
    texts = [("bread", "chess"), ("rivers", "verbs"), ("stars", "taxes")]
    rows = [chat(*texts[number % 3], extra={"image": str(number)}) for number in range(9)]
    pool = load(store, rows)
    parts = {stage: compute(store, pool, stage)[0] for stage in SPECS}
    monkeypatch.setattr(candidates_module, "MEMORY_BYTES", 0)
    scores, _ = read_scores(pool, parts)
    with open_candidates(pool, scores, parts) as candidates:
        expected = [components.vector_of(" ".join(texts[number % 3])) for number in range(9)]
        assert candidates.vectors is not None
        assert candidates.vectors.tolist() == expected


def test_every_row_with_a_text_that_was_cut_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_: Any, rows: Sequence[Conversation]) -> ModelOutput:
        tokens = [5 if row.pairs[0].response == "long" else 0 for row in rows]
        return ModelOutput(np.ones((len(rows), 2), np.float32), np.array(tokens, np.int32))

    monkeypatch.setattr(components.TopicEmbedder, "compute", cut)
    answers = ["long", "short", "long"]
    rows = [chat("Why?", said, extra={"image": f"{n}"}) for n, said in enumerate(answers)]
    pool = load(str(tmp_path), rows)
    parts, _ = compute(str(tmp_path), pool, "embedding")
    truncated = selection_module._truncated_ids(pool, {"embedding": parts})
    assert truncated.to_pylist() == [rows[0].id, rows[2].id]


# ---- any pool

WORDS = st.sampled_from([*TOPICS, "why", ""])
TEXTS = st.lists(WORDS, max_size=3).map(" ".join)
CALL = {"function": {"name": "look", "arguments": {"at": "stars"}}}
FIELDS = st.sampled_from([{}, {}, {"name": "Ann"}, {"reasoning": "hm"}, {"tool_calls": [CALL]}])
TURNS = st.builds(Turn, st.sampled_from(["user", "assistant", "tool", "system"]), TEXTS, FIELDS)
FEW_TURNS = st.lists(TURNS, max_size=4).map(
    lambda turns: (Turn("user", "why"), *turns, Turn("assistant", "so"))
)
PARTS = st.fixed_dictionaries(
    {
        "extra": st.sampled_from([{}, {"image": "1"}, {"image": "2"}]),
        "tools": st.none() | st.just("t"),
    }
)


@st.composite
def pools(draw: st.DrawFn) -> list[Conversation]:
    """Rows of few texts, in odd exchanges too, with other parts around them."""
    texts = draw(st.lists(FEW_TURNS, min_size=1, max_size=4))
    rows = st.builds(
        lambda turns, parts: Conversation(turns, **parts), st.sampled_from(texts), PARTS
    )
    return draw(st.lists(rows, min_size=1, max_size=10))


@settings(max_examples=40, deadline=None)
@given(pools())
def test_the_selection_is_that_of_rows_computed_by_themselves(rows: list[Conversation]) -> None:
    with TemporaryDirectory() as store:
        pool = load(store, rows)
        results = {stage: compute(store, pool, stage) for stage in SPECS}
        texts = {row.text_id for row in rows}
        assert [computed for _, computed in results.values()] == [len(texts)] * 3
        shared = {stage: parts for stage, (parts, _) in results.items()}
        reference = decisions(store, pool, each_by_itself(store, pool))
        assert decisions(store, pool, shared) == reference
