"""What every scorer does, for each name in SCORERS."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

import numpy as np
import pytest

from deita_tasks.components import component_class
from deita_tasks.conversations import Conversation, Turn
from deita_tasks.errors import UsageError
from deita_tasks.records import SCORE_KINDS, ModelOutput, ScoreKind
from deita_tasks.scoring import SCORERS, Scorer, load_scorer
from deita_tasks.strict_json import JSON
from tests.support.checkpoints import llama, poison
from tests.support.completions_server import Script, serving
from tests.support.fake_vllm import FakeVLLM
from tests.support.small_store import with_other_parts

Options = dict[str, object]

UNSCORABLE = "Ω"  # no scorer below that can fail has a score for it
SCORES_EVERY_TEXT = {"mini", "instruction_length", "response_length"}


def conversation(*contents: str, score: float = 2.5) -> Conversation:
    """A conversation that begins with the user. `score`: of its pairs, for `provided`."""
    roles = ("user", "assistant")
    turns = tuple(Turn(roles[number % 2], text) for number, text in enumerate(contents))
    scores: list[JSON] = [score] * len(contents[::2])
    return Conversation(turns, extra={f"{kind}_scores": scores for kind in SCORE_KINDS})


ROWS = [
    conversation("Write a poem about the sea.", "The sea is old, the sand is cold."),
    conversation("Sort a list.", "sorted(x)", "And in reverse?", "sorted(x)[::-1]", score=4),
    conversation("No answer yet", "Wait."),
    conversation("Explain every step. " * 30, "1 2 3 4 5 " * 30, score=6),
    conversation("", "?"),
]
BAD_ROW = conversation(f"What is {UNSCORABLE}", f"A letter: {UNSCORABLE}", score=9)


# ---- how to load each scorer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = llama(tmp_path_factory.mktemp("llama"))
    poison(folder, UNSCORABLE)
    return str(folder)


@pytest.fixture(scope="module")
def causal_lm_options(checkpoint: str) -> Options:
    return {"model": checkpoint, "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def vllm_options(checkpoint: str) -> Iterator[Options]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, "vllm", FakeVLLM())
        yield {"model": checkpoint, "dtype": "float32"}


@pytest.fixture(scope="module")
def openai_options(checkpoint: str) -> Iterator[Options]:
    with serving(Script(checkpoint)) as server:
        yield {"model": checkpoint, "base_url": server.url}


@pytest.fixture(scope="module")
def judge_options() -> Iterator[Options]:
    def reply(messages: list[Mapping[str, str]]) -> str:
        request = messages[1]["content"]
        return "I cannot say" if UNSCORABLE in request else str(1 + len(request) % 6)

    script = Script()
    script.replies = [reply]
    with serving(script) as server:
        yield {"model": "judge", "base_url": server.url}


@pytest.fixture(scope="module")
def mini_options() -> Options:
    return {"device": "cpu"}


@pytest.fixture(scope="module")
def instruction_length_options() -> Options:
    return {}


@pytest.fixture(scope="module")
def response_length_options() -> Options:
    return {}


@pytest.fixture(scope="module")
def provided_options() -> Options:
    return {}


Load = Callable[..., Scorer]


def kinds_of(name: str) -> tuple[ScoreKind, ...]:
    fields = component_class(SCORERS, "scorer", name).model_fields
    kinds: tuple[ScoreKind, ...] = get_args(fields["kind"].annotation)
    return kinds


@pytest.fixture(
    scope="module",
    params=[(name, kind) for name in SCORERS for kind in kinds_of(name)],
    ids="-".join,
)
def case(request: pytest.FixtureRequest) -> tuple[str, ScoreKind]:
    """A scorer's name and one kind of its scores."""
    name, kind = request.param
    return name, kind


@pytest.fixture(scope="module")
def name(case: tuple[str, ScoreKind]) -> str:
    return case[0]


@pytest.fixture(scope="module")
def kind(case: tuple[str, ScoreKind]) -> ScoreKind:
    return case[1]


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest, name: str) -> Load:
    """Loads the scorer with the options of the fixture `<name>_options`."""
    try:
        options = request.getfixturevalue(f"{name}_options")
    except pytest.FixtureLookupError:
        pytest.fail(
            f"the scorer {name!r} is in SCORERS: add a fixture {name}_options to {__file__} that "
            "returns the options to load it with"
        )
    return lambda **changed: load_scorer(name, **{**options, **changed})


@pytest.fixture(scope="module")
def scorer(load: Load, kind: ScoreKind) -> Scorer:
    return load(kind=kind)


def compute(scorer: Scorer, rows: list[Conversation]) -> ModelOutput:
    """The output for all pairs; a problem of a row is a problem of its first pair."""
    output, row_problems = scorer.compute_rows(rows)
    starts = np.cumsum([0, *(len(row.pairs) for row in rows)])
    problems = {int(starts[row]): problem for row, problem in row_problems.items()}
    return ModelOutput(output.values, output.truncated_tokens, {**problems, **output.problems})


# ---- the contract


