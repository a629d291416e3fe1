"""A text's state is the same to the bit in every batch, order and place."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.base import Embedder
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.scoring import load_scorer
from tests.support.checkpoints import llama, write_model

BEGINNING = list(range(3, 15))
RNG = np.random.default_rng(0)
LENGTHS = (1, 16, 17, 60, 240, 239, 235, 201, 240)  # more than one batch
TEXTS = [
    [*(BEGINNING if number % 2 else []), *RNG.integers(3, 600, length).tolist()]
    for number, length in enumerate(LENGTHS)
]
# As wide as real models: products of the narrow ones hardly ever depend on the number of rows.
WIDE = {"hidden_size": 768, "intermediate_size": 2048, "initializer_range": 0.04}
FAMILIES = {
    "Llama": WIDE,
    "Mistral": {"sliding_window": 8},
    "Qwen2": {},
    "Qwen3": {},
    "Gemma3Text": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "GPT2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "Mixtral": {"num_local_experts": 4},
    "Gemma2": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},  # padded
    "Falcon": {},  # padded
}
PADDED = {"Gemma2", "Falcon"}


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    @lru_cache
    def load(family, dtype):
        folder = tmp_path_factory.mktemp(family)
        write_model(folder, family, **FAMILIES[family])
        checkpoint = find_checkpoint(str(folder))
        return CausalLM(checkpoint, dtype=dtype, device="cpu", prefix=BEGINNING)

    return load


@pytest.mark.parametrize(("dtype", "threads"), [("float32", 2), ("float32", 3), ("bfloat16", 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_does_not_depend_on_its_neighbours(load, family, threads, dtype):
    model = load(family, dtype)
    assert (model.prefix is None) == (family in PADDED)
    torch.set_num_threads(threads)
    expected = torch.cat([model.last_hidden([text])[0] for text in TEXTS])
    assert expected.isfinite().all()
    # the same texts in other batches, in other places and beside others
    for others in ([], [[4] * 90]):
        order = RNG.permutation(len(TEXTS)).tolist()
        states, _ = model.last_hidden([*others, *(TEXTS[i] for i in order)])
        assert torch.equal(states[len(others) :], expected[order])


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    folder = llama(tmp_path_factory.mktemp("llama"))
    options = {"model": str(folder), "dtype": "float32", "device": "cpu"}
    return [
        load_scorer("causal_lm", kind="complexity", **options),
        load_scorer("causal_lm", kind="quality", **options),
    ], load_embedder("causal_lm", **options)


CONVERSATIONS = [
    Conversation((Turn("user", "Write. " * length), Turn("assistant", "Yes, " * (1 + length % 6))))
    for length in (1, 2, 3, 5, 8, 13, 21, 34, 55, 60)
]


@settings(max_examples=4, deadline=None)
@given(
    st.permutations(range(len(CONVERSATIONS))),
    st.integers(1, len(CONVERSATIONS)),
    st.integers(1, 5000),
)
def test_orders_shards_and_budgets_give_the_same_bytes(scorers, order, shard, batch_tokens):
    rows = [CONVERSATIONS[i] for i in order]
    shards = [rows[start : start + shard] for start in range(0, len(rows), shard)]
    for component in (*scorers[0], scorers[1]):
        budgeted = component.model_copy(update={"batch_tokens": batch_tokens})
        compute = _values(component)
        expected = compute(CONVERSATIONS)[list(order)]
        values = np.concatenate([_values(budgeted)(part) for part in shards])
        assert values.tobytes() == expected.tobytes()


def _values(component):
    if isinstance(component, Embedder):
        return lambda rows: component.compute(rows).values
    return lambda rows: component.compute([pair for row in rows for pair in row.pairs]).values


def test_a_product_with_the_head_does_not_depend_on_the_number_of_rows(load, tmp_path):
    write_model(tmp_path, "Llama", **WIDE)
    model = CausalLM(
        find_checkpoint(str(tmp_path)), dtype="float32", device="cpu", head_ids=range(3, 9)
    )
    states = torch.from_numpy(RNG.normal(size=(600, 768)).astype(np.float32))
    expected = torch.cat([model.logits(state[None]) for state in states])
    for rows in (2, 3, 17, 255, 256, 257, 600):
        assert torch.equal(model.logits(states[:rows]), expected[:rows])
    order = RNG.permutation(600)
    assert torch.equal(model.logits(states[order]), expected[order])
