"""Tasks of lm-eval (EleutherAI's evaluation harness), by its public `simple_evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.finetuning import require_packages
from deita_tasks.finetuning.job import ADAPTER_FILE
from deita_tasks.measuring.scores import TaskScores
from deita_tasks.models.stopping import raise_if_stopped

# The metric of a task that counts, the first that it has: those normalised by length come first.
METRICS = ("acc_norm", "exact_match", "acc", "f1")


def evaluate_tasks(
    folder: str, tasks: Sequence[str], limit: int | None, device: str
) -> list[TaskScores]:
    """Return the scores of the model in a folder at the tasks of the harness, item by item.

    limit: items of each task, all if None. Raises MissingExtra if lm-eval is not installed,
    UsageError for a task that it does not know.
    """
    require_packages("tasks", ("lm_eval",), "eval")
    import lm_eval

    try:
        with _stoppable():
            results: Any = lm_eval.simple_evaluate(
                model="hf",
                model_args=_model_arguments(folder),
                tasks=list(tasks),
                limit=limit,
                device=device,
                log_samples=True,
                bootstrap_iters=0,  # the intervals are ours: paired, and over several trainings
            )
    except KeyError as error:
        raise UsageError(
            f"tasks = {', '.join(tasks)}: lm-eval does not know {error}; `lm-eval ls tasks` lists "
            "those that it knows"
        ) from error
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = results["samples"]
    return [_scores(task, samples[task]) for task in sorted(samples)]


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let a run that ends stop the harness before its next forward pass."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    hook = register_module_forward_pre_hook(lambda *_: raise_if_stopped())
    try:
        yield
    finally:
        hook.remove()


def _model_arguments(folder: str) -> dict[str, str]:
    """Return how lm-eval loads a model, or an adapter on top of its base."""
    arguments = {"pretrained": folder, "dtype": "float32"}
    adapter = Path(folder, ADAPTER_FILE)
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        arguments |= {"pretrained": str(base), "peft": folder, "tokenizer": folder}
    return arguments


def _scores(task: str, samples: Sequence[Mapping[str, Any]]) -> TaskScores:
    """Return the scores of a task in the first of METRICS that it has.

    Raises ComputeError for a task that has none of them.
    """
    for metric in METRICS:
        values = {
            str(sample["doc_id"]): float(sample[metric]) for sample in samples if metric in sample
        }
        if values:
            return TaskScores(task=task, metric=metric, items=values)
    names = sorted(set().union(*samples)) if samples else []
    raise ComputeError(
        f"{task}: has none of the metrics {', '.join(METRICS)}, only {', '.join(names)}; choose "
        "another task"
    )
