import copy
import pickle
import shutil
import threading

import pytest

from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.lazy import Lazy
from tests.support.checkpoints import llama, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"))


def test_a_folder_is_known_by_its_content_alone(folder, tmp_path):
    identity = find_checkpoint(str(folder)).identity()
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    (moved / "README.md").write_text("x")
    (moved / "generation_config.json").write_text("{}")
    assert find_checkpoint(str(moved)).identity() == identity
    for name in ("model.safetensors", "config.json", "tokenizer.model", "tokenizer_config.json"):
        changed = shutil.copytree(folder, tmp_path / name)
        content = bytearray((changed / name).read_bytes())
        content[-1] ^= 1
        (changed / name).write_bytes(content)
        assert find_checkpoint(str(changed)).identity() != identity, name


def test_a_commit_is_taken_at_its_word():
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert find_checkpoint("someone/model", commit) == Checkpoint("someone/model", commit)
    assert find_checkpoint("someone/model", commit).identity() == {
        "model": "someone/model",
        "revision": commit,
    }


@pytest.mark.parametrize("model", ["/no/such/folder", "./missing", "a b c", "gpt2-like", "../x/y"])
def test_neither_a_folder_nor_a_hub_id(model):
    with pytest.raises(UsageError, match="no such folder, and not a hub id"):
        find_checkpoint(model)


def test_a_folder_has_no_revision(folder):
    with pytest.raises(UsageError, match="only a hub id has revisions"):
        find_checkpoint(str(folder), "main")


def test_offline_and_not_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="give the path of a local folder"):
        find_checkpoint("someone/model")


def test_a_branch_is_held_to_the_commit_that_the_cache_has(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "f" * 40
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "config.json").write_text("{}")
    assert find_checkpoint("someone/model") == Checkpoint("someone/model", commit)


def test_a_broken_config(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ModelError, match=r"config\.json cannot be used"):
        find_checkpoint(str(tmp_path)).config()
    with pytest.raises(ModelError, match=r"config\.json cannot be used"):
        find_checkpoint(str(tmp_path.parent)).config()


def test_lazy_makes_its_value_once_for_all_threads_and_travels_empty():
    values = []
    lazy: Lazy[object] = Lazy()
    barrier = threading.Barrier(8)

    def ask():
        barrier.wait()
        lazy.get(lambda: values.append(1) or object())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values) == 1
    for copied in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy))):  # noqa: S301
        assert copied == lazy
        copied.get(lambda: values.append(1) or object())
    assert len(values) == 3
    lazy.release()
    lazy.get(lambda: values.append(1) or object())
    assert len(values) == 4


def test_dynamic_rotary_positions_end_at_the_window(tmp_path):
    """Beyond it a text's state would depend on the others of its batch, and on those before."""
    write_model(
        tmp_path, rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    )
    checkpoint = find_checkpoint(str(tmp_path))
    assert checkpoint.limit(None) == checkpoint.limit(256) == 256
    with pytest.raises(
        UsageError, match=r"max_length=257: .* of the type dynamic, .* over 256 tokens"
    ):
        checkpoint.limit(257)


def test_plain_rotary_positions_go_on(tmp_path):
    write_model(tmp_path)
    assert find_checkpoint(str(tmp_path)).limit(4096) == 4096
