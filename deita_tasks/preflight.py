"""A look at a run before it: what its models will read of the pool, what they will cut, a few real
scores, how long it may take.

It costs seconds: a sample of the pool's first rows, tokenizers, and of the models only those whose
scores are worth seeing first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import InputError, StorageError
from deita_tasks.loading import open_unless_empty
from deita_tasks.models.hardware import choose_device, choose_dtype
from deita_tasks.plan import Plan
from deita_tasks.records import Conversation, Forecast
from deita_tasks.scoring.base import Scorer

SAMPLE_ROWS = 200
PROBE_ROWS = 8
PROBE_SECONDS = 5.0
CONSTANT = 1e-3  # a spread of scores, or of vectors' directions, that is none


@dataclass(frozen=True)
class Check:
    """What there is to know of one stage; None for what it does not have, or what was not looked
    at.

    rows: the rows that the stage is to compute. sampled: those looked at; truncated_rows: how many of them do
    not fit the window. tokens_a_row: the model's, on average. seconds_a_row: measured on a few
    rows, so more than in large batches. scores: some of the real ones.
    """

    stage: str
    backend: str
    model: str | None
    dtype: str | None
    device: str | None
    window: int | None
    digit_ids: list[int] | None
    rows: int | None
    sampled: int
    truncated_rows: int | None
    tokens_a_row: float | None
    seconds_a_row: float | None
    scores: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> float | None:
        """Tokens that the stage's model will read, about."""
        return (
            None
            if self.tokens_a_row is None or self.rows is None
            else self.tokens_a_row * self.rows
        )

    @property
    def seconds(self) -> float | None:
        """Seconds that the stage will take, at most about."""
        return (
            None
            if self.seconds_a_row is None or self.rows is None
            else self.seconds_a_row * self.rows
        )

    def __str__(self) -> str:
        where = " on ".join(filter(None, [self.dtype, self.device]))
        facts = [" ".join(filter(None, [self.backend, self.model])), where]
        if self.digit_ids is not None:
            facts.append(f"digits {self.digit_ids}")
        if self.window is not None and self.truncated_rows is not None:
            facts.append(
                f"{self.truncated_rows} of {self.sampled} sampled rows are over {self.window:,} tokens "
                "and would be cut"
            )
        if self.scores:
            facts.append("scores such as " + " ".join(f"{score:.2f}" for score in self.scores))
        if self.tokens is not None:
            facts.append(f"about {self.tokens:,.0f} tokens")
        if self.seconds is not None:
            facts.append(f"at most about {duration(self.seconds)}")
        return f"{self.stage}: {', '.join(filter(None, facts))}"


def preflight(plan: Plan, format: str) -> Iterator[Check]:
    """A Check of each of a plan's stages, on the first rows of its files; one model in memory at a
    time.
    """
    sample = read_sample(plan.files, format)
    if not sample:
        raise InputError(f"{', '.join(plan.files)}: no good rows; expected conversations")
    rows = about_rows(plan.files, sample)
    components: dict[str, Scorer | Embedder | None] = {**plan.scorers, "embedding": plan.embedder}
    for stage, component in components.items():
        if component is not None:
            yield check(stage, component, sample, rows)
            component.release()


