"""Fit a head of the scorer mini to texts that a judge has scored in chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deita_tasks.errors import InputError
from deita_tasks.records import ScoreKind
from deita_tasks.scoring.mini.encoder import MiniEncoder
from deita_tasks.scoring.mini.features import response_features
from deita_tasks.scoring.mini.head import Head
from deita_tasks.scoring.mini.head_file import head_file_name
from deita_tasks.training.fit import Matrix
from deita_tasks.training.heads import (
    MIN_COMPARISONS,
    encode_texts,
    fit_complexity,
    fit_quality,
    predict_totals,
)
from deita_tasks.training.texts import Comparisons, LabelledTexts

MOST_TEXTS = 20_000  # of complexity: the kernel has a number for any two, 3.2 GB of float64
LOGISTIC = 1.702  # of `Head.score`


class JudgedText(NamedTuple):
    """A pair of instruction and response with the judge's score, from 1 to 6, and its chain."""

    chain: str
    instruction: str
    response: str
    score: int


def fit_mini(texts: Sequence[JudgedText], kind: ScoreKind) -> Head:
    """Return a head that scores as the judge did.

    Complexity: a kernel ridge regression on all texts, and the demands that grow within a chain.
    Quality: a Bradley-Terry model of any two texts of a chain with different scores. Scores are
    spread to agree with the judge's. Works on the CPU, on one thread: the head does not depend on
    the order of the texts. Processors of another kind may round differently.

    Raises InputError if there is too little to fit to, or more than fits into memory.
    """
    from threadpoolctl import threadpool_limits

    ordered = sorted(texts)
    scores = np.array([text.score for text in ordered], np.float64)
    _check_scores(scores)
    fit = _fit_complexity if kind == "complexity" else _fit_quality
    with threadpool_limits(1):
        head, totals = fit(ordered)
        return spread_like(head, totals, scores)


def write_head(folder: Path, head: Head, kind: ScoreKind) -> None:
    """Write a head to an existing folder, under the name that the scorer mini looks for."""
    head.save(folder / head_file_name(kind))


def _check_scores(scores: Matrix) -> None:
    """Raise InputError if all scores are equal, as then nothing tells texts apart."""
    different = len(np.unique(scores))
    if different < 2:
        raise InputError(
            f"{len(scores):,} judged texts with {different} different scores; expected at least 2, "
            "to tell texts apart: draw more chains"
        )


def _groups(texts: Sequence[JudgedText]) -> list[int]:
    """Return a number for the chain of each text, from 0 in the order in which chains appear."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(text.chain, len(numbers)) for text in texts]


def _fit_complexity(texts: Sequence[JudgedText]) -> tuple[Head, Matrix]:
    """Return the head without its spread, and its totals of the n texts, float64 (n,).

    Raises InputError for more than MOST_TEXTS texts, which would not fit into memory.
    """
    if len(texts) > MOST_TEXTS:
        raise InputError(
            f"{len(texts):,} judged texts; expected at most {MOST_TEXTS:,}: draw fewer chains"
        )
    source = LabelledTexts(
        texts=[text.instruction for text in texts],
        labels=np.array([text.score for text in texts], np.float64),
        groups=np.array(_groups(texts), np.int64),
    )
    encoded = encode_texts(source, MiniEncoder("cpu"))
    head = fit_complexity(encoded, [encoded])
    return head, predict_totals(head, encoded)


def _fit_quality(texts: Sequence[JudgedText]) -> tuple[Head, Matrix]:
    """Return the head without its spread, and its totals of the n texts, float64 (n,).

    Raises InputError for fewer than MIN_COMPARISONS pairs of texts that a fit could learn from.
    """
    compared = compare_within_chains(texts)
    if len(compared.better) < MIN_COMPARISONS:
        raise InputError(
            f"{len(compared.better)} pairs of texts in a chain have different scores; expected at "
            f"least {MIN_COMPARISONS}: draw more chains"
        )
    features = [response_features(text.instruction, text.response) for text in texts]
    head = fit_quality(features, [[compared]])
    return head, head.total(head.standardise(features))


def compare_within_chains(texts: Sequence[JudgedText]) -> Comparisons:
    """Return any two texts of a chain with different scores, the better one first.

    By positions in `texts`; none if every chain has one score.
    """
    chains: dict[str, list[int]] = {}
    for position, text in enumerate(texts):
        chains.setdefault(text.chain, []).append(position)
    ordered = [
        (first, second)
        for positions in chains.values()
        for first, second in permutations(positions, 2)
        if texts[first].score > texts[second].score
    ]
    return Comparisons.of(ordered)


def spread_like(head: Head, totals: Matrix, scores: Matrix) -> Head:
    """Return the head with a middle and a spread that bring its scores near to these.

    `totals`, `scores`: (n,). A straight line through the log odds of the scores, by least squares;
    the ends of the scale count as half a step inside it, where the odds are finite.

    Raises InputError if higher totals do not go with higher scores.
    """
    share = (scores - 0.5) / 6
    odds = np.log(share / (1 - share))
    spread_of_totals = float(totals.var())
    slope = 0.0
    if spread_of_totals > 0:
        slope = float(((totals - totals.mean()) * (odds - odds.mean())).mean() / spread_of_totals)
    if slope <= 0:
        raise InputError(
            "nothing that mini reads in the judged texts goes with their scores: draw more chains, "
            "or train a causal_lm"
        )
    middle = totals.mean() - odds.mean() / slope
    return replace(
        head, middle=np.array([middle], np.float32), spread=np.array([LOGISTIC / slope], np.float32)
    )
