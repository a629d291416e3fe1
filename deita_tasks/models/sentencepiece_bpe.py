"""An exact fast tokenizer from the `tokenizer.model` of a LLaMA or Mistral checkpoint.

The published DEITA scorers have only this file. transformers 5 converts it to other ids than those
of the slow tokenizer that the scorers were trained with: for runs of spaces and a literal `</s>`
(LLaMA), for the first token of every prompt (Mistral).

In terms of the `tokenizers` library, the slow tokenizer does this: text between literal special
tokens gets a "▁" in front, spaces become "▁", and the pair of neighbours whose union has the best
sentencepiece score is merged first (so the scores are the merge ranks); characters without a piece
become bytes. Each load checks on `PROBES` that the ids agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from deita_tasks.errors import ModelError
from deita_tasks.strict_json import JSON

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

PROBES = (
    "Write a function that adds two numbers.",
    " a  b   c    d     e      f       g        h\t\ti\n\n\n  j \r\n",
    "def f(x):\n    if x  >  1:\n        return x ** 2   # 1234567890\n",
    "Ünïcödé cafe\u0301 ﬁ ½ № ʼ ’ “quoted” … — ﷺ İ ß ſ",
    "日本語の文章 中文 한국어 עברית العربية हिन्दी ไทย",
    "👍🏽 👩‍👩‍👧‍👦 🇩🇪 \u200b\u00a0\u3000 \ufeff \U0001f9ff ▁ ▁▁ <0x0A> <unk>x",
    "http://example.org/?a=1&b=2 foo_bar.baz() ==== ---- aaaaaaaaaaaaaaaa",
)


class TokenConfig(BaseModel):
    """A token of tokenizer_config.json, with the flags of the `tokenizers` library."""

    content: str
    lstrip: bool | None = False
    rstrip: bool | None = False
    single_word: bool | None = False
    normalized: bool | None = False
    special: bool | None = False


class TokenizerConfig(BaseModel):
    """The part of tokenizer_config.json that changes token ids; null counts as false."""

    add_bos_token: bool | None = True
    add_eos_token: bool | None = False
    legacy: bool | None = True
    added_tokens_decoder: dict[int, TokenConfig] = {}


def load_sentencepiece_bpe(path: Path, config: Mapping[str, JSON]) -> Tokenizer:
    """Return the tokenizer in the file `path`.

    `config`: the checkpoint's tokenizer_config.json, {} if it has none; TokenizerConfig lists what
    is used of it. Raises ModelError for a sentencepiece model of another kind: only a
    tokenizer.json defines that one exactly.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        settings = TokenizerConfig.model_validate(config)
    except ValidationError as error:
        raise ModelError(
            f"the tokenizer_config.json beside {path} cannot be used: {error}"
        ) from error
    try:
        pieces = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"{path} is not a sentencepiece model ({error}); expected one, or a "
            "tokenizer.json beside it"
        ) from error
    tokenizer = _build(pieces, settings)
    _check_probes(pieces, tokenizer, path)
    return tokenizer


def _build(pieces: SentencePieceProcessor, config: TokenizerConfig) -> Tokenizer:
    """Return the tokenizer that should give the ids of `pieces`; nothing is compared yet.

    Raises ModelError if an added token cannot have the id that the configuration names.
    """
    from tokenizers import AddedToken, Tokenizer, models

    names: list[str] = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(pieces, vocabulary),
            unk_token=names[pieces.unk_id()],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    special = [names[i] for i in range(len(names)) if pieces.is_control(i) or pieces.is_unknown(i)]
    as_a_whole = config.legacy is False
    tokenizer.normalizer = _normalizer(special, as_a_whole)
    # A token is looked for after the normalizer has seen the whole text only if it is normalized
    # itself.
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=as_a_whole, special=True) for name in special]
    )
    for token_id, token in sorted(config.added_tokens_decoder.items()):
        if token_id >= len(names):
            _add_token(tokenizer, token_id, token)
    tokenizer.post_processor = _post_processor(pieces, config)
    return tokenizer


def _add_token(tokenizer: Tokenizer, token_id: int, token: TokenConfig) -> None:
    """Add a token after the pieces of the model, with the flags of its configuration.

    It gets the next free id. Raises ModelError if the configuration names another one.
    """
    from tokenizers import AddedToken

    flags = {name: bool(flag) for name, flag in token.model_dump(exclude={"content"}).items()}
    tokenizer.add_tokens([AddedToken(token.content, **flags)])
    if tokenizer.token_to_id(token.content) != token_id:
        raise ModelError(
            f"tokenizer_config.json gives {token.content!r} the id {token_id}, which leaves a gap; "
            "correct the file"
        )


def _normalizer(special: list[str], as_a_whole: bool) -> Any:
    """Replace spaces by "▁", and put one in front of each piece of text between special tokens.

    With `as_a_whole` (the later behaviour, "legacy": false) it goes in front of the whole text,
    unless that begins with a special token.
    """
    from tokenizers import Regex, normalizers

    spaces = normalizers.Replace(" ", "▁")
    if not as_a_whole:
        return normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    beginning = Regex(rf"\A(?!{'|'.join(map(re.escape, special))}|\z)")
    return normalizers.Sequence([normalizers.Replace(beginning, "▁"), spaces])


def _merges(pieces: SentencePieceProcessor, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return every way to join two pieces into one, the best-scored piece first.

    Of equal scores the lower id is first. Only normal pieces count: neither bytes nor special
    tokens are ever the result of a merge.
    """
    not_text = (pieces.is_control, pieces.is_unknown, pieces.is_byte, pieces.is_unused)
    normal = {
        name: i for name, i in vocabulary.items() if not any(is_kind(i) for is_kind in not_text)
    }
    by_score = sorted(normal, key=lambda name: (-pieces.get_score(normal[name]), normal[name]))
    return [
        (name[:split], name[split:])
        for name in by_score
        for split in range(1, len(name))
        if name[:split] in normal and name[split:] in normal
    ]


def _post_processor(pieces: SentencePieceProcessor, config: TokenizerConfig) -> Any:
    """Return what adds the tokens of a text's beginning and end, as far as `config` wants them."""
    from tokenizers import processors

    template = "$A"
    special_ids: list[int] = []
    if config.add_bos_token:
        template = f"{pieces.id_to_piece(pieces.bos_id())} {template}"
        special_ids.append(pieces.bos_id())
    if config.add_eos_token:
        template = f"{template} {pieces.id_to_piece(pieces.eos_id())}"
        special_ids.append(pieces.eos_id())
    special_tokens = [(pieces.id_to_piece(i), i) for i in special_ids]
    return processors.TemplateProcessing(single=template, pair=None, special_tokens=special_tokens)


def _check_probes(pieces: SentencePieceProcessor, tokenizer: Tokenizer, path: Path) -> None:
    """Raise ModelError unless all PROBES have the ids that sentencepiece gives them.

    The tokens of a text's beginning and end are left out of the comparison. `path`: for the
    message.
    """
    # written literally it is a special token, which sentencepiece does not know
    unknown = pieces.id_to_piece(pieces.unk_id())
    for probe in PROBES:
        text = probe.replace(unknown, "")
        if tokenizer.encode(text, add_special_tokens=False).ids != pieces.encode(text):
            raise ModelError(
                f"{path} is not of the LLaMA kind (BPE, a space put in front, bytes for unknown "
                f"characters, text otherwise unchanged): its ids for {text!r} cannot be "
                "reproduced; give the checkpoint a tokenizer.json"
            )
