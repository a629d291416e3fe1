"""Selecting again from a source that grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks import storage
from deita_tasks.config import Advanced, Selection, Source, Versions
from deita_tasks.errors import InputError, StorageError, TooFewRows
from deita_tasks.results import versions
from tests.support import components
from tests.support.flow_fixtures import BASE
from tests.support.small_pool import ROWS, write_rows

pytestmark = pytest.mark.flow
GOOD, NEW = ROWS[:20], ROWS[20:]

Reselect = Callable[..., Any]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events that runs emit."""
    from deita_tasks.tasks import events

    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: emitted.append(event))
    return emitted


@pytest.fixture
def reselect(tiny: None, tmp_path: Path) -> Reselect:
    """reselect(budget=…) over the folder in/, into out/."""
    from flows.reselect import reselect_subset

    def run(output: str = str(tmp_path / "out"), keep: int = 10, **selection: Any) -> Any:
        return reselect_subset(
            source=Source(input=[str(tmp_path / "in")]),
            export=Versions(output=output, keep_versions=keep),
            selection=Selection(**{"budget": 10, **selection}),
            advanced=Advanced(store=str(tmp_path / "store"), shard_rows=8),
        )

    return run


def test_only_new_rows_are_computed_and_each_selection_is_a_version(
    reselect: Reselect, tmp_path: Path, events: list[dict[str, Any]]
) -> None:
    write_rows(tmp_path / "in" / "monday.jsonl", GOOD)
    first = reselect()
    assert first["new"]
    assert first["changes"] is None
    assert (tmp_path / "out" / "latest" / "selected.jsonl").is_file()
    components.reset()

    write_rows(tmp_path / "in" / "tuesday.jsonl", NEW)
    second = reselect()
    assert len(components.embedded) == len(NEW)
    assert second["manifest"]["reused"]["embedding"] == len(GOOD)
    assert versions.list_versions(str(tmp_path / "out")) == sorted(
        [first["version"], second["version"]]
    )
    assert versions.latest(str(tmp_path / "out")) == second["version"]

    changes = json.loads((tmp_path / "out" / "latest" / "changes.json").read_text())
    assert changes["pool"] == {"added": len(NEW), "removed": 0}
    kept = [
        {
            row["id"]
            for row in pq.read_table(Path(done["uri"]) / "decisions.parquet").to_pylist()
            if row["decision"] == "selected"
        }
        for done in (first, second)
    ]
    assert changes["selection"] == {
        "added": len(kept[1] - kept[0]),
        "dropped": len(kept[0] - kept[1]),
    }
    table = pq.read_table(tmp_path / "out" / "latest" / "changes.parquet").to_pylist()
    assert {row["id"] for row in table if row["change"] == "added"} == kept[1] - kept[0]

    assert [event["event"] for event in events] == ["deita.selection.created"] * 2
    assert events[1]["payload"]["uri"] == second["uri"]
    assert (
        events[0]["resource"]["prefect.resource.id"] == events[1]["resource"]["prefect.resource.id"]
    )


def test_nothing_new_ends_as_such(
    reselect: Reselect, tmp_path: Path, events: list[dict[str, Any]]
) -> None:
    from flows.reselect import reselect_subset

    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    first = reselect()
    components.reset()
    groups = {
        "source": Source(input=[str(tmp_path / "in")]),
        "export": Versions(output=str(tmp_path / "out")),
        "selection": Selection(budget=10),
        "advanced": Advanced(store=str(tmp_path / "store"), shard_rows=8),
    }
    state = reselect_subset(**groups, return_state=True)
    assert (state.name, state.is_completed()) == ("NothingNew", True)
    assert first["version"] in state.message
    assert (components.embedded, components.scored) == ([], [])
    assert versions.list_versions(str(tmp_path / "out")) == [first["version"]]
    assert len(events) == 1
    again = reselect()
    assert (again["new"], again["version"]) == (False, first["version"])