def test_a_score_per_pair_in_the_scale(scorer: Scorer) -> None:
    output = compute(scorer, ROWS)
    pairs = sum(len(row.pairs) for row in ROWS)
    assert output.values.dtype == np.float32 and output.values.shape == (pairs,)
    assert output.truncated_tokens.dtype == np.int32
    assert (output.truncated_tokens >= 0).all()
    assert ((output.values >= 1) & (output.values <= 6)).all()
    assert output.problems == {}


def test_scores_depend_neither_on_the_order_nor_on_other_rows(scorer: Scorer) -> None:
    together = compute(scorer, ROWS)
    alone = [compute(scorer, [row]) for row in ROWS]
    backwards = compute(scorer, ROWS[::-1])
    values = np.concatenate([output.values for output in alone])
    truncated = np.concatenate([output.truncated_tokens for output in alone])
    np.testing.assert_array_equal(values, together.values)
    np.testing.assert_array_equal(truncated, together.truncated_tokens)
    reordered = np.concatenate([output.values for output in alone[::-1]])
    np.testing.assert_array_equal(backwards.values, reordered)


def test_the_same_rows_give_the_same_scores(scorer: Scorer) -> None:
    np.testing.assert_array_equal(compute(scorer, ROWS).values, compute(scorer, ROWS).values)


def test_rows_with_the_same_text_have_the_same_scores(scorer: Scorer) -> None:
    """A scorer that reads anything else has to keep its scores by `id`."""
    if scorer.ROW_KEY == "text_id":
        others = [with_other_parts(row) for row in ROWS]
        np.testing.assert_array_equal(compute(scorer, others).values, compute(scorer, ROWS).values)


def test_a_row_without_a_score_has_a_problem_and_stops_no_other(name: str, scorer: Scorer) -> None:
    output = compute(scorer, [ROWS[0], BAD_ROW, ROWS[2]])
    if name in SCORES_EVERY_TEXT:
        assert np.isfinite(output.values).all() and not output.problems
        return
    assert list(output.problems) == [1] and output.problems[1]
    assert np.isnan(output.values).tolist() == [False, True, False]
    expected = compute(scorer, [ROWS[0], ROWS[2]]).values
    np.testing.assert_array_equal(output.values[[0, 2]], expected)


def test_rows_come_one_after_the_other_with_the_same_scores(scorer: Scorer) -> None:
    rows = [*ROWS, BAD_ROW]
    pieces = {}
    for piece in scorer.iterate_rows(rows):
        output, row_problems = piece.scores
        ends = np.cumsum([len(rows[position].pairs) for position in piece.positions])
        scores = np.split(output.values, ends[:-1])
        pieces.update(zip(piece.positions, scores, strict=True))
        assert set(row_problems) <= set(range(len(piece.positions)))
        assert set(output.problems) <= set(range(len(output.values)))
        assert output.truncated_tokens.shape == output.values.shape
    assert sorted(pieces) == list(range(len(rows)))
    values = np.concatenate([pieces[position] for position in range(len(rows))])
    np.testing.assert_array_equal(values, compute(scorer, rows).values)


def test_no_rows_have_no_scores(scorer: Scorer) -> None:
    assert list(scorer.iterate_rows([])) == []
    output = compute(scorer, [])
    assert output.values.shape == output.truncated_tokens.shape == (0,)
    assert not output.problems


def test_the_fingerprint_is_json_and_stable(load: Load, kind: ScoreKind) -> None:
    fingerprint = load(kind=kind).fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint == load(kind=kind).fingerprint()
    assert fingerprint["kind"] == kind
    assert {"backend", "version"} <= fingerprint.keys()


def test_a_copy_for_another_process_gives_the_same_scores(scorer: Scorer) -> None:
    expected = compute(scorer, ROWS).values
    pickled = pickle.loads(pickle.dumps(scorer))  # noqa: S301
    for copied in (pickled, type(scorer)(**scorer.model_dump())):
        assert copied == scorer
        assert copied.fingerprint() == scorer.fingerprint()
        np.testing.assert_array_equal(compute(copied, ROWS).values, expected)


def test_it_works_again_after_release(scorer: Scorer) -> None:
    expected = compute(scorer, ROWS[:2]).values
    scorer.release()
    scorer.release()
    np.testing.assert_array_equal(compute(scorer, ROWS[:2]).values, expected)


def test_a_forecast_has_a_number_per_row(scorer: Scorer) -> None:
    forecast = scorer.forecast(ROWS)
    truncated = compute(scorer, ROWS).truncated_tokens
    for counts in (forecast.tokens, forecast.truncated_tokens):
        assert counts is None or (counts.dtype == np.int64 and counts.shape == (len(ROWS),))
    if forecast.truncated_tokens is not None:
        assert forecast.truncated_tokens.sum() == truncated.sum()


def test_wrong_options_are_refused(load: Load, name: str, kind: ScoreKind) -> None:
    with pytest.raises(UsageError, match=f"scorer '{name}': unknown option 'modle'"):
        load(kind=kind, modle="x")
    with pytest.raises(UsageError, match="kind: 'beauty' arrived"):
        load(kind="beauty")
