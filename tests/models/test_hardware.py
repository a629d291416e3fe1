import numpy as np
import pytest

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import UsageError
from deita_tasks.models.hardware import require_device
from deita_tasks.scoring import load_scorer
from tests.support.checkpoints import llama

NOWHERE = {"model": "organisation/never-loaded", "kind": "quality"}


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11", "mps"])
def test_a_component_can_be_bound_to_any_device(device):
    assert load_scorer("causal_lm", **NOWHERE, device=device).device == device


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:one", "cpu:1", "cuda:1 "])
def test_an_invalid_device_is_refused_before_anything_is_read(device):
    with pytest.raises(UsageError, match=r"device: .* arrived"):
        load_scorer("causal_lm", **NOWHERE, device=device)


def test_a_missing_device_is_refused_before_weights_are_read(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert require_device("cuda:1") == "cuda:1"
    assert require_device("cuda") == "cuda"
    with pytest.raises(UsageError, match=r"'cuda:2': torch .* sees 2 CUDA devices"):
        require_device("cuda:2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert require_device("auto") == "cpu"
    with pytest.raises(UsageError, match="sees 0 CUDA devices"):
        require_device("cuda")


def test_components_beside_each_other_do_not_mix(tmp_path):
    """As in one process for each of several devices, and in one that embeds with the model that it
    scores with.
    """
    folders = [llama(tmp_path / str(seed), seed=seed) for seed in range(2)]
    pairs = [
        ("Sort a list in Python.", "sorted(x)"),
        ("Write a poem about the sea.", "The sea is old."),
    ]
    rows = [Conversation((Turn("user", pair[0]), Turn("assistant", pair[1]))) for pair in pairs]
    options = {"dtype": "float32", "device": "cpu"}
    scorers = [
        load_scorer("causal_lm", kind=kind, model=str(folder), **options)
        for folder in folders
        for kind in ("complexity", "quality")
    ]
    alone = []
    for scorer in scorers:
        alone.append(scorer.score(pairs))
        scorer.release()
    embedder = load_embedder("causal_lm", model=str(folders[0]), **options)
    vectors = embedder.embed(rows)
    for scorer, expected in reversed(list(zip(scorers, alone, strict=True))):
        np.testing.assert_array_equal(scorer.score(pairs), expected)
        np.testing.assert_array_equal(embedder.embed(rows), vectors)
    assert len({tuple(scores) for scores in alone}) == 4
