"""The heads of the mini scorers: from what is seen of a text to a score from 1 to 6."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNTED_BOUND, JUDGED_BOUND = (
    2.5,
    1.5,
)  # standard deviations at which an opinion is held: pasted prose must not outweigh everything
COUNTED_WEIGHT = 0.5  # of the counted opinion so held, beside the judged one
FEATURES_WEIGHT = 0.25  # of all features, beside all states, in the distance between two texts
FAR = 4.0  # standard deviations at which an input is cut off
COUNTING = {"counted_bound": COUNTED_BOUND, "far": FAR}  # what scores depend on beside the weights
JUDGING = {
    "judged_bound": JUDGED_BOUND,
    "counted_weight": COUNTED_WEIGHT,
    "features_weight": FEATURES_WEIGHT,
}
Floats = NDArray[np.float32]
_LOGISTIC = 1.702  # the logistic curve at 1.702 z is within 0.01 of the normal distribution's
_JUDGE = "judge."


@dataclass(frozen=True)
class Judge:
    """What a judge would say of a text, by kernel ridge regression: m texts that were judged,
    weighed by how near each of them lies.

    `mean`, `scale`: (s,) of the states. `examples`: float16 (m, k + s), where those texts lie.
    `weights`: (m,). `width`: (1,), by which a squared distance is multiplied in the Gaussian
    kernel. `offset`: (1,), so that the opinion's mean over the examples is 0; its standard
    deviation is 1.
    """

    mean: Floats
    scale: Floats
    examples: NDArray[np.float16]
    weights: Floats
    width: Floats
    offset: Floats

    def opinion(self, x: NDArray[np.float64], states: Floats) -> NDArray[np.float64]:
        """(n,) from standardised features (n, k) and states (n, s)."""
        near = closeness(
            place(x, states, self.mean, self.scale), self.examples, float(self.width[0])
        )
        near *= self.weights
        opinion: NDArray[np.float64] = near.sum(1, dtype=np.float64) + self.offset
        return opinion


def place(x: NDArray[np.float64], states: Floats, mean: Floats, scale: Floats) -> Floats:
    """float32 (n, k + s): where texts lie, by standardised features (n, k) and states (n, s).
    `mean`, `scale`: (s,) of the states.
    """
    known = np.clip((states - mean) / scale, -FAR, FAR)
    return np.concatenate(
        [x * np.sqrt(FEATURES_WEIGHT / x.shape[1]), known / np.sqrt(known.shape[1])], 1
    ).astype(np.float32)


def closeness(places: Floats, examples: NDArray[np.float16], width: float) -> Floats:
    """exp(-width * squared distance): float32 (n, m) of n places, (n, d), to m examples, (m, d).

    Place by place: a product of two matrices is rounded by their sizes, and no text may know its
    batch.
    """
    known = examples.astype(np.float32)
    lengths = (known * known).sum(1)
    near = np.empty((len(places), len(known)), np.float32)
    for row, one in zip(near, places, strict=True):
        np.exp(-width * np.maximum(lengths + one @ one - 2 * (known @ one), 0), out=row)
    return near


@dataclass(frozen=True)
class Head:
    """k named features, the weights of the opinion on them, and a second opinion where there is
    one. `counted`: (k,).

    Each opinion has mean 0 and standard deviation 1 over the texts that it was fitted to; `middle`
    and `spread` are those of `total` over the texts that scores were spread over.
    """

    names: Sequence[str]
    mean: Floats
    scale: Floats
    counted: Floats
    counted_offset: Floats
    middle: Floats
    spread: Floats
    judge: Judge | None = None

    def standardise(self, features: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
        """(n, k) of n texts' features, in the order of `names`."""
        raw = np.array(
            [[one[name] for name in self.names] for one in features], np.float64
        ).reshape(-1, len(self.names))
        return np.clip((raw - self.mean) / self.scale, -FAR, FAR)

    def total(self, x: NDArray[np.float64], states: Floats | None = None) -> NDArray[np.float64]:
        """(n,) from standardised features (n, k): the counted opinion; with a judge, half of it and
        the judged one, which needs the states (n, s). Row by row, so that no row knows its batch.
        """
        counted = _bounded((x * self.counted).sum(1) + self.counted_offset, COUNTED_BOUND)
        if self.judge is None:
            return counted
        if states is None:
            raise ValueError("this head has a judge, which needs the texts' states")
        return COUNTED_WEIGHT * counted + _bounded(self.judge.opinion(x, states), JUDGED_BOUND)

    def score(self, total: NDArray[np.float64]) -> Floats:
        """From 1 to 6: evenly spread where `total` is normal."""
        return (1 + 5 / (1 + np.exp(-_LOGISTIC * (total - self.middle) / self.spread))).astype(
            np.float32
        )

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        judge = (
            {}
            if self.judge is None
            else {_JUDGE + name: value for name, value in vars(self.judge).items()}
        )
        arrays = {
            name: value for name, value in vars(self).items() if name not in ("names", "judge")
        }
        save_file(arrays | judge, path, metadata={"features": json.dumps(list(self.names))})

    @classmethod
    def load(cls, path: Path) -> Head:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = json.loads(file.metadata()["features"])
        judge = {
            one.name: arrays.pop(_JUDGE + one.name)
            for one in fields(Judge)
            if _JUDGE + one.name in arrays
        }
        return cls(names, **arrays, judge=Judge(**judge) if judge else None)


def _bounded(values: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """`values` near 0 as they are, large ones at most `bound`; monotone."""
    return bound * np.tanh(values / bound)
