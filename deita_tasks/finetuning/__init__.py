"""Train a base model on conversations, and measure what came out. TRL, peft and accelerate train.

options.py          what the parameters of a run mean
chat_templates.py   how a conversation becomes text, and which of it is an answer
base_model.py       the model to start from, and its tokenizer
examples.py         rows as tokens with loss on the answers alone; what the window cuts
preferences.py      prompts with a chosen and a rejected answer
job.py              one training, and the address that its result has
trained.py          prepare a training in the store, train, keep the model there
launch.py           train in this process, or in those that accelerate starts
worker.py           a process that accelerate starts
trainer.py          SFT and DPO by TRL
checkpoints.py      the trainer's checkpoints in the store
evaluation.py       loss on held-out rows, preference accuracy, answers
harness.py          tasks of lm-eval
"""

import importlib.util
from collections.abc import Sequence

from deita_tasks.errors import MissingExtra

PACKAGES = ("trl", "peft", "accelerate", "datasets")  # of the extra train


def require_packages(choice: str, packages: Sequence[str] = PACKAGES, extra: str = "train") -> None:
    """Raise MissingExtra if one of the packages of an extra is not installed; import none."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(choice, package, extra)
