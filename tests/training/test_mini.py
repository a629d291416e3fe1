"""Fitting the mini scorers: the fits against what is known of them, and the whole of it on labels
with a known rule.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deita_tasks.scoring.length import count_words
from deita_tasks.scoring.mini.features import instruction_features, response_features
from deita_tasks.scoring.mini.head import Head
from deita_tasks.scoring.mini.scorer import MiniScorer
from deita_tasks.training import mini
from deita_tasks.training.fit import (
    agreeing,
    bradley_terry,
    centred,
    kernel_ridge,
    normal_ranks,
    positive_ridge,
    spearman,
)
from deita_tasks.training.labels import (
    CONSTRAINTS,
    GENERAL,
    HARMLESS,
    MEASURED,
    QUALITY_FAMILIES,
    SAME_PROMPTS,
    Compared,
    Labelled,
    prompt_of,
    read_complexity,
    read_quality,
)

RANDOM = np.random.default_rng(0)


def test_ranks_and_their_correlation() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 10, 100, 1000])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 0, 0])) == pytest.approx(
        -0.8944, abs=1e-4
    )  # -2 / sqrt(5)
    ranks = normal_ranks(np.array([30.0, 10, 20, 20]))
    assert ranks[1] == pytest.approx(-1.1503, abs=1e-4)  # the normal distribution at 1/8
    assert ranks[2] == ranks[3] == pytest.approx(0)  # the mean rank, 2.5 of 4
    assert ranks[0] == -ranks[1]


def test_centred_leaves_what_differs_within_a_group() -> None:
    x = np.array([[1.0, 5], [3, 5], [10, 0]])
    np.testing.assert_allclose(centred(x, np.array([0, 0, 1])), [[-1, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(centred(x[:, 0], np.array([0, 0, 1])), [-1, 1, 0])


def test_kernel_ridge_is_where_the_gradient_vanishes() -> None:
    """Of |near w - y|^2 + penalty * w' near w, by hand: near (near w - y + penalty w) = 0."""
    x, y = RANDOM.normal(size=(12, 3)), RANDOM.normal(3, 1, size=12)
    near = np.exp(-((x[:, None] - x[None]) ** 2).sum(2))
    weights = kernel_ridge(near, y, 0.3)
    np.testing.assert_allclose(
        near @ (near @ weights - (y - y.mean()) + 0.3 * weights), 0, atol=1e-10
    )


def test_positive_ridge_meets_the_conditions_of_the_optimum() -> None:
    parts = [(RANDOM.normal(size=(n, 6)), RANDOM.normal(size=n)) for n in (40, 15)]
    weights = positive_ridge(parts, 0.05)
    slope = np.mean([x.T @ (x @ weights - y) / len(x) for x, y in parts], axis=0) + 0.05 * weights
    assert np.all(weights >= 0) and np.any(weights == 0) and np.any(weights > 0)
    np.testing.assert_allclose(slope[weights > 0], 0, atol=1e-7)
    assert np.all(slope[weights == 0] >= 0)


def test_bradley_terry_is_where_the_gradient_vanishes_and_sources_count_alike() -> None:
    one, other = RANDOM.normal(0.5, 1, (200, 3)), RANDOM.normal(-0.2, 1, (20, 3))
    weights = bradley_terry([one, other], 0.01)
    slope = (
        sum((x / (1 + np.exp(x @ weights))[:, None]).mean(0) / 2 for x in (one, other))
        - 0.01 * weights
    )
    np.testing.assert_allclose(slope, 0, atol=1e-8)
    np.testing.assert_allclose(
        bradley_terry([np.tile(one, (3, 1)), other], 0.01), weights, atol=1e-8
    )


def test_a_feature_that_families_disagree_about_is_left_out() -> None:
    length, shared, torn = np.abs(RANDOM.normal(size=(3, 400)))
    here, there = np.stack([length, shared, torn], 1), np.stack([length, shared, -torn], 1)
    assert agreeing([[here], [there]], 0, 0.01).tolist() == [True, True, False]
    assert agreeing([[-here], [there]], 0, 0.01).tolist() == [
        True,
        False,
        True,
    ]  # that beside which all are looked at is always kept


