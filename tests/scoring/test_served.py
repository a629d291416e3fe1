"""Answers of a server are paid for: who is at fault when one does not come, and what is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tenacity import RetryCallState

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.errors import ModelError, ServerError, ServerUnreachable
from deita_tasks.models.stopping import stopped_by
from deita_tasks.scoring import Scorer, load_scorer
from deita_tasks.scoring.served import PROBE_PAIR
from tests.support.completions_server import Script, serving
from tests.support.hostile_server import closed_port

Body = dict[str, Any]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of each attempt that was followed by a pause."""
    attempts: list[int] = []

    def pause(state: RetryCallState) -> float:
        attempts.append(state.attempt_number)
        return 0.01

    monkeypatch.setattr("deita_tasks.scoring.http_client._growing_pause", pause)
    return attempts


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, pauses: list[int]) -> Iterator[Script]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(Script()) as script:
        script.replies = ["4"]
        yield script


def judge(server: Script, **options: object) -> Scorer:
    given = {"model": "m", "base_url": server.url, "attempts": 3, "concurrency": 1, **options}
    return load_scorer("judge", kind="quality", **given)


def text_of(body: Body) -> str:
    text: str = body["messages"][1]["content"]
    return text


def is_probe(body: Body) -> bool:
    return PROBE_PAIR[0] in text_of(body)


def requests(server: Script, text: str) -> int:
    return sum(text in text_of(body) for body in server.bodies)


def pairs(number: int) -> list[tuple[str, str]]:
    return [(f"Question {position}.", "Yes.") for position in range(number)]


def rows(number: int) -> list[Conversation]:
    """Conversations of one pair; every third has two."""
    made = []
    for position, (question, answer) in enumerate(pairs(number)):
        turns = [Turn("user", question), Turn("assistant", answer)]
        if position % 3 == 2:
            turns += [Turn("user", f"And {position}?"), Turn("assistant", "Also.")]
        made.append(Conversation(tuple(turns)))
    return made


# ---- who is at fault


@pytest.mark.parametrize("fault", [(500, {}), (403, {}), (402, {}), "drop", "html", "hang"])
def test_a_text_that_gets_no_answer_is_a_problem_and_the_others_are_paid_once(
    server: Script, fault: Any
) -> None:
    server.fault_of = lambda body: fault if "Question 3." in text_of(body) else None
    server.hang_seconds = 3
    timeout = 1 if fault == "hang" else 30
    output = judge(server, concurrency=4, timeout=timeout).compute(pairs(10))
    assert list(output.problems) == [3]
    assert output.problems[3].startswith("the server answers a short pair, but not this one: ")
    assert [requests(server, question) for question, _ in pairs(10) if "3" not in question] == [
        1
    ] * 9
    is_final = isinstance(fault, tuple) and fault[0] < 500
    assert is_final or "one: no answer in 3 attempts, at last " in output.problems[3]
    assert "run again" not in output.problems[3]
    assert requests(server, "Question 3.") == (2 if is_final else 4)
    assert requests(server, PROBE_PAIR[0]) == 2


def test_a_server_that_comes_back_at_the_last_moment_blames_no_pair(server: Script) -> None:
    server.faults = [None, *[(500, {})] * 3]
    output = judge(server).compute(pairs(3))
    assert not output.problems
    assert output.values.tolist() == [4, 4, 4]


def test_a_server_that_fails_for_good_is_at_fault(server: Script) -> None:
    server.faults = [None] * 4
    server.fault_of = lambda body: (500, {})
    scorer = judge(server)
    with pytest.raises(ServerError, match="no answer in 3 attempts"):
        scorer.compute(pairs(50))
    assert len(server.bodies) == 4 + 2 * 3  # three attempts at a pair and at the probe
    with pytest.raises(ServerError):
        scorer.compute(pairs(50))
    assert len(server.bodies) == 4 + 3 * 3  # the next shard begins with the probe


