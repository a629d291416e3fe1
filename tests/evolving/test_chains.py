"""Rewriting and judging: what is asked, what passes, what ends a chain, and what is paid for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.errors import InputError, ModelError, UsageError
from deita_tasks.evolving import limits
from deita_tasks.evolving.chains import Chain, Seed, Variant
from deita_tasks.evolving.checks import rewrite_problem
from deita_tasks.evolving.estimate import estimate_judgements, estimate_rewrites, read_kept
from deita_tasks.evolving.evolve import draw_methods, evolve
from deita_tasks.evolving.judge import judge, judge_request, parse_scores
from deita_tasks.evolving.limits import RateLimit, Spending
from deita_tasks.evolving.replies import (
    ChatModel,
    ChatOptions,
    KeptReplies,
    Message,
    NotKept,
    Reply,
)
from deita_tasks.evolving.roles import Roles
from deita_tasks.evolving.seeds import draw_seeds, find_seeds
from deita_tasks.evolving.templates import METHODS, fill, load_templates, text_code
from deita_tasks.scoring import served
from deita_tasks.scoring.http_client import Refused
from tests.support.completions_server import serving
from tests.support.scorer_server import ScorerServer, judged, rewrite, seed_text

TEMPLATES = load_templates("complexity")
SEED = Seed("a", "Sort three numbers.", "Compare them.")
REQUEST = f"<instruction {0:016}>\nx\n</instruction {0:016}>"


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
        (
            "<think>Four?</think> Sort four numbers.",
            "it holds a model's thoughts: let the server take them out (--reasoning-parser)",
        ),
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
    (tmp_path / "complexity_deepening.txt").write_text("")
    with pytest.raises(UsageError, match="has the fields none"):
        load_templates("complexity", str(tmp_path))
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
    cut = [reply("[1] Score: 2\n[2] Score: 3", is_cut=True)] * 3
    assert not judge(chain_of("x", "y"), TEMPLATES, Scripted(*cut), 0).is_judged
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


def test_a_cap_holds_over_threads_and_is_used_up(server: ScorerServer, tmp_path: Path) -> None:
    """A request sets 134 tokens aside (54 bytes, 16 around them, 64 of a reply), and takes 10.

    So two never fit at once, and eight do one after the other.
    """
    model = chat_model(server, tmp_path, cap=210)
    questions = [f"<text 1 {number:016}>\nx\n</text 1 {number:016}>" for number in range(8)]
    assert {len(question) for question in questions} == {54}
    failures: list[str] = []

    def work(question: str) -> None:
        try:
            model.ask([{"role": "user", "content": question}])
        except UsageError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=work, args=[question]) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert model.usage == (8, 8 * 7, 8 * 3, 0)
    assert server.most_at_once == 1
    with pytest.raises(UsageError, match="token_cap = 210: 80 tokens are paid for"):
        model.ask([{"role": "user", "content": "x" * 51}])


def test_a_question_asked_twice_at_once_is_paid_for_once(
    server: ScorerServer, tmp_path: Path
) -> None:
    model = chat_model(server, tmp_path)
    question: list[Message] = [{"role": "user", "content": REQUEST}]
    threads = [threading.Thread(target=model.ask, args=[question]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.bodies) == 1
    assert model.usage.reused == 5


def test_a_reply_follows_the_model_not_the_address(server: ScorerServer, tmp_path: Path) -> None:
    question: list[Message] = [{"role": "user", "content": REQUEST}]
    model = chat_model(server, tmp_path)
    model.ask(question)
    moved = model.options.model_copy(update={"url": "http://127.0.0.1:9/v1"})
    assert KeptReplies(moved, str(tmp_path)).ask(question) == model.ask(question)
    for other in ({"model": "other"}, {"temperature": 0.5}, {"max_tokens": 9}):
        with pytest.raises(NotKept):
            KeptReplies(moved.model_copy(update=other), str(tmp_path)).ask(question)
    nameless = model.options.model_copy(update={"model": "default"})
    elsewhere = moved.model_copy(update={"model": "default"})
    assert nameless.identity() != elsewhere.identity()


def test_a_server_that_refuses_every_question_ends_the_run(
    server: ScorerServer, tmp_path: Path
) -> None:
    server.fault_of = lambda _: (400, {})
    with pytest.raises(ModelError, match="answers nothing, not even 'Reply with the word yes"):
        chat_model(server, tmp_path).ask([{"role": "user", "content": REQUEST}])
    server.fault_of = lambda body: (400, {}) if "instruction" in str(body) else None
    with pytest.raises(Refused):
        chat_model(server, tmp_path).ask([{"role": "user", "content": REQUEST}])


def test_a_key_from_a_secret_block_is_sent_and_kept_nowhere(
    server: ScorerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "_secret_reader", {"own": "s3cret\n"}.__getitem__)
    options = ChatOptions(url=server.url, model="m", max_tokens=64, api_key_block="own")
    model = ChatModel(options, str(tmp_path), Spending(None), RateLimit(None, None))
    model.ask([{"role": "user", "content": REQUEST}])
    assert server.keys == ["Bearer s3cret"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any("s3cret" in path.read_text() for path in files)


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


def test_the_estimate_counts_each_round_and_one_judgement(tmp_path: Path) -> None:
    options = ChatOptions(url="http://127.0.0.1:9/v1", model="m")
    nothing = read_kept([SEED, SEED], TEMPLATES, 5, Roles(options, options), str(tmp_path), 0)
    rewriting = estimate_rewrites(nothing, TEMPLATES, 5)
    judging = estimate_judgements(nothing, TEMPLATES, 5)
    assert (rewriting.requests, judging.requests) == (10, 2)
    # By hand: "Sort three numbers." has 19 bytes, so 6 tokens and 16 around them; 21 more a round.
    assert rewriting.completion_tokens == 2 * sum(22 + 21 * turn for turn in range(1, 6))
    assert judging.completion_tokens == 2 * 6 * 8
    assert rewriting.prompt_tokens > rewriting.completion_tokens


def test_the_estimate_leaves_out_what_the_store_has(server: ScorerServer, tmp_path: Path) -> None:
    """One chain is judged, one has two rounds of five, one is new."""
    model = chat_model(server, tmp_path)
    seeds = [Seed(str(number), seed_text(number), "") for number in range(3)]
    judge(evolve(seeds[0], TEMPLATES, model.ask, 0), TEMPLATES, model.ask, 0)
    begun = evolve(seeds[1], TEMPLATES, model.ask, 0, rounds=2)
    asked = len(server.bodies)
    roles = Roles(model.options, model.options)
    kept = read_kept(seeds, TEMPLATES, 5, roles, str(tmp_path), 0)
    assert len(server.bodies) == asked
    assert [len(chain.variants) for chain in kept] == [6, 3, 1]
    assert kept[1].variants == begun.variants
    rewriting = estimate_rewrites(kept, TEMPLATES, 5)
    judging = estimate_judgements(kept, TEMPLATES, 5)
    assert (rewriting.requests, judging.requests) == (3 + 5, 2)
    assert estimate_rewrites(kept[:1], TEMPLATES, 5) == (0, 0, 0)
    assert estimate_judgements(kept[:1], TEMPLATES, 5) == (0, 0, 0)
