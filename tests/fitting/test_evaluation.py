"""What the mini scorers do on sources that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deita_tasks.scoring.length import count_words
from deita_tasks.scoring.mini.features import instruction_features, response_features
from deita_tasks.scoring.mini.head import Head
from deita_tasks.scoring.mini.scorer import MiniScorer
from deita_tasks.training.fit import normal_scores, spearman
from deita_tasks.training.heads import (
    EncodedTexts,
    compared_positions,
    fit_complexity,
    fit_quality,
    predict_totals,
)
from deita_tasks.training.texts import Comparisons, LabelledTexts, normalise_prompt
from fitting import evaluation
from fitting.evaluation import comparisons_without, pairwise_accuracy
from fitting.labels import (
    CONSTRAINTS,
    GENERAL,
    QUALITY_FAMILIES,
    read_complexity,
    read_quality,
)
from fitting.mini import sample_texts
from tests.support.labels import append_rows, write_labels


def test_accuracy_counts_ties_as_a_half() -> None:
    compared = Comparisons(np.array([0, 1, 2]), np.array([1, 2, 0]))
    values = np.array([3.0, 2, 2])
    assert pairwise_accuracy(values, compared) == pytest.approx((1 + 0.5 + 0) / 3)
    assert pairwise_accuracy(values, compared.select(np.array([True, False, False]))) == 1
    assert np.isnan(pairwise_accuracy(values, compared.select(np.zeros(3, bool))))


def test_a_left_out_source_is_not_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source's figure comes from a head without its family and without prompts that it shares."""
    write_labels(tmp_path)
    shared = [
        ("pandalm_human", "Say why tides rise."),
        ("open_instruct_human", "say WHY tides\n rise"),
    ]
    for source, instruction in shared:
        row = {"source": source, "instruction": instruction, "pref": 1}
        responses = {"response_a": f"{source}: the moon.", "response_b": "No."}
        append_rows(tmp_path / "quality_pair.jsonl.xz", [{**row, **responses}])
    pairs, compared = read_quality(tmp_path)
    features = [response_features(*pair) for pair in pairs]
    fitted_to: list[set[str]] = []

    def spy(features: Any, families: Sequence[Sequence[Comparisons]]) -> Head:
        positions = compared_positions(source for family in families for source in family)
        fitted_to.append({pairs[i][0] for i in positions})
        return fit_quality(features, families)

    monkeypatch.setattr(evaluation, "fit_quality", spy)
    prompts = [normalise_prompt(instruction) for instruction, _ in pairs]
    evaluation.quality_table(prompts, features, np.ones(len(pairs)), compared)
    by_family = {
        family: {pairs[i][0] for name in names for i in compared[name].better}
        for family, names in QUALITY_FAMILIES.items()
    }
    everything = set().union(*by_family.values())
    both = {instruction for _, instruction in shared}
    assert len(by_family["pandalm"] & both) == len(by_family["open_instruct"] & both) == 1
    expected = [everything - by_family[left_out] for left_out in QUALITY_FAMILIES]
    expected[0] -= both  # pandalm and open_instruct come first
    expected[1] -= both
    assert fitted_to == [*expected, everything]


# ---- the real labels, if they are beside the checkout


@pytest.mark.shared
@pytest.mark.slow
def test_quality_is_above_words_on_sources_that_were_left_out(shared: Path) -> None:
    """On average above on three of the four families, and on no source more than 0.02 below.

    See the model card's table.
    """
    pairs, compared = read_quality(shared / "data")
    features = [response_features(*pair) for pair in pairs]
    words = np.array([count_words(response) for _, response in pairs], float)
    prompts = [normalise_prompt(instruction) for instruction, _ in pairs]
    gains: dict[str, list[float]] = {}
    for family, names in QUALITY_FAMILIES.items():
        head = fit_quality(features, comparisons_without(names, compared, prompts))
        values = head.total(head.standardise(features))
        sources = [compared[name] for name in names if len(compared[name].better) >= 20]
        gains[family] = [
            pairwise_accuracy(values, source) - pairwise_accuracy(words, source)
            for source in sources
        ]
    assert sum(float(np.mean(family)) > 0 for family in gains.values()) >= 3
    assert min(map(min, gains.values())) > -0.02


@pytest.mark.shared
@pytest.mark.slow
def test_complexity_is_above_words_on_general_prompts_that_were_left_out(shared: Path) -> None:
    sources = read_complexity(shared / "data")
    # without the general source there is no judged opinion, which needs states
    head = fit_complexity(None, [without_states(sources[name]) for name in CONSTRAINTS])
    general = without_states(sources[GENERAL])
    by_head = spearman(predict_totals(head, general), general.labels)
    assert by_head > spearman(general.words, general.labels) + 0.03


@pytest.mark.shared
@pytest.mark.slow
def test_the_shipped_head_ranks_a_source_that_it_was_not_fitted_to_better_than_words(
    shared: Path,
) -> None:
    """Levels of MATH, by the scorer itself (the model card's row).

    A judge that is lost or reversed falls below.
    """
    source = sample_texts(read_complexity(shared / "data")["math_level"])
    scorer = MiniScorer(kind="complexity", device="cpu")
    scores = scorer.score([(text, "") for text in source.texts])
    words = np.array([count_words(text) for text in source.texts], float)
    by_scorer = spearman(scores.astype(float), source.labels)
    assert by_scorer > spearman(words, source.labels) + 0.03


def without_states(source: LabelledTexts) -> EncodedTexts:
    return EncodedTexts(
        prompts=list(source.texts),
        features=[instruction_features(text) for text in source.texts],
        states=np.zeros((len(source.texts), 0), np.float32),
        words=np.array([count_words(text) for text in source.texts], float),
        labels=source.labels,
        groups=source.groups,
        target=normal_scores(source.labels),
    )
