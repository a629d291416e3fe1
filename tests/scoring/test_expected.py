import numpy as np
import pytest

from deita_tasks.scoring.expected import expected_score


def test_by_hand():
    uniform = [0.0] * 6
    logs = list(np.log([0.1, 0.2, 0.3, 0.2, 0.1, 0.1]))  # 0.1 + 0.4 + 0.9 + 0.8 + 0.5 + 0.6 = 3.3
    sure_of_1, sure_of_6 = [1e4, 0, 0, 0, 0, 0], [0, 0, 0, 0, -1e4, 1e4]
    scores = expected_score(np.array([uniform, logs, sure_of_1, sure_of_6, [x + 50 for x in logs]]))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [3.5, 3.3, 1, 6, 3.3], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_is_imputed(bad):
    scores = expected_score(np.array([[0, 0, bad, 0, 0, 0], [0.0] * 6]))
    assert np.isnan(scores[0]) and scores[1] == 3.5


def test_in_range_whatever_the_logits():
    logits = np.random.default_rng(0).normal(scale=50, size=(2000, 6)).astype(np.float32)
    scores = expected_score(logits)
    assert scores.min() >= 1 and scores.max() <= 6
