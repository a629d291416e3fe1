"""Texts over the window: where they are cut, and what their vectors are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import Embedder, load_embedder
from deita_tasks.embedding.windows import Window, average_windows, cut_text
from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.preflight import check
from tests.support.checkpoints import (
    GPT2_PATTERN,
    byte_level_tokenizer,
    sentence_encoder,
    write_sentencepiece,
)

WINDOW = 16
ROOM = 14  # [CLS] and [SEP] are of the window
WORDS = ["the", "sea", "is", "a", "child", "who", "is", "in", "kitchen", "and", "2", "3"]  # tokens
TEXTS = {
    "ascii": "Write a poem, isn't it   fine? The sea; the wind!\n\n" * 12,
    "code": "def add(first, second):\n    return   first+second\n" * 12,
    "cjk": "日本語の文章を書いてください。请写一个排序函数。" * 12,
    "thai": "ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ " * 12,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈😀" * 12,
    "a word": "antidisestablishmentarianism" * 12,
    "newlines": "\n" * 200,
    "accents": "e\u0301\u200b\x00 é " * 40,
}


def talk(text: str) -> Conversation:
    return Conversation((Turn("user", text),))


def words(count: int) -> str:
    return " ".join(WORDS[number % len(WORDS)] for number in range(count))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_encoder(tmp_path_factory.mktemp("plain"), window=WINDOW)


@pytest.fixture(scope="module")
def unit_length(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_encoder(tmp_path_factory.mktemp("unit"), window=WINDOW, normalize=True)


def load(folder: Path, **options: Any) -> Embedder:
    return load_embedder(
        "sentence_transformers", **{"model": str(folder), "device": "cpu", **options}
    )


class ByHand:
    """The model by transformers alone: one window at a time, the mean over its tokens."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.model = transformers.BertModel.from_pretrained(folder).eval()

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @torch.inference_mode()
    def vector(self, ids: list[int]) -> NDArray[np.float64]:
        window = [self.tokenizer.token_to_id("[CLS]"), *ids, self.tokenizer.token_to_id("[SEP]")]
        states = self.model(torch.tensor([window])).last_hidden_state[0]
        vector: NDArray[np.float64] = states.double().mean(dim=0).numpy()
        return vector


# ---- vectors


def test_the_mean_of_windows_by_hand(plain: Path, unit_length: Path) -> None:
    text = words(2 * ROOM + 4)
    by_hand = ByHand(plain)
    ids = by_hand.ids(text)
    assert len(ids) == 2 * ROOM + 4
    parts = [ids[:ROOM], ids[ROOM : 2 * ROOM], ids[2 * ROOM :]]
    first, second, third = (by_hand.vector(part) for part in parts)
    mean = (ROOM * first + ROOM * second + 4 * third) / (2 * ROOM + 4)
    output = load(plain).compute([talk(text)])
    np.testing.assert_allclose(output.values[0], mean, atol=1e-6)
    assert output.truncated_tokens.tolist() == [0] and not output.problems

    by_hand = ByHand(unit_length)
    vectors = [by_hand.vector(part) for part in parts]
    first, second, third = (vector / np.linalg.norm(vector) for vector in vectors)
    mean = (ROOM * first + ROOM * second + 4 * third) / (2 * ROOM + 4)
    expected = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(load(unit_length).embed([talk(text)])[0], expected, atol=1e-6)


def test_a_text_at_the_window_is_read_whole_and_one_token_more_is_two_windows(plain: Path) -> None:
    by_hand = ByHand(plain)
    ids = by_hand.ids(words(ROOM + 1))
    rows = [talk(""), talk(words(ROOM)), talk(words(ROOM + 1))]
    expected = [
        by_hand.vector([]),
        by_hand.vector(ids[:ROOM]),
        (ROOM * by_hand.vector(ids[:ROOM]) + by_hand.vector(ids[ROOM:])) / (ROOM + 1),
    ]
    embedder = load(plain)
    np.testing.assert_allclose(embedder.embed(rows), expected, atol=1e-6)
    forecast = embedder.forecast(rows)
    assert forecast.window == WINDOW
    assert forecast.windows is not None and forecast.windows.tolist() == [1, 1, 2]
    assert forecast.tokens is not None and forecast.tokens.tolist() == [2, 16, 16 + 3]


