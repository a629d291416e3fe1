"""Scores and vectors that the user brings: which row a value belongs to, and invalid values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_tasks.artifacts.part_tables import score_table
from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import InputError, UsageError
from deita_tasks.scoring import load_scorer


def row(number: int, turns: int = 1, uri: str = "pool.jsonl", **extra: Any) -> Conversation:
    spoken = [
        Turn(role, f"{role} {number}.{turn}")
        for turn in range(turns)
        for role in ("user", "assistant")
    ]  # type: ignore[arg-type]
    return Conversation((Turn("system", "Be brief."), *spoken), SourceRow(uri, number), extra)


def row_ids(rows: list[Conversation]) -> list[str]:
    return [conversation.id for conversation in rows]


def parquet(path: Path, group_rows: int = 2, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    return str(path)


def scores(conversations: list[Conversation], **options: Any) -> tuple[list[float], dict[int, str]]:
    result = load_scorer("provided", kind="quality", **options).compute_rows(conversations)
    assert not result.pairs.problems
    assert not result.pairs.truncated_tokens.any()
    return result.pairs.values.tolist(), dict(result.problems)


# ---- which value is a row's


def test_scores_in_the_rows_as_the_original_program_writes_them() -> None:
    rows = [
        row(1, 2, quality_scores=[2.5, 3]),
        row(2, 1, quality_scores=[6]),
        row(3, 1, quality_scores=1),
        row(4, 2, quality_scores="[4, 5.5]"),
    ]
    assert scores(rows) == ([2.5, 3, 6, 1, 4, 5.5], {})


def test_another_column() -> None:
    assert scores([row(1, mine=4.5, quality_scores=2)], column="mine") == ([4.5], {})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is null"),
        ([], "0 scores for 2 user turns"),
        ([3.0], "1 score for 2 user turns"),
        (3.0, "1 score for 2 user turns, expected one for each; if it is for the whole row, set"),
        ([3, 3, 3], "3 scores for 2 user turns"),
        ([3, 6.0001], "6.0001 is not in [1, 6]"),
        ([0.99, 3], "0.99 is not in [1, 6]"),
        ([math.nan, 3], "nan is not in [1, 6]"),
        ([3, math.inf], "inf is not in [1, 6]"),
        ([3, None], "'None' is not a number"),
        ([3, True], "'True' is not a number"),
        ([3, "4"], "'4' is not a number"),
        ([3, [4]], "'[4]' is not a number"),
        ({"a": 1}, "1 score for 2 user turns"),
        ("three", "'three' is not a number or a list of numbers"),
        ("[1, NaN]", "nan is not in [1, 6]"),
    ],
)
def test_what_is_no_score_is_a_problem_and_the_other_rows_go_on(value: Any, problem: str) -> None:
    values, problems = scores(
        [row(1, quality_scores=2), row(2, 2, quality_scores=value), row(3, quality_scores=5)]
    )
    assert list(problems) == [1]
    assert problem in problems[1]
    np.testing.assert_array_equal(values, [2, math.nan, math.nan, 5])


def test_a_row_without_the_column() -> None:
    assert scores([row(1)])[1] == {0: "its row has no column 'quality_scores'"}


def test_the_part_says_why_a_row_has_no_score_and_names_no_turn() -> None:
    rows = [row(1, 2), row(2, quality_scores=2)]
    table = score_table(
        row_ids(rows),
        [2, 1],
        *load_scorer("provided", kind="quality").compute_rows(rows),
    ).to_pylist()
    assert [(line["values"], line["problem"]) for line in table] == [
        (None, "its row has no column 'quality_scores'"),
        ([2.0], None),
    ]


def test_pairs_alone_have_no_score() -> None:
    with pytest.raises(UsageError, match="compute_rows"):
        load_scorer("provided", kind="quality").score([("a", "b")])


def test_the_scores_of_every_other_scorer_are_its_pairs() -> None:
    rows = [row(1, 2), row(2)]
    length = load_scorer("response_length")
    result = length.compute_rows(rows)
    assert result.problems == {}
    np.testing.assert_array_equal(
        result.pairs.values,
        length.score([pair for conversation in rows for pair in conversation.pairs]),
    )


# ---- a file


def test_a_file_joined_by_id_in_any_order(tmp_path: Path) -> None:
    a, b, c, d = (row(number, turns) for number, turns in ((1, 1), (2, 2), (3, 1), (4, 1)))
    ids = ["none of them", c.id, None, b.id, a.id]
    file = parquet(
        tmp_path / "s.parquet",
        id=ids,
        quality=[[1.0], [3.0], [1.0], [2.0, 2.5], [1.5]],
        mine=[[4.0]] * 5,
    )
    values, problems = scores([a, b, c, d], file=file)
    np.testing.assert_array_equal(values, [1.5, 2, 2.5, 3, math.nan])
    assert problems == {3: f"{file} has no row for it"}
    assert scores([a, c], file=file, column="mine") == ([4, 4], {})


def test_a_file_joined_by_row(tmp_path: Path) -> None:
    file = parquet(tmp_path / "s.parquet", source_row=[3, 1, 2], quality=[3.0, 1.0, None])
    values, problems = scores([row(1), row(2), row(3)], file=file)
    np.testing.assert_array_equal(values, [1, math.nan, 3])
    assert problems == {1: f"its 'quality' is null in {file}"}


def test_several_files_of_a_pool_need_their_names(tmp_path: Path) -> None:
    bare = parquet(tmp_path / "bare.parquet", source_row=[1, 1], quality=[3.0, 4.0])
    with pytest.raises(UsageError, match="source_uri"):
        load_scorer("provided", kind="quality", file=bare, pool=["a.jsonl", "b.jsonl"])
    named = parquet(
        tmp_path / "named.parquet",
        source_row=[1, 1],
        source_uri=["b.jsonl", "a.jsonl"],
        quality=[3.0, 4.0],
    )
    assert scores(
        [row(1, uri="a.jsonl"), row(1, uri="b.jsonl")], file=named, pool=["a.jsonl", "b.jsonl"]
    ) == ([4, 3], {})


def test_a_row_with_two_values_in_a_file(tmp_path: Path) -> None:
    a, b, c = row(1), row(2), row(3)
    file = parquet(
        tmp_path / "s.parquet",
        id=[a.id, b.id, a.id, b.id, c.id, c.id],
        quality=[[2.0], [3.0], [2.0], [4.0], None, [5.0]],
    )
    values, problems = scores([a, b, c], file=file)
    np.testing.assert_array_equal(values, [2, math.nan, 5])
    assert problems == {1: f"{file} has 2 rows with different 'quality' for it"}


def test_files_that_cannot_be_joined(tmp_path: Path) -> None:
    def refused(match: str, file: str, **options: Any) -> None:
        for load in (
            lambda **options: load_scorer("provided", kind="quality", **options),
            lambda **options: load_embedder("provided", **options),
        ):
            with pytest.raises(InputError, match=match) as caught:
                load(file=file, **options)
            assert caught.value.exit_status == 2

    refused("no such file", str(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("id,quality\n")
    refused("expected a Parquet file", str(tmp_path / "text.parquet"))
    file = parquet(tmp_path / "s.parquet", id=["x"], name=["y"])
    refused(r"has the columns id, name, but no 'quality'; name the column", file, column="quality")
    refused(
        "expected `id`, or `source_row`",
        parquet(tmp_path / "k.parquet", key=["x"], quality=[1.0]),
        column="quality",
    )


# ---- vectors


def vectors(conversations: list[Conversation], **options: Any) -> tuple[Any, dict[int, str]]:
    result = load_embedder("provided", **options).compute(conversations)
    assert result.values.dtype == np.float32
    return result.values, dict(result.problems)


def test_vectors_in_the_rows() -> None:
    values, problems = vectors([row(1, embedding=[1, 2.5]), row(2, embedding="[0, -3]"), row(3)])
    np.testing.assert_array_equal(values, [[1, 2.5], [0, -3], [math.nan, math.nan]])
    assert problems == {2: "its row has no column 'embedding'"}


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.float16())]
)
def test_vectors_in_a_file(tmp_path: Path, kind: pa.DataType) -> None:
    rows = [row(number) for number in range(1, 6)]
    vector_column = pa.array(
        [[float(number), 0.5] for number in range(5, 0, -1)], pa.list_(pa.float64())
    ).cast(kind)
    file = parquet(
        tmp_path / "v.parquet",
        id=row_ids(rows[::-1]),
        vector=vector_column,
    )
    values, problems = vectors(rows, file=file, column="vector")
    np.testing.assert_array_equal(values, [[number, 0.5] for number in range(1, 6)])
    assert problems == {}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1, math.nan], "not finite"),
        ([1, math.inf], "not finite"),
        ([1, 1e39], "not finite"),  # infinite as a float32
        ([1, 10**400], "not finite"),
        ([1, None], "not a number"),
        ([1, True], "not a number"),
        ([[1], [2]], "not a number"),
        ([1, 2, 3], "has 3 numbers, others have 2"),
        ([], "not a list of numbers"),
        (1.5, "not a list of numbers"),
        ("x", "not a list of numbers"),
        (None, "is null"),
    ],
)
def test_what_is_no_vector(value: Any, problem: str) -> None:
    values, problems = vectors(
        [row(1, embedding=value), row(2, embedding=[1, 2]), row(3, embedding=[3, 4])]
    )
    assert list(problems) == [0]
    assert problem in problems[0]
    np.testing.assert_array_equal(values, [[math.nan] * 2, [1, 2], [3, 4]])


def test_a_null_within_a_vector_of_a_file(tmp_path: Path) -> None:
    rows = [row(1), row(2)]
    file = parquet(
        tmp_path / "v.parquet",
        id=row_ids(rows),
        embedding=[[1.0, None], [1.0, 2.0]],
    )
    assert vectors(rows, file=file)[1] == {0: "its vector is not finite"}


# ---- a key of the user's own


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    return str(path)


def test_a_file_joined_by_any_column(tmp_path: Path) -> None:
    rows = [row(number, doc=doc) for number, doc in enumerate(["a", 7, "07", None, ["a"], 2.0], 1)]
    file = jsonl(
        tmp_path / "s.jsonl",
        [{"doc": doc, "quality": score} for doc, score in (("7", 3), ("a", 2), (2, 4), (None, 6))],
    )
    values, problems = scores([*rows, row(7)], file=file, key="doc")
    np.testing.assert_array_equal(values, [2, 3, math.nan, math.nan, math.nan, 4, math.nan])
    assert problems == {
        2: f"{file} has no row with its 'doc'; an example there is '7'",
        3: f"the key 'doc' is not a text or a number in its row, so {file} has no row for it",
        4: f"the key 'doc' is not a text or a number in its row, so {file} has no row for it",
        6: f"the key 'doc' is missing in its row, so {file} has no row for it",
    }


def test_an_id_of_the_users_own_is_the_key(tmp_path: Path) -> None:
    rows = [row(1, id="x-1"), row(2, id="x-2"), row(3)]
    file = parquet(tmp_path / "s.parquet", id=["x-2", "x-1"], quality=[2.0, 1.0])
    values, problems = scores(rows, file=file)
    np.testing.assert_array_equal(values, [1, 2, math.nan])
    assert "the key 'id' is missing in its row" in problems[2]


def test_an_own_id_that_looks_like_ours_is_named(tmp_path: Path) -> None:
    """A UUID has 32 hex digits too."""
    own = "0123456789abcdef0123456789abcdef"
    file = parquet(tmp_path / "s.parquet", id=[own], quality=[2.0])
    [problem] = scores([row(1, id=own)], file=file)[1].values()
    assert "one with its own `id`: set the key (scores_key, embeddings_key) to id" in problem
    assert scores([row(1, id=own)], file=file, key="id") == ([2], {})


def test_rows_of_a_key_that_disagree(tmp_path: Path) -> None:
    rows = [row(1, doc="a"), row(2, doc="b"), row(3, doc="a")]
    lines = [{"doc": doc, "quality": score} for doc, score in (("a", 2), ("b", 3), ("b", 4))]
    values, problems = scores(rows, file=jsonl(tmp_path / "s.jsonl", lines), key="doc")
    np.testing.assert_array_equal(values, [2, math.nan, 2])
    assert "2 rows with different 'quality'" in problems[1]


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    file = parquet(tmp_path / "s.parquet", id=["x"], quality=[1.0])
    with pytest.raises(InputError, match="the columns id, quality, but not the key 'doc'"):
        load_scorer("provided", kind="quality", file=file, key="doc")
    with pytest.raises(UsageError, match="key = 'doc' without a file"):
        load_scorer("provided", kind="quality", key="doc")


def test_vectors_joined_by_a_key(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "v.jsonl", [{"doc": 2, "embedding": [0, 1]}, {"doc": 1, "embedding": [1, 0]}]
    )
    values, problems = vectors([row(1, doc=1), row(2, doc=2)], file=file, key="doc")
    np.testing.assert_array_equal(values, [[1, 0], [0, 1]])
    assert problems == {}


# ---- fingerprints


def test_the_fingerprint_depends_on_content(tmp_path: Path) -> None:
    pool, same_content = tmp_path / "pool.jsonl", tmp_path / "copy.jsonl"
    pool.write_text("1")
    same_content.write_text("1")

    def fingerprint(**options: Any) -> str:
        return json.dumps(
            load_scorer("provided", kind="quality", **options).fingerprint(), sort_keys=True
        )

    before = fingerprint(pool=[str(pool)])
    assert fingerprint(pool=[str(same_content)]) == before
    assert fingerprint(pool=[str(pool)], column="x") != before
    pool.write_text("2")
    assert fingerprint(pool=[str(pool)]) != before

    file = parquet(tmp_path / "s.parquet", id=[row(1).id], quality=[1.0])
    by_id = fingerprint(file=file, pool=[str(pool)])
    assert (
        fingerprint(file=file, pool=[str(same_content)]) == by_id
    )  # an id says which row is meant, in whatever pool
    other = parquet(tmp_path / "t.parquet", id=[row(1).id], quality=[2.0])
    assert fingerprint(file=other, pool=[str(pool)]) != by_id
    rows = parquet(tmp_path / "r.parquet", source_row=[1], quality=[1.0])
    assert fingerprint(file=rows, pool=[str(pool)]) != fingerprint(
        file=rows, pool=[str(same_content)]
    )


def test_the_fingerprint_names_key_scale_and_unit(tmp_path: Path) -> None:
    pool, other_pool = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    pool.write_text("1")
    other_pool.write_text("2")
    own = parquet(tmp_path / "s.parquet", id=["x"], doc=["y"], quality=[1.0])
    ours = parquet(tmp_path / "t.parquet", id=[row(1).id], quality=[1.0])
    variants: list[dict[str, Any]] = [
        {},
        {"per": "row"},
        {"scale": "0..1"},
        {"scale": "0..10"},
        {"file": ours},
        {"file": own},  # by the pool's own id
        {"file": own, "key": "doc"},
        {"file": own, "pool": [str(other_pool)]},
        {"file": own, "key": "doc", "pool": [str(other_pool)]},
    ]
    fingerprints = [
        load_scorer("provided", kind="quality", **{"pool": [str(pool)], **options}).fingerprint()
        for options in variants
    ]
    texts = {json.dumps(fingerprint, sort_keys=True) for fingerprint in fingerprints}
    assert len(texts) == len(variants)
    assert sorted(fingerprints[0]) == [
        "backend",
        "column",
        "kind",
        "pool",
        "version",
    ]  # as in 0.1.0
    assert sorted(fingerprints[4]) == ["backend", "column", "file", "kind", "version"]
