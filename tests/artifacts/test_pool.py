"""The pool artifact: every row comes back as it was, by position; bounded memory; what is
half-written or damaged is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deita_tasks import storage
from deita_tasks.artifacts import pool as pool_module
from deita_tasks.artifacts.pool import Pool, first_positions, pool_uri, write_pool
from deita_tasks.errors import DamagedArtifact, StorageError
from deita_tasks.records import ROLES, Conversation, Quarantined, SourceRow, Turn

ODD_TEXTS = [
    "",
    " ",
    "a\u2028b\u2029c",
    "tab\tnewline\r\n",
    '"quoted" \\ and {"json": [1]}',
    "\ufeffbom",
    "e\u0301",
    "日本語のテキスト",
    "🦊👨‍👩‍👧",
    "\x01\x7f",
    "x" * 100_000,
]


def row(number: int, text: str = "", uri: str = "pool.jsonl", **extra: Any) -> Conversation:
    return Conversation(
        (
            Turn("user", text or f"question {number}"),
            Turn("assistant", f"answer to {text or number}"),
        ),
        SourceRow(uri, number),
        extra,
    )


def bad(number: int) -> Quarantined:
    return Quarantined(
        SourceRow("pool.jsonl", number),
        "no_user_turn",
        "the roles are assistant",
        f'{{"line": {number}}}',
    )


def made(folder: Path, *rows: Conversation | Quarantined, **facts: Any) -> Pool:
    write_pool(str(folder), iter(rows), facts)
    return Pool.open(str(folder))


def rows_in(pool: Pool) -> Iterator[tuple[int, Conversation]]:
    return pool.read(range(pool.summary["good"]))


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of three rows, files of two groups: what a large pool has, in ten rows."""
    monkeypatch.setattr(pool_module, "GROUP_ROWS", 3)
    monkeypatch.setattr(pool_module, "FILE_GROUPS", 2)


# ---- what is written comes back


def test_positions_are_the_good_rows_in_source_order(tmp_path: Path) -> None:
    pool = made(tmp_path, row(1), bad(2), row(3), row(4), bad(5))
    assert [(position, one.source.row) for position, one in rows_in(pool)] == [
        (0, 1),
        (1, 3),
        (2, 4),
    ]
    assert pool.index()["source_row"].to_pylist() == [1, 3, 4]
    assert pool.quarantine()["source_row"].to_pylist() == [2, 5]
    assert (pool.summary["good"], pool.summary["quarantined"]) == (3, 2)


def test_quarantine_keeps_reason_detail_and_row(tmp_path: Path) -> None:
    assert made(tmp_path, row(1), bad(2)).quarantine().to_pylist() == [
        {
            "source_uri": "pool.jsonl",
            "source_row": 2,
            "reason": "no_user_turn",
            "detail": "the roles are assistant",
            "raw": '{"line": 2}',
        }
    ]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_texts_come_back(text: str, tmp_path: Path) -> None:
    one = Conversation(
        (Turn("system", text), Turn("user", text), Turn("tool", text)),
        SourceRow(f"ü {text[:5]}.jsonl", 1),
        {text[:9]: [text[:9]]},
    )
    assert [held for _, held in rows_in(made(tmp_path, one))] == [one]


EXTRAS = [
    {},
    {"n": 2**70, "x": 0.1 + 0.2, "t": True, "none": None},
    {"nested": {"a": [1, {"b": None}, []], "": {}}, "ключ": "значение"},
    {"id": "not ours", "turns": "a column of that name", "conversations": []},
    {"empty": "", "list": [[[]]]},
]


@pytest.mark.parametrize("extra", EXTRAS, ids=range(len(EXTRAS)))
def test_extras_come_back(extra: dict[str, Any], tmp_path: Path) -> None:
    pool = made(tmp_path, row(1, **extra), row(2))
    assert [dict(held.extra) for _, held in rows_in(pool)] == [extra, {}]


TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(ROLES),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    ),
    min_size=1,
    max_size=4,
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=6,
)
COLUMNS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=3)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.builds(
            Conversation,
            TURNS.map(tuple),
            st.builds(SourceRow, st.just("p"), st.integers(1, 2**40)),
            COLUMNS,
        ),
        max_size=6,
    )
)
def test_any_rows_come_back(tmp_path: Path, rows: list[Conversation]) -> None:
    assert [held for _, held in rows_in(made(tmp_path, *rows))] == rows


