"""Writing the pool artifact: every row comes back as it was, and memory is bounded."""

from __future__ import annotations

import errno
import gc
import json
import weakref
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deita_tasks import storage
from deita_tasks.artifacts import pool_writer
from deita_tasks.artifacts.pool import Pool, pool_uri
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.conversations import ROLES, Conversation, SourceRow, Turn
from deita_tasks.errors import StorageError
from deita_tasks.manifest import InputFile
from deita_tasks.strict_json import DIGEST_FIELD, digest_of
from tests.support.handmade import make
from tests.support.pool_rows import (
    bad_row,
    conversations_in,
    good_row,
    good_rows,
    pool_of,
    rows_in,
)

DATA = Path(__file__).parent / "data"  # as the code before typed records wrote it
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
EXTRAS = [
    {},
    {"n": 2**70, "x": 0.1 + 0.2, "t": True, "none": None},
    {"nested": {"a": [1, {"b": None}, []], "": {}}, "ключ": "значение"},
    {"id": "not ours", "turns": "a column of that name", "conversations": []},
    {"empty": "", "list": [[[]]]},
]


# ---- what is written comes back


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_texts_come_back(text: str, tmp_path: Path) -> None:
    conversation = Conversation(
        (Turn("system", text), Turn("user", text), Turn("tool", text)),
        SourceRow(f"ü {text[:5]}.jsonl", 1),
        {text[:9]: [text[:9]]},
    )
    assert conversations_in(pool_of(tmp_path, conversation)) == [conversation]


@pytest.mark.parametrize("extra", EXTRAS, ids=range(len(EXTRAS)))
def test_extras_come_back(extra: dict[str, Any], tmp_path: Path) -> None:
    pool = pool_of(tmp_path, good_row(1, **extra), good_row(2))
    assert [dict(row.extra) for row in conversations_in(pool)] == [extra, {}]


TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(ROLES),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    ),
    min_size=1,
    max_size=4,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
CONVERSATIONS = st.builds(
    Conversation,
    TURNS.map(tuple),
    st.builds(SourceRow, st.just("p"), st.integers(1, 2**40)),
    st.dictionaries(NAMES, JSON, max_size=3),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(CONVERSATIONS, max_size=6))
def test_any_rows_come_back(tmp_path: Path, rows: list[Conversation]) -> None:
    assert conversations_in(pool_of(tmp_path, *rows)) == rows


def test_quarantine_keeps_reason_detail_and_row(tmp_path: Path) -> None:
    assert pool_of(tmp_path, good_row(1), bad_row(2)).quarantine().to_pylist() == [
        {
            "source_uri": "pool.jsonl",
            "source_row": 2,
            "reason": "no_user_turn",
            "detail": "the roles are assistant",
            "raw": '{"line": 2}',
        }
    ]


def test_pairs_turns_and_words_are_counted(tmp_path: Path) -> None:
    turns = (
        Turn("system", "be brief"),
        Turn("user", "one two  three"),
        Turn("assistant", "five"),
        Turn("user", "four"),
    )
    pool = pool_of(tmp_path, Conversation(turns, SourceRow("p", 1), {"images": ["a", "b"]}))
    columns = ["n_pairs", "n_unanswered", "n_media", "n_turns", "n_words"]
    assert pool.index(columns).to_pylist() == [
        {"n_pairs": 1, "n_unanswered": 1, "n_media": 2, "n_turns": 4, "n_words": 7}
    ]


def test_inputs_are_read_after_the_last_row(tmp_path: Path) -> None:
    inputs: list[InputFile] = []
    file = InputFile(uri="pool.jsonl", digest="sha256:00", rows=1, format="messages")

    def rows() -> Iterator[Conversation]:
        yield good_row(1)
        inputs.append(file)

    assert write_pool(str(tmp_path), rows(), inputs).inputs == [file]
    assert Pool.open(str(tmp_path)).summary.inputs == [file]


def test_a_pool_without_good_rows(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, bad_row(1), bad_row(2))
    assert list(rows_in(pool)) == []
    assert pool.index().num_rows == 0
    assert pool.quarantine().num_rows == 2
    assert pool.is_intact()


