"""How far some work is, and how long the rest takes."""

from __future__ import annotations

import pytest

from deita_tasks.models.batch_progress import report_share, reported_to
from deita_tasks.models.batches import BatchLimit, run_batches
from deita_tasks.models.fixed_batches import plan_packed, run_fixed_batches
from deita_tasks.progress import Pace, duration


def test_rows_and_the_time_left() -> None:
    pace = Pace(392, 0)
    assert str(pace) == "0 of 392 rows"
    pace.update(64, now=110.0)
    pace.update(128, now=120.0)  # 6.4 rows a second: 264 rows take 41.25 s
    assert str(pace) == "128 of 392 rows, about 41 s left"
    pace.update(392, now=160.0)
    assert str(pace) == "392 of 392 rows"


def test_the_time_left_follows_the_last_batches() -> None:
    """Not the time since the start, of which loading a model may be the most."""
    pace = Pace(1000, 0)
    pace.update(10, now=300.0)  # with the loading of a model
    for second in range(1, 61):
        pace.update(10 + 5 * second, now=300.0 + second)  # 5 rows a second; 690 are left
    assert pace.seconds_left() == 138.0
    assert str(pace) == "310 of 1,000 rows, about 2 min left"


def test_rows_that_were_done_before_are_not_work() -> None:
    pace = Pace(300, 200)
    pace.update(210, now=10.0)
    pace.update(220, now=20.0)
    assert pace.seconds_left() == 80.0


def test_batches_that_take_longer_than_what_counts_as_recent() -> None:
    pace = Pace(4, 0)
    for done in (1, 2):
        pace.update(done, now=100.0 * done)
    assert pace.seconds_left() == 200.0


@pytest.mark.parametrize(("done", "now"), [(3, 5.0), (4, 1.0), (2, 5.0)])
def test_without_a_rate_nobody_says_how_long(done: int, now: float) -> None:
    pace = Pace(10, 0)
    pace.update(3, now=1.0)  # the first batch, with the loading of a model
    pace.update(done, now)
    assert pace.seconds_left() is None


def test_a_total_that_nobody_knows_yet() -> None:
    pace = Pace(None, unit="updates")
    assert str(pace) == "0 updates"
    pace.begin(50, 40)  # after a killed training
    pace.update(41, now=4.0)
    assert str(pace) == "41 of 50 updates"
    pace.update(42, now=8.0)
    assert str(pace) == "42 of 50 updates, about 32 s left"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 89, 90, 5399, 12_600)] == [
        "under 1 s",
        "89 s",
        "2 min",
        "90 min",
        "3.5 h",
    ]


def test_batches_report_their_share() -> None:
    shares: list[float] = []
    with reported_to(shares.append):
        run_batches([16, 16, 16, 16], 32, lambda batch: None)
    assert shares == [0.5, 1.0]
    run_batches([16], 32, lambda batch: None)
    assert len(shares) == 2, "nobody listens any more"
    with reported_to(shares.append):
        run_fixed_batches([8, 8, 8], 16, lambda batch: None, plan_packed, BatchLimit())
    assert shares[2:] == pytest.approx([2 / 3, 1.0])
    report_share(0, 0)


def test_a_batch_that_did_not_fit_is_not_done() -> None:
    shares: list[float] = []

    def run(batch: list[int]) -> None:
        if len(batch) > 1:
            raise MemoryError

    with reported_to(shares.append):
        assert run_batches([16, 16], 32, run) == []
    assert shares == [0.0, 0.5, 1.0]