def check(
    stage: str, component: Scorer | Embedder, sample: Sequence[Conversation], rows: int | None
) -> Check:
    """Look at `component` over `sample`; `rows` are to be computed. Raises what the component
    raises where it cannot work at all.
    """
    identity = component.fingerprint()
    seen = component.forecast(sample)
    tried = (
        _try(component, sample[:: max(1, len(sample) // PROBE_ROWS)][:PROBE_ROWS])
        if component.PROBED
        else _Tried()
    )
    dtype, device = getattr(component, "dtype", None), getattr(component, "device", None)
    return Check(
        stage=stage,
        backend=str(identity["backend"]),
        model=getattr(component, "model", None),
        dtype=None if dtype is None else choose_dtype(dtype, device or "auto"),
        device=None if device is None else choose_device(device),
        window=seen.window,
        digit_ids=None if seen.digit_ids is None else list(seen.digit_ids),
        rows=rows,
        sampled=len(sample),
        truncated_rows=None
        if seen.truncated_tokens is None
        else int((seen.truncated_tokens > 0).sum()),
        tokens_a_row=None if seen.tokens is None or not sample else float(seen.tokens.mean()),
        seconds_a_row=_seconds_a_row(component, seen, tried),
        scores=[round(float(value), 3) for value in tried.values[:PROBE_ROWS]]
        if isinstance(component, Scorer)
        else [],
        warnings=list(_warnings(stage, component, tried)),
    )


@dataclass
class _Tried:
    """What came of trying: the values that there are, why others are not; the last batch, and the
    seconds that it took.
    """

    values: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.float32))
    problems: list[str] = field(default_factory=list)
    rows: int = 0
    batch: Sequence[Conversation] = ()
    seconds: float = 0.0


def _try(component: Scorer | Embedder, probe: Sequence[Conversation]) -> _Tried:
    """One row, for which the model is loaded; then one, two, four, for as long as PROBE_SECONDS are
    not over.
    """
    tried, found = _Tried(), []
    begun = 0.0
    for size in (1, 1, 2, 4):
        batch = probe[tried.rows : tried.rows + size]
        if not batch or (tried.rows > 1 and time.perf_counter() - begun > PROBE_SECONDS):
            break
        start = time.perf_counter()
        values, problems = _measure(component, batch)
        begun = begun or time.perf_counter()
        tried.batch, tried.seconds = batch, time.perf_counter() - start
        tried.rows += len(batch)
        tried.problems += problems
        found += [value for value in values if np.isfinite(value).all()]
    tried.values = np.array(found, np.float32)
    return tried


def _measure(
    component: Scorer | Embedder, batch: Sequence[Conversation]
) -> tuple[NDArray[np.float32], list[str]]:
    if isinstance(component, Embedder):
        measured = component.compute(batch)
        return measured.values, list(measured.problems.values())
    pairs, problems = component.compute_rows(batch)
    return pairs.values, [*pairs.problems.values(), *problems.values()]


def _seconds_a_row(component: Scorer | Embedder, seen: Forecast, tried: _Tried) -> float | None:
    if not tried.batch:
        return None
    read = component.forecast(tried.batch).tokens
    if seen.tokens is None or read is None or not read.sum():
        return tried.seconds / len(tried.batch)
    return tried.seconds / float(read.sum()) * float(seen.tokens.mean())


def _warnings(stage: str, component: Scorer | Embedder, tried: _Tried) -> Iterator[str]:
    if tried.problems:
        yield f"{stage}: of {tried.rows} sampled rows some have no value: {tried.problems[0]}"
    values, what = tried.values, "scores"
    if isinstance(component, Embedder) and len(values):
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        values, what = values / np.where(lengths > 0, lengths, 1), "vectors"
    if len(values) > 2 and np.ptp(values, axis=0).max() < CONSTANT:
        yield (
            f"{stage}: all {len(values)} {what} of the sample come out the same; is this the "
            "model that was trained for it?"
        )


def read_sample(files: Sequence[str], format: str) -> list[Conversation]:
    """The first good rows of the pool's files, SAMPLE_ROWS at most."""
    good = (
        row
        for uri in files
        for row in open_unless_empty(uri, format) or ()
        if isinstance(row, Conversation)
    )
    return list(islice(good, SAMPLE_ROWS))


def about_rows(files: Sequence[str], sample: Sequence[Conversation]) -> int | None:
    """About how many rows the files have, from their size and the sample's; None where it cannot be
    told without reading them.
    """
    rows = 0.0
    a_row = (
        float(
            np.mean([sum(len(turn.content.encode()) + 30 for turn in one.turns) for one in sample])
        )
        if sample
        else 0.0
    )
    for uri in files:
        if not storage.size_of(uri):
            continue
        if uri.endswith(".parquet"):
            with storage.parquet_file(uri) as parquet:
                rows += parquet.metadata.num_rows
        elif not a_row or uri.endswith((".gz", ".xz", ".zst")):
            return None
        else:
            fs, path = storage.filesystem(uri)
            try:
                rows += fs.size(path) / a_row
            except OSError as error:
                raise StorageError(f"{uri}: {error}") from error
    return round(rows)


def duration(seconds: float) -> str:
    """Seconds as a person says them: under 1 s, 40 s, 12 min, 3.5 h."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
