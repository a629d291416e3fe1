"""Preflight: try the models on a few rows before a long run.

Says how many rows they will truncate, shows a few real scores, and estimates tokens and time. Takes
seconds: it reads a sample of the pool's first rows, and computes a few of them. A run, which checks
its models too, computes none with those that are small and known to work.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import InputError
from deita_tasks.filtering.training_window import are_beyond
from deita_tasks.findings import describe_languages, find_other_languages, plural
from deita_tasks.languages import detect_language
from deita_tasks.lengths import length_quantiles
from deita_tasks.loading import open_unless_empty
from deita_tasks.models.hardware import choose_device, choose_dtype
from deita_tasks.plan import Plan
from deita_tasks.progress import duration
from deita_tasks.records import Forecast
from deita_tasks.scoring.base import Scorer

SAMPLE_ROWS = 200
PROBE_ROWS = 8
PROBE_SECONDS = 5.0
MIN_SPREAD = 1e-3  # scores, or directions of vectors, closer than this are all the same
TURN_OVERHEAD = 30  # bytes of JSON around the text of a turn, about
COMPRESSED = (".gz", ".xz", ".zst")


@dataclass(frozen=True)
class Check:
    """What preflight knows about one stage; None for what it does not know.

    rows: that the stage has to compute. sampled: rows of the sample. truncated_rows: sampled rows
    that do not fit the model's window. windowed_rows: those that it reads in several windows;
    windows_a_row: how many, their mean. tokens_a_row: mean over the sample. seconds_a_row: measured
    on a few rows, so more than in large batches. scores: some real ones.
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
    windowed_rows: int | None = None
    windows_a_row: float | None = None

    @property
    def tokens(self) -> float | None:
        """Tokens that the stage's model will read, about."""
        return _multiply(self.tokens_a_row, self.rows)

    @property
    def seconds(self) -> float | None:
        """Upper estimate of the seconds that the stage will take."""
        return _multiply(self.seconds_a_row, self.rows)

    def __str__(self) -> str:
        facts = [
            " ".join(filter(None, [self.backend, self.model])),
            " on ".join(filter(None, [self.dtype, self.device])),
        ]
        if self.digit_ids is not None:
            facts.append(f"digits {self.digit_ids}")
        facts += self._long_rows()
        if self.scores:
            facts.append("scores such as " + " ".join(f"{score:.2f}" for score in self.scores))
        if self.tokens is not None:
            facts.append(f"about {self.tokens:,.0f} tokens")
        if self.seconds is not None:
            facts.append(f"{'at most about ' if self.seconds >= 1 else ''}{duration(self.seconds)}")
        return f"{self.stage}: {', '.join(filter(None, facts))}"

    def _long_rows(self) -> Iterator[str]:
        """Yield how many sampled rows are over the window: read in several windows, or truncated.

        Nothing where the component does not say.
        """
        if self.window is None or self.truncated_rows is None:
            return
        over = f"of {self.sampled} sampled rows are over {self.window:,} tokens"
        if self.windowed_rows is not None:
            mean = self.windows_a_row
            takes = "" if mean is None else f" and take {mean:.1f} windows on average"
            yield f"{self.windowed_rows} {over}{takes}"
        if self.windowed_rows is None or self.truncated_rows:
            yield f"{self.truncated_rows} {over} and would be truncated"


def _multiply(per_row: float | None, rows: int | None) -> float | None:
    """Return the total of all rows; None if either number is not known."""
    return None if per_row is None or rows is None else per_row * rows


def preflight(plan: Plan, format: str) -> Iterator[Check]:
    """Yield a Check of each of a plan's stages, on the first rows of its files.

    Holds one model in memory at a time.
    """
    sample = read_sample(plan.files, format)
    if not sample:
        raise InputError(f"{', '.join(plan.files)}: no good rows; expected conversations")
    rows = estimate_rows(plan.files, sample)
    warnings = sample_warnings(sample, plan.languages())
    for stage, component in plan.components().items():
        result = check(stage, component, sample, rows)
        yield replace(result, warnings=[*warnings, *result.warnings])
        warnings = []
        component.release()