def test_agreement_counts_ties_as_a_half() -> None:
    compared = Compared(np.array([0, 1, 2]), np.array([1, 2, 0]))
    assert mini.agreement(np.array([3.0, 2, 2]), compared) == pytest.approx((1 + 0.5 + 0) / 3)
    assert mini.agreement(np.array([3.0, 2, 2]), compared, np.array([True, False, False])) == 1
    assert np.isnan(mini.agreement(np.array([3.0, 2, 2]), compared, np.zeros(3, bool)))


# ---- the whole of it, on labels with a known rule

DEMANDS = (
    "Explain why it matters.",
    "Compare it with two alternatives.",
    "It must rhyme.",
    "Use exactly one example.",
    "Justify every step.",
)
TOPICS = ("tea", "boats", "chess", "rivers", "verbs", "stars", "taxes", "bread")


def write_labels(folder: Path) -> None:
    """The more demands, the harder; the better response says more different words, the worse one
    repeats itself.
    """
    instructions = [
        (topic, level, " ".join([f"Tell me about {topic}.", *DEMANDS[:level]]))
        for topic in TOPICS
        for level in range(6)
    ]
    complexity = []
    for source in (GENERAL, SAME_PROMPTS, *CONSTRAINTS, *MEASURED):
        for topic, level, text in instructions:
            group = topic if source in CONSTRAINTS else None
            complexity.append(
                {
                    "source": source,
                    "instruction": f"{source} asks: {text}",
                    "label": float(level),
                    "group": group,
                }
            )
    points: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for number, source in enumerate(
        [name for names in QUALITY_FAMILIES.values() for name in names] + [HARMLESS]
    ):
        for topic in TOPICS * 3:
            asked = f"{source} asks about {topic} {len(points) + len(comparisons)}"
            words = [f"{chr(97 + i)}word{number}" for i in range(12 + len(comparisons) % 5)]
            good, bad = (
                f"On {topic}: " + " ".join(words) + ".",
                f"On {topic}: " + " ".join(words[:3] * 4) + " and",
            )
            if source.endswith(("human", "test")):
                comparisons.append(
                    {
                        "source": source,
                        "instruction": asked,
                        "response_a": bad,
                        "response_b": good,
                        "pref": 2,
                    }
                )
            else:
                points += [
                    {"source": source, "instruction": asked, "response": text, "score": score}
                    for text, score in ((good, 9), (bad, 2))
                ]
    for name, rows in (
        ("complexity", complexity),
        ("quality_point", points),
        ("quality_pair", comparisons),
    ):
        with lzma.open(folder / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
def test_from_labels_to_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(tmp_path)
    (tmp_path / "mine.jsonl").write_text(
        "".join(
            json.dumps(
                {"instruction": f"Say something on {t}. {' '.join(DEMANDS[:n])}", "label": n}
            )
            + "\n"
            for t in TOPICS
            for n in range(3)
        )
    )
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        mini.main(
            [
                "--data",
                str(tmp_path),
                "--held-out",
                str(tmp_path / "mine.jsonl"),
                "--output",
                str(tmp_path / name),
            ]
        )
        said = capsys.readouterr().out
    for kind in ("complexity", "quality"):  # the same weights, byte by byte
        assert (tmp_path / "one" / f"{kind}.safetensors").read_bytes() == (
            tmp_path / "other" / f"{kind}.safetensors"
        ).read_bytes()
    figures = {
        line.split()[0]: line.split()[1:]
        for line in said.splitlines()
        if line and not line.startswith(("complexity,", "quality,"))
    }
    assert set(figures) == {
        "mine",
        GENERAL,
        SAME_PROMPTS,
        *CONSTRAINTS,
        *MEASURED,
        HARMLESS,
        *(n for names in QUALITY_FAMILIES.values() for n in names),
    }
    assert figures["mine"][0] == "24" and float(figures["mine"][1]) > 0.8
    assert all(float(figures[name][1]) > 0.8 for name in (GENERAL, *CONSTRAINTS))
    assert all(
        float(figures[name][1]) == 1 for names in QUALITY_FAMILIES.values() for name in names
    )
    head = Head.load(tmp_path / "one" / "quality.safetensors")
    varied, circling = head.total(
        head.standardise(
            [
                response_features("On tea", "One two three four five."),
                response_features("On tea", "a " * 30),
            ]
        )
    )
    assert varied > circling


def test_what_is_left_out_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source's figure comes from a head that saw neither its family nor a prompt that it shares
    with another one.
    """
    write_labels(tmp_path)
    shared = [
        ("pandalm_human", "Say why tides rise."),
        ("open_instruct_human", "say WHY tides\n rise"),
    ]
    with lzma.open(tmp_path / "quality_pair.jsonl.xz", "at", encoding="utf-8") as file:
        for source, asked in shared:
            row = {
                "source": source,
                "instruction": asked,
                "response_a": f"{source}: the moon.",
                "response_b": "No.",
                "pref": 1,
            }
            file.write(json.dumps(row) + "\n")
    pairs, compared = read_quality(tmp_path)
    features = [response_features(*pair) for pair in pairs]
    seen: list[set[str]] = []
    fit = mini.fit_quality

    def spy(features: Any, families: Sequence[Sequence[Compared]]) -> Head:
        seen.append(
            {
                pairs[i][0]
                for family in families
                for one in family
                for i in (*one.better, *one.worse)
            }
        )
        return fit(features, families)

    monkeypatch.setattr(mini, "fit_quality", spy)
    mini.quality_table(
        [prompt_of(asked) for asked, _ in pairs], features, np.ones(len(pairs)), compared
    )
    by_family = {
        family: {pairs[i][0] for name in names for i in compared[name].better}
        for family, names in QUALITY_FAMILIES.items()
    }
    everything, both = set().union(*by_family.values()), {instruction for _, instruction in shared}
    assert len(by_family["pandalm"] & both) == len(by_family["open_instruct"] & both) == 1
    wanted = [everything - by_family[left_out] for left_out in QUALITY_FAMILIES]
    assert seen == [
        wanted[0] - both,
        wanted[1] - both,
        *wanted[2:],
        everything,
    ]  # pandalm and open_instruct come first


def test_texts_apart_from_others_share_no_prompt() -> None:
    def texts(*instructions: str) -> mini.Texts:
        n = len(instructions)
        features = [instruction_features(text) for text in instructions]
        column = np.arange(n, dtype=float)
        return mini.Texts(
            [prompt_of(text) for text in instructions],
            features,
            column[:, None].astype(np.float32),
            column,
            column,
            np.arange(n),
            column,
        )

    found = texts("Name a tree.", "Sing!", "Why?").apart_from(texts("sing", "name  two trees"))
    assert found.prompts == [
        "name a tree",
        "why",
    ] and found.labels.tolist() == found.aim.tolist() == [0, 2]
    assert found.states.tolist() == [[0], [2]]
    assert [list(found.features), found.words.tolist(), found.groups.tolist()] == [
        [instruction_features("Name a tree."), instruction_features("Why?")],
        [0, 2],
        [0, 2],
    ]


def test_who_was_judged_twice_has_the_sum_of_both_opinions() -> None:
    texts = mini.Texts(
        ["a", "b", "c"],
        [{}] * 3,
        np.zeros((3, 0), np.float32),
        *[np.zeros(3)] * 2,
        np.arange(3),
        np.array([1.0, 2, 3]),
    )
    again = Labelled(["B!", "a"], np.array([7.0, 9.0]), np.zeros(2, np.int64))
    high = 0.67449  # the normal distribution at 3/4, of two ranks
    assert mini.judged_twice(texts, again).aim.tolist() == pytest.approx(
        [1 + high, 2 - high, 3], abs=1e-5
    )


def test_general_prompts_are_in_no_other_source_that_is_fitted_to(tmp_path: Path) -> None:
    write_labels(tmp_path)
    with lzma.open(tmp_path / "complexity.jsonl.xz", "at", encoding="utf-8") as file:
        again = f"{GENERAL} asks: Tell me about tea."
        file.write(
            json.dumps(
                {"source": CONSTRAINTS[0], "instruction": again, "label": 0.0, "group": "tea"}
            )
            + "\n"
        )
    found = read_complexity(tmp_path)
    assert again in found[GENERAL].texts and again not in found[CONSTRAINTS[0]].texts
    assert len(found[CONSTRAINTS[0]].texts) == len(TOPICS) * 6


# ---- the real labels, where they lie beside the checkout


@pytest.mark.shared
@pytest.mark.slow
def test_quality_is_above_words_on_sources_that_were_left_out(shared: Path) -> None:
    """Above on average on three of the four families, and on no source more than 0.02 below (the
    model card's table).
    """
    pairs, compared = read_quality(shared / "data")
    features = [response_features(*pair) for pair in pairs]
    words = np.array([count_words(response) for _, response in pairs], float)
    prompts = [prompt_of(asked) for asked, _ in pairs]
    better = {}
    for family, names in QUALITY_FAMILIES.items():
        head = mini.fit_quality(features, mini.other_families(names, compared, prompts))
        values = head.total(head.standardise(features))
        better[family] = [
            mini.agreement(values, compared[n]) - mini.agreement(words, compared[n])
            for n in names
            if len(compared[n].better) >= 20
        ]
    assert sum(float(np.mean(gains)) > 0 for gains in better.values()) >= 3
    assert min(map(min, better.values())) > -0.02


@pytest.mark.shared
@pytest.mark.slow
def test_complexity_is_above_words_on_general_prompts_that_were_left_out(shared: Path) -> None:
    sources = read_complexity(shared / "data")
    bare = {
        name: _without_states(sources[name]) for name in (GENERAL, *CONSTRAINTS)
    }  # the judged opinion is what is left out
    head = mini.fit_complexity(None, [bare[name] for name in CONSTRAINTS])
    general = bare[GENERAL]
    assert (
        spearman(mini.totals(head, general), general.labels)
        > spearman(general.words, general.labels) + 0.03
    )


@pytest.mark.shared
@pytest.mark.slow
def test_the_shipped_head_ranks_a_source_that_it_was_not_fitted_to_better_than_words(
    shared: Path,
) -> None:
    """Levels of MATH, by the scorer itself (the model card's row): a judge that is lost or turned
    round falls below.
    """
    texts = mini._sampled(read_complexity(shared / "data")["math_level"])
    scores = MiniScorer(kind="complexity", device="cpu").score([(text, "") for text in texts.texts])
    words = np.array([count_words(text) for text in texts.texts], float)
    assert spearman(scores.astype(float), texts.labels) > spearman(words, texts.labels) + 0.03


def test_a_held_out_file_cannot_take_the_place_of_a_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path)
    (tmp_path / f"{GENERAL}.jsonl").write_text('{"instruction": "Name a tree.", "label": 1}\n')
    with pytest.raises(SystemExit):
        mini.main(["--data", str(tmp_path), "--held-out", str(tmp_path / f"{GENERAL}.jsonl")])
    assert f"there is a source named {GENERAL} already" in capsys.readouterr().err


def _without_states(source: Labelled) -> mini.Texts:
    words = np.array([count_words(text) for text in source.texts], float)
    features = [instruction_features(text) for text in source.texts]
    states, aim = np.zeros((len(words), 0), np.float32), normal_ranks(source.labels)
    return mini.Texts(
        list(source.texts), features, states, words, source.labels, source.groups, aim
    )
