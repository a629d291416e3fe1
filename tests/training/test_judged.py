"""A head of the scorer mini, fitted to scores of a judge."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deita_tasks.errors import InputError, ModelError, UsageError
from deita_tasks.evolving.agreement import rank_correlation
from deita_tasks.records import SCORE_KINDS, ScoreKind
from deita_tasks.scoring.mini.head import Head
from deita_tasks.scoring.mini.scorer import WEIGHTS, MiniScorer
from deita_tasks.training.heads import untrained_head
from deita_tasks.training.judged import (
    JudgedText,
    compare_within_chains,
    fit_mini,
    spread_like,
    write_head,
)
from tests.support.labels import DEMANDS, TOPICS

WORDS = tuple("abcdefghij")


def judged_texts(kind: ScoreKind, topics: tuple[str, ...] = TOPICS) -> list[JudgedText]:
    """Chains whose texts get a point for each demand, or for each two words more."""
    texts = []
    for topic in topics:
        for step in range(6):
            prompt = f"Tell me about {topic}."
            if kind == "complexity":
                pair = (" ".join([prompt, *DEMANDS[:step]]), "")
            else:
                pair = (prompt, f"The {' and '.join([topic, *WORDS[: 2 * step]])}.")
            texts.append(JudgedText(topic, *pair, step + 1))
    return texts


def written(folder: Path, kind: ScoreKind, texts: list[JudgedText]) -> Path:
    folder.mkdir(exist_ok=True)
    write_head(folder, fit_mini(texts, kind), kind)
    return folder


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_the_judges_ranking_is_found_in_chains_that_were_not_fitted_to(
    kind: ScoreKind, tmp_path: Path
) -> None:
    folder = written(tmp_path / "head", kind, judged_texts(kind, TOPICS[:6]))
    unseen = judged_texts(kind, TOPICS[6:])
    pairs = [(text.instruction, text.response) for text in unseen]
    scorer = MiniScorer(kind=kind, device="cpu", head=str(folder))
    scores = scorer.score(pairs)
    judged = np.array([text.score for text in unseen], float)
    correlation = rank_correlation(scores.astype(float), judged)
    assert correlation is not None and correlation > 0.9
    assert np.abs(scores - judged).mean() < 1
    one_by_one = [float(scorer.score([pair])[0]) for pair in pairs[::-1]]
    assert one_by_one == scores[::-1].tolist()


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_a_fit_does_not_depend_on_the_order_of_the_texts(kind: ScoreKind, tmp_path: Path) -> None:
    texts = judged_texts(kind, TOPICS[:4])
    shuffled = random.Random(1).sample(texts, len(texts))
    assert shuffled != texts
    name = f"{kind}.safetensors"
    first = written(tmp_path / "first", kind, texts) / name
    second = written(tmp_path / "second", kind, shuffled) / name
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_the_fingerprint_follows_the_content_of_a_head(kind: ScoreKind, tmp_path: Path) -> None:
    packaged = MiniScorer(kind=kind)
    path = tmp_path / f"{kind}.safetensors"
    path.write_bytes((WEIGHTS / path.name).read_bytes())
    own = MiniScorer(kind=kind, head=str(tmp_path))
    assert own.fingerprint() == packaged.fingerprint()
    head = Head.load(path)
    replace(head, middle=head.middle + 1).save(path)
    changed = MiniScorer(kind=kind, head=str(tmp_path)).fingerprint()
    assert changed["weights_sha256"] != packaged.fingerprint()["weights_sha256"]
    assert {**changed, "weights_sha256": ""} == {**packaged.fingerprint(), "weights_sha256": ""}
    assert packaged.languages == ("en",) and own.languages == ()


def test_texts_of_a_chain_are_compared_where_their_scores_differ() -> None:
    texts = [
        JudgedText(chain, "", "", score)
        for chain, score in [("a", 1), ("b", 9), ("a", 3), ("a", 3), ("b", 9), ("a", 2)]
    ]
    compared = compare_within_chains(texts)
    pairs = list(zip(compared.better.tolist(), compared.worse.tolist(), strict=True))
    assert sorted(pairs) == [(2, 0), (2, 5), (3, 0), (3, 5), (5, 0)]


def test_scores_are_spread_by_a_line_through_the_log_odds() -> None:
    """Scores of 2 and 5 lie a quarter of the scale from its ends: log odds of -ln 3 and ln 3."""
    head = untrained_head([{"words": 1.0}])
    totals, scores = np.array([-1.0, 3.0]), np.array([2.0, 5.0])
    spread = spread_like(head, totals, scores)
    slope = np.log(3) / 2  # from -ln 3 at -1 to ln 3 at 3
    assert spread.middle == pytest.approx(1)
    assert spread.spread == pytest.approx(1.702 / slope)
    assert spread.score(totals).tolist() == pytest.approx([1 + 5 / 4, 1 + 5 * 3 / 4])
    for wrong in (totals[::-1], np.zeros(2)):
        with pytest.raises(InputError, match="goes with their scores"):
            spread_like(head, wrong, scores)


def test_too_little_to_fit_to() -> None:
    texts = judged_texts("quality", TOPICS[:1])
    with pytest.raises(InputError, match=r"15 pairs of texts in a chain .* at least 20"):
        fit_mini(texts, "quality")
    with pytest.raises(InputError, match=r"6 judged texts with 1 different scores"):
        fit_mini([text._replace(score=3) for text in texts], "quality")


def head_with(**changes: Any) -> Head:
    return replace(Head.load(WEIGHTS / "quality.safetensors"), **changes)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (head_with(names=["words"]), "reads other features than quality has"),
        (head_with(counted=np.ones(3, np.float32)), r"counted has the shape \(3,\)"),
        (head_with(middle=np.full(1, np.nan, np.float32)), "middle holds numbers that are not"),
        (head_with(judge=Head.load(WEIGHTS / "complexity.safetensors").judge), "has a judge"),
    ],
)
def test_a_head_that_cannot_be_used_is_refused(head: Head, problem: str, tmp_path: Path) -> None:
    write_head(tmp_path, head, "quality")
    with pytest.raises(ModelError, match=problem):
        MiniScorer(kind="quality", head=str(tmp_path)).fingerprint()


def test_a_folder_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no quality\.safetensors; expected the output"):
        MiniScorer(kind="quality", head=str(tmp_path)).fingerprint()
    (tmp_path / "quality.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is no head of the scorer mini"):
        MiniScorer(kind="quality", head=str(tmp_path)).fingerprint()
