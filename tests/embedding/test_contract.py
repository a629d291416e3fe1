"""What every embedder does, for each name in EMBEDDERS."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import EMBEDDERS, Embedder, load_embedder
from deita_tasks.errors import UsageError
from deita_tasks.strict_json import JSON
from tests.support.checkpoints import llama, poison
from tests.support.small_store import with_other_parts

Options = dict[str, object]

NO_VECTOR = "Ω"  # no embedder below that can fail has a vector for it
EMBEDS_EVERY_TEXT = {"sentence_transformers"}


def conversation(*contents: str, vector: JSON) -> Conversation:
    """A conversation that begins with the user. `vector`: for the embedder `provided`."""
    roles = ("user", "assistant")
    turns = tuple(Turn(roles[number % 2], text) for number, text in enumerate(contents))
    return Conversation(turns, extra={"embedding": vector})


ROWS = [
    conversation("Write a poem about the sea.", "The sea is old.", vector=[1, 0]),
    conversation("Sort a list.", "sorted(x)", "And in reverse?", "sorted(x)[::-1]", vector=[0, 3]),
    conversation("No answer yet", vector=[0.5, 0.5]),
    conversation("Explain every step. " * 60, "1 2 3 4 5 " * 60, vector=[-1, 2]),
    conversation("", "", vector=[0, 0]),
]
BAD_ROW = conversation(f"What is {NO_VECTOR}", "A letter", vector=[None, 1])


# ---- how to load each embedder


@pytest.fixture(scope="module")
def causal_lm_options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = llama(tmp_path_factory.mktemp("llama"))
    poison(folder, NO_VECTOR)
    return {"model": str(folder), "dtype": "float32", "device": "cpu", "max_length": 256}


@pytest.fixture(scope="module")
def sentence_transformers_options() -> Options:
    return {"device": "cpu"}


@pytest.fixture(scope="module")
def provided_options() -> Options:
    return {}


Load = Callable[..., Embedder]


@pytest.fixture(scope="module", params=EMBEDDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest, name: str) -> Load:
    """Loads the embedder with the options of the fixture `<name>_options`."""
    try:
        options = request.getfixturevalue(f"{name}_options")
    except pytest.FixtureLookupError:
        pytest.fail(
            f"the embedder {name!r} is in EMBEDDERS: add a fixture {name}_options to {__file__} "
            "that returns the options to load it with"
        )
    return lambda **changed: load_embedder(name, **{**options, **changed})


@pytest.fixture(scope="module")
def embedder(load: Load) -> Embedder:
    return load()


# ---- the contract


def test_a_finite_vector_per_row(embedder: Embedder) -> None:
    output = embedder.compute(ROWS)
    assert output.values.dtype == np.float32
    assert output.values.ndim == 2 and len(output.values) == len(ROWS)
    assert output.truncated_tokens.dtype == np.int32
    assert (output.truncated_tokens >= 0).all()
    assert np.isfinite(output.values).all()
    assert output.problems == {}


def test_vectors_depend_neither_on_the_order_nor_on_other_rows(embedder: Embedder) -> None:
    together = embedder.compute(ROWS)
    alone = [embedder.compute([row]) for row in ROWS]
    values = np.concatenate([output.values for output in alone])
    truncated = np.concatenate([output.truncated_tokens for output in alone])
    np.testing.assert_array_equal(values, together.values)
    np.testing.assert_array_equal(truncated, together.truncated_tokens)
    backwards = embedder.embed(ROWS[::-1])
    np.testing.assert_array_equal(backwards[::-1], together.values)


def test_the_same_rows_give_the_same_vectors(embedder: Embedder) -> None:
    np.testing.assert_array_equal(embedder.embed(ROWS), embedder.embed(ROWS))


def test_rows_with_the_same_text_have_the_same_vectors(embedder: Embedder) -> None:
    """An embedder that reads anything else has to keep its vectors by `id`."""
    if embedder.ROW_KEY == "text_id":
        others = [with_other_parts(row) for row in ROWS]
        np.testing.assert_array_equal(embedder.embed(others), embedder.embed(ROWS))


def test_a_row_without_a_vector_has_a_problem_and_stops_no_other(
    name: str, embedder: Embedder
) -> None:
    output = embedder.compute([ROWS[0], BAD_ROW, ROWS[2]])
    if name in EMBEDS_EVERY_TEXT:
        assert np.isfinite(output.values).all() and not output.problems
        return
    assert list(output.problems) == [1] and output.problems[1]
    assert np.isnan(output.values[1]).all()
    expected = embedder.embed([ROWS[0], ROWS[2]])
    np.testing.assert_array_equal(output.values[[0, 2]], expected)


def test_no_rows_have_no_vectors(embedder: Embedder) -> None:
    output = embedder.compute([])
    assert output.values.ndim == 2 and len(output.values) == 0
    assert output.truncated_tokens.shape == (0,)
    assert not output.problems


def test_the_fingerprint_is_json_and_stable(load: Load) -> None:
    fingerprint = load().fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint == load().fingerprint()
    assert {"backend", "version"} <= fingerprint.keys()


def test_a_copy_for_another_process_gives_the_same_vectors(embedder: Embedder) -> None:
    expected = embedder.embed(ROWS)
    pickled = pickle.loads(pickle.dumps(embedder))  # noqa: S301
    for copied in (pickled, type(embedder)(**embedder.model_dump())):
        assert copied == embedder
        assert copied.fingerprint() == embedder.fingerprint()
        np.testing.assert_array_equal(copied.embed(ROWS), expected)


def test_it_works_again_after_release(embedder: Embedder) -> None:
    expected = embedder.embed(ROWS[:2])
    embedder.release()
    embedder.release()
    np.testing.assert_array_equal(embedder.embed(ROWS[:2]), expected)


def test_a_forecast_has_a_number_per_row(embedder: Embedder) -> None:
    forecast = embedder.forecast(ROWS)
    for counts in (forecast.tokens, forecast.truncated_tokens):
        assert counts is None or (counts.dtype == np.int64 and counts.shape == (len(ROWS),))
    if forecast.truncated_tokens is not None:
        truncated = embedder.compute(ROWS).truncated_tokens
        np.testing.assert_array_equal(forecast.truncated_tokens, truncated)


def test_an_unknown_option_is_refused(load: Load, name: str) -> None:
    with pytest.raises(UsageError, match=f"embedder '{name}': unknown option 'modle'"):
        load(modle="x")
