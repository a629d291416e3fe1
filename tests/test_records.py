"""The records: ids depend on the text alone, pairs go by role, and constructors check."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.decisions import DECISIONS
from deita_tasks.records import (
    NOWHERE,
    ROLES,
    SCORE_KINDS,
    Conversation,
    ModelOutput,
    Pair,
    SelectorResult,
    SourceRow,
    Turn,
    content_id,
)

NAMES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def turns(*lines: str) -> tuple[Turn, ...]:
    """turns("u: hello", "a: hi")."""
    return tuple(Turn(NAMES[line[0]], line[3:]) for line in lines)  # type: ignore[arg-type]


def sha32(canonical: bytes) -> str:
    return hashlib.sha256(canonical).hexdigest()[:32]


@pytest.mark.parametrize(
    ("content", "canonical"),
    [
        ("Hello", b"Hello"),
        ("", b""),
        ("  two  spaces ", b"  two  spaces "),
        ('say "hi"', rb"say \"hi\""),
        ("back\\slash", rb"back\\slash"),
        ("a/b", b"a/b"),  # never escaped
        ("</script>", b"</script>"),
        ("\b\t\n\f\r", rb"\b\t\n\f\r"),  # RFC 8785, 3.2.2.2: the five short escapes
        ("\x01\x1b\x1f", rb"\u0001\u001b\u001f"),  # all others below U+0020: lower-case hex
        ("\x7f", b"\x7f"),
        ("é", b"\xc3\xa9"),
        ("e\u0301", b"e\xcc\x81"),  # not normalised: another text
        ("\u2028\u2029", b"\xe2\x80\xa8\xe2\x80\xa9"),
        ("\ufeff", b"\xef\xbb\xbf"),
        ("日本", b"\xe6\x97\xa5\xe6\x9c\xac"),
        ("🦊", b"\xf0\x9f\xa6\x8a"),
    ],
)
def test_the_id_is_the_digest_of_the_canonical_json(content: str, canonical: bytes) -> None:
    """The canonical form (RFC 8785) is written out here byte by byte."""
    assert content_id([Turn("user", content)]) == sha32(b'[["user","' + canonical + b'"]]')


def test_the_id_of_several_turns() -> None:
    canonical = (
        '[["system","Sei knapp."],["user","Wie spät?"],["assistant","12"],["tool","{\\"t\\":12}"]]'
    )
    spoken = turns("s: Sei knapp.", "u: Wie spät?", "a: 12", 't: {"t":12}')
    assert content_id(spoken) == sha32(canonical.encode())
    assert Conversation(spoken).id == content_id(spoken)


def test_a_known_digest() -> None:
    """`printf '[["user","Hello"],["assistant","Hi"]]' | sha256sum`, so that neither side of the
    test is ours.
    """
    assert content_id(turns("u: Hello", "a: Hi")) == "7126fbebc83a3065e4ebdc8810630d85"


def test_only_the_text_makes_the_id() -> None:
    exchange = turns("u: q", "a: r")
    first = Conversation(exchange, SourceRow("a.jsonl", 1), {"n": 1})
    assert first.id == Conversation(exchange, SourceRow("b.csv", 9)).id
    others = [
        turns("u: q", "a: r "),
        turns("u: q", "t: r"),
        turns("u: q"),
        turns("a: r", "u: q"),
        turns("u: qa", "a: r"),
    ]
    assert len({Conversation(different).id for different in [exchange, *others]}) == 6


@given(
    st.lists(
        st.tuples(st.sampled_from(ROLES), st.text(st.characters(exclude_categories=["Cs"]))),
        min_size=1,
        max_size=4,
    )
)
def test_every_text_has_a_reproducible_id(messages: list[tuple[Any, str]]) -> None:
    conversation = Conversation(tuple(Turn(role, content) for role, content in messages))
    assert len(conversation.id) == 32
    assert int(conversation.id, 16) >= 0
    assert Conversation(conversation.turns).id == conversation.id


@pytest.mark.parametrize(
    ("lines", "pairs"),
    [
        (["u: q", "a: r"], [("q", "r")]),
        (["s: be brief", "u: q", "a: r"], [("q", "r")]),
        (["u: 1", "a: 2", "u: 3", "a: 4"], [("1", "2"), ("3", "4")]),
        (["u: 1", "u: 2", "a: 3"], [("1", ""), ("2", "3")]),
        (["u: 1", "u: 2", "u: 3"], [("1", ""), ("2", ""), ("3", "")]),
        (
            ["u: 1", "a: 2", "a: 3", "u: 4", "a: 5"],
            [("1", "2"), ("4", "5")],
        ),  # of two answers in a row, the first
        (["a: hello", "u: 1", "a: 2"], [("1", "2")]),
        (["a: hello"], []),
        (["s: only"], []),
        (["u: 1", "a: 2", "u: 3"], [("1", "2"), ("3", "")]),
        (["u: 1"], [("1", "")]),
        (["u: 1", "t: 21 C", "a: 2"], [("1", "2")]),
        (["u: 1", "a: call", "t: 21 C", "a: 2", "u: 3", "a: 4"], [("1", "call"), ("3", "4")]),
        (["u: 1", "t: late", "u: 2", "a: 3"], [("1", ""), ("2", "3")]),
        (["u: 1", "s: between", "a: 2"], [("1", "2")]),
        (["u: 1", "a: 2", "s: end"], [("1", "2")]),
        (["t: first", "u: 1", "a: 2"], [("1", "2")]),
        (["u: ", "a: r"], [("", "r")]),  # an empty text is a text: the turn counts
        (["u: q", "a: ", "a: r"], [("q", "")]),
    ],
)
def test_pairs_go_by_role(lines: list[str], pairs: list[tuple[str, str]]) -> None:
    assert Conversation(turns(*lines)).pairs == [Pair(*pair) for pair in pairs]


@given(st.lists(st.sampled_from("suat"), min_size=1, max_size=8))
def test_one_pair_per_user_turn(roles: list[str]) -> None:
    """The instructions are the user turns, in order; a response is a later assistant turn or ""."""
    conversation = Conversation(turns(*(f"{role}: {role}{i}" for i, role in enumerate(roles))))
    pairs = conversation.pairs
    user_texts = [turn.content for turn in conversation.turns if turn.role == "user"]
    assert [pair.instruction for pair in pairs] == user_texts
    for instruction, response in pairs:
        after = roles[int(instruction[1:]) + 1 :]
        until = after[: after.index("u")] if "u" in after else after
        expected = f"a{int(instruction[1:]) + 1 + until.index('a')}" if "a" in until else ""
        assert response == expected


def test_wrong_records_are_refused() -> None:
    with pytest.raises(
        ValueError, match="role 'human': expected one of system, user, assistant, tool"
    ):
        Turn("human", "q")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="content of type int: expected str"):
        Turn("user", 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without turns"):
        Conversation(())


def test_records_are_frozen() -> None:
    conversation = Conversation(turns("u: q"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        conversation.id = "other"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        conversation.turns[0].content = "other"  # type: ignore[misc]


def test_turns_are_kept_as_a_tuple() -> None:
    given_list = list(turns("u: q", "a: r"))
    conversation = Conversation(given_list)  # type: ignore[arg-type]
    given_list.clear()
    assert conversation.turns == turns("u: q", "a: r")
    assert conversation.source == NOWHERE


@pytest.mark.parametrize(
    ("values", "truncated"),
    [
        (np.zeros(3, np.float64), np.zeros(3, np.int32)),
        (np.zeros(3, np.float32), np.zeros(2, np.int32)),
        (np.zeros((3, 4), np.float32), np.zeros((3, 4), np.int32)),
    ],
)
def test_values_and_truncated_tokens_belong_together(values: Any, truncated: Any) -> None:
    with pytest.raises(
        ValueError, match="float32 values and one count of truncated tokens per row"
    ):
        ModelOutput(values, truncated)


def test_the_order_of_kinds_and_decisions() -> None:
    """Results list them in this order."""
    assert SCORE_KINDS == ("complexity", "quality")
    assert DECISIONS == (
        "selected",
        "too_similar",
        "below_budget",
        "duplicate",
        "quarantined",
        "unscorable",
    )


def test_an_empty_selection() -> None:
    assert SelectorResult([], []).kept == []
