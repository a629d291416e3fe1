"""Servers that answer slowly, endlessly or with too much: no request takes more than its time, and
no answer more than its memory.
"""

from __future__ import annotations

import gzip
import json
import re
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import repeat

import pytest

from deita_tasks.errors import DeitaError, ModelError, ServerError
from deita_tasks.models.stopping import stopped_by
from deita_tasks.scoring import Scorer, load_scorer
from deita_tasks.scoring.judge import parse_rating
from deita_tasks.scoring.served import PROBE_PAIR
from tests.support.hostile_server import OK, Answer, HostileServer, gzip_bomb, hostile_server, whole

PAIR = ("Sort it.", "Yes.")
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MEGABYTE = 2**20


def judge(server: HostileServer, **options: object) -> Scorer:
    given = {"model": "m", "base_url": server.url, "attempts": 1, "timeout": 30, **options}
    return load_scorer("judge", kind="quality", **given)


def chat(content: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def always(body: bytes, headers: dict[str, str], _: str) -> Iterator[bytes]:
    return whole(body, headers)


def slowly(first: bytes, piece: bytes) -> Iterator[bytes]:
    """`first`, then a piece every tenth of a second for a minute."""
    yield first
    for _ in range(600):
        time.sleep(0.1)
        yield piece


def failure(answer: Answer, **options: object) -> tuple[DeitaError, HostileServer]:
    """The error of a scorer whose server answers with `answer`, and the server afterwards."""
    with hostile_server(answer) as server, pytest.raises((ModelError, ServerError)) as caught:
        judge(server, **options).score([PAIR])
    return caught.value, server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("deita_tasks.scoring.http_client._growing_pause", lambda state: 0.01)


# ---- time


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (OK + b"Content-Length: 5000\r\n\r\n", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED, b"1"),
        (OK + b"X-Slow: ", b"x"),
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 5000\r\n\r\n", b" "),
    ],
    ids=["body", "chunks", "chunk size", "header", "status line", "continue", "error body"],
)
def test_a_request_takes_no_longer_than_its_timeout(first: bytes, piece: bytes) -> None:
    begin = time.monotonic()
    error, _ = failure(lambda _: slowly(first, piece), timeout=1)
    assert isinstance(error, ServerError)
    assert time.monotonic() - begin < 5


def test_a_request_under_way_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deita_tasks.scoring.bounded_http.GRACE", 0.1)

    def stop() -> None:
        raise KeyboardInterrupt

    with hostile_server(lambda _: slowly(CHUNKED, b"1")) as server:
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt), stopped_by(stop):
            judge(server).score([PAIR])
        assert time.monotonic() - begin < 5


# ---- size


def endless(_: str) -> Iterator[bytes]:
    yield CHUNKED
    for _ in range(2000):
        yield b"%x\r\n%s\r\n" % (MEGABYTE, b" " * MEGABYTE)


def test_an_endless_answer_is_left_unread() -> None:
    error, server = failure(endless)
    assert isinstance(error, ModelError)
    assert "more than 1,000,000 bytes" in str(error)
    assert server.sent < 30 * MEGABYTE  # what the buffers between the two take


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Oops"])
def test_a_small_answer_that_decodes_to_a_large_one_takes_no_memory(status: str) -> None:
    bomb = gzip_bomb(300)
    assert len(bomb) < MEGABYTE
    headers = {"Content-Encoding": "gzip"}
    tracemalloc.start()
    try:
        failure(lambda _: whole(bomb, headers, status))
        assert tracemalloc.get_traced_memory()[1] < 20 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_an_answer_in_gzip_is_read_and_another_encoding_is_not() -> None:
    packed = gzip.compress(chat("3"))
    with hostile_server(lambda _: whole(packed, {"Content-Encoding": "gzip"})) as server:
        assert judge(server).score([PAIR]).tolist() == [3.0]
    for body, encoding, reason in (
        (chat("3"), "br", "encoding 'br'"),
        (chat("3"), "gzip", "not gzip"),
        (packed[:-20], "gzip", "not JSON"),
    ):
        error, _ = failure(partial(always, body, {"Content-Encoding": encoding}))
        assert isinstance(error, ServerError) and reason in str(error)


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Oops"])
def test_an_error_says_the_beginning_of_a_long_body(status: str) -> None:
    body = b"too long a story " * MEGABYTE
    error, _ = failure(lambda _: whole(body, status=status))
    assert re.search(r"too long a story.*…", str(error))
    assert len(str(error)) < 600


def test_too_long_an_answer_is_one_pair_s_problem() -> None:
    def answer(body: str) -> Iterator[bytes]:
        return whole(chat("3" + " " * 2 * MEGABYTE * ("crash" in body)))

    with hostile_server(answer) as server:
        output = judge(server).compute([PAIR, ("crash", "y"), PAIR])
    assert output.values[[0, 2]].tolist() == [3, 3]
    assert "more than 1,000,000 bytes; expected a short JSON" in output.problems[1]


def test_endless_headers_are_an_error() -> None:
    def flood(_: str) -> Iterator[bytes]:
        yield OK
        yield from repeat(b"X-Flood: 1\r\n", 10**6)

    error, server = failure(flood, timeout=5)
    assert isinstance(error, ServerError)
    assert server.sent < 20 * MEGABYTE


def test_a_redirect_is_not_followed() -> None:
    def answer(_: str) -> Iterator[bytes]:
        return whole(b"", {"Location": "/v1/chat/completions"}, "308 Permanent Redirect")

    error, server = failure(answer, attempts=6)
    assert "status 308" in str(error)
    assert server.requests == 1


# ---- what is in it


def test_nested_brackets_are_no_json() -> None:
    error, _ = failure(lambda _: whole(b"[" * 500_000))
    assert isinstance(error, ServerError) and "not JSON" in str(error)


@pytest.mark.parametrize("status", ["400 Bad Request", "200 OK"])
def test_a_problem_is_text_that_a_file_can_hold_and_a_terminal_show(status: str) -> None:
    hostile = "\ud800 \x1b[2J\x00 no"

    def answer(body: str) -> Iterator[bytes]:
        if PROBE_PAIR[0] in body:
            return whole(chat("3"))
        content = {"error": hostile} if status.startswith("400") else json.loads(chat(hostile))
        return whole(json.dumps(content).encode(), status=status)

    with hostile_server(answer) as server:
        problem = judge(server).compute([PAIR]).problems[0]
    assert problem.isprintable()
    assert problem.encode().count(b"no")


def test_a_long_reply_is_no_rating_and_takes_no_time() -> None:
    begin = time.monotonic()
    assert parse_rating(" " * 500_000 + "x") is None
    assert time.monotonic() - begin < 1


def test_a_key_with_a_line_end_is_sent_without_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    with hostile_server(lambda _: whole(chat("3"))) as server:
        assert judge(server).score([PAIR]).tolist() == [3.0]
    long_message = json.dumps({"error": {"message": "x" * 190 + " sk-secret"}}).encode()
    error, _ = failure(lambda _: whole(long_message, status="400 Bad"))
    assert "sk-s" not in str(error)
