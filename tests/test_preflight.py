"""What a preflight says, held to what the components then do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deita_tasks import preflight
from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import ModelError
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.preflight import SAMPLE_ROWS, check, estimate_rows, read_sample
from deita_tasks.scoring import load_scorer
from tests.scoring.test_causal_lm import text_of
from tests.support.checkpoints import llama, reference_ids
from tests.support.small_pool import ROWS, write_rows


def talk(*contents: str) -> Conversation:
    return Conversation(
        tuple(Turn(("user", "assistant")[i % 2], content) for i, content in enumerate(contents))
    )  # type: ignore[arg-type]


SAMPLE = [
    talk("Sort it.", "Yes."),
    talk("Write a poem. " * 50, "The sea."),
    talk("Why?", "So."),
    talk("And then?", "It was.", "Oh.", "Ah."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


def scorer(folder: Path, **options: Any) -> Any:
    return load_scorer(
        "causal_lm",
        **{"kind": "quality", "model": str(folder), "dtype": "float32", "device": "cpu", **options},
    )


def test_a_scorer_s_check(folder: Path) -> None:
    one = scorer(folder)
    found = check("quality", one, SAMPLE, rows=1000)
    assert (found.backend, found.model, found.dtype, found.device, found.window) == (
        "causal_lm",
        str(folder),
        "float32",
        "cpu",
        256,
    )
    assert found.digit_ids == [
        reference_ids(folder, text_of("quality", ("x", "y")) + digit)[-1] for digit in "123456"
    ]
    assert (found.sampled, found.truncated_rows, found.rows) == (4, 1, 1000)
    lengths = [
        sum(len(reference_ids(folder, text_of("quality", pair))) for pair in row.pairs)
        for row in SAMPLE
    ]
    assert lengths[1] > 256
    lengths[1] = 256
    assert found.tokens_a_row == sum(lengths) / 4
    assert found.tokens == found.tokens_a_row * 1000
    expected = one.score([pair for row in SAMPLE for pair in row.pairs])
    np.testing.assert_allclose(found.scores, expected, atol=1e-3)
    assert found.seconds_a_row is not None and 0 < found.seconds_a_row < 5
    assert found.warnings == []
    for word in (
        "causal_lm",
        str(folder),
        "float32 on cpu",
        "1 of 4 sampled rows",
        "scores such as",
        "tokens",
    ):
        assert word in str(found)


def test_what_is_forecast_of_a_cut_is_what_is_cut(folder: Path) -> None:
    one = scorer(folder)
    cut = one.compute_rows(SAMPLE).pairs.truncated_tokens
    assert one.forecast(SAMPLE).truncated_tokens.tolist() == [
        cut[0],
        cut[1],
        cut[2],
        cut[3] + cut[4],
    ]
    embedder = load_embedder(
        "causal_lm", model=str(folder), max_length=20, dtype="float32", device="cpu"
    )
    assert (
        embedder.forecast(SAMPLE).truncated_tokens.tolist()
        == embedder.compute(SAMPLE).truncated_tokens.tolist()
    )
    minilm = load_embedder("sentence_transformers", device="cpu", max_length=16)
    assert (
        minilm.forecast(SAMPLE).truncated_tokens.tolist()
        == minilm.compute(SAMPLE).truncated_tokens.tolist()
    )
    whole = load_embedder("sentence_transformers", device="cpu")
    assert (
        whole.forecast([talk("word " * 600)]).truncated_tokens.tolist()
        == whole.compute([talk("word " * 600)]).truncated_tokens.tolist()
    )
    assert whole.forecast(SAMPLE).window == 256


def test_a_run_loads_no_model_of_mini_to_check_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sentence_transformers.SentenceTransformer.__init__",
        lambda *_, **__: pytest.fail("a model was loaded"),
    )
    found = check(
        "embedding",
        load_embedder("sentence_transformers", device="cpu"),
        SAMPLE,
        rows=10,
        is_probed=False,
    )
    assert (found.backend, found.dtype, found.device, found.window, found.truncated_rows) == (
        "sentence_transformers",
        "float32",
        "cpu",
        256,
        0,
    )
    assert found.seconds is None and found.scores == []
    length = check("complexity", load_scorer("instruction_length"), SAMPLE, rows=10)
    np.testing.assert_allclose(
        length.scores,
        load_scorer("instruction_length").score([p for row in SAMPLE for p in row.pairs]),
        atol=1e-3,
    )
    assert (length.window, length.digit_ids, length.tokens, length.device) == (
        None,
        None,
        None,
        None,
    )


def test_a_tokenizer_that_is_not_fit_is_told_before_a_model_loads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.checkpoints import GPT2_PATTERN, byte_level_tokenizer, write_model

    monkeypatch.setattr(CausalLM, "__init__", lambda *_, **__: pytest.fail("a model was loaded"))
    tokenizer = byte_level_tokenizer(GPT2_PATTERN)
    write_model(tmp_path, vocabulary=tokenizer.get_vocab_size())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="token of its own"):
        check("quality", scorer(tmp_path), SAMPLE, rows=1)


def zeroed(folder: Path, to: Path, name: str, value: float) -> Path:
    """A copy of the checkpoint with one weight set to `value` throughout."""
    import shutil

    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    weights[name] = torch.full_like(weights[name], value)
    save_file(weights, to / "model.safetensors", {"format": "pt"})
    return to


def test_constant_scores_are_warned_of(folder: Path, tmp_path: Path) -> None:
    flat = check(
        "quality", scorer(zeroed(folder, tmp_path / "flat", "lm_head.weight", 0.0)), SAMPLE, rows=1
    )
    assert flat.scores == [3.5] * 5  # six equal probabilities
    (warning,) = flat.warnings
    assert "all 5 scores of the sample are the same" in warning
    still = zeroed(folder, tmp_path / "still", "model.norm.weight", 0.0)
    dead = check(
        "embedding",
        load_embedder("causal_lm", model=str(still), dtype="float32", device="cpu"),
        SAMPLE,
        rows=1,
    )
    assert "vectors of the sample are the same" in dead.warnings[0]


def test_scores_that_are_not_there_are_warned_of(folder: Path, tmp_path: Path) -> None:
    broken = check(
        "quality",
        scorer(zeroed(folder, tmp_path / "nan", "lm_head.weight", float("nan"))),
        SAMPLE,
        rows=1,
    )
    assert broken.scores == []
    assert "not finite" in broken.warnings[0]
    missing = check("quality", load_scorer("provided", kind="quality"), SAMPLE, rows=1)
    assert "no column 'quality_scores'" in missing.warnings[0]


def test_a_slow_model_is_tried_on_few_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PROBE_SECONDS", 0.0)
    found = check("quality", scorer(folder), SAMPLE, rows=1)
    assert len(found.scores) == 2  # the first loads the model, the second is timed
    assert found.seconds_a_row is not None


def test_no_rows(folder: Path) -> None:
    found = check("quality", scorer(folder), [], rows=0)
    assert (found.sampled, found.truncated_rows, found.scores, found.seconds, found.tokens) == (
        0,
        0,
        [],
        None,
        None,
    )


def test_the_sample_is_the_first_good_rows(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "Yes."}
    talks = [[{"role": "user", "content": f"Row {n}"}, answer] for n in range(1000)]
    rows = [{"messages": []}, *({**ROWS[0], "messages": messages} for messages in talks)]
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    sample = read_sample([str(pool)], "auto")
    assert [row.turns[0].content for row in sample] == [f"Row {n}" for n in range(SAMPLE_ROWS)]


def test_about_how_many_rows(tmp_path: Path, sample_pool: Path) -> None:
    sample = read_sample([str(sample_pool)], "auto")
    rows = estimate_rows([str(sample_pool)], sample)
    assert rows is not None and 250 < rows < 650  # 400 of them
    (tmp_path / "pool.jsonl.xz").write_bytes(b"not empty, and not looked into")
    assert estimate_rows([str(tmp_path / "pool.jsonl.xz")], sample) is None
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": range(77)}), tmp_path / "p.parquet")
    assert estimate_rows([str(tmp_path / "p.parquet")], []) == 77


def test_what_no_model_reads_of_the_sample_is_said_once() -> None:
    german = talk("Wie halte ich Basilikum im Winter am Leben?", "Stell ihn ans Fenster.")
    english = talk("How do I keep basil alive in winter?", "Put it on the window sill.")
    picture = Conversation(english.turns, extra={"images": ["x.png"]})
    made_for = {"complexity": ("en",), "quality": ("en",)}
    assert preflight.sample_warnings([english, german, picture, english], made_for) == [
        "1 of 4 sampled conversations hold images, audio or video, which no model here reads: they "
        "are scored and compared by their text alone",
        "of the sample, 1 of 4 conversations (25.0%) are in languages other than English, which "
        "the models of complexity and quality were made for: German 1.",
    ]
    assert preflight.sample_warnings([english], made_for) == []
    assert preflight.sample_warnings([german], {}) == []


def test_the_mini_preset_says_that_it_was_made_for_english() -> None:
    assert load_scorer("mini", kind="quality").languages == ("en",)
    assert load_embedder("sentence_transformers").languages == ("en",)
    assert load_embedder("sentence_transformers", model="org/other").languages == ()
    assert load_scorer("response_length", kind="quality").languages == ()
