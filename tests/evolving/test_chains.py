"""Rewriting and judging: what is asked, what passes, what ends a chain, and what is paid for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.errors import InputError, UsageError
from deita_tasks.evolving import limits
from deita_tasks.evolving.chains import Chain, Seed, Variant
from deita_tasks.evolving.checks import rewrite_problem
from deita_tasks.evolving.estimate import estimate_rounds
from deita_tasks.evolving.evolve import draw_methods, evolve
from deita_tasks.evolving.judge import judge, judge_request, parse_scores
from deita_tasks.evolving.limits import RateLimit, Spending
from deita_tasks.evolving.replies import ChatModel, ChatOptions, Message, Reply
from deita_tasks.evolving.seeds import draw_seeds, find_seeds
from deita_tasks.evolving.templates import METHODS, fill, load_templates, text_code
from tests.support.completions_server import serving
from tests.support.scorer_server import ScorerServer, judged, rewrite, seed_text

TEMPLATES = load_templates("complexity")
SEED = Seed("a", "Sort three numbers.", "Compare them.")


def reply(text: str, is_cut: bool = False) -> Reply:
    return Reply(text=text, is_cut=is_cut, prompt_tokens=1, completion_tokens=1)


class Scripted:
    """Replies in their order; keeps what was asked."""

    def __init__(self, *replies: str | Reply) -> None:
        self.replies = [text if isinstance(text, Reply) else reply(text) for text in replies]
        self.asked: list[tuple[list[Message], int]] = []

    def __call__(self, messages: list[Message], attempt: int) -> Reply:
        self.asked.append((messages, attempt))
        return self.replies.pop(0)


@pytest.fixture
def server() -> Iterator[ScorerServer]:
    with serving(ScorerServer()) as running:
        assert isinstance(running, ScorerServer)
        yield running


def chat_model(server: ScorerServer, store: Path, cap: int | None = None) -> ChatModel:
    options = ChatOptions(url=server.url, model="m", max_tokens=64)
    return ChatModel(options, str(store), Spending(cap), RateLimit(None, None))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Sort three numbers by hand, and prove that the result is right.", None),
        (" ... ", "it is empty"),
        ("sort THREE numbers", "it copies an earlier text of the chain"),
        ("I'm sorry, but I can't help with that.", "it is a refusal"),
        ("As an AI I only sort words.", "it is a refusal"),
        (
            "Reply with the new instruction and nothing else: sort.",
            "it repeats the prompt's own words",
        ),
        ("the code 0123 and sort", "it repeats the prompt's own words"),
        ("word " * 64, "it has 64 words, more than 63"),
    ],
)
def test_what_is_wrong_with_a_rewrite(text: str, problem: str | None) -> None:
    template = TEMPLATES.rewrite["constraint"]
    assert rewrite_problem("complexity", text, ["Sort three numbers."], template, "0123") == problem


def test_words_of_the_prompt_that_the_parent_has_too_are_no_mistake() -> None:
    parent = "Explain: reply with the new instruction and nothing else, no heading."
    text = f"{parent} Give two examples."
    template = TEMPLATES.rewrite["constraint"]
    assert rewrite_problem("complexity", text, [parent], template, "0123") is None


def test_a_bad_rewrite_is_asked_for_again_then_the_chain_ends() -> None:
    ask = Scripted("", "Sort four numbers.", "", "I cannot.", reply("Sort five", is_cut=True))
    chain = evolve(SEED, TEMPLATES, ask, 0)
    assert [variant.text for variant in chain.variants] == [
        "Sort three numbers.",
        "Sort four numbers.",
    ]
    method = draw_methods("complexity", "a", 0, 5)[1]
    assert chain.ended == f"round 2, {method}: it is cut at the limit of tokens"
    assert [attempt for _, attempt in ask.asked] == [0, 1, 0, 1, 2]
    assert "Sort four numbers." in ask.asked[2][0][0]["content"], "its parent is the round before"


def test_a_whole_chain_has_five_rounds_and_rewrites_the_response_for_quality() -> None:
    ask = Scripted(*(f"Answer {number}" for number in range(5)))
    chain = evolve(SEED, load_templates("quality"), ask, 0)
    assert chain.ended is None
    assert [variant.round for variant in chain.variants] == [0, 1, 2, 3, 4, 5]
    assert sorted(variant.method for variant in chain.variants[1:]) == sorted(METHODS["quality"])
    assert chain.pair(chain.variants[1]) == ("Sort three numbers.", "Answer 0")


def test_methods_are_drawn_by_seed_and_chain() -> None:
    draws = [draw_methods("complexity", str(chain), 0, 5) for chain in range(200)]
    counts = Counter(method for methods in draws for method in methods)
    assert set(counts) == set(METHODS["complexity"])
    assert all(200 < count < 300 for count in counts.values()), "250 of each are expected"
    assert draw_methods("complexity", "0", 0, 5) == draws[0]
    assert [draw_methods("complexity", str(chain), 1, 5) for chain in range(200)] != draws


def test_braces_and_tags_in_a_text_have_no_meaning() -> None:
    text = "{code} </instruction 0000> {instruction}"
    code = text_code(text)
    shown = fill(TEMPLATES.rewrite["deepening"], {"instruction": text, "code": code})
    assert f"<instruction {code}>\n{text}\n</instruction {code}>" in shown


def test_templates_are_replaced_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "complexity_deepening.txt").write_text("Tiefer: {instruction}")
    own = load_templates("complexity", str(tmp_path))
    assert own.rewrite["deepening"] == "Tiefer: {instruction}"
    assert own.rewrite["reasoning"] == TEMPLATES.rewrite["reasoning"]
    assert own.rewrite_fingerprint != TEMPLATES.rewrite_fingerprint
    assert own.judge_fingerprint == TEMPLATES.judge_fingerprint
    with pytest.raises(UsageError, match="has none of the templates; expected one or more of qual"):
        load_templates("quality", str(tmp_path))
    (tmp_path / "complexity_deepening.txt").write_text("Tiefer: {text}")
    expected = r"has the fields \{text\}; expected \{instruction\}, and \{code\} if wanted"
    with pytest.raises(UsageError, match=expected):
        load_templates("complexity", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("[1] Score: 3\n[2] Score: 6", [3, 6]),
        ("\n [2] score: 1\n\n[1] Score: 5.\n", [5, 1]),
        ("[1] Score: 3", None),
        ("[1] Score: 3\n[2] Score: 7", None),
        ("[1] Score: 3\n[2] Score: 2.5", None),
        ("[1] Score: 3\n[1] Score: 3", None),
        ("[1] Score: 3\n[3] Score: 3", None),
        ("Here they are:\n[1] Score: 3\n[2] Score: 6", None),
        ("", None),
    ],
)
def test_only_a_whole_reply_has_scores(text: str, scores: list[int] | None) -> None:
    assert parse_scores(text, 2) == scores


def chain_of(*texts: str, name: str = "a") -> Chain:
    variants = [Variant(round=turn, method="m", text=text) for turn, text in enumerate(texts)]
    return Chain(id=name, kind="complexity", stratum="", instruction=texts[0], variants=variants)


def by_text(messages: list[Message], attempt: int) -> Reply:
    """A judge that gives each text the number that it ends in, in the order shown."""
    content = messages[0]["content"]
    places = {number: content.find(f"text no {number}\n") for number in range(1, 7)}
    order = sorted(places, key=lambda number: places[number])
    lines = [f"[{place}] Score: {number}" for place, number in enumerate(order, 1)]
    return reply("\n".join(lines))


def test_the_judge_sees_a_shuffled_chain_and_its_scores_are_mapped_back() -> None:
    texts = [f"text no {number}" for number in range(1, 7)]
    orders = set()
    for name in map(str, range(20)):
        asked = Scripted(by_text([{"content": ""}], 0))
        chain = judge(chain_of(*texts, name=name), TEMPLATES, by_text, 0)
        assert [variant.score for variant in chain.variants] == [1, 2, 3, 4, 5, 6]
        judge(chain_of(*texts, name=name), TEMPLATES, asked, 0)
        orders.add(asked.asked[0][0][0]["content"])
        assert len(asked.asked) == 1, "one request for all texts"
    assert len(orders) > 10


def test_the_judge_of_responses_is_shown_the_instruction() -> None:
    chain = chain_of("first", "second").model_copy(
        update={"kind": "quality", "instruction": "Sort!"}
    )
    request = judge_request(chain, load_templates("quality"), ["second", "first"])
    code = text_code("Sort!", "second", "first")
    assert f"<instruction {code}>\nSort!\n" in request
    assert request.index("<text 1") < request.index("second") < request.index("<text 2")


def test_an_unreadable_judgement_is_asked_for_again_then_left_out() -> None:
    ask = Scripted("What?", "[1] Score: 2\n[2] Score: 2")
    assert judge(chain_of("x", "y"), TEMPLATES, ask, 0).is_judged
    assert [message["role"] for message in ask.asked[1][0]] == ["user", "assistant", "user"]
    chain = judge(chain_of("x", "y"), TEMPLATES, Scripted("What?", "No.", "3, 4"), 0)
    assert not chain.is_judged
    assert chain.problem == "the judge replied '3, 4'; expected 2 lines such as '[1] Score: 3'"


def test_a_seed_alone_is_not_judged() -> None:
    chain = chain_of("x").model_copy(update={"ended": "round 1, m: it is empty"})
    ask = Scripted()
    assert judge(chain, TEMPLATES, ask, 0).problem == (
        "nothing to compare with: round 1, m: it is empty"
    )


def test_every_reply_is_paid_for_once(server: ScorerServer, tmp_path: Path) -> None:
    seed = Seed("a", seed_text(1), "")
    model = chat_model(server, tmp_path)
    chain = judge(evolve(seed, TEMPLATES, model.ask, 0), TEMPLATES, model.ask, 0)
    assert chain.variants[1].text == rewrite(seed_text(1))
    assert [variant.score for variant in chain.variants] == [
        judged(variant.text, server.noise_one_in) for variant in chain.variants
    ]
    asked = len(server.bodies)
    assert model.usage.requests == asked >= 6
    again = chat_model(server, tmp_path, cap=1)
    assert judge(evolve(seed, TEMPLATES, again.ask, 0), TEMPLATES, again.ask, 0) == chain
    assert len(server.bodies) == asked
    assert again.usage == (0, 0, 0, asked)
    words = [len(body["messages"][0]["content"].split()) for body in server.bodies]
    assert model.usage.prompt_tokens == sum(words), "tokens as the server counts them"


def test_a_cap_ends_the_run_before_the_request(server: ScorerServer, tmp_path: Path) -> None:
    model = chat_model(server, tmp_path, cap=150)
    with pytest.raises(UsageError, match="token_cap = 150: 0 tokens are paid for"):
        model.ask([{"role": "user", "content": "x" * 300}])
    assert server.bodies == []


def test_a_busy_server_is_asked_again(server: ScorerServer, tmp_path: Path) -> None:
    server.faults = [(429, {"Retry-After": "0"}), "drop"]
    model = chat_model(server, tmp_path)
    chain = evolve(Seed("a", seed_text(1), ""), TEMPLATES, model.ask, 0, rounds=1)
    assert chain.ended is None


def test_the_rate_is_kept_over_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE", 0.4)
    limit = RateLimit(3, None)
    times: list[float] = []

    def work() -> None:
        limit.wait(1)
        times.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    assert all(times[place + 3] - times[place] > 0.35 for place in range(6))


def test_tokens_of_a_minute_are_counted_as_the_server_counts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MINUTE", 0.5)
    limit = RateLimit(None, 100)
    booking = limit.wait(90)
    limit.correct(booking, 10)
    begun = time.monotonic()
    limit.wait(90)
    assert time.monotonic() - begun < 0.3
    limit.wait(90)
    assert time.monotonic() - begun > 0.4


def conversation(text: str, answer: str = "Yes.", **extra: str) -> Conversation:
    turns = (Turn("user", text), Turn("assistant", answer))
    return Conversation(turns, SourceRow("pool.jsonl", 3), extra=extra)


def test_seeds_are_drawn_evenly_over_strata_in_any_order() -> None:
    rows = [conversation(f"a {n}", topic="a") for n in range(20)]
    rows += [conversation(f"b {n}", topic="b") for n in range(3)]
    rows += [conversation(f"c {n}", topic="c") for n in range(20)]
    rows.append(conversation("a 1", topic="a"))
    seeds = find_seeds("complexity", rows, "topic")
    assert len(seeds) == 43, "the same text is one seed"
    drawn = draw_seeds(seeds, 15, 0)
    assert Counter(seed.stratum for seed in drawn) == {"a": 6, "b": 3, "c": 6}
    assert draw_seeds(find_seeds("complexity", rows[::-1], "topic"), 15, 0) == drawn
    assert draw_seeds(seeds, 15, 1) != drawn
    assert draw_seeds(seeds, None, 0) == seeds
    with pytest.raises(UsageError, match=r"row 3 of pool.jsonl has no such column; it has topic"):
        find_seeds("complexity", rows, "language")
    with pytest.raises(InputError, match="expected instructions and responses"):
        find_seeds("quality", [conversation("Why?", " ")], None)


def test_the_estimate_counts_each_round_and_one_judgement() -> None:
    rewriting, judging = estimate_rounds([SEED, SEED], TEMPLATES, 5)
    assert (rewriting.requests, judging.requests) == (10, 2)
    assert judging.completion_tokens == 2 * 6 * 8
    assert rewriting.prompt_tokens > rewriting.completion_tokens > 0
