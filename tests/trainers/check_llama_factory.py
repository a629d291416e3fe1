"""Convert subsets with LLaMA-Factory's own code, in an environment that has it.

python check_llama_factory.py FOLDER, a folder of tests/trainers/write.py
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import re
import sys
import tempfile
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
# LLaMA-Factory imports it for audio, which no subset here has.
torchaudio = types.ModuleType("torchaudio")
torchaudio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = torchaudio

from llamafactory.data.loader import _load_single_dataset  # noqa: E402
from llamafactory.data.parser import get_dataset_list  # noqa: E402


def convert(folder: Path, cache: str) -> Any:
    """The subset in `folder` as LLaMA-Factory makes it: prompt, response, system, tools."""
    (attributes,) = get_dataset_list(["deita_selection"], str(folder))
    data = SimpleNamespace(
        dataset_dir=str(folder),
        media_dir=str(folder),
        streaming=False,
        preprocessing_num_workers=None,
        overwrite_cache=True,
        max_samples=None,
    )
    model = SimpleNamespace(cache_dir=cache, hf_hub_token=None)
    training = SimpleNamespace(local_process_index=0, dataloader_num_workers=0)
    return _load_single_dataset(attributes, model, data, training)


def check(folder: Path, cache: str) -> str:
    """Compare what it converts with what the card says; return the figures."""
    rows = convert(folder, cache)
    skipped = sum(not row["_response"] for row in rows)
    card = (folder / "README.md").read_text(encoding="utf-8")
    said = re.search(r"It skips ([\d,]+) of", card)
    assert skipped == (int(said[1].replace(",", "")) if said else 0), (folder, skipped, said)
    turns = [turn for row in rows for turn in (*row["_prompt"], *row["_response"])]
    calls = [turn for turn in turns if turn["role"] == "function"]
    for turn in calls:
        json.loads(turn["content"])
    tools = sum(bool(row["_tools"]) for row in rows)
    figures = f"{len(rows)} rows, {skipped} skipped, {len(turns)} turns, {len(calls)} calls"
    return f"{figures}, {tools} with tools"


def main(folder: Path) -> None:
    """Check every subset that has a file for LLaMA-Factory."""
    for path in sorted((folder / "subsets").glob("*/*/dataset_info.json")):
        with tempfile.TemporaryDirectory() as cache:
            figures = check(path.parent, cache)
        print(f"{path.parent.relative_to(folder / 'subsets')}: {figures}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