def test_a_pool_of_no_rows(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    assert (pool.summary.good, pool.index().num_rows, pool.quarantine().num_rows) == (0, 0, 0)


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [good_row(number, note=number) for number in range(20)]
    first = pool_of(tmp_path / "a", *rows, bad_row(1))
    second = pool_of(tmp_path / "b", *rows, bad_row(1))
    assert first.summary == second.summary


def test_a_pool_in_another_store_than_the_disk() -> None:
    uri = pool_uri("memory://deita-test-pool", "x")
    try:
        write_pool(uri, iter([good_row(1), bad_row(2)]), [])
        pool = Pool.open(uri)
        assert conversations_in(pool) == [good_row(1)]
        assert pool.is_intact()
    finally:
        storage.remove("memory://deita-test-pool")


def test_pool_json_is_what_it_always_was(tmp_path: Path) -> None:
    """All keys and values; the bytes of Parquet files are those of the installed pyarrow."""
    pool, _ = make(tmp_path)
    written = json.loads((tmp_path / "pools" / "p" / "pool.json").read_text())
    assert written.pop(DIGEST_FIELD) == digest_of(written)
    expected = json.loads((DATA / "pool.json").read_text())
    for fields in (expected["files"][0], expected["quarantine"]):
        name = fields.get("name", "quarantine.parquet")
        info = storage.describe(f"{pool.uri}/{name}")
        fields.update(bytes=info.bytes, sha256=info.sha256)
    assert written == expected


# ---- row groups


def groups_of(pool: Pool) -> list[list[int]]:
    """Rows of each row group of each file, as Parquet itself has them."""
    groups = []
    for file in pool.summary.files:
        metadata = pq.read_metadata(Path(pool.uri) / file.name)
        numbers = range(metadata.num_row_groups)
        groups.append([metadata.row_group(number).num_rows for number in numbers])
    return groups


@pytest.mark.usefixtures("small_groups")
def test_groups_and_files_are_of_bounded_size(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *good_rows(14))
    assert groups_of(pool) == [[3, 3], [3, 3], [2]]
    assert [file.groups for file in pool.summary.files] == groups_of(pool)
    assert [file.name for file in pool.summary.files] == [
        "rows-00000.parquet",
        "rows-00001.parquet",
        "rows-00002.parquet",
    ]
    assert [position for position, _ in rows_in(pool)] == list(range(14))


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("rows", [3, 6, 12])
def test_no_empty_group_at_a_full_end(rows: int, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *good_rows(rows))
    assert list(chain.from_iterable(groups_of(pool))) == [3] * (rows // 3)
    assert len(list(rows_in(pool))) == rows


def rows_of_a_large(field: str) -> list[Conversation]:
    """Six rows of about 400 characters in `field`, or of a hundred turns."""
    if field == "content":
        return [good_row(number, f"{number}" + "x" * 400) for number in range(6)]
    if field == "extra":
        return [good_row(number, blob="x" * 900) for number in range(6)]
    answers = [Turn("assistant", "")] * 100
    return [
        Conversation((Turn("user", f"{number}"), *answers), SourceRow("p", number))
        for number in range(6)
    ]


@pytest.mark.parametrize("field", ["content", "extra", "turns"])
def test_a_group_is_closed_by_its_size_too(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand rows of 16 MB would not fit in memory, in whatever field they are large."""
    monkeypatch.setattr(pool_writer, "GROUP_CHARS", 1000)
    rows = rows_of_a_large(field)
    pool = pool_of(tmp_path, *rows)
    assert max(chain.from_iterable(groups_of(pool))) <= 2
    assert conversations_in(pool) == rows


class WatchedText(str):
    """A str that a weak reference can watch."""


@pytest.mark.usefixtures("small_groups")
def test_the_writer_holds_no_more_than_a_group(tmp_path: Path) -> None:
    """Of 300 rows, never more than a group and the row that passes are alive."""
    alive: weakref.WeakSet[WatchedText] = weakref.WeakSet()
    most_alive = 0

    def rows() -> Iterator[Conversation]:
        nonlocal most_alive
        for number in range(300):
            text = WatchedText(f"question {number}")
            alive.add(text)
            yield Conversation((Turn("user", text),), SourceRow("p", number))
            del text
            gc.collect(0)
            most_alive = max(most_alive, len(alive))

    write_pool(str(tmp_path), rows(), [])
    assert 1 <= most_alive <= 4


@pytest.mark.usefixtures("small_groups")
def test_a_pool_whose_writing_broke_off_is_not_there(tmp_path: Path) -> None:
    def rows() -> Iterator[Conversation]:
        yield from good_rows(8)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        write_pool(str(tmp_path), rows(), [])
    with pytest.raises(StorageError, match="no pool here"):
        Pool.open(str(tmp_path))
    drafts = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert drafts == []
    assert pool_of(tmp_path, good_row(1)).is_intact()  # and it can be written now


@pytest.mark.parametrize("rows", [3, 3_000])
def test_a_full_disk_leaves_no_draft(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file it hits first, while rows pass or at the end."""

    def fill_up(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fill_up)
    many = [*(Conversation((Turn("user", "p"),), SourceRow("f", i), {}) for i in range(rows))]
    with pytest.raises(StorageError, match=r"rows-00000\.parquet: the disk is full"):
        write_pool(str(tmp_path / "pool"), many, [])
    assert list((tmp_path / "pool").iterdir()) == []