def describe_lengths(plan: Plan, format: str) -> list[str]:
    """Return how long the first rows are in tokens, a line each; [] without a tokenizer.

    Quantiles of the sampled rows, how many exceed the training window, and how many have no count.
    """
    counting = plan.filters.tokens
    if counting is None:
        return []
    sample = read_sample(plan.files, format)
    counts = counting.counter.count(sample)
    counted = [count for count in counts if not isinstance(count, str)]
    quantiles = ", ".join(map(str, length_quantiles([count.tokens for count in counted])))
    lines = [f"tokens of {plural(len(counted), 'sampled row')} by quantile: {quantiles}"]
    if counting.window is not None:
        before_answer = np.array([count.before_answer for count in counted], np.int64)
        beyond = int(are_beyond(before_answer, counting.window).sum())
        cut = sum(count.tokens > counting.window for count in counted)
        lines.append(
            f"{cut:,} of them are longer than the training window of {counting.window:,}; "
            f"{beyond:,} have no answer within it and would be too long"
        )
    if len(counted) < len(counts):
        problem = next(count for count in counts if isinstance(count, str))
        uncounted = plural(len(counts) - len(counted), "sampled row")
        lines.append(f"{uncounted} without a count, for example: {problem}")
    return lines


def check(
    stage: str,
    component: Scorer | Embedder,
    sample: Sequence[Conversation],
    rows: int | None,
    is_probed: bool = True,
) -> Check:
    """Check `component` on `sample`; the stage has to compute `rows`.

    is_probed: whether it computes a few rows, for which it loads its model.

    Raises what the component raises if it cannot work at all.
    """
    forecast = component.forecast(sample)
    probe = _Probe()
    if is_probed:
        step = max(1, len(sample) // PROBE_ROWS)
        probe = _run_probe(component, sample[::step][:PROBE_ROWS])
    dtype = getattr(component, "dtype", None)
    device = getattr(component, "device", None)
    truncated = forecast.truncated_tokens
    digits = forecast.digit_ids
    windows = None if forecast.windows is None else forecast.windows[forecast.windows > 1]
    return Check(
        stage=stage,
        backend=str(component.fingerprint()["backend"]),
        model=getattr(component, "model", None),
        dtype=None if dtype is None else choose_dtype(dtype, device or "auto"),
        device=None if device is None else choose_device(device),
        window=forecast.window,
        digit_ids=None if digits is None else list(digits),
        rows=rows,
        sampled=len(sample),
        truncated_rows=None if truncated is None else int((truncated > 0).sum()),
        tokens_a_row=_mean_tokens(forecast),
        seconds_a_row=_seconds_a_row(component, forecast, probe),
        scores=_example_scores(component, probe),
        warnings=list(_warnings(stage, component, probe)),
        windowed_rows=None if windows is None else len(windows),
        windows_a_row=float(windows.mean()) if windows is not None and len(windows) else None,
    )


def _mean_tokens(forecast: Forecast) -> float | None:
    """Return the mean tokens of a sampled row; None for a component that counts none."""
    if forecast.tokens is None or not len(forecast.tokens):
        return None
    return float(forecast.tokens.mean())


@dataclass
class _Probe:
    """Values that a component gave on a few rows, and why others have none.

    batch, seconds: the last batch, and how long it took.
    """

    values: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    problems: list[str] = field(default_factory=list)
    rows: int = 0
    batch: Sequence[Conversation] = ()
    seconds: float = 0.0


def _run_probe(component: Scorer | Embedder, sample: Sequence[Conversation]) -> _Probe:
    """Compute one row, which loads the model; then one, two, four within PROBE_SECONDS."""
    probe = _Probe()
    values = []
    first_end = 0.0
    for size in (1, 1, 2, 4):
        batch = sample[probe.rows : probe.rows + size]
        is_late = probe.rows > 1 and time.perf_counter() - first_end > PROBE_SECONDS
        if not batch or is_late:
            break
        start = time.perf_counter()
        batch_values, problems = _compute(component, batch)
        probe.seconds = time.perf_counter() - start
        first_end = first_end or time.perf_counter()
        probe.batch = batch
        probe.rows += len(batch)
        probe.problems += problems
        values += [value for value in batch_values if np.isfinite(value).all()]
    probe.values = np.array(values, np.float32)
    return probe


def _compute(
    component: Scorer | Embedder, batch: Sequence[Conversation]
) -> tuple[NDArray[np.float32], list[str]]:
    """Return the values, float32 (n,) scores or (n, d) vectors, and the problems of what has none.

    n: pairs of a scorer, rows of an embedder.
    """
    if isinstance(component, Embedder):
        vectors = component.compute(batch)
        return vectors.values, list(vectors.problems.values())
    pairs, problems = component.compute_rows(batch)
    return pairs.values, [*pairs.problems.values(), *problems.values()]


def _seconds_a_row(component: Scorer | Embedder, forecast: Forecast, probe: _Probe) -> float | None:
    """Return the seconds that a row of the sample takes, from the last batch of the probe.

    By tokens where they are counted, as the few rows of the batch may be longer or shorter than
    most. None without a probe.
    """
    if not probe.batch:
        return None
    tokens = component.forecast(probe.batch).tokens
    if forecast.tokens is None or tokens is None or not tokens.sum():
        return probe.seconds / len(probe.batch)
    return probe.seconds / float(tokens.sum()) * float(forecast.tokens.mean())


def _example_scores(component: Scorer | Embedder, probe: _Probe) -> list[float]:
    """Return at most PROBE_ROWS scores with three decimals; [] for an embedder."""
    if not isinstance(component, Scorer):
        return []
    return [round(float(score), 3) for score in probe.values[:PROBE_ROWS]]


def _warnings(stage: str, component: Scorer | Embedder, probe: _Probe) -> Iterator[str]:
    """Yield what looks wrong in the probe: rows without a value, and values that are all the same.

    Vectors are compared by their direction alone.
    """
    if probe.problems:
        yield f"{stage}: some of {probe.rows} sampled rows have no value: {probe.problems[0]}"
    values: NDArray[np.floating] = probe.values
    kind = "scores"
    if isinstance(component, Embedder) and len(values):
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(lengths > 0, lengths, 1)
        kind = "vectors"
    if len(values) > 2 and np.ptp(values, axis=0).max() < MIN_SPREAD:
        yield (
            f"{stage}: all {len(values)} {kind} of the sample are the same; was this model "
            "trained for it?"
        )


def sample_warnings(
    sample: Sequence[Conversation], made_for: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return what the models cannot read of the sample: media, and languages not `made_for`.

    made_for: languages by stage, of the models that say so.
    """
    warnings = []
    media = sum(conversation.media > 0 for conversation in sample)
    if media:
        warnings.append(
            f"{media:,} of {plural(len(sample), 'sampled conversation')} hold images, audio or "
            "video, which no model here reads: they are scored and compared by their text alone"
        )
    languages = Counter(detect_language(row.spoken_texts) for row in sample)
    by_frequency = dict(languages.most_common())
    warnings += [
        f"of the sample, {describe_languages(other, len(sample))}"
        for other in find_other_languages(by_frequency, made_for)
    ]
    return warnings


def read_sample(files: Sequence[str], format: str) -> list[Conversation]:
    """Return the first good rows of the pool's files, SAMPLE_ROWS at most.

    Bad rows and empty files are passed over. Reads no further than it needs.
    """
    good = (
        row
        for uri in files
        for row in open_unless_empty(uri, format) or ()
        if isinstance(row, Conversation)
    )
    return list(islice(good, SAMPLE_ROWS))


def estimate_rows(files: Sequence[str], sample: Sequence[Conversation]) -> int | None:
    """Estimate the rows of the files from their size and the sample's.

    None if that takes reading them.
    """
    rows = 0.0
    bytes_a_row = _mean_bytes(sample)
    for uri in files:
        size = storage.size_of(uri)
        if not size:
            continue
        if uri.endswith(".parquet"):
            with storage.parquet_file(uri) as parquet:
                rows += parquet.metadata.num_rows
        elif not bytes_a_row or uri.endswith(COMPRESSED):
            return None
        else:
            rows += size / bytes_a_row
    return round(rows)


def _mean_bytes(sample: Sequence[Conversation]) -> float:
    """Return the bytes that a row takes in a JSON file, about; 0.0 without a sample."""
    if not sample:
        return 0.0
    sizes = [
        sum(len(turn.content.encode()) + TURN_OVERHEAD for turn in conversation.turns)
        for conversation in sample
    ]
    return float(np.mean(sizes))