def test_a_server_that_answers_the_probe_alone_is_at_fault(server: Script) -> None:
    server.fault_of = lambda body: None if is_probe(body) else (500, {})
    finished = []
    with pytest.raises(ServerError, match="answers a short pair, but not 5 others in a row"):
        for piece in judge(server).iterate_rows(rows(30)):
            finished.append(piece)
    assert finished == []
    assert len(server.bodies) <= 1 + 6 * (3 + 1 + 1)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_key_or_an_account_that_ends_is_no_row_s_fault(server: Script, status: int) -> None:
    server.faults = [None] * 4
    server.fault_of = lambda body: (status, {})
    finished = []
    with pytest.raises(ModelError, match=f"status {status}"):
        for piece in judge(server).iterate_rows(rows(30)):
            finished.append(piece)
    assert [list(piece.positions) for piece in finished] == [[0], [1]]
    assert not any(piece.scores.pairs.problems for piece in finished)
    assert len(server.bodies) == 6


def test_too_many_requests_are_no_row_s_fault(server: Script) -> None:
    server.fault_of = lambda body: (429, {}) if "Question 3." in text_of(body) else None
    with pytest.raises(ServerError, match=r"status 429.*lower the concurrency"):
        judge(server).compute(pairs(5))


# ---- answers as they come


def test_a_conversation_is_handed_out_before_the_next_is_answered(server: Script) -> None:
    gates = {f"Question {row}.": threading.Event() for row in range(4)}
    gates["Question 0."].set()

    def reply(messages: list[Any]) -> str:
        for question, gate in gates.items():
            if question in messages[1]["content"]:
                assert gate.wait(20)
        return "4"

    server.replies = [reply]
    positions = []
    for piece in judge(server).iterate_rows(rows(4)):
        positions += piece.positions
        gates[f"Question {min(positions[-1] + 1, 3)}."].set()
    assert positions == [0, 1, 2, 3]


def test_paid_answers_are_handed_out_before_the_error(server: Script) -> None:
    server.fault_of = lambda body: (500, {}) if len(server.bodies) > 7 else None
    scores = {}
    with pytest.raises(ServerError):
        for piece in judge(server).iterate_rows(rows(30)):
            scores[piece.positions[0]] = piece.scores.pairs.values.tolist()
    # the probe, and six pairs: a row of two, at 2, and of the row at 5 only the first
    assert scores == {0: [4], 1: [4], 2: [4, 4], 3: [4], 4: [4]}


def test_an_answer_under_way_when_the_work_is_stopped_is_handed_out(server: Script) -> None:
    asked = threading.Event()

    def reply(messages: list[Any]) -> str:
        if "Question" in messages[1]["content"]:
            asked.set()
            time.sleep(1.5)
        return "4"

    def stop() -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    server.replies = [reply]
    finished: list[int] = []
    with pytest.raises(KeyboardInterrupt), stopped_by(stop):
        for piece in judge(server, concurrency=3).iterate_rows(rows(9)):
            finished += piece.positions
    assert sorted(finished) == [0, 1]
    assert len(server.bodies) == 4  # the probe, and three under way: the third is half a row


def test_closing_the_iterator_stops_the_requests(server: Script) -> None:
    pieces = judge(server).iterate_rows(rows(200))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    asked = len(server.bodies)
    time.sleep(0.2)
    assert len(server.bodies) == asked < 200


# ---- a server that is not there


def test_a_closed_port_is_told_within_seconds(server: Script, pauses: list[int]) -> None:
    url = closed_port()
    with pytest.raises(ServerUnreachable, match=rf"{url}.*cannot connect \(ConnectionRefusedError"):
        judge(server, base_url=url, attempts=6).compute(pairs(9))
    assert pauses == [1, 2, 3]


def test_a_name_without_an_address_is_told_within_seconds(
    server: Script, pauses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ServerUnreachable, match="cannot connect"):
        judge(server, base_url="http://no-such-host.invalid/v1", attempts=6).compute(pairs(1))
    assert pauses == [1, 2, 3]


def test_a_server_that_has_answered_is_waited_for(pauses: list[int]) -> None:
    with serving(Script()) as script:
        script.replies = ["4"]
        scorer = judge(script, attempts=6)
        scorer.compute(pairs(1))
        scorer.release()  # the connections
    pauses.clear()
    with pytest.raises(ServerError) as caught:
        scorer.compute(pairs(1))
    assert not isinstance(caught.value, ServerUnreachable)
    assert pauses == [1, 2, 3, 4, 5, 6] * 2  # the pair, then the probe
