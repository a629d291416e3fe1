"""A checkpoint's own tokenizer, as a `tokenizers.Tokenizer` that neither truncates nor pads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from deita_tasks.errors import ModelError
from deita_tasks.models.checkpoint import Checkpoint
from deita_tasks.models.sentencepiece_bpe import load_sentencepiece_bpe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# First words after which a tokenizer may split differently: a word, a small letter, a digit, CJK.
FIRST_WORDS = ("Write", "how", "1", "「")


class Tokens(NamedTuple):
    """The token ids that a model reads of a text, and the number of tokens left out.

    `ids` is empty for a text without tokens, or one that cannot be truncated to the limit.
    """

    ids: list[int]
    truncated_tokens: int


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Return the checkpoint's tokenizer.

    It is the tokenizer.json as it is, else built from tokenizer.model, else what transformers
    makes. The tokenizer classes of transformers 5 are avoided: they rebuild those of LLaMA and
    Mistral from the vocabulary, not always exactly. Raises ModelError if there is no tokenizer.
    """
    from tokenizers import Tokenizer

    if path := checkpoint.file("tokenizer.json"):
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(
                f"{checkpoint.location}: tokenizer.json cannot be read: {error}"
            ) from error
    elif path := checkpoint.file("tokenizer.model"):
        tokenizer = load_sentencepiece_bpe(path, checkpoint.json("tokenizer_config.json"))
    else:
        tokenizer = _from_transformers(checkpoint)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def common_prefix(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Return the token ids that all `texts` begin with; [] if their first ones differ.

    Each text is tokenized whole: a token may span the end of a template and the text after it.
    """
    encodings = tokenizer.encode_batch_fast(list(texts))
    columns = zip(*(encoding.ids for encoding in encodings), strict=False)
    shared = takewhile(lambda column: len(set(column)) == 1, columns)
    return [column[0] for column in shared]


def _from_transformers(checkpoint: Checkpoint) -> Tokenizer:
    """Return the fast tokenizer that transformers makes of a checkpoint's other files.

    Raises ModelError if it makes none, or one that only Python code defines.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    try:
        wrapper = AutoTokenizer.from_pretrained(
            checkpoint.location, revision=checkpoint.revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"{checkpoint.location} has no usable tokenizer: expected a tokenizer.json or a "
            f"sentencepiece tokenizer.model ({error})"
        ) from error
    backend = getattr(wrapper, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{checkpoint.location}: {type(wrapper).__name__} has no fast tokenizer; save it as a "
            "tokenizer.json"
        )
    return Tokenizer.from_str(backend.to_str())
