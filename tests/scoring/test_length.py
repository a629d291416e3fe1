import numpy as np
import pytest

from deita_tasks.errors import UsageError
from deita_tasks.scoring import load_scorer


def test_anchors():
    complexity = load_scorer("instruction_length").score(
        [("", "long " * 99), ("word " * 25, ""), ("word " * 75, "")]
    )
    quality = load_scorer("response_length").score(
        [("long " * 99, ""), ("", "word " * 50), ("", "word " * 200)]
    )
    assert complexity.dtype == quality.dtype == np.float32
    assert complexity.tolist() == [1.0, 3.5, 4.75]  # 1 + 5 * 75 / 100
    assert quality.tolist() == [1.0, 3.5, 5.0]  # 1 + 5 * 200 / 250


@pytest.mark.parametrize("name", ["instruction_length", "response_length"])
def test_strictly_monotone_and_inside_the_scale(name):
    words = [*range(2000), 2001, 4999, 5000, 9999, 10000]
    scores = load_scorer(name).score([("w " * n, "w " * n) for n in words])
    assert (np.diff(scores) > 0).all()
    assert scores[0] == 1 and scores[-1] < 6


def test_options():
    assert load_scorer("instruction_length").kind == "complexity"
    assert load_scorer("response_length").kind == "quality"
    assert load_scorer("response_length", middle=10).score([("", "w " * 10)]).tolist() == [3.5]
    assert (
        load_scorer("response_length", middle=10).fingerprint()
        != load_scorer("response_length").fingerprint()
    )
    for wrong in ({"middle": 0}, {"middle": float("nan")}, {"kind": "quality"}, {"midle": 3}):
        with pytest.raises(UsageError):
            load_scorer("instruction_length", **wrong)
    assert load_scorer("instruction_length").score([]).shape == (0,)
