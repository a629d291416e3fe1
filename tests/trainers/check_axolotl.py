"""Tokenize subsets with axolotl's own prompt strategies, in an environment that has them.

python check_axolotl.py FOLDER, a folder of tests/trainers/write.py
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import datasets
import yaml
from axolotl.prompt_tokenizers import AlpacaPromptTokenizingStrategy
from axolotl.prompters import AlpacaPrompter
from axolotl.utils.dict import DictDefault
from transformers import AutoTokenizer

RUN = {"train_on_inputs": False, "sequence_len": 1_000_000, "chat_template": "tokenizer_default"}


def load_strategy(tokenizer: Any, entry: DictDefault) -> Any:
    """The strategy that `type` names, as axolotl loads it."""
    if entry["type"] == "alpaca":  # axolotl has no module for it either
        prompter = AlpacaPrompter("instruct")
        return AlpacaPromptTokenizingStrategy(prompter, tokenizer, False, RUN["sequence_len"])
    if isinstance(entry["type"], str):
        module = importlib.import_module(f"axolotl.prompt_strategies.{entry['type']}")
        arguments = [entry] if entry["type"] == "chat_template" else []
        return module.load(tokenizer, DictDefault(RUN), *arguments)
    module = importlib.import_module("axolotl.prompt_strategies.user_defined")
    fields = module.UserDefinedDatasetConfig(**entry["type"])
    return module.load(tokenizer, DictDefault(RUN), fields)


def check(folder: Path, tokenizer: Any, cache: str) -> str:
    """Tokenize a subset, and return the figures."""
    (fields,) = yaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"]
    rows = datasets.load_dataset(str(folder), split=fields["split"], cache_dir=cache)
    strategy = load_strategy(tokenizer, DictDefault(fields))
    tokens = learned = calls = empty = 0
    for row in rows:
        example = strategy.tokenize_prompt(row)
        labels = [label for label in example["labels"] if label != -100]
        empty += not labels
        tokens += len(example["input_ids"])
        learned += len(labels)
        calls += tokenizer.decode(labels).count("<call>")
    figures = f"{len(rows)} rows, {empty} without a token to learn, {tokens} tokens"
    return f"{figures}, {learned} of them learned, {calls} calls learned"


def main(folder: Path) -> None:
    """Check every subset that has lines for axolotl."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    for path in sorted((folder / "subsets").glob("*/*/axolotl.yaml")):
        with tempfile.TemporaryDirectory() as cache:
            figures = check(path.parent, tokenizer, cache)
        print(f"{path.parent.relative_to(folder / 'subsets')}: {figures}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