def test_texts_that_differ_after_a_shared_beginning_have_vectors_of_their_own(plain: Path) -> None:
    rows = [talk(f"{words(ROOM)} {end}") for end in ("Write a poem", "SELECT name FROM people")]
    whole = load(plain).embed(rows)
    assert np.abs(whole[0] - whole[1]).max() > 0.01
    beginning = load(plain, long_texts="beginning").compute(rows)
    np.testing.assert_allclose(beginning.values[0], beginning.values[1], atol=1e-6)
    assert (beginning.truncated_tokens > 0).all()


def test_beginning_is_what_the_library_gives(plain: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [words(5), words(ROOM), words(50), *TEXTS.values()]
    model = SentenceTransformer(str(plain), device="cpu")
    expected = np.array([model.encode(text, show_progress_bar=False) for text in texts])
    beginning = load(plain, long_texts="beginning")
    rows = [talk(text) for text in texts]
    np.testing.assert_allclose(beginning.embed(rows), expected, atol=1e-6)
    np.testing.assert_allclose(load(plain).embed(rows[:2]), expected[:2], atol=1e-6)
    assert beginning.compute(rows).truncated_tokens[:3].tolist() == [0, 0, 50 - ROOM]
    assert beginning.forecast(rows).windows is None


def test_neither_batch_nor_order_matters(plain: Path) -> None:
    rows = [talk(text) for text in ("", words(3), words(500), *TEXTS.values(), words(ROOM))]
    vectors = load(plain).embed(rows)
    for batch_tokens in (1, 40, 100_000):
        resized = load(plain, batch_tokens=batch_tokens)
        np.testing.assert_allclose(resized.embed(rows), vectors, rtol=0, atol=1e-6)
    np.testing.assert_allclose(load(plain).embed(rows[::-1])[::-1], vectors, rtol=0, atol=1e-6)


def test_the_prompt_goes_before_each_window_and_has_no_weight(plain: Path) -> None:
    by_hand = ByHand(plain)
    prompt, ids = by_hand.ids("sort"), by_hand.ids(words(20))
    room = ROOM - len(prompt)
    first, second = (by_hand.vector([*prompt, *part]) for part in (ids[:room], ids[room:]))
    expected = (room * first + (20 - room) * second) / 20
    vector = load(plain, prompt="sort ").embed([talk(words(20))])[0]
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    with pytest.raises(UsageError, match="leaves no room"):
        load(plain, prompt=words(ROOM) + " ").embed([talk("the sea")])


def test_one_window_without_a_value_is_a_row_without_a_vector(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [talk(words(ROOM)), talk(f"{words(40)} SELECT"), talk(words(40))]
    embedder = load(plain)
    expected = embedder.embed(rows)
    from sentence_transformers import SentenceTransformer

    preprocess = SentenceTransformer.preprocess

    def preprocess_all_but_one(self: Any, texts: list[str], **options: Any) -> Any:
        if any("SELECT" in text for text in texts):
            raise MemoryError
        return preprocess(self, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "preprocess", preprocess_all_but_one)
    output = load(plain).compute(rows)
    assert list(output.problems) == [1] and "out of memory on cpu" in output.problems[1]
    assert np.isnan(output.values[1]).all()
    np.testing.assert_allclose(output.values[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-6)
    monkeypatch.undo()

    folder = tmp_path / "poisoned"
    folder.mkdir()
    for path in plain.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(plain)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][ByHand(plain).ids("SELECT")[-1]] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    output = load(folder).compute(rows)
    assert output.problems == {1: "the model gave a vector that is not finite"}


def test_fingerprints_keep_the_two_ways_apart(plain: Path) -> None:
    whole, beginning = load(plain).fingerprint(), load(plain, long_texts="beginning").fingerprint()
    assert whole == {**beginning, "long_texts": "windows"}
    assert "long_texts" not in beginning  # as in stores of 0.1.0


def test_only_the_beginning_for_causal_lm() -> None:
    load_embedder("causal_lm", model="x", long_texts="beginning")
    with pytest.raises(UsageError, match="causal_lm embeds the beginning"):
        load_embedder("causal_lm", model="x", long_texts="windows")


def test_a_tokenizer_that_does_not_say_where_its_tokens_are(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(texts: list[str], truncation: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0] * len(text.split()) for text in texts]}

    monkeypatch.setattr(
        "deita_tasks.embedding.sentence_transformers._whole_tokenizer", lambda _: slow
    )
    assert np.isfinite(load(plain).embed([talk("the sea")])).all()
    with pytest.raises(ModelError, match=r"17 tokens can be cut .* set long_texts to beginning"):
        load(plain).embed([talk(words(17))])
    load(plain, long_texts="beginning").embed([talk(words(17))])


def test_preflight_says_the_cost(plain: Path) -> None:
    rows = [talk(words(count)) for count in (3, ROOM, ROOM + 1, 3 * ROOM)]
    found = check("embedding", load(plain), rows, rows=8)
    assert (found.truncated_rows, found.windowed_rows, found.windows_a_row) == (0, 2, 2.5)
    assert found.tokens == 2 * (5 + 16 + (16 + 3) + 3 * 16)
    line = "2 of 4 sampled rows are over 16 tokens and take 2.5 windows on average"
    assert line in str(found) and "truncated" not in str(found)
    short = check("embedding", load(plain), rows[:1], rows=8)
    assert "0 of 1 sampled rows are over 16 tokens, " in f"{short}, "
    assert "windows" not in str(short) and "at most about under" not in str(short)
    beginning = check("embedding", load(plain, long_texts="beginning"), rows, rows=8)
    assert "2 of 4 sampled rows are over 16 tokens and would be truncated" in str(beginning)
    assert beginning.windowed_rows is None


# ---- cuts


@pytest.fixture(scope="module")
def tokenizers(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    llama = tmp_path_factory.mktemp("llama")
    write_sentencepiece(llama)
    (llama / "config.json").write_text("{}")
    return {
        "wordpiece": load_tokenizer(find_checkpoint(str(plain))),
        "gpt2": byte_level_tokenizer(GPT2_PATTERN, bos=False),
        "llama3": byte_level_tokenizer(),
        "llama": load_tokenizer(find_checkpoint(str(llama))),
    }


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("prompt", ["", "query: "])
@pytest.mark.parametrize("name", ["wordpiece", "gpt2", "llama3", "llama"])
def test_windows_are_the_text_and_fit(
    tokenizers: dict[str, Tokenizer], name: str, prompt: str, text: str
) -> None:
    tokenizer = tokenizers[name]
    size = 24
    windows = cut_text(tokenizer, text, prompt, size)
    assert "".join(window.text for window in windows) == text
    lengths = [len(tokenizer.encode(prompt + window.text).ids) for window in windows]
    assert [window.tokens for window in windows] == lengths
    assert max(lengths) <= size
    is_long = len(tokenizer.encode(prompt + text).ids) > size
    assert (len(windows) > 1) is is_long


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_every_token_is_in_one_window_in_order(
    tokenizers: dict[str, Tokenizer], name: str, text: str
) -> None:
    tokenizer = tokenizers[name]
    windows = cut_text(tokenizer, text, "", 24)
    parts = [tokenizer.encode(part.text, add_special_tokens=False).ids for part in windows]
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert [token for part in parts for token in part] == whole
    assert [window.weight for window in windows] == [len(part) for part in parts]


def test_windows_begin_with_words(tokenizers: dict[str, Tokenizer]) -> None:
    windows = cut_text(tokenizers["wordpiece"], words(40), "", WINDOW)
    assert [window.text.split() for window in windows] == [
        words(40).split()[start : start + ROOM] for start in range(0, 40, ROOM)
    ]
    assert [window.weight for window in windows] == [14, 14, 12]


def test_a_character_of_more_tokens_than_the_window_stays_whole() -> None:
    windows = cut_text(byte_level_tokenizer(bos=False), "😀😀", "", 3)
    assert windows == [Window("😀", 4, 4), Window("😀", 4, 4)]


def test_means_are_weighted_and_only_windows_are_kept_as_they_are() -> None:
    vectors = np.array([[3, 4], [1, 0], [0, 1]], np.float32)
    windows = [[Window("", 0, 0)], [Window("a", 3, 3), Window("b", 4, 4)]]
    plain = average_windows(vectors, windows, normalize=False)
    np.testing.assert_array_equal(plain, np.array([[3, 4], [3 / 7, 4 / 7]], np.float32))
    unit = average_windows(vectors, windows, normalize=True)
    np.testing.assert_array_equal(unit, np.array([[3, 4], [0.6, 0.8]], np.float32))
