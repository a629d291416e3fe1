"""The flow train-scorer: from seeds to a checkpoint that select takes, each reply paid for once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
from tests.support.completions_server import serving
from tests.support.scorer_server import ScorerServer, seed_text
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
RECIPE = {"epochs": 12, "learning_rate": 4e-3, "batch_size": 16, "device_batch_size": 16}


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base-model"))


@pytest.fixture
def server() -> Iterator[ScorerServer]:
    with serving(ScorerServer()) as running:
        assert isinstance(running, ScorerServer)
        yield running


def unreliable(body: dict[str, Any]) -> Any:
    """One request in five finds a busy server, a broken connection or half an answer."""
    return random.choice([(429, {"Retry-After": "0"}), "drop", "html", *[None] * 12])


def write_seeds(path: Path, count: int) -> Path:
    rows = [{"prompt": seed_text(number), "response": "Yes."} for number in range(count)]
    return write_rows(path, rows)


def train(folder: Path, base: Path, url: str, **given: Any) -> Any:
    """The flow; `given` are fields of its parameters, whichever group they are in."""
    from flows.train_scorer import train_scorer

    values = {"input": [str(folder / "seeds.jsonl")], "kind": "complexity", "base": str(base)}
    values |= {"rewrite_url": url, "rewrite_model": "rewriter", "judge_model": "judge"}
    values |= {"output": str(folder / "scorer"), "store": str(folder / "store"), "retries": 0}
    values |= {"max_length": 256, "checkpoint_steps": 1000, **RECIPE, **given}
    groups = {
        name: group(**{field: values.pop(field) for field in group.model_fields if field in values})
        for name, group in GROUPS.items()
    }
    assert not values, f"no such parameters: {values}"
    return train_scorer(**groups)


@pytest.mark.slow
def test_the_hidden_ranking_is_found(
    server: ScorerServer, base_model: Path, tmp_path: Path, offline: None, prefect_server: None
) -> None:
    server.fault_of = unreliable
    write_seeds(tmp_path / "seeds.jsonl", 200)
    trained = train(tmp_path, base_model, server.url)
    own, words = trained.manifest.figures.held_out[:2]
    print(own, words, trained.manifest.figures.sentence, trained.manifest.training.updates)
    for path in sorted((tmp_path / "scorer").iterdir()):
        print(path.name, path.stat().st_size)
    print((tmp_path / "scorer" / "README.md").read_text())
    assert own.across is not None
    assert own.across > 0.9