def test_another_budget_is_a_version_too_and_is_told(
    reselect: Reselect, tmp_path: Path, events: Any
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    reselect()
    second = reselect(budget=4)
    assert second["changes"]["budget"] == {"before": 10, "after": 4}
    assert second["changes"]["pool"] == {"added": 0, "removed": 0}
    assert second["changes"]["selection"]["added"] == 0  # budgets nest
    assert second["manifest"]["computed"] == {"complexity": 0, "quality": 0, "embedding": 0}


def test_old_versions_go(
    reselect: Reselect, tmp_path: Path, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    hours = iter(range(9))
    monkeypatch.setattr(
        versions, "new_name", lambda digest: f"20260101T0{next(hours)}0000Z-{digest[:16]}"
    )
    made = [reselect(keep=2, budget=budget)["version"] for budget in (2, 3, 4)]
    assert versions.list_versions(str(tmp_path / "out")) == made[1:]


def test_a_run_that_ended_before_it_moved_latest_is_finished_by_the_next(
    reselect: Reselect, tmp_path: Path, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(versions, "move_latest", killed)
        with pytest.raises((KeyboardInterrupt, BaseException)):
            reselect()
    (left,) = versions.list_versions(str(tmp_path / "out"))
    written = (tmp_path / "out" / "versions" / left / "manifest.json").read_bytes()
    assert versions.latest(str(tmp_path / "out")) is None
    done = reselect()
    assert (done["version"], done["manifest"]["counts"]["selected"]) == (left, 10)
    assert versions.latest(str(tmp_path / "out")) == left
    assert (
        tmp_path / "out" / "versions" / left / "manifest.json"
    ).read_bytes() == written  # a version is never changed
    assert len(events) == 2  # told twice rather than never


def test_a_pointer_that_was_lost_is_found_again(
    reselect: Reselect, tmp_path: Path, events: Any
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    first = reselect()
    (tmp_path / "out" / "latest").unlink()
    assert reselect()["version"] == first["version"]
    (tmp_path / "out" / "latest").unlink()
    second = reselect(budget=4)
    assert second["changes"]["before"] == first["version"]


def test_a_run_that_was_overtaken_does_not_move_latest_back(
    reselect: Reselect, tmp_path: Path, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    newer = reselect()["version"]
    seen = iter([None, newer])  # as it began, and at its end
    with monkeypatch.context() as patch:
        patch.setattr(versions, "latest", lambda output: next(seen))
        with pytest.raises(StorageError, match=r"latest has moved to .* since this run began"):
            reselect(budget=4)
    assert versions.latest(str(tmp_path / "out")) == newer
    assert len(events) == 1


def test_where_nothing_is_new_what_else_is_asked_for_holds(
    reselect: Reselect, tmp_path: Path, events: Any
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    assert reselect(budget=5000)["new"]
    with pytest.raises(TooFewRows):
        reselect(budget=5000, target_size="exact")
    reselect(budget=5)
    assert len(versions.list_versions(str(tmp_path / "out"))) == 2
    assert not reselect(budget=5, keep=1)["new"]
    assert len(versions.list_versions(str(tmp_path / "out"))) == 1


def test_a_file_that_changes_between_two_looks_is_not_filed_under_what_it_was(
    reselect: Reselect, tmp_path: Path, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that writes the file anew: whole when the pool is named, empty when it is read."""
    from deita_tasks.tasks import loading

    pool = write_rows(tmp_path / "in" / "a.jsonl", GOOD)
    write_rows(tmp_path / "in" / "b.jsonl", NEW)
    whole, locate_pool = pool.read_bytes(), loading.locate_pool

    def locate_and_empty(*arguments: Any) -> str:
        uri = locate_pool(*arguments)
        pool.write_bytes(b"")
        return uri

    with monkeypatch.context() as patch:
        patch.setattr(loading, "locate_pool", locate_and_empty)
        with pytest.raises(InputError, match="changed during reading"):
            reselect()
    pool.write_bytes(whole)
    assert reselect()["manifest"]["counts"]["read"] == 30


def test_in_memory_latest_is_an_object(reselect: Reselect, tmp_path: Path, events: Any) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    output = f"memory://reselect-{tmp_path.name}"
    done = reselect(output=output)
    assert storage.exists(storage.join(done["uri"], "manifest.json"))
    assert versions.latest(output) == done["version"]


def test_a_file_that_is_still_empty_waits_for_the_next_run(
    reselect: Reselect, tmp_path: Path, events: Any
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    (tmp_path / "in" / "arriving.jsonl").write_bytes(b"")
    first = reselect()["manifest"]
    assert {Path(file["uri"]).name: (file["rows"], file["format"]) for file in first["inputs"]} == {
        "arriving.jsonl": (0, "empty"),
        "pool.jsonl": (20, "messages"),
    }
    assert (
        tmp_path / "out" / "latest" / "selected.jsonl"
    ).is_file()  # in the format that the other file has
    write_rows(tmp_path / "in" / "arriving.jsonl", NEW)
    assert reselect()["manifest"]["counts"]["read"] == 30


def test_a_bad_row_that_comes_is_quarantined_and_counted(
    reselect: Reselect, tmp_path: Path, events: Any
) -> None:
    write_rows(tmp_path / "in" / "pool.jsonl", BASE)
    assert reselect()["manifest"]["counts"]["quarantined"] == 1


def test_the_command(tiny: None, tmp_path: Path, events: Any, capfd: Any) -> None:
    from tests.flows.test_sweep import ended

    write_rows(tmp_path / "in" / "pool.jsonl", GOOD)
    given = [
        "reselect",
        "--input",
        str(tmp_path / "in"),
        "--store",
        str(tmp_path / "store"),
        "--output",
        str(tmp_path / "out"),
    ]
    given += ["--budget", "5"]
    assert ended(*given) == 0
    assert "latest points to it" in capfd.readouterr().out
    assert ended(*given) == 0
    assert "Nothing new: version" in capfd.readouterr().out
    write_rows(tmp_path / "in" / "more.jsonl", NEW)
    assert ended(*given) == 0
    said = capfd.readouterr().out
    assert f"{len(NEW)} conversations added to the pool, 0 removed" in said
    assert "  The mean quality of new rows is " in said
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    assert ended(*given[:-4], "--output", str(tmp_path / "other")) == 2
    assert "without versions of ours" in capfd.readouterr().err
