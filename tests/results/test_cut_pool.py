"""Long rows are cut at a turn: the longest beginning that fits, in the layout that it came in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.artifacts.exclusions import EXCLUDED_FILE, EXCLUSIONS, write_window
from deita_tasks.artifacts.part_tables import token_table
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.conversations import Conversation, Quarantined, SourceRow, Turn
from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from deita_tasks.loading import read_conversations
from deita_tasks.models.token_counter import RowTokens, TokenCounter
from deita_tasks.results.cut_pool import TurnCutter, write_cut_pool
from deita_tasks.words import count_words

BAD = Quarantined(SourceRow("pool.jsonl", 99), "no_user_turn", "the roles are assistant", "{}")


class WordCounter(TokenCounter):
    """A token is a word; a template that cannot show the word `hidden`."""

    model: str = "words"

    def count(self, conversations: Sequence[Conversation]) -> list[RowTokens | str]:
        counts: list[RowTokens | str] = []
        for row in conversations:
            if any("hidden" in turn.content for turn in row.turns):
                counts.append("no")
                continue
            words = [count_words(turn.content) for turn in row.turns]
            counts.append(RowTokens(sum(words), words[0]))
        return counts


def talk(*turns: str, line: int = 1) -> Conversation:
    """Turns of user and assistant in turn; each is as many words as it has letters."""
    roles = ("user", "assistant")
    said = [Turn(roles[n % 2], " ".join(text)) for n, text in enumerate(turns)]  # type: ignore[arg-type]
    return Conversation(tuple(said), SourceRow("pool.jsonl", line))


def cut(folder: Path, rows: Sequence[Conversation | Quarantined], window: int) -> Pool:
    whole = str(folder / "pools" / "whole")
    write_pool(whole, rows, [])
    pool = Pool.open(whole)
    write_cut_pool(str(folder / "pools" / "cut"), pool, counted(folder, pool), counter(), window)
    return Pool.open(str(folder / "pools" / "cut"))


def counter() -> WordCounter:
    return WordCounter()


def counted(folder: Path, pool: Pool) -> StageParts:
    ids, positions = pool.distinct
    rows = [row for _, row in pool.read(positions)]
    part_set = PartSet.create(str(folder), "tokens", {"backend": "words"})
    table = token_table(ids.to_pylist(), counter().count(rows))
    return StageParts(part_set=part_set, digests=[part_set.write(ids_digest(ids), [table])])


def conversations(pool: Pool) -> list[Conversation]:
    return [row for _, row in pool.read(range(pool.summary.good))]


def test_the_longest_beginning_that_ends_with_an_answer(tmp_path: Path) -> None:
    """Of 2 + 3 + 2 + 3 + 4 + 1 words, 14 hold the third question too, but not its answer."""
    row = talk("ab", "abc", "de", "def", "abcd", "x")
    short = talk("a", "b", line=2)
    pool = cut(tmp_path, [row, BAD, short], 14)
    first, second = conversations(pool)
    assert first.turns == row.turns[:4]
    assert first.id == talk("ab", "abc", "de", "def").id != row.id
    assert first.source == row.source
    assert second == short
    assert pool.cuts.to_pylist() == [{"position": 0, "whole_id": row.id, "cut_turns": 2}]
    assert pool.summary.whole == "whole"
    assert pool.quarantine().to_pylist()[0]["reason"] == "no_user_turn"
    assert pool.is_intact()


def test_a_row_that_cannot_be_cut_is_too_long(tmp_path: Path) -> None:
    """The first answer ends after 7 words; the window is 6, and its first word lies within."""
    row = talk("ab", "abcde", "f", "g")
    fits = talk("abc", "def", line=2)
    pool = cut(tmp_path, [row, fits], 6)
    assert conversations(pool) == [row, fits]
    assert pool.cuts.num_rows == 0
    uri = str(tmp_path / "exclusions" / "x")
    summary = write_window(uri, pool, counted(tmp_path, pool), 6, are_cut=True)
    (told,) = summary.read(EXCLUDED_FILE, EXCLUSIONS).to_pylist()
    assert (told["id"], told["decision"]) == (row.id, "too_long")
    assert told["reason"] == (
        "it has 9 tokens, and no beginning of whole turns with an answer at its end fits the "
        "training window of 6"
    )
    kept = write_window(uri, pool, counted(tmp_path, pool), 6)
    assert kept.counts == {}, "without the cut, what lies within the window is trained on"


def test_two_rows_with_the_same_beginning_are_duplicates(tmp_path: Path) -> None:
    pool = cut(tmp_path, [talk("a", "b", "cdef", "g"), talk("a", "b", "hijk", "l", line=2)], 4)
    ids, _ = pool.distinct
    assert ids.to_pylist() == [talk("a", "b").id]
    assert pool.cuts.num_rows == 2


def test_images_in_a_column_stay_whole(tmp_path: Path) -> None:
    row = talk("a", "b", "cdef", "g")
    shown = Conversation(row.turns, row.source, {"images": ["a.png"]})
    assert conversations(cut(tmp_path, [shown], 4)) == [shown]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8),
    st.integers(1, 20),
)
@settings(max_examples=60, deadline=None)
def test_the_cut_is_the_longest_of_all(turns: list[tuple[int, bool]], window: int) -> None:
    """Compared with every beginning; also where the template cannot show a longer one."""
    texts = [("hidden " if is_hidden else "") + "w " * words for words, is_hidden in turns]
    roles = ("user", "assistant")
    said = [Turn(roles[n % 2], text) for n, text in enumerate(texts)]  # type: ignore[arg-type]
    whole = Conversation(tuple(said))
    fitting = []
    for end in range(2, len(said), 2):
        part = said[:end]
        is_shown = not any("hidden" in turn.content for turn in part)
        if is_shown and sum(count_words(turn.content) for turn in part) <= window:
            fitting.append(end)
    found = TurnCutter(counter(), window).cut(whole)
    assert (0 if found is None else len(found.turns)) == max(fitting, default=0)


ROWS: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c d e f"},
            {"role": "assistant", "content": "g"},
        ],
        "source": "x",
    },
    "sharegpt": {
        "id": 7,
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c d e f"},
            {"from": "gpt", "value": "g"},
        ],
        "system": "s",
    },
    "alpaca": {
        "instruction": "c d",
        "input": "e f",
        "output": "g",
        "history": [["a", "b"]],
        "n": 1,
    },
}
CUT: dict[str, dict[str, Any]] = {
    "messages": {"messages": ROWS["messages"]["messages"][:2], "source": "x"},
    "sharegpt": {**ROWS["sharegpt"], "conversations": ROWS["sharegpt"]["conversations"][:2]},
    "alpaca": {"instruction": "a", "input": "", "output": "b", "history": [], "n": 1},
}


@pytest.mark.parametrize("name", ROWS)
def test_the_row_is_cut_in_its_own_layout(name: str, tmp_path: Path) -> None:
    (row,) = read_conversations([ROWS[name]])
    assert isinstance(row, Conversation)
    (shorter,) = conversations(cut(tmp_path, [row], 4))
    assert list(shorter.row.items()) == list(CUT[name].items())
    (path,) = load_exporter("input").export([ExportRow(shorter, 1.0, 1, 2)], tmp_path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written.pop("deita_cut_turns") == 2
    assert written.pop("deita_id") == shorter.id
    assert {name: written[name] for name in CUT[name]} == CUT[name]


def test_a_text_column_of_turns_stays_one(tmp_path: Path) -> None:
    messages = ROWS["messages"]["messages"]
    (row,) = read_conversations([{"messages": json.dumps(messages)}])
    assert isinstance(row, Conversation)
    (shorter,) = conversations(cut(tmp_path, [row], 4))
    assert json.loads(str(shorter.row["messages"])) == messages[:2]


def test_a_layout_that_cannot_be_cut_gives_messages(tmp_path: Path) -> None:
    messages = ROWS["messages"]["messages"]
    (row,) = read_conversations([{"prompt": messages[:3], "completion": messages[3:], "n": 1}])
    assert isinstance(row, Conversation)
    (shorter,) = conversations(cut(tmp_path, [row], 4))
    assert shorter.row == {}
    (path,) = load_exporter("input").export([ExportRow(shorter, 1.0, 1, 2)], tmp_path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert (written["messages"], written["n"]) == (messages[:2], 1)
