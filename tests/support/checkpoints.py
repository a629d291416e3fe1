"""Tiny checkpoints with random weights, made in about a second; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# Enough to train a vocabulary on: words, code, runs of spaces, digits, some other scripts.
CORPUS = [
    "You are a helpful assistant. Please identify the complexity score of the following user "
    "query. ##Query: ##Complexity: ",
    "Please identify the quality score of the Response corresponding to the Question. "
    "#Question#: #Response#: ##Quality: ",
    "A chat between a curious user and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers.",
    "USER: How do I sort a list of numbers in Python, and why is it fast? ASSISTANT: Call "
    "sorted(numbers); it merges runs.",
    "def add(first, second):\n    if first  is None:\n        return   second\n\treturn "
    "first + second  # 1 + 2 = 3\n",
    "Write a poem about the sea, the sand and the wind; then write another one, longer and "
    "sadder, with no rhyme in it.",
    "0 1 2 3 4 5 6 7 8 9 10 12 100 1999 2024 3.14159 42 56 16 61 66 123456",
    "Explain the second law of thermodynamics to a child who is seven years old, step by "
    "step, with an example from the kitchen.",
    "Le renard brun saute par-dessus le chien paresseux. Der schnelle Fuchs springt über "
    "den faulen Hund.",
    "日本語の文章を書いてください。 请写一个排序函数。",
    "SELECT name, age FROM people WHERE age >= 18 ORDER BY age DESC LIMIT 10;",
] * 4

# The pattern of Llama-3's tokenizer: a number never takes the space before it.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| "
    r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# GPT-2's: it does.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def write_sentencepiece(
    folder: Path, *, model_type: str = "bpe", config: dict[str, Any] | None = None, **options: Any
) -> Path:
    """Write a tokenizer.model of LLaMA's kind and its tokenizer_config.json, no tokenizer.json.

    The published scorers have these files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.model"
    settings = {
        "vocab_size": 640,
        "model_type": model_type,
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "character_coverage": 0.995,
        "pad_id": -1,
        "num_threads": 1,
        "minloglevel": 2,
    }
    with path.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=stream, **{**settings, **options}
        )
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "LlamaTokenizer",
                "add_bos_token": True,
                "add_eos_token": False,
                "legacy": True,
                **(config or {}),
            }
        )
    )
    return path


def byte_level_tokenizer(pattern: str = LLAMA3_PATTERN, bos: bool = True) -> Tokenizer:
    """A byte-level BPE like Llama-3's, <|begin_of_text|> in front; without `bos` like Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(
        [AddedToken("<|begin_of_text|>", special=True), AddedToken("<|end_of_text|>", special=True)]
    )
    if bos:
        beginning = tokenizer.token_to_id("<|begin_of_text|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A",
            pair=None,
            special_tokens=[("<|begin_of_text|>", beginning)],
        )
    return tokenizer


def write_model(
    folder: Path,
    family: str = "Llama",
    *,
    seed: int = 0,
    head: bool = True,
    vocabulary: int = 640,
    **options: Any,
) -> Any:
    """Write weights and config.json of a tiny decoder of a transformers `family`.

    The weights are random and large, so that scores spread.
    """
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        "initializer_range": 0.3,
    }
    config = getattr(transformers, f"{family}Config")(**{**settings, **options})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    (model if head else model.model).save_pretrained(folder)
    # What the original reads, and we must not: a sampling configuration that would turn digits into
    # -inf.
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "top_k": 1, "temperature": 0.2})
    )
    return model.eval()


def llama(folder: Path, **options: Any) -> Path:
    write_sentencepiece(folder)
    write_model(folder, "Llama", **options)
    return folder


def mistral(folder: Path, **options: Any) -> Path:
    """Padded on the left, and with a sliding window shorter than a prompt."""
    write_sentencepiece(folder, config={"padding_side": "left", "pad_token": "</s>"})
    write_model(folder, "Mistral", sliding_window=24, **options)
    return folder


def llama3(folder: Path, **options: Any) -> Path:
    tokenizer = byte_level_tokenizer()
    write_model(folder, "Llama", vocabulary=tokenizer.get_vocab_size(), **options)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def qwen2(folder: Path, **options: Any) -> Path:
    """No token in front of a text, and lm_head tied to the embedding."""
    tokenizer = byte_level_tokenizer(bos=False)
    write_model(
        folder, "Qwen2", vocabulary=tokenizer.get_vocab_size(), tie_word_embeddings=True, **options
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def sentence_encoder(folder: Path, *, window: int = 16, normalize: bool = False) -> Path:
    """A sentence-transformers model of BERT's kind: WordPiece, and the mean over tokens.

    normalize: whether a module at the end gives vectors unit length.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    corpus = normalizer.normalize_str(" ".join(CORPUS))
    words = {word for word, _ in splitter.pre_tokenize_str(corpus)}
    pieces = sorted({*words, *corpus, *(f"##{letter}" for letter in corpus)})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    parts = folder / "parts"
    transformers.BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(parts)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    transformers.BertModel(config).save_pretrained(parts)
    transformer = Transformer(str(parts), max_seq_length=window)
    modules = [transformer, Pooling(32), *([Normalize()] if normalize else [])]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


def poison(folder: Path, text: str) -> None:
    """Make the last token of `text` NaN, and with it the values of every text that has it."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    token = reference_ids(folder, text)[-1]
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, path, {"format": "pt"})


FAMILIES = {"llama": llama, "mistral": mistral, "llama3": llama3, "qwen2": qwen2}


def reference_ids(folder: Path, text: str) -> list[int]:
    """Token ids by the plainest way: sentencepiece with <s> in front, or the tokenizer.json."""
    if (folder / "tokenizer.model").exists():
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        return [pieces.bos_id(), *pieces.encode(text)]
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def reference_model(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
