"""A checkpoint's own tokenizer, as a `tokenizers.Tokenizer` that neither cuts nor pads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from deita_tasks.errors import ModelError
from deita_tasks.models.checkpoint import Checkpoint
from deita_tasks.models.sentencepiece_bpe import load_sentencepiece_bpe

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer.json as it is; else built from its tokenizer.model; else what
    transformers makes.

    The classes of transformers 5 are gone round on purpose: they rebuild LLaMA's and Mistral's from
    the vocabulary, not always exactly. Raises ModelError where none of them can be had.
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


def common_beginning(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The token ids that all `texts` begin with. Each is tokenised whole: where a template ends and
    a text begins, tokens may span both.
    """
    columns = zip(
        *(encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))), strict=False
    )
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _from_transformers(checkpoint: Checkpoint) -> Tokenizer:
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
            f"{checkpoint.location}: {type(wrapper).__name__} has no fast tokenizer; save it "
            "as a tokenizer.json"
        )
    return Tokenizer.from_str(backend.to_str())
