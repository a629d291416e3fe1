"""The records: ids depend on what a model is shown, exchanges go by role, constructors check."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deita_tasks.conversations import (
    NOWHERE,
    ROLES,
    Conversation,
    Pair,
    SourceRow,
    Turn,
    content_id,
)
from deita_tasks.decisions import DECISIONS
from deita_tasks.records import SCORE_KINDS, ModelOutput, SelectorResult

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


@settings(suppress_health_check=[HealthCheck.too_slow])
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
        (["u: 1", "u: 2", "a: 3"], [("1\n\n2", "3")]),
        (["u: 1", "u: 2", "u: 3"], []),
        (["u: 1", "a: 2", "a: 3", "u: 4", "a: 5"], [("1", "2\n\n3"), ("4", "5")]),
        (["a: hello", "u: 1", "a: 2"], [("1", "2")]),
        (["a: hello"], []),
        (["s: only"], []),
        (["u: 1", "a: 2", "u: 3"], [("1", "2")]),
        (["u: 1"], []),
        (["u: 1", "t: 21 C", "a: 2"], [("1", "2")]),
        (["u: 1", "a: call", "t: 21 C", "a: 2", "u: 3", "a: 4"], [("1", "call\n\n2"), ("3", "4")]),
        (["u: 1", "t: late", "u: 2", "a: 3"], [("2", "3")]),
        (["u: 1", "s: between", "a: 2"], [("1", "2")]),
        (["u: 1", "a: 2", "s: end"], [("1", "2")]),
        (["t: first", "u: 1", "a: 2"], [("1", "2")]),
        (["u: ", "a: r"], [("", "r")]),  # an answer makes an exchange
        (["u: q", "a: ", "a: r"], [("q", "r")]),
        (["u: q", "a:  \n"], []),  # blank text is no answer
        (["u: q", "a:  r \n"], [("q", " r \n")]),  # exactly as it is
    ],
)
def test_exchanges_go_by_role(lines: list[str], pairs: list[tuple[str, str]]) -> None:
    conversation = Conversation(turns(*lines))
    assert conversation.pairs == [Pair(*pair) for pair in pairs]


def test_unanswered_exchanges_are_counted() -> None:
    conversation = Conversation(turns("u: 1", "t: late", "u: 2", "a: 3", "u: 4", "u: 5"))
    assert conversation.pairs == [Pair("2", "3")]
    assert conversation.unanswered == 2


CALL = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [{"id": "1", "type": "function", "function": CALL}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"tool_calls": [CALL]},
        {"tool_calls": '[{"name": "f", "arguments": {"x": 1}}]'},
        {"function_call": {"name": "f", "arguments": '{"x": 1}'}},
        {"function_call": '{"name": "f", "arguments": {"x": 1}}'},
    ],
)
def test_calls_are_the_response_where_the_assistant_says_nothing(fields: Any) -> None:
    call = '{"name": "f", "arguments": {"x": 1}}'
    silent = Conversation((Turn("user", "q"), Turn("assistant", "", fields)))
    assert silent.pairs == [Pair("q", call)]
    assert [turn.text for turn in silent.turns] == ["q", call]
    speaking = Conversation((*silent.turns, Turn("tool", "21 C"), Turn("assistant", "Warm.")))
    assert speaking.pairs == [Pair("q", "Warm.")]


def test_calls_of_one_id_are_one_text() -> None:
    """Or the score of a row would depend on which of two equal rows comes first."""
    calls = [{"name": "f", "arguments": {"x": 1, "y": {"b": 1, "a": 2}}}]
    swapped = [{"arguments": {"y": {"a": 2, "b": 1}, "x": 1}, "name": "f"}]
    rows = [
        Conversation((Turn("user", "q"), Turn("assistant", "", {"tool_calls": each})))
        for each in (calls, swapped)
    ]
    assert rows[0].id == rows[1].id
    assert rows[0].pairs == rows[1].pairs


def test_several_calls_are_parted_by_blank_lines() -> None:
    fields = {"tool_calls": [CALL, {**CALL, "name": "g"}], "function_call": "h()"}
    conversation = Conversation((Turn("user", "q"), Turn("assistant", "", fields)))
    expected = '{"name": "f", "arguments": {"x": 1}}\n\n{"name": "g", "arguments": {"x": 1}}\n\nh()'
    assert conversation.pairs == [Pair("q", expected)]


def test_the_id_covers_all_that_a_model_is_shown() -> None:
    """The canonical form of turns with fields, of tools and of media, written out."""
    conversation = Conversation(
        (Turn("user", "q"), Turn("assistant", "", {"tool_calls": [CALL], "weight": 0})),
        extra={"images": ["x.png"], "n": 1},
        tools='[{"name": "f"}]',
    )
    canonical = (
        '[["user","q"],'
        '["assistant","",{"tool_calls":[{"arguments":{"x":1},"name":"f"}]}],'
        '["tools",[{"name":"f"}]],["media",["image",["x.png"]]]]'
    )
    assert conversation.id == sha32(canonical.encode())
    assert conversation.media == 1


@given(st.lists(st.sampled_from("suat"), min_size=1, max_size=8))
def test_every_text_after_a_user_turn_is_in_one_exchange(roles: list[str]) -> None:
    conversation = Conversation(turns(*(f"{role}: {role}{i}" for i, role in enumerate(roles))))
    exchanges = len(conversation.pairs) + conversation.unanswered
    starts = [i for i, role in enumerate(roles) if role == "u" and roles[i - 1 : i] != ["u"]]
    assert exchanges == len(starts)
    said = {text for pair in conversation.pairs for part in pair for text in part.split("\n\n")}
    ends = [*starts[1:], len(roles)] if starts else []
    for start, end in zip(starts, ends, strict=True):
        texts = {f"{roles[i]}{i}" for i in range(start, end) if roles[i] in "ua"}
        assert (texts <= said) == ("a" in roles[start:end])


def test_wrong_records_are_refused() -> None:
    with pytest.raises(
        ValueError, match="role 'human': expected one of system, developer, user, assistant, tool"
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
        "stratum_full",
        "duplicate",
        "quarantined",
        "unscorable",
        "contaminated",
        "too_long",
    )


def test_an_empty_selection() -> None:
    assert SelectorResult([], []).kept == []
