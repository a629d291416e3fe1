"""What a trained scorer makes of held-out chains and of labelled texts, beside other scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deita_tasks.evolving.agreement import (
    WORDS,
    Agreement,
    CalibrationPoint,
    agreement,
    calibration,
    compare_with_words,
    is_above_words,
)
from deita_tasks.evolving.chains import Chain
from deita_tasks.records import ScoreKind
from deita_tasks.strict_json import JsonRecord
from deita_tasks.words import count_words

OWN = "this scorer"

# A scorer's scores of some texts, None for a text that has none.
Scores = Sequence[float | None]


class MeasuredTexts(NamedTuple):
    """Pairs of instruction and response, with the scores that they should have.

    chains: the chain of each pair; empty for texts that come without chains.
    """

    pairs: list[tuple[str, str]]
    scores: list[float]
    chains: list[str]


class ScorerFigures(JsonRecord):
    """How a scorer was found to agree; it comes first in both lists, and the words second.

    held_out: on chains that were not trained on. labelled: on the user's own labels, [] without.
    seen: labelled texts left out, because the training has them.
    """

    held_out: list[Agreement]
    labelled: list[Agreement]
    seen: int
    calibration: list[CalibrationPoint]
    is_above_words: bool
    sentence: str


def texts_of(chains: Sequence[Chain]) -> MeasuredTexts:
    """Return the texts of judged chains, chain by chain in the order of their rounds."""
    texts = MeasuredTexts([], [], [])
    for chain in chains:
        for variant in chain.variants:
            texts.pairs.append(chain.pair(variant))
            texts.scores.append(float(variant.score or 0))
            texts.chains.append(chain.id)
    return texts


def agreements(
    kind: ScoreKind, texts: MeasuredTexts, scores: Mapping[str, Scores]
) -> list[Agreement]:
    """Return how each scorer agrees with the scores of `texts`, the number of words second.

    scores: by scorer, this one first. A text without a score counts for none.
    """
    words: Scores = [float(_words(kind, pair)) for pair in texts.pairs]
    names = list(scores)
    by_name = {names[0]: scores[names[0]], WORDS: words, **scores}
    return [_agreement(name, texts, values) for name, values in by_name.items()]


def _words(kind: ScoreKind, pair: tuple[str, str]) -> int:
    """Return the number of words of what is scored: the instruction, for quality the response."""
    return count_words(pair[0] if kind == "complexity" else pair[1])


def _agreement(name: str, texts: MeasuredTexts, scores: Scores) -> Agreement:
    """Return how the scores of one scorer agree with those of `texts`, in the same order.

    A score of None is left out on both sides. Without chains there is no agreement within them.
    """
    known = [place for place, score in enumerate(scores) if score is not None]
    values = np.array([scores[place] for place in known], np.float64)
    expected = np.array([texts.scores[place] for place in known], np.float64)
    groups = [texts.chains[place] for place in known] if texts.chains else None
    return agreement(name, values, expected, groups)


def measure(
    kind: ScoreKind,
    held_out: MeasuredTexts,
    held_out_scores: Mapping[str, Scores],
    labelled: MeasuredTexts,
    labelled_scores: Mapping[str, Scores],
    seen: int,
) -> ScorerFigures:
    """Return the figures of a scorer, which comes first in the scores by scorer."""
    found = agreements(kind, held_out, held_out_scores)
    pairs = zip(next(iter(held_out_scores.values())), held_out.scores, strict=True)
    known = np.array([pair for pair in pairs if pair[0] is not None], np.float64).reshape(-1, 2)
    return ScorerFigures(
        held_out=found,
        labelled=agreements(kind, labelled, labelled_scores) if labelled.pairs else [],
        seen=seen,
        calibration=calibration(known[:, 0], known[:, 1]),
        is_above_words=is_above_words(found[0], found[1]),
        sentence=compare_with_words(found[0], found[1]),
    )
