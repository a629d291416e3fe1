"""The paper's cheap baselines: length of the instruction or the response (section 2, tables 2, 3).

The paper ranks by the length itself. An evol score multiplies two scores in [1, 6], so lengths are
mapped there by

    score = 1 + 5 * w / (w + middle)        w: the number of words

with score(0) = 1, score(middle) = 3.5, and below 6 for every length. This is a logistic curve in
log(w): equal ratios of length count alike, as lengths are spread (about log-normally), and no text
is so long that its length drowns the other score. It is strictly monotone, so ranking by one score
is ranking by length (in float32 up to about 2,000 times the square root of `middle`, where one more
word is below the resolution of a score).

`middle` is the 75th percentile of a mix of public instruction pools: a selection takes place in the
upper part, where the curve should separate lengths. (Instructions have 13 words in the median, 25
at the 75th percentile, 46 at the 90th; responses 18, 46 and 89.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deita_tasks.components import Fingerprint
from deita_tasks.records import ModelOutput
from deita_tasks.scoring.base import Scorer
from deita_tasks.words import count_words


class _Length(Scorer):
    VERSION: ClassVar[int] = 2
    BACKEND: ClassVar[str]

    middle: float = Field(gt=0, allow_inf_nan=False, description="words that score 3.5")

    def fingerprint(self) -> Fingerprint:
        """Return the backend with `middle`, which moves every score; no model is part of it."""
        return {
            "backend": self.BACKEND,
            "version": self.VERSION,
            "kind": self.kind,
            "middle": self.middle,
        }

    def _scores(self, texts: Sequence[str]) -> ModelOutput:
        """Return the scores of texts by their words: float32 (n,), 3.5 for `middle` words.

        Every text has a score, and is read to its end.
        """
        words: NDArray[np.float64] = np.fromiter(map(count_words, texts), np.float64, len(texts))
        scores = 1 + 5 * words / (words + self.middle)
        return ModelOutput(scores.astype(np.float32), np.zeros(len(texts), np.int32))


class InstructionLength(_Length):
    """Complexity by the number of words in the instruction ("instruction length", table 2)."""

    BACKEND: ClassVar[str] = "instruction_length"

    kind: Literal["complexity"] = "complexity"
    middle: float = Field(25.0, gt=0, allow_inf_nan=False, description="words that score 3.5")

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Return the scores of the instructions, float32 (n,) in [1, 6]; responses are not read."""
        return self._scores([instruction for instruction, _ in pairs])


class ResponseLength(_Length):
    """Quality by the number of words in the response ("response length", table 3).

    An empty response scores exactly 1.
    """

    BACKEND: ClassVar[str] = "response_length"

    kind: Literal["quality"] = "quality"
    middle: float = Field(50.0, gt=0, allow_inf_nan=False, description="words that score 3.5")

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Return the scores of the responses, float32 (n,) in [1, 6]; instructions are not read."""
        return self._scores([response for _, response in pairs])
