"""Losses of held-out rows, answers, and lm-eval behind its public function."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from deita_tasks.errors import ComputeError, MissingExtra, UsageError
from deita_tasks.finetuning import harness
from deita_tasks.finetuning.evaluation import Evaluator
from deita_tasks.finetuning.examples import build_training_set
from deita_tasks.finetuning.preferences import EncodedPreference
from deita_tasks.models.chat import IGNORED
from deita_tasks.models.chat_tokenizer import Tokenization
from deita_tasks.models.stopping import stopped_by
from tests.support.checkpoints import poison
from tests.support.tiny_base import conversations, encoded, write_base


@pytest.fixture(scope="module")
def evaluator(base_folder: Path) -> Evaluator:
    return Evaluator(str(base_folder), "cpu")


def test_the_loss_is_the_log_probability_of_the_answers(
    evaluator: Evaluator, base_folder: Path, tokenization: Tokenization
) -> None:
    """Against a loop over the tokens, of the whole model and none of our code."""
    examples = build_training_set(encoded(conversations(3), tokenization), 512).examples
    losses = evaluator.held_out_loss(examples)
    reference = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    for number, example in enumerate(examples):
        ids, labels = example.encoded
        with torch.no_grad():
            logprobs = reference(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        answer = [place for place, label in enumerate(labels) if label != IGNORED]
        total = -sum(float(logprobs[place - 1, ids[place]]) for place in answer)
        assert losses.total[number] == pytest.approx(total, rel=1e-6)
        assert losses.tokens[number] == len(answer)


def test_a_loss_does_not_depend_on_the_rows_beside_it(
    evaluator: Evaluator, tokenization: Tokenization
) -> None:
    examples = build_training_set(encoded(conversations(5), tokenization), 512).examples
    alone = [evaluator.held_out_loss([example]).total[0] for example in examples]
    assert evaluator.held_out_loss(examples).total == alone


def test_pairs_have_the_losses_of_both_answers(
    evaluator: Evaluator, tokenization: Tokenization
) -> None:
    first, second = build_training_set(encoded(conversations(2), tokenization), 512).examples
    pair = EncodedPreference("pair", first.encoded, second.encoded)
    losses = evaluator.preference_losses([pair])
    assert losses.chosen == evaluator.held_out_loss([first]).total
    assert losses.rejected == evaluator.held_out_loss([second]).total


def test_a_loss_that_is_no_number_is_an_error(
    base_folder: Path, tmp_path: Path, tokenization: Tokenization
) -> None:
    folder = copytree(base_folder, tmp_path / "base")
    poison(folder, " twice")
    examples = build_training_set(encoded(conversations(1), tokenization), 512).examples
    with pytest.raises(ComputeError, match="is not a number"):
        Evaluator(str(folder), "cpu").held_out_loss(examples)


def test_answers_are_the_same_each_time(evaluator: Evaluator, tokenization: Tokenization) -> None:
    prompts = [[{"role": "user", "content": "Say 3 twice"}]] * 2
    first, second = evaluator.answers(tokenization.tokenizer, prompts)
    assert first == second
    assert "USER" not in first


# ---- lm-eval, by a stand-in for its public function: it is not installed here


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `simple_evaluate` was asked; it answers as version 0.4.9 does."""
    asked: dict[str, Any] = {}

    def simple_evaluate(**arguments: Any) -> dict[str, Any]:
        asked.update(arguments)
        if "no_such" in arguments["tasks"]:
            raise KeyError("no_such")
        samples = [
            {"doc_id": 1, "acc": 0.0, "acc_norm": 1.0, "target": "B"},
            {"doc_id": 0, "acc": 1.0, "acc_norm": 0.0, "target": "A"},
        ]
        return {"results": {"arc_easy": {"acc_norm,none": 0.5}}, "samples": {"arc_easy": samples}}

    module = SimpleNamespace(simple_evaluate=simple_evaluate)
    monkeypatch.setitem(sys.modules, "lm_eval", module)
    monkeypatch.setattr(harness, "require_packages", lambda *_: None)
    return asked


def test_a_task_is_scored_item_by_item(lm_eval: dict[str, Any]) -> None:
    (scores,) = harness.evaluate_tasks("model", ["arc_easy"], 2, "cpu")
    assert (scores.task, scores.metric) == ("arc_easy", "acc_norm")
    assert scores.items == {"1": 1.0, "0": 0.0}
    assert lm_eval["model_args"] == {"pretrained": "model", "dtype": "float32"}
    assert (lm_eval["limit"], lm_eval["log_samples"]) == (2, True)


def test_an_adapter_is_loaded_on_its_base(lm_eval: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    harness.evaluate_tasks(str(tmp_path), ["arc_easy"], None, "cpu")
    assert lm_eval["model_args"] == {
        "pretrained": "org/base",
        "dtype": "float32",
        "peft": str(tmp_path),
        "tokenizer": str(tmp_path),
    }


def test_a_task_that_is_not_known_is_told(lm_eval: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="lm-eval does not know 'no_such'"):
        harness.evaluate_tasks("model", ["no_such"], None, "cpu")


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="the extra eval is installed")
def test_lm_eval_is_an_extra() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'deita-tasks\[eval\]'"):
        harness.evaluate_tasks("model", ["arc_easy"], None, "cpu")


COLOURS = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [red, blue]
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task of our own for the real library, which needs no network."""
    lm_eval = pytest.importorskip("lm_eval", reason="the extra eval is not installed")
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data = tmp_path / "colours.jsonl"
    rows = [{"question": "Blood is", "answer": 0}, {"question": "The sky is", "answer": 1}]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "colours.yaml").write_text(COLOURS.format(data=data))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    evaluate = partial(lm_eval.simple_evaluate, task_manager=manager)
    monkeypatch.setattr(lm_eval, "simple_evaluate", evaluate)
    return str(write_base(tmp_path / "base"))


def test_the_real_harness_scores_a_model(colours: str) -> None:
    (scores,) = harness.evaluate_tasks(colours, ["colours"], None, "cpu")
    assert (scores.task, scores.metric) == ("colours", "acc")
    assert set(scores.items) == {"0", "1"}
    assert set(scores.items.values()) <= {0.0, 1.0}


def test_a_run_that_ends_stops_the_real_harness(colours: str) -> None:
    class Ended(BaseException):
        pass

    def end() -> None:
        raise Ended

    with stopped_by(end), pytest.raises(Ended):
        harness.evaluate_tasks(colours, ["colours"], None, "cpu")