def test_the_index_counts_pairs_turns_and_words(tmp_path: Path) -> None:
    said = (
        Turn("system", "be brief"),
        Turn("user", "one two  three"),
        Turn("assistant", ""),
        Turn("user", "four"),
    )
    index = made(tmp_path, Conversation(said, SourceRow("p", 1))).index(
        ["n_pairs", "n_turns", "n_words"]
    )
    assert index.to_pylist() == [{"n_pairs": 2, "n_turns": 4, "n_words": 6}]


def test_duplicates_are_kept_and_the_first_is_known(tmp_path: Path) -> None:
    pool = made(
        tmp_path,
        row(1, "a"),
        row(2, "b"),
        row(3, "a"),
        row(4, "a", uri="other.csv", note="later"),
        row(5, "c"),
    )
    ids = pool.index(["id"])["id"]
    assert len(set(ids.to_pylist())) == 3
    assert first_positions(ids).tolist() == [0, 1, 4]
    assert pool.index(["source_uri"])["source_uri"].to_pylist()[3] == "other.csv"


def test_first_positions_of_nothing() -> None:
    assert first_positions(pa.array([], pa.string())).tolist() == []


def test_facts_are_read_after_the_last_row(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"inputs": []}

    def rows() -> Iterator[Conversation]:
        yield row(1)
        facts["inputs"].append("seen")

    assert write_pool(str(tmp_path), rows(), facts)["inputs"] == ["seen"]
    assert Pool.open(str(tmp_path)).summary["inputs"] == ["seen"]


def test_a_pool_without_good_rows(tmp_path: Path) -> None:
    pool = made(tmp_path, bad(1), bad(2))
    assert list(rows_in(pool)) == []
    assert pool.index().num_rows == 0
    assert pool.quarantine().num_rows == 2
    assert pool.is_intact()


def test_a_pool_of_no_rows(tmp_path: Path) -> None:
    pool = made(tmp_path)
    assert (pool.summary["good"], pool.index().num_rows, pool.quarantine().num_rows) == (0, 0, 0)


# ---- row groups


def groups_of(pool: Pool) -> list[list[int]]:
    """Rows of each row group of each file, as Parquet itself tells."""
    found = []
    for file in pool.summary["files"]:
        parquet = pq.ParquetFile(Path(pool.uri) / file["name"])
        found.append(
            [
                parquet.metadata.row_group(number).num_rows
                for number in range(parquet.num_row_groups)
            ]
        )
    return found


