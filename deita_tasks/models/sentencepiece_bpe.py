"""A fast tokenizer, exact, from a LLaMA or Mistral `tokenizer.model` alone.

The published DEITA scorers carry only this file. transformers 5 converts it to other ids than the
slow tokenizer that the scorers were trained with: for runs of spaces and a literal `</s>` (LLaMA),
for the first token of every prompt (Mistral).

What the slow tokenizer does, in the terms of the `tokenizers` library: text between literally
written special tokens gets a "▁" in front, spaces become "▁", and the pair of neighbours whose
union has the best sentencepiece score is merged first (so the scores are the merge ranks);
characters without a piece become bytes. That it comes to the same ids is proved on `PROBES` at each
load.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deita_tasks.errors import ModelError

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


def load_sentencepiece_bpe(path: Path, config: dict[str, Any]) -> Tokenizer:
    """The tokenizer in the file `path`; `config` is the checkpoint's tokenizer_config.json ({}
    where it has none).

    Of `config`, add_bos_token, add_eos_token, legacy and the tokens beyond the file's own are
    heeded. Raises ModelError for a sentencepiece model of another kind: only a tokenizer.json tells
    that one exactly.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        pieces = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"{path} is not a sentencepiece model ({error}); expected one, or a "
            "tokenizer.json beside it"
        ) from error
    tokenizer = _build(pieces, config)
    _prove(pieces, tokenizer, path)
    return tokenizer


def _build(pieces: SentencePieceProcessor, config: dict[str, Any]) -> Tokenizer:
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
    as_a_whole = config.get("legacy", True) is False
    tokenizer.normalizer = _normalizer(special, as_a_whole)
    # Only a token that is normalised itself is looked for after the normaliser has seen the text as
    # a whole.
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=as_a_whole, special=True) for name in special]
    )
    for identity, token in sorted(
        (int(i), token)
        for i, token in config.get("added_tokens_decoder", {}).items()
        if int(i) >= len(names)
    ):
        flags = {
            flag: bool(token.get(flag, False))
            for flag in ("lstrip", "rstrip", "single_word", "normalized", "special")
        }
        tokenizer.add_tokens([AddedToken(token["content"], **flags)])
        if tokenizer.token_to_id(token["content"]) != identity:
            raise ModelError(
                f"tokenizer_config.json gives {token['content']!r} the id {identity}, which "
                "leaves a gap; mend the file"
            )
    tokenizer.post_processor = _with_ends(pieces, config)
    return tokenizer


def _normalizer(special: list[str], as_a_whole: bool) -> Any:
    """Spaces become "▁", with one in front of each piece of text between special tokens; or
    (`as_a_whole`, the later behaviour, "legacy": false) in front of the text alone, unless that
    begins with a special token.
    """
    from tokenizers import Regex, normalizers

    spaces = normalizers.Replace(" ", "▁")
    if not as_a_whole:
        return normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    beginning = Regex(rf"\A(?!{'|'.join(map(re.escape, special))}|\z)")
    return normalizers.Sequence([normalizers.Replace(beginning, "▁"), spaces])


def _merges(pieces: SentencePieceProcessor, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two, the best-scored piece first."""
    apart = (pieces.is_control, pieces.is_unknown, pieces.is_byte, pieces.is_unused)
    normal = {name: i for name, i in vocabulary.items() if not any(kind(i) for kind in apart)}
    by_score = sorted(normal, key=lambda name: (-pieces.get_score(normal[name]), normal[name]))
    return [
        (name[:cut], name[cut:])
        for name in by_score
        for cut in range(1, len(name))
        if name[:cut] in normal and name[cut:] in normal
    ]


def _with_ends(pieces: SentencePieceProcessor, config: dict[str, Any]) -> Any:
    from tokenizers import processors

    template, used = "$A", []
    if config.get("add_bos_token", True):
        template = f"{pieces.id_to_piece(pieces.bos_id())} {template}"
        used.append(pieces.bos_id())
    if config.get("add_eos_token", False):
        template = f"{template} {pieces.id_to_piece(pieces.eos_id())}"
        used.append(pieces.eos_id())
    return processors.TemplateProcessing(
        single=template, pair=None, special_tokens=[(pieces.id_to_piece(i), i) for i in used]
    )


def _prove(pieces: SentencePieceProcessor, tokenizer: Tokenizer, path: Path) -> None:
    for text in PROBES:
        plain = text.replace(
            pieces.id_to_piece(pieces.unk_id()), ""
        )  # written literally it is special, which sentencepiece does not know
        if tokenizer.encode(plain, add_special_tokens=False).ids != pieces.encode(plain):
            raise ModelError(
                f"{path} is not of the LLaMA kind (BPE, a space put in front, bytes for "
                "unknown characters, text otherwise untouched): "
                f"its ids for {plain!r} cannot be reproduced; give the checkpoint a tokenizer.json"
            )
