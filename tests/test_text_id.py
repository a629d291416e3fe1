"""The text id: what the store keeps scores and vectors by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.conversations import ROLES, Conversation, Pair, Turn, content_id

NAMES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
CALL = {"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}


def conversation(*lines: str) -> Conversation:
    """conversation("u: hello", "a: hi")."""
    return Conversation(tuple(Turn(NAMES[line[0]], line[3:]) for line in lines))  # type: ignore[arg-type]


def early_pairs(turns: Sequence[Turn]) -> list[Pair]:
    """The pairs that early versions scored: each user turn, and the first answer to it or ""."""
    pairs: list[Pair] = []
    instruction = None
    for turn in turns:
        if turn.role == "user":
            if instruction is not None:
                pairs.append(Pair(instruction, ""))
            instruction = turn.content
        elif turn.role == "assistant" and instruction is not None:
            pairs.append(Pair(instruction, turn.content))
            instruction = None
    return pairs if instruction is None else [*pairs, Pair(instruction, "")]


@pytest.mark.parametrize(
    "lines",
    [
        ("u: hello", "a: hi"),
        ("s: be brief", "a: welcome", "u: hello", "a: hi", "u: ", "a: bye"),
        ("u: hello", "t: 12:00", "a: noon"),
    ],
)
def test_a_plain_conversation_has_one_id(lines: tuple[str, ...]) -> None:
    plain = conversation(*lines)
    assert plain.text_id == plain.id == content_id(plain.turns)


@pytest.mark.parametrize(
    "lines",
    [
        ("u: hello", "a: hi", "u: and then?"),  # its last turn scored with an empty response
        ("u: hello", "u: there", "a: hi"),  # scored as two
        ("u: hello", "a: hi", "a: again"),  # the second answer was left out
        ("u: hello", "a:   ", "u: hello", "a: hi"),
    ],
)
def test_what_early_versions_cut_otherwise_has_a_text_id_of_its_own(lines: tuple[str, ...]) -> None:
    odd = conversation(*lines)
    assert odd.text_id != odd.id
    assert odd.pairs != early_pairs(odd.turns)


def test_what_no_component_reads_changes_the_id_alone() -> None:
    for plain in (conversation("u: hello", "a: hi"), conversation("u: hello", "u: you", "a: hi")):
        user, *others = plain.turns
        rows = [
            Conversation(plain.turns, tools=[{"name": "f"}]),
            Conversation(plain.turns, extra={"image": "a.png"}),
            Conversation((replace(user, fields={"name": "Ann", "weight": 1}), *others)),
            plain,
        ]
        assert {row.text_id for row in rows} == {plain.text_id}
        assert len({row.id for row in rows}) == 4


def test_calls_are_part_of_the_text_however_they_are_written() -> None:
    asked, said = Turn("user", "Now?"), Turn("assistant", "Let me see.")
    calling = Conversation((asked, replace(said, fields=CALL)))
    written = Conversation((asked, replace(said, content=calling.turns[1].text)))
    openai = {"tool_calls": [{"id": "7", "function": {"name": "f", "arguments": '{"x": 1}'}}]}
    assert calling.turns[1].text == written.turns[1].text
    # their scores differ: the spoken words are the response
    assert len({Conversation((asked, said)).text_id, calling.text_id, written.text_id}) == 3
    assert Conversation((asked, replace(said, fields=openai))).text_id == calling.text_id


TURNS = st.builds(
    Turn,
    st.sampled_from(ROLES),
    st.sampled_from(["", " ", "a", "b", '{"name": "f", "arguments": {"x": 1}}']),
    st.sampled_from([{}, {}, {}, CALL, {"function_call": {"name": "g"}}, {"name": "Ann"}]),
)
CONVERSATIONS = st.lists(TURNS, min_size=1, max_size=5).map(
    lambda turns: Conversation(tuple(turns))
)


@given(CONVERSATIONS)
def test_the_pairs_of_a_plain_id_are_those_of_early_versions(row: Conversation) -> None:
    """A list of scores under the id of a text is one of `pairs`, whichever version wrote it."""
    early_id = content_id([Turn(turn.role, turn.content) for turn in row.turns])
    if row.text_id == early_id:
        assert row.pairs == early_pairs(row.turns)
        assert [turn.text for turn in row.turns] == [turn.content for turn in row.turns]


@given(st.lists(CONVERSATIONS, min_size=2, max_size=12))
def test_the_text_id_names_all_that_components_read(rows: list[Conversation]) -> None:
    read = [[(turn.role, turn.content, turn.text) for turn in row.turns] for row in rows]
    for row, parts in zip(rows, read, strict=True):
        for other, other_parts in zip(rows, read, strict=True):
            assert (row.text_id == other.text_id) == (parts == other_parts)
            if row.text_id == other.text_id:
                assert row.pairs == other.pairs