@pytest.mark.usefixtures("small_groups")
def test_groups_and_files_are_of_bounded_size(tmp_path: Path) -> None:
    pool = made(tmp_path, *(row(number) for number in range(1, 15)))
    assert groups_of(pool) == [[3, 3], [3, 3], [2]]
    assert [file["groups"] for file in pool.summary["files"]] == groups_of(pool)
    assert [file["name"] for file in pool.summary["files"]] == [
        "rows-00000.parquet",
        "rows-00001.parquet",
        "rows-00002.parquet",
    ]
    assert [position for position, _ in rows_in(pool)] == list(range(14))


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    "wanted", [[], [0], [13], [2, 3], [5, 6], [12, 0, 7, 7], list(range(14)), [11, 10, 9]]
)
def test_any_positions_are_read_ascending_each_once(wanted: list[int], tmp_path: Path) -> None:
    """Across the borders of groups (3) and files (6)."""
    pool = made(tmp_path, *(row(number) for number in range(1, 15)))
    assert [(position, one.source.row) for position, one in pool.read(wanted)] == [
        (at, at + 1) for at in sorted(set(wanted))
    ]
    assert [one for _, one in pool.read(np.array(wanted, np.int64))] == [
        row(at + 1) for at in sorted(set(wanted))
    ]


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("rows", [3, 6, 12])
def test_no_empty_group_at_a_full_end(rows: int, tmp_path: Path) -> None:
    pool = made(tmp_path, *(row(number) for number in range(1, rows + 1)))
    assert list(chain.from_iterable(groups_of(pool))) == [3] * (rows // 3)
    assert len(list(rows_in(pool))) == rows


def test_only_the_groups_that_are_asked_for_are_read(
    tmp_path: Path, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = made(tmp_path, *(row(number) for number in range(1, 15)))
    asked: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, number: asked.append(number) or real(self, number),
    )
    assert [position for position, _ in pool.read([4, 13])] == [4, 13]
    assert asked == [1, 0]  # the second group of the first file, the first of the third


@pytest.mark.parametrize("where", ["content", "extra", "turns"])
def test_a_group_is_closed_by_its_size_too(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand rows of 16 MB would not fit in memory, wherever in the row the bulk lies."""
    monkeypatch.setattr(pool_module, "GROUP_CHARS", 1000)
    if where == "content":
        rows = [row(number, f"{number}" + "x" * 400) for number in range(6)]
    elif where == "extra":
        rows = [row(number, blob="x" * 900) for number in range(6)]
    else:
        rows = [
            Conversation(
                (Turn("user", f"{number}"), *[Turn("assistant", "")] * 100), SourceRow("p", number)
            )
            for number in range(6)
        ]
    pool = made(tmp_path, *rows)
    assert max(chain.from_iterable(groups_of(pool))) <= 2
    assert [held for _, held in rows_in(pool)] == rows


def test_the_writer_holds_no_more_than_a_group(tmp_path: Path, small_groups: None) -> None:
    """Rows are let go as their group is written: of 300, never more than a group and the one that
    passes are alive.
    """
    import gc
    import weakref

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Text(str):
        """A str that can be watched."""

    def rows() -> Iterator[Conversation]:
        nonlocal most
        for number in range(300):
            text = Text(f"question {number}")
            alive.add(text)
            yield Conversation((Turn("user", text),), SourceRow("p", number))
            del text
            gc.collect(0)
            most = max(most, len(alive))

    write_pool(str(tmp_path), rows(), {})
    assert 1 <= most <= 4


# ---- what is not whole is not trusted


def test_a_pool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no pool here; expected a pool\.json"):
        Pool.open(str(tmp_path / "absent"))


@pytest.mark.usefixtures("small_groups")
def test_a_pool_whose_writing_broke_off_is_not_there(tmp_path: Path) -> None:
    def rows() -> Iterator[Conversation]:
        for number in range(8):
            yield row(number)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        write_pool(str(tmp_path), rows(), {})
    with pytest.raises(StorageError, match="no pool here"):
        Pool.open(str(tmp_path))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], (
        "drafts are left behind"
    )
    assert made(tmp_path, row(1)).is_intact()  # and it can be written now


def test_a_pool_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, row(1))
    monkeypatch.setattr(pool_module, "VERSION", pool_module.VERSION + 1)
    with pytest.raises(StorageError, match=r"expected .*; load it again"):
        Pool.open(str(tmp_path))


@pytest.mark.parametrize("name", ["rows-00000.parquet", "rows-00001.parquet", "quarantine.parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut short", "one byte", "another's"])
@pytest.mark.usefixtures("small_groups")
def test_damage_is_noticed(name: str, damage: str, tmp_path: Path) -> None:
    pool = made(tmp_path / "pool", *(row(number) for number in range(1, 9)), bad(9))
    assert pool.is_intact()
    file = tmp_path / "pool" / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "one byte":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        made(tmp_path / "other", *(row(number) for number in range(101, 109)), bad(109))
        file.write_bytes((tmp_path / "other" / name).read_bytes())
    assert not pool.is_intact()


@pytest.mark.parametrize("damage", ["cut short", "one byte"])
def test_damage_is_never_read_as_rows(damage: str, tmp_path: Path) -> None:
    pool = made(tmp_path, *(row(number, "x" * 50 + str(number)) for number in range(200)))
    file = tmp_path / "rows-00000.parquet"
    content = bytearray(file.read_bytes())
    place = content.index(b"PAR1") + 60  # in the first page
    file.write_bytes(
        content[:-50]
        if damage == "cut short"
        else content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    )
    with pytest.raises(DamagedArtifact):
        list(rows_in(pool))
    with pytest.raises(DamagedArtifact):
        pool.index(["id"])


def test_pool_json_that_is_not_json(tmp_path: Path) -> None:
    made(tmp_path, row(1))
    (tmp_path / "pool.json").write_text('{"version": 1, "go')
    with pytest.raises(StorageError):
        Pool.open(str(tmp_path))


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [row(number, note=number) for number in range(20)]
    one, other = made(tmp_path / "a", *rows, bad(1)), made(tmp_path / "b", *rows, bad(1))
    assert one.summary == other.summary


def test_where_a_pool_lies() -> None:
    assert pool_uri("s3://bucket/store", "abc") == "s3://bucket/store/pools/abc"
    with pytest.raises(StorageError):
        pool_uri("store", "../../etc")


def test_a_pool_in_another_store_than_the_disk() -> None:
    pool = pool_uri("memory://deita-test-pool", "x")
    try:
        write_pool(pool, iter([row(1), bad(2)]), {})
        assert [one for _, one in rows_in(Pool.open(pool))] == [row(1)]
        assert Pool.open(pool).is_intact()
    finally:
        storage.remove("memory://deita-test-pool")
