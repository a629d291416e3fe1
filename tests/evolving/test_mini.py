"""A head of the scorer mini in the store, by what it was fitted to."""

from __future__ import annotations

from pathlib import Path

import pytest

from deita_tasks.config import ScorerTraining, Scoring
from deita_tasks.evolving.chains import Chain, Variant
from deita_tasks.evolving.data_set import ChainSet, DataFacts
from deita_tasks.evolving.evaluation import OWN, MeasuredTexts, measure, texts_of
from deita_tasks.evolving.mini import fit_head, head_of, judged_texts
from deita_tasks.evolving.result import ScorerResult, write_scorer_result
from deita_tasks.plan import scorer_spec
from deita_tasks.scoring import load_scorer
from tests.support.labels import DEMANDS, TOPICS


def judged_chain(topic: str) -> Chain:
    texts = [" ".join([f"Tell me about {topic}.", *DEMANDS[:step]]) for step in range(5)]
    variants = [
        Variant(round=step, method="m", text=text, score=step + 1)
        for step, text in enumerate(texts)
    ]
    return Chain(id=topic, kind="quality", stratum="", instruction="Go on", variants=variants)


CHAINS = [judged_chain(topic) for topic in TOPICS[:4]]


def test_a_head_is_found_again_by_its_texts_in_any_order(tmp_path: Path) -> None:
    store = str(tmp_path)
    texts = judged_texts(CHAINS)
    head = head_of("quality", texts)
    assert head == head_of("quality", judged_texts(CHAINS[::-1])) and head.texts == 20
    assert head.address != head_of("quality", judged_texts(CHAINS[1:])).address
    assert not head.is_fitted(store)
    fit_head(store, head, texts)
    assert head.is_fitted(store)
    packaged = scorer_spec("mini", "quality", Scoring())
    own = scorer_spec("mini", "quality", Scoring(quality_head=head.folder(store)))
    fingerprints = [
        load_scorer(spec["name"], **spec["options"]).fingerprint() for spec in (packaged, own)
    ]
    assert fingerprints[0]["weights_sha256"] != fingerprints[1]["weights_sha256"]


def test_the_result_is_a_folder_that_the_scorer_mini_takes(tmp_path: Path) -> None:
    store, output = str(tmp_path / "store"), tmp_path / "scorer"
    texts = judged_texts(CHAINS)
    head = head_of("quality", texts)
    fit_head(store, head, texts)
    measured = texts_of(CHAINS[:1])
    expected = load_scorer("mini", kind="quality", head=head.folder(store)).score(measured.pairs)
    scores: list[float | None] = [float(score) for score in expected]
    figures = measure("quality", measured, {OWN: scores}, MeasuredTexts([], [], []), {}, 0)
    facts = DataFacts(
        rewrite_prompts="r", judge_prompt="j", rewrite_model="m", judge_model="n", licence="mit"
    )
    chains = ChainSet(chains=CHAINS, facts=facts)
    result = ScorerResult("quality", head, None, chains, [CHAINS[0]], {CHAINS[0].id: scores})
    written = write_scorer_result(str(output), store, result, figures, [], [], {})
    assert (written.manifest.head, written.manifest.training) == ("mini", None)
    own = load_scorer("mini", kind="quality", head=str(output))
    assert own.score(measured.pairs).tolist() == expected.tolist()
    card = (output / "README.md").read_text()
    assert "--quality mini --quality-head path/of/this/folder" in card
    assert "a head of the scorer `mini`, fitted by" in card
    assert "## Training" not in card and "transformers" not in card


def test_mini_needs_no_base_and_takes_no_options_of_a_training() -> None:
    assert ScorerTraining(head="mini", seed=3).name == "mini"
    assert ScorerTraining(base="models/tiny").name == "tiny"
    with pytest.raises(ValueError, match="head = mini trains no model: leave out base, epochs"):
        ScorerTraining(head="mini", base="tiny", epochs=2)
