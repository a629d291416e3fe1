"""Train a base model on conversations, and measure what came out. TRL, peft and accelerate train.

chat_templates.py   how a conversation becomes text, and which of it is an answer
base_model.py       the model to start from, and its tokenizer
examples.py         rows as tokens with loss on the answers alone; what the window cuts
preferences.py      prompts with a chosen and a rejected answer
job.py              one training, and the address that its result has
checkpoints.py      the trainer's checkpoints in the store
trainer.py          SFT and DPO, to their end or from the last checkpoint
worker.py           the same as a program that accelerate starts on several devices
launch.py           one or the other
evaluation.py       loss on held-out rows, preference accuracy
judge.py            which of two answers is better, asked of a model behind a server
harness.py          tasks of lm-eval
arms.py             the data that a comparison trains on
statistics.py       intervals, and what they let one say
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
