"""Any bytes give rows, quarantined rows or an InputError, and no row is lost."""

from __future__ import annotations

import json

import fsspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deita_tasks.conversations import Conversation, Quarantined, SourceRow
from deita_tasks.errors import InputError
from deita_tasks.loading import FORMATS, load_layouts, read_conversations
from deita_tasks.loading.base import BadRow
from tests.support.loading_pools import COMPRESSORS, PARQUET, PLAIN, SAMPLES

WRITERS = {**PLAIN, **PARQUET}
POOLS = [
    COMPRESSORS[packed](WRITERS[container](rows))
    for rows, _ in SAMPLES.values()
    for container in WRITERS
    for packed in (COMPRESSORS if container in PLAIN else ["none"])
]
FORMAT = st.sampled_from(["auto", *FORMATS])
SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Bytes that mean something to one of the readers, beside all others.
MARKS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\\",
    b",",
    b":",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"null",
    b"NaN",
    b"1e999",
]
PIECES = [
    b'{"prompt":"a","response":"b"}',
    b'{"messages":[{"role":"user","content":"',
    b"prompt,response\n",
    b"\\ud800",
    b"\\u0000",
]
MAGICS = [b"\x1f\x8b\x08\0", b"\xfd7zXZ\0", b"(\xb5/\xfd", b"PAR1", b"PK\x03\x04"]
SCRAPS = (
    st.binary(max_size=40)
    | st.sampled_from(MARKS)
    | st.sampled_from(PIECES)
    | st.sampled_from(MAGICS)
)


def outcome(
    content: bytes, format: str, suffix: str = ""
) -> list[Conversation | Quarantined] | InputError:
    """Return the rows of `content`, each of them checked, or the error."""
    fs = fsspec.filesystem("memory")
    fs.pipe(f"/fuzz{suffix}", content)
    rows: list[Conversation | Quarantined] = []
    try:
        rows.extend(read_conversations(f"memory://fuzz{suffix}", format))
    except InputError as error:
        assert "fuzz" in str(error)
        return error
    finally:
        fs.rm(f"/fuzz{suffix}")
    assert rows
    for row in rows:
        if isinstance(row, Quarantined):
            (row.raw + row.detail).encode()
            assert "\0" not in row.raw
        else:
            text = json.dumps(dict(row.extra), ensure_ascii=False, allow_nan=False) + "".join(
                turn.content for turn in row.turns
            )
            text.encode()
            assert "\0" not in text
    numbers = [row.source.row for row in rows]
    assert numbers == sorted(set(numbers))
    return rows


@SETTINGS
@given(st.lists(SCRAPS, max_size=30).map(b"".join), FORMAT, st.sampled_from(["", ".csv", ".json"]))
@example(b"[" * 200_000, "auto", "")
@example(b'{"":' * 50_000, "auto", "")
@example(
    b"[" + b'{"prompt":"a","response":"b"},' * 3 + b"[" * 200_000 + b"]" * 200_000 + b"]",
    "auto",
    "",
)
@example(b"]", "auto", ".csv")
@example(b"\x1f\x8b", "auto", "")
def test_any_bytes(content, format, suffix):
    outcome(content, format, suffix)


@SETTINGS
@given(
    st.sampled_from(POOLS),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 20), SCRAPS), max_size=4),
    FORMAT,
)
def test_pools_with_pieces_replaced(pool, changes, format):
    for place, length, scrap in changes:
        place %= len(pool)
        pool = pool[:place] + scrap + pool[place + length :]
    outcome(pool, format)


@SETTINGS
@given(st.sampled_from(POOLS), st.floats(0, 1))
def test_pools_cut_off_anywhere(pool, share):
    outcome(pool[: int(len(pool) * share)], "auto")


@SETTINGS
@given(st.sampled_from(POOLS), st.integers(0, 100_000), st.integers(0, 7))
def test_pools_with_one_bit_turned(pool, place, bit):
    turned = bytearray(pool)
    turned[place % len(pool)] ^= 1 << bit
    outcome(bytes(turned), "auto")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
WORDS = st.sampled_from(["user", "gpt", "tool", "a"])
TURN = st.dictionaries(
    st.sampled_from(["from", "value", "role", "content", "tool_calls", "x"]), WORDS | JSON
)
COLUMN = st.one_of(
    JSON,
    st.lists(TURN, max_size=3),
    st.lists(TURN, max_size=3).map(json.dumps),
    st.text(max_size=5),
)
NAMES = [
    "conversations",
    "messages",
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "prompt",
    "response",
    "turn_fields",
]


@SETTINGS
@given(st.dictionaries(st.sampled_from(NAMES), COLUMN), FORMAT)
def test_any_json_row_in_any_format(columns, format):
    """Every layout returns a conversation or a reason, and does not change other columns."""
    before = json.dumps(columns)
    for layout in load_layouts(format):
        try:
            conversation = layout.conversation(columns, SourceRow("x", 1))
        except BadRow:
            continue
        others = (
            set(columns)
            - set(layout.required_columns())
            - {"input", "context", "history", "system"}
        )
        assert {name: conversation.extra[name] for name in others} == {
            name: columns[name] for name in others
        }
    assert json.dumps(columns) == before


TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@SETTINGS
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1))
@pytest.mark.parametrize("container", WRITERS)
def test_every_text_survives_every_container(container, texts):
    rows = [{"prompt": f"{prompt}?", "response": f"{response}."} for prompt, response in texts]
    rows_read = outcome(WRITERS[container](rows), "auto")
    assert isinstance(rows_read, list)
    assert [tuple(turn.content for turn in row.turns) for row in rows_read] == [
        (row["prompt"], row["response"]) for row in rows
    ]
