"""The flow train-scorer: from seeds to a checkpoint that select takes, each reply paid for once."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

pytest.importorskip("trl", reason="the extra train is not installed")

from deita_tasks.config import (
    Judging,
    Output,
    Requests,
    Rewriting,
    Runtime,
    ScorerMeasures,
    ScorerTraining,
    SeedSource,
)
from deita_tasks.preflight import check, read_sample
from deita_tasks.scoring import load_scorer
from tests.support.completions_server import serving
from tests.support.flow_runs import run
from tests.support.runs import finish, server_of_the_tests, start
from tests.support.scorer_server import ScorerServer, grade, seed_text, write_seeds
from tests.support.small_pool import write_rows
from tests.support.tiny_base import write_base

pytestmark = pytest.mark.flow

GROUPS = {
    "source": SeedSource,
    "rewriting": Rewriting,
    "judging": Judging,
    "requests": Requests,
    "training": ScorerTraining,
    "measures": ScorerMeasures,
    "output": Output,
    "advanced": Runtime,
}
RECIPE = {"epochs": 5, "learning_rate": 4e-3, "batch_size": 16, "device_batch_size": 16}
CONCURRENCY = 4


class Trained(NamedTuple):
    """A finished run: its folder, what the flow returned, and what the server was asked."""

    folder: Path
    result: Any
    server: ScorerServer
    requests: int

    @property
    def scorer(self) -> Path:
        return self.folder / "scorer"


def unreliable() -> Callable[[dict[str, Any]], Any]:
    """Half of all requests find a busy server, a broken connection or half an answer at first."""
    seen: set[str] = set()

    def fault_of(body: dict[str, Any]) -> Any:
        content = json.dumps(body)
        if content in seen:
            return None
        seen.add(content)
        faults = [(429, {"Retry-After": "0"}), "drop", "html", None, None, None]
        return random.Random(content).choice(faults)

    return fault_of


def options(folder: Path, base: Path, url: str, **given: Any) -> dict[str, Any]:
    values = {"input": [str(folder / "seeds.jsonl")], "kind": "complexity", "base": str(base)}
    values |= {"rewrite_url": url, "rewrite_model": "rewriter", "judge_model": "judge"}
    values |= {"output": str(folder / "scorer"), "store": str(folder / "store"), "retries": 0}
    values |= {"max_length": 256, "checkpoint_steps": 1000, "concurrency": CONCURRENCY}
    return {**values, **RECIPE, **given}


def train(folder: Path, base: Path, url: str, **given: Any) -> Any:
    """The flow; `given` are fields of its parameters, whichever group they are in."""
    from flows.train_scorer import train_scorer

    values = options(folder, base, url, **given)
    groups = {
        name: group(**{field: values.pop(field) for field in group.model_fields if field in values})
        for name, group in GROUPS.items()
    }
    assert not values, f"no such parameters: {values}"
    return train_scorer(**groups)


def labelled(path: Path) -> Path:
    """Texts of each grade, labelled from 0 to 5 by the hidden rule."""
    texts = [
        seed_text(number) + " rigorous formal"[: 9 * (number % 3)] for number in range(900, 930)
    ]
    rows = [{"prompt": text, "response": "Yes.", "score": grade(text) - 1} for text in texts]
    return write_rows(path, rows)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base-model"))


@pytest.fixture(scope="module")
def trained(
    base_model: Path, tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("own")
    write_seeds(folder / "seeds.jsonl", 120)
    server = ScorerServer()
    server.fault_of = unreliable()
    with pytest.MonkeyPatch.context() as patch, serving(server):
        patch.setenv("HF_HUB_OFFLINE", "1")
        labels = [str(labelled(folder / "labels.jsonl"))]
        result = train(folder, base_model, server.url, labelled=labels, held_out_share=0.2)
        yield Trained(folder, result, server, len(server.bodies))


@pytest.mark.slow
def test_the_hidden_ranking_is_found(trained: Trained) -> None:
    """By a server that fails, on chains that the scorer has not seen."""
    table = pq.read_table(trained.scorer / "scorer_data.parquet").to_pylist()
    held_out = [row for row in table if row["split"] == "held_out"]
    assert len({row["chain"] for row in held_out}) == 24
    assert not {row["chain"] for row in held_out} & {
        row["chain"] for row in table if row["split"] == "train"
    }
    scorer = load_scorer("causal_lm", kind="complexity", model=str(trained.scorer), device="cpu")
    pairs = [(row["instruction"], "") for row in held_out]
    scores = scorer.score(pairs)
    hidden = [grade(row["instruction"]) for row in held_out]
    assert spearmanr(scores, hidden).statistic >= 0.9
    own, words = trained.result.manifest.figures.held_out
    assert own.across == pytest.approx(
        spearmanr(scores, [row["score"] for row in held_out]).statistic, abs=1e-6
    )
    assert (own.name, words.name) == ("this scorer", "number of words")
    (own, words) = trained.result.manifest.figures.labelled
    assert (own.texts, own.within) == (30, None)
    # The parity of batch sizes: alone, all at once, and in small batches.
    np.testing.assert_array_equal([scorer.score([pair])[0] for pair in pairs[:9]], scores[:9])
    small = {"kind": "complexity", "model": str(trained.scorer), "device": "cpu"}
    scorer = load_scorer("causal_lm", **small, batch_tokens=256)
    np.testing.assert_array_equal(scorer.score(pairs), scores)


@pytest.mark.slow
def test_the_result_says_what_it_is(trained: Trained) -> None:
    files = {path.name for path in trained.scorer.iterdir()}
    assert files >= {"model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert files >= {"calibration.png", "calibration.svg", "released.jsonl", "chains.jsonl"}
    card = (trained.scorer / "README.md").read_text()
    manifest = trained.result.manifest
    assert manifest.figures.sentence.split(" 0.")[0] in card
    assert "rewritten by rewriter" in card
    assert str(trained.folder) not in card, "a card shows no paths of a machine"
    chains = [json.loads(line) for line in (trained.scorer / "chains.jsonl").open()]
    judged = sum(all(each["score"] for each in chain["variants"]) for chain in chains)
    assert (len(chains), judged) == (120, manifest.chains.judged)
    first = json.loads((trained.scorer / "released.jsonl").open().readline())
    assert first["conversations"][0]["value"].endswith("##Complexity: ")
    assert first["conversations"][1]["value"] in "123456"
    answered = len(trained.server.answered)
    assert sum(role.requests for role in manifest.usage) == answered < trained.requests


@pytest.mark.slow
def test_it_goes_through_preflight_and_select(trained: Trained, tmp_path: Path) -> None:
    pool = trained.folder / "seeds.jsonl"
    own = {"complexity": "causal_lm", "complexity_model": str(trained.scorer), "device": "cpu"}
    component = load_scorer("causal_lm", kind="complexity", model=str(trained.scorer), device="cpu")
    found = check("complexity", component, read_sample([str(pool)], "auto"), 120)
    assert found.digit_ids is not None
    assert len(found.digit_ids) == 6
    assert not found.warnings
    selected = run(pool, tmp_path / "store", tmp_path / "out", strategy="top_score", **own)
    assert len(selected.kept) == 10
    instructions = [row["prompt"] for row in selected.selected]
    assert all(grade(text) == 2 for text in instructions), "the better of the two grades of seeds"


@pytest.mark.slow
def test_again_asks_for_nothing_and_trains_nothing(
    trained: Trained, base_model: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    from deita_tasks.finetuning import launch

    monkeypatch.setattr(launch, "_run_here", None)
    before = len(trained.server.bodies)
    more = {"output": str(trained.folder / "again"), "held_out_share": 0.2, "token_cap": 1}
    again = train(trained.folder, base_model, trained.server.url, **more)
    assert len(trained.server.bodies) == before
    assert again.manifest.training == trained.result.manifest.training
    assert again.manifest.figures.held_out == trained.result.manifest.figures.held_out


def test_a_dry_run_asks_for_nothing(
    base_model: Path, tmp_path: Path, offline: None, prefect_server: None
) -> None:
    write_seeds(tmp_path / "seeds.jsonl", 40)
    with serving(ScorerServer()) as server:
        estimate = train(
            tmp_path, base_model, server.url, dry_run=True, chains=30, requests_per_minute=15
        )
        assert server.bodies == []
    rewrite, judge = estimate.roles
    assert (estimate.chains, rewrite.requests, judge.requests) == (30, 150, 30)
    assert rewrite.minutes == pytest.approx(10)
    assert not (tmp_path / "scorer").exists()


# ---- killed


def kept_replies(store: Path) -> Counter[str]:
    """How many replies the store has, by what was asked first."""
    found: Counter[str] = Counter()
    for path in store.glob("replies/*/*.json"):
        if not path.name.startswith("."):
            content = json.loads(path.read_text())
            found[content["question"]["messages"][0]["content"]] += 1
    return found


def is_fitting(store: Path) -> bool:
    return any(store.glob("trainings/*/checkpoint-*"))


def kill_when(arguments: list[str], is_time: Any, **environment: str) -> None:
    """Start the command, and kill it as soon as `is_time()`."""
    process = start(arguments, **environment)
    while not is_time():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_killed_run_pays_for_no_reply_twice(
    base_model: Path, tmp_path: Path, prefect_server: None
) -> None:
    """Killed at random moments, once in the fit. What each run pays for is new in the store."""
    write_seeds(tmp_path / "seeds.jsonl", 40)
    more = {"checkpoint_steps": 2, "epochs": 1}
    with serving(ScorerServer()) as server:
        assert isinstance(server, ScorerServer)
        server.fault_of = unreliable()
        values = options(tmp_path, base_model, server.url, **more)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
        words[0] = f"--input={tmp_path / 'seeds.jsonl'}"
        command = [sys.executable, "-m", "flows.cli", "train-scorer", *words]
        environment = {**server_of_the_tests(), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        store = tmp_path / "store"
        paid, kept = 0, Counter[str]()
        dice = random.Random(0)
        moments = [dice.randint(5, 90), dice.randint(100, 230), None]
        for moment in moments:
            if moment is None:
                kill_when(command, lambda: is_fitting(store), **environment)
            else:
                kill_when(command, lambda: len(server.answered) >= moment, **environment)  # noqa: B023
            new = Counter(server.answered[paid:])
            paid = len(server.answered)
            lost = new - (kept_replies(store) - kept)
            assert lost.total() <= (CONCURRENCY if moment else 0), "under way when it was killed"
            kept = kept_replies(store)
        finish(command, **environment)
        assert Counter(server.answered[paid:]) == kept_replies(store) - kept == Counter()
    manifest = json.loads((tmp_path / "scorer" / "manifest.json").read_text())
    assert [role["requests"] for role in manifest["usage"]] == [0, 0], "the last run only fits"
    assert manifest["chains"]["drawn"] == 40
