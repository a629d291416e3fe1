"""What a run is planned with, what is measured, and what the result shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deita_tasks.config import Judging, Requests, Rewriting, SeedSource
from deita_tasks.errors import InputError, TooManyBadRows, UsageError
from deita_tasks.evolving.beside import scorer_beside
from deita_tasks.evolving.chains import Chain, Seed, Variant
from deita_tasks.evolving.data_set import ChainSet, DataFacts
from deita_tasks.evolving.estimate import estimate_roles
from deita_tasks.evolving.evaluation import MeasuredTexts, measure, texts_of
from deita_tasks.evolving.report import (
    calibration_png,
    calibration_svg,
    chains_beside,
    figures_markdown,
)
from deita_tasks.evolving.result import ChainCounts
from deita_tasks.evolving.roles import open_models, roles_of
from deita_tasks.evolving.seed_files import read_labelled, read_seeds, without_seen
from deita_tasks.evolving.shards import (
    has_chains,
    judge_digest,
    read_chains,
    rewrite_digest,
    shards_of,
    write_chains,
)
from deita_tasks.evolving.templates import load_templates
from deita_tasks.scoring import mini
from tests.support.small_pool import write_rows

URL = "http://localhost:8000/v1"
REWRITING = Rewriting(rewrite_url=URL, rewrite_model="writer")
SEEDS = [Seed(str(number), f"Sort {number} numbers.", "") for number in range(5)]
TEMPLATES = load_templates("complexity")


def chain(name: str, *scores: int, ended: str | None = None) -> Chain:
    variants = [
        Variant(round=turn, method="m", text="word " * (turn + 1), score=score)
        for turn, score in enumerate(scores)
    ]
    return Chain(
        id=name, kind="complexity", stratum="", instruction="word", variants=variants, ended=ended
    )


def test_the_judge_is_the_model_that_rewrites_unless_it_is_named(tmp_path: Path) -> None:
    requests = Requests(concurrency=3, token_cap=7)
    rewriter, judge = roles_of(REWRITING, Judging(), requests)
    assert (judge.url, judge.model, judge.concurrency) == (URL, "writer", 3)
    assert judge.temperature == 0 < rewriter.temperature
    judging = Judging(judge_url="http://other/v1/", judge_model="judge")
    _, judge = roles = roles_of(REWRITING, judging, requests)
    assert (judge.url, judge.model) == ("http://other/v1/", "judge")
    models = open_models(roles, requests, str(tmp_path))
    assert models.rewriter.options.model == "writer"
    with pytest.raises(UsageError, match="judge_url: the base URL 'nowhere' is not the address"):
        roles_of(REWRITING, Judging(judge_url="nowhere"), requests)


def test_a_key_is_shown_to_its_own_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deita_tasks.scoring.served._secret_reader", None)
    monkeypatch.setenv("OWN_KEY", "k")
    rewriting = REWRITING.model_copy(update={"rewrite_key_env": "OWN_KEY"})
    assert roles_of(rewriting, Judging(), Requests()).judge.api_key_env == "OWN_KEY"
    elsewhere = Judging(judge_url="http://other/v1")
    assert roles_of(rewriting, elsewhere, Requests()).judge.api_key_env == "OPENAI_API_KEY"
    with pytest.raises(UsageError, match="NO_KEY: there is no such environment variable"):
        roles_of(rewriting, Judging(judge_key_env="NO_KEY"), Requests())
    with pytest.raises(UsageError, match="only a run can read Prefect's Secret blocks"):
        roles_of(rewriting, Judging(judge_key_block="own"), Requests())


def test_the_estimate_is_for_both_models() -> None:
    roles = roles_of(REWRITING, Judging(judge_model="judge"), Requests())
    chains = [chain(str(number), 1) for number in range(5)]
    rewrite, judge = estimate_roles(chains, TEMPLATES, 5, roles, Requests(requests_per_minute=5))
    assert (rewrite.model, rewrite.requests, rewrite.minutes) == ("writer", 25, 5.0)
    assert str(judge).startswith("judge, judge: 5 requests, about ")
    assert str(judge).endswith("out, at least 1.0 minutes; the store has 0 more")


def test_what_names_a_shard_is_all_that_its_chains_depend_on(tmp_path: Path) -> None:
    roles = roles_of(REWRITING, Judging(), Requests())
    first = rewrite_digest(SEEDS, TEMPLATES, roles.rewriter, 5, 0)
    other = roles.rewriter.model_copy(update={"model": "other"})
    quality = load_templates("quality")
    names = {
        first,
        rewrite_digest(SEEDS[1:], TEMPLATES, roles.rewriter, 5, 0),
        rewrite_digest(SEEDS, TEMPLATES, other, 5, 0),
        rewrite_digest(SEEDS, TEMPLATES, roles.rewriter, 4, 0),
        rewrite_digest(SEEDS, TEMPLATES, roles.rewriter, 5, 1),
        rewrite_digest(SEEDS, quality, roles.rewriter, 5, 0),
        judge_digest(first, TEMPLATES, roles.judge, 0),
        judge_digest(first, TEMPLATES, roles.judge, 1),
        judge_digest(first, quality, roles.judge, 0),
    }
    assert len(names) == 9
    faster = roles.rewriter.model_copy(update={"concurrency": 1, "timeout": 1.0})
    assert rewrite_digest(SEEDS, TEMPLATES, faster, 5, 0) == first
    assert [len(shard) for shard in shards_of(SEEDS, 2)] == [2, 2, 1]
    uri = str(tmp_path / "shard")
    assert not has_chains(uri)
    write_chains(uri, [chain("a", 1, 2)])
    assert read_chains(uri) == [chain("a", 1, 2)]
    assert has_chains(uri)


def test_seeds_are_read_from_files_that_may_hold_a_few_bad_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"Sort {number}", "response": "So."} for number in range(9)]
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    with pool.open("a") as file:
        file.write("{broken\n")
    source = SeedSource(input=[str(pool)], kind="quality", chains=4, min_good_fraction=0.9)
    seeds, inputs = read_seeds(source, 0)
    assert len(seeds) == 4
    assert (inputs[0].rows, inputs[0].uri) == (10, str(pool))
    with pytest.raises(TooManyBadRows, match=r"9 of 10 rows can be read, less than the required 9"):
        read_seeds(source.model_copy(update={"min_good_fraction": 0.95}), 0)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"instruction": "Sort", "input": "3 1 2"}, "Sort\n3 1 2"),
        ({"instruction": "Sort", "output": None}, "Sort"),
        ({"prompt": "Sort"}, "Sort"),
        ({"prompt": [{"role": "user", "content": "Sort"}]}, "Sort"),
        ({"messages": [{"role": "user", "content": "Sort"}]}, "Sort"),
        ({"question": "Sort", "topic": "a"}, "Sort"),
    ],
)
def test_instructions_without_answers_are_seeds_of_complexity_alone(
    row: dict[str, object], text: str, tmp_path: Path
) -> None:
    uri = str(write_rows(tmp_path / "prompts.jsonl", [{"score": 3, **row}]))
    seeds, _ = read_seeds(SeedSource(input=[uri], kind="complexity"), 0)
    assert [(seed.instruction, seed.response) for seed in seeds] == [(text, "")]
    assert read_labelled("complexity", [uri], "score").pairs == [(text, "")]
    expected = "but nothing their responses|answers no user turn|'output' the responses"
    with pytest.raises((InputError, TooManyBadRows), match=expected):
        read_seeds(SeedSource(input=[uri], kind="quality"), 0)
    with pytest.raises(InputError, match=expected):
        read_labelled("quality", [uri], "score")


def test_of_equal_texts_the_same_is_the_seed_in_any_order(tmp_path: Path) -> None:
    rows = [{"prompt": "Sort", "response": answer} for answer in ("a", "b", "c")]
    drawn = []
    for order in (rows, rows[::-1]):
        uri = str(write_rows(tmp_path / "pool.jsonl", order))
        drawn.append(read_seeds(SeedSource(input=[uri], kind="complexity"), 0).seeds)
    assert len(drawn[0]) == 1
    assert drawn[0] == drawn[1]


def test_labelled_rows_need_a_number_and_are_not_of_the_training(tmp_path: Path) -> None:
    rows = [{"prompt": f"Sort {number}", "response": "So.", "hard": number} for number in (1, 2)]
    labels = str(write_rows(tmp_path / "labels.jsonl", rows))
    texts = read_labelled("complexity", [labels], "hard")
    assert texts == ([("Sort 1", ""), ("Sort 2", "")], [1.0, 2.0], [])
    assert read_labelled("quality", [labels], "hard").pairs[0] == ("Sort 1", "So.")
    kept, seen = without_seen(texts, {("Sort 1", ""), ("Sort 3", "")})
    assert (kept.pairs, kept.scores, seen) == ([("Sort 2", "")], [2.0], 1)
    expected = r"row 1 of .*labels.jsonl: label_column = 'score' holds no number; the row has hard"
    with pytest.raises(InputError, match=expected):
        read_labelled("complexity", [labels], "score")


def test_a_scorer_is_measured_beside_words_and_other_scorers() -> None:
    """By hand: words rank both chains as judged; the scorer ranks the second the other way."""
    held_out = texts_of([chain("a", 1, 2, 3), chain("b", 2, 4, 6)])
    scores = {"this scorer": [1.0, 2.0, 3.0, 6.0, None, 2.0], "mini": [1.0] * 6}
    nothing = MeasuredTexts([], [], [])
    found = measure("complexity", held_out, scores, nothing, {name: [] for name in scores}, 0)
    own, words, mini = found.held_out
    assert (own.name, words.name, mini.name) == ("this scorer", "number of words", "mini")
    assert (own.texts, own.within) == (5, pytest.approx(0))
    assert (words.texts, words.within, words.chains) == (6, pytest.approx(1), 2)
    assert (mini.across, mini.within) == (None, 0.0)
    assert not found.is_above_words
    assert [(point.judged, point.texts, point.mean) for point in found.calibration] == [
        (1, 1, 1.0),
        (2, 2, 4.0),
        (3, 1, 3.0),
        (6, 1, 2.0),
    ]
    page = figures_markdown(found, ["a note"])
    assert page.startswith("# Not above words")
    assert "data:image/svg+xml;base64," in page
    assert "| this scorer | 5 |" in page
    assert calibration_png(found.calibration)[:4] == b"\x89PNG"
    assert calibration_svg(found.calibration) == calibration_svg(found.calibration)


def test_others_are_names_folders_with_a_head_or_checkpoints(tmp_path: Path) -> None:
    assert scorer_beside("complexity", "instruction_length", "cpu") == {
        "name": "instruction_length",
        "options": {"kind": "complexity"},
    }
    head = str(tmp_path)
    packaged = Path(mini.__file__ or "").parent
    shutil.copy(next(packaged.rglob("complexity.safetensors")), tmp_path)
    own = {"kind": "complexity", "device": "cpu"}
    assert scorer_beside("complexity", head, "cpu")["options"] == {**own, "head": head}
    assert scorer_beside("complexity", "org/model", "cpu") == {
        "name": "causal_lm",
        "options": {**own, "model": "org/model"},
    }
    for name, problem in {
        "judge": "model",
        "provided": "not of new texts",
        "response_length": "kind",
    }.items():
        with pytest.raises(UsageError, match=f"beside = '{name}': .*{problem}"):
            scorer_beside("complexity", name, "cpu")


def test_chains_stand_side_by_side() -> None:
    rows = chains_beside(
        [chain("a", 1, 2), chain("b", 3, ended="round 1, m: why")], {"a": [1.5, None]}
    )
    assert rows == [
        {
            "round": 0,
            "chain 1": "[m; judged 1, expected 1.50] word",
            "chain 2": "[m; judged 3] word",
        },
        {"round": 1, "chain 1": "[m; judged 2] word word", "chain 2": "ended: round 1, m: why"},
    ]


def test_chains_without_scores_are_counted_by_reason() -> None:
    facts = DataFacts(
        rewrite_prompts="r", judge_prompt="j", rewrite_model="m", judge_model="n", licence="CC0-1.0"
    )
    bad = chain("b", 1).model_copy(update={"variants": [Variant(round=0, method="m", text="x")]})
    chains = [
        chain("a", 1, 2),
        bad.model_copy(update={"problem": "no reply", "ended": "round 1"}),
        bad.model_copy(update={"problem": "no reply"}),
    ]
    counts = ChainCounts.of(ChainSet(chains=chains, facts=facts), 1)
    assert counts.sentences() == [
        "3 chains, 1 of them judged; 1 are held out",
        "1 chains ended early: no rewrite passed the checks",
        "2 chains have no scores: no reply",
    ]
    assert json.loads(counts.model_dump_json())["without_scores"] == {"no reply": 2}
