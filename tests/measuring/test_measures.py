"""What a comparison says, from scores that are worked out by hand."""

from __future__ import annotations

import pytest

from deita_tasks.measuring.measures import RunScores, caveats, measure, verdict
from deita_tasks.measuring.scores import HeldOutLoss, PreferenceLosses, TaskScores

IDS = [f"row {number}" for number in range(40)]


def run(arm: str, group: str, losses: list[float], seed: int = 0) -> RunScores:
    """A training with these losses a token on rows of 1, 2, 1, 2, ... tokens."""
    tokens = [1 + number % 2 for number in range(len(losses))]
    total = [loss * count for loss, count in zip(losses, tokens, strict=True)]
    held_out = HeldOutLoss(ids=IDS[: len(losses)], total=total, tokens=tokens)
    return RunScores(
        arm=arm, group=group, seed=seed, address="0" * 32, updates=1, last_loss=1, held_out=held_out
    )


def test_means_over_rows_and_over_tokens() -> None:
    runs = [run("selection", "selection", [1, 4]), run("longest", "longest", [2, 2])]
    by_row, by_token = measure(runs, IDS, [], seed=0)
    assert [group.mean for group in by_row.groups] == [2.5, 2]
    assert [group.mean for group in by_token.groups] == [3, 2]  # (1 + 8) / 3, 6 / 3
    assert by_row.contrasts[0].difference == 0.5


def test_only_items_that_stand_in_no_arm_count() -> None:
    runs = [run("selection", "selection", [1, 4, 9]), run("longest", "longest", [2, 2, 9])]
    by_row, _ = measure(runs, [IDS[1]], [], seed=0)
    assert by_row.items == 1
    assert [group.mean for group in by_row.groups] == [4, 2]


def test_preferences_per_token_and_whole() -> None:
    """The first answer is more probable a token, but less so as a whole; the second is a tie."""
    losses = PreferenceLosses(
        ids=["a", "b"], chosen=[6, 3], chosen_tokens=[6, 3], rejected=[4, 3], rejected_tokens=[2, 3]
    )
    same = {"seed": 0, "address": "0", "updates": 1, "last_loss": 1.0, "preferences": losses}
    runs = [
        RunScores(arm=group, group=group, **same)  # type: ignore[arg-type]
        for group in ("selection", "random")
    ]
    per_token, whole = measure(runs, [], ["a", "b"], seed=0)
    assert per_token.groups[0].mean == 0.75
    assert whole.groups[0].mean == 0.25


def test_items_of_a_task() -> None:
    def with_task(group: str, first: float, second: float) -> RunScores:
        task = TaskScores(task="arc", metric="acc", items={"0": first, "1": second})
        return run(group, group, [1.0]).model_copy(update={"held_out": None, "tasks": [task]})

    (result,) = measure([with_task("selection", 1, 1), with_task("random", 0, 1)], [], [], seed=0)
    assert (result.label, result.contrasts[0].difference) == ("arc, acc", 0.5)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (0.9, "The selection trains a better model than random rows: held-out loss"),
        (1.3, "The selection trains a worse model than random rows: held-out loss"),
        (1.0, "No difference was found between the selection and random rows: held-out loss"),
    ],
)
def test_the_sentence(selection: float, expected: str) -> None:
    runs = [run("selection", "selection", [selection] * 40)]
    draws = (0.97, 1.0, 1.03)
    runs += [
        run(f"random {number}", "random", [loss] * 40) for number, loss in enumerate(draws, start=1)
    ]
    results = measure(runs, IDS, [], seed=0)
    sentence = verdict(results)
    assert sentence.startswith(expected)
    assert "one training of the selection against 3 trainings, 40 items" in sentence
    assert "trained once" in caveats(results)[0]


def test_an_accuracy_that_is_higher_is_better() -> None:
    def with_task(group: str, value: float) -> RunScores:
        task = TaskScores(task="arc", metric="acc", items={str(n): value for n in range(9)})
        return run(group, group, [1.0]).model_copy(update={"held_out": None, "tasks": [task]})

    results = measure([with_task("selection", 1), with_task("longest", 0)], [], [], seed=0)
    assert "better model than the rows with the longest answers" in verdict(results)
