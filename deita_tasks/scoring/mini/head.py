"""The heads of the mini scorers: features and states of a text to a score from 1 to 6."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Standard deviations at which an opinion is bounded: pasted prose must not outweigh everything.
COUNTED_BOUND = 2.5
JUDGED_BOUND = 1.5
COUNTED_WEIGHT = 0.5  # of the bounded counted opinion, beside the judged one
FEATURES_WEIGHT = 0.25  # of all features, beside all states, in the distance between two texts
MAX_DEVIATION = 4.0  # standard deviations at which an input is clipped

# What scores depend on beside the weights, as a fingerprint names it.
COUNTED_CONSTANTS = {"counted_bound": COUNTED_BOUND, "far": MAX_DEVIATION}
JUDGED_CONSTANTS = {
    "judged_bound": JUDGED_BOUND,
    "counted_weight": COUNTED_WEIGHT,
    "features_weight": FEATURES_WEIGHT,
}

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
_LOGISTIC = 1.702  # the logistic curve at 1.702 z is within 0.01 of the normal distribution's
_JUDGE_PREFIX = "judge."  # of the judge's arrays in a file


@dataclass(frozen=True)
class DifficultyJudge:
    """What a judge would say of a text, by kernel ridge regression.

    m texts were judged; the nearer one lies, the more it counts. `mean`, `scale`: (s,) of the
    states. `examples`: float16 (m, k + s), the points of those texts. `weights`: (m,). `width`:
    (1,), the factor of a squared distance in the Gaussian kernel. `offset`: (1,), so that the
    opinion's mean over the examples is 0; its standard deviation is 1.
    """

    mean: Floats
    scale: Floats
    examples: NDArray[np.float16]
    weights: Floats
    width: Floats
    offset: Floats

    def opinion(self, features: Doubles, states: Floats) -> Doubles:
        """Return what the judge would say of n texts, float64 (n,), in standard deviations.

        `features`: (n, k), standardised. `states`: (n, s).
        """
        points = embed_points(features, states, self.mean, self.scale)
        kernel = gaussian_kernel(points, self.examples, float(self.width[0]))
        kernel *= self.weights
        opinion: Doubles = kernel.sum(1, dtype=np.float64) + self.offset
        return opinion


def embed_points(features: Doubles, states: Floats, mean: Floats, scale: Floats) -> Floats:
    """Return the points whose distances compare texts: float32 (n, k + s).

    `features`: (n, k), standardised. `states`: (n, s), with `mean` and `scale`, (s,).
    """
    standardised = np.clip((states - mean) / scale, -MAX_DEVIATION, MAX_DEVIATION)
    weighted_features = features * np.sqrt(FEATURES_WEIGHT / features.shape[1])
    weighted_states = standardised / np.sqrt(standardised.shape[1])
    return np.concatenate([weighted_features, weighted_states], 1).astype(np.float32)


def gaussian_kernel(points: Floats, examples: NDArray[np.float16], width: float) -> Floats:
    """Return exp(-width * squared distance): float32 (n, m) of n points and m examples.

    Point by point: a product of two matrices is rounded depending on their sizes, and no score may
    depend on its batch.
    """
    exact = examples.astype(np.float32)
    lengths = (exact * exact).sum(1)
    kernel = np.empty((len(points), len(exact)), np.float32)
    for row, point in zip(kernel, points, strict=True):
        distances = np.maximum(lengths + point @ point - 2 * (exact @ point), 0)
        np.exp(-width * distances, out=row)
    return kernel


@dataclass(frozen=True)
class Head:
    """k named features with the weights of the counted opinion, and for complexity a judge.

    `mean`, `scale`, `counted`: (k,). Each opinion has mean 0 and standard deviation 1 over the
    texts that it was fitted to. `middle` and `spread`, (1,), are the mean and standard deviation of
    `total` over the texts that scores are spread over.
    """

    names: Sequence[str]
    mean: Floats
    scale: Floats
    counted: Floats
    counted_offset: Floats
    middle: Floats
    spread: Floats
    judge: DifficultyJudge | None = None

    def standardise(self, features: Sequence[Mapping[str, float]]) -> Doubles:
        """Return the features of n texts, float64 (n, k), in the order of `names`.

        In standard deviations from the mean, at most MAX_DEVIATION: a text unlike all others must
        not get an extreme score. Features with other names are ignored; a missing one is a
        KeyError.
        """
        rows = [[text[name] for name in self.names] for text in features]
        raw = np.array(rows, np.float64).reshape(-1, len(self.names))
        return np.clip((raw - self.mean) / self.scale, -MAX_DEVIATION, MAX_DEVIATION)

    def total(self, features: Doubles, states: Floats | None = None) -> Doubles:
        """Return the sum of the opinions, (n,), from standardised features (n, k).

        Without a judge it is the counted opinion. With one it is half of that and the judged
        opinion, which needs the states (n, s). Row by row: no score may depend on its batch.
        """
        opinion = (features * self.counted).sum(1) + self.counted_offset
        counted = _bounded(opinion, COUNTED_BOUND)
        if self.judge is None:
            return counted
        if states is None:
            raise ValueError("this head has a judge, which needs the texts' states")
        judged = _bounded(self.judge.opinion(features, states), JUDGED_BOUND)
        return COUNTED_WEIGHT * counted + judged

    def score(self, total: Doubles) -> Floats:
        """Return scores from 1 to 6, float32 (n,), evenly spread if `total`, (n,), is normal.

        A total of `middle` scores 3.5; the curve is the logistic one near the normal
        distribution's.
        """
        deviation = -_LOGISTIC * (total - self.middle) / self.spread
        return (1 + 5 / (1 + np.exp(deviation))).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the head to a safetensors file, with the names of its features in the metadata.

        An existing file is replaced; the folder must exist.
        """
        from safetensors.numpy import save_file

        values = vars(self)
        arrays = {name: values[name] for name in values if name not in ("names", "judge")}
        if self.judge is not None:
            for name, value in vars(self.judge).items():
                arrays[_JUDGE_PREFIX + name] = value
        save_file(arrays, path, metadata={"features": json.dumps(list(self.names))})

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read a head from a safetensors file. Raises what `from_bytes` raises."""
        return cls.from_bytes(path.read_bytes())

    @classmethod
    def from_bytes(cls, content: bytes) -> Head:
        """Return the head that a safetensors file holds.

        Raises SafetensorError, KeyError or TypeError for the content of another file.
        """
        from safetensors.numpy import load

        arrays = load(content)
        names = json.loads(_metadata(content)["features"])
        judge_arrays = {
            field.name: arrays.pop(_JUDGE_PREFIX + field.name)
            for field in fields(DifficultyJudge)
            if _JUDGE_PREFIX + field.name in arrays
        }
        judge = DifficultyJudge(**judge_arrays) if judge_arrays else None
        return cls(names, **arrays, judge=judge)


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: its header is JSON after 8 bytes of length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata


def _bounded(values: Doubles, bound: float) -> Doubles:
    """Return values near 0 unchanged, large ones at most `bound` in magnitude; monotone."""
    return bound * np.tanh(values / bound)
