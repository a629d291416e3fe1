"""A month of nightly runs of reselect: a pool that grows, and what else happens to an operator."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from deita_tasks.artifacts.garbage import find_garbage, remove_garbage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.runs import marked_runs
from deita_tasks.config import Advanced, Selection, Source, Versions
from deita_tasks.results import versions
from deita_tasks.results.history import VersionSummary, list_history, use_version
from deita_tasks.results.reading import damage_of, read_manifest
from deita_tasks.results.version_diff import diff_results
from deita_tasks.tasks import publishing
from tests.flows.test_approval import Answer
from tests.support import components
from tests.support.runs import server_of_the_tests, start
from tests.support.small_pool import numbered_row, write_rows

pytestmark = [pytest.mark.flow, pytest.mark.slow]

KEEP = 6


class Month:
    """A pool that grows, and the nights that select from it. `check` looks at what each left."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool, self.store, self.output = (
            folder / name for name in ("pool", "store", "selections")
        )
        self.rows = 0
        self.day = 0
        self.settings: dict[str, Any] = {"budget": 10}
        monkeypatch.setattr(versions, "new_name", self.name_of_tonight)

    def name_of_tonight(self, digest: str) -> str:
        return f"202601{self.day:02}T030000Z-{digest[:16]}"

    @property
    def latest(self) -> str | None:
        return versions.latest(str(self.output))

    def uri(self, version: str | None) -> str:
        assert version is not None
        return versions.version_uri(str(self.output), version)

    def add(self, count: int) -> Path:
        """Add a file of so many new rows."""
        numbers = range(self.rows + 1, self.rows + count + 1)
        self.rows += count
        rows = [numbered_row(number) for number in numbers]
        return write_rows(self.pool / f"rows-{numbers[0]:03}.jsonl", rows)

    def run(self, **export: Any) -> Any:
        """Run as every night; return the final state."""
        from flows.reselect import reselect_subset

        self.day += 1
        return reselect_subset.with_options(flow_run_name=f"night {self.day}")(
            source=Source(input=[str(self.pool)]),
            export=Versions(output=str(self.output), keep_versions=KEEP, **export),
            selection=Selection(**self.settings),
            advanced=Advanced(store=str(self.store), shard_rows=8),
            return_state=True,
        )

    def night(self, outcome: str, **export: Any) -> dict[str, Any]:
        """Run, check what is there, and return the changes of a new version."""
        before = self.latest
        state = self.run(**export)
        assert state.name == outcome, state.message
        self.check()
        is_new = outcome == "Completed"
        assert (self.latest != before) is is_new
        return self.changes_since(before) if is_new and before else {}

    def check(self) -> None:
        """Check what holds every morning."""
        self.collect_garbage()
        current = self.latest
        assert current is not None
        assert damage_of(self.uri(current)) is None
        (config,) = DatasetCard((self.output / "README.md").read_text()).data["configs"]
        paths = [file["path"] for file in config["data_files"]]
        assert paths == [f"versions/{current}/selected.jsonl"]
        for computed in (components.embedded, components.scored):
            assert max(Counter(computed).values()) == 1, "a row was computed twice"
        for version in versions.list_versions(str(self.output)):
            pool = Pool.open(read_manifest(self.uri(version)).pool)
            selected = sorted(self.selected(version))
            assert sorted(pool.find(selected)) == selected

    def collect_garbage(self) -> None:
        store = str(self.store)
        runs = marked_runs(store)
        remove_garbage(store, find_garbage(store, timedelta(0)), (), runs)

    def ids(self, version: str | None, decision: str = "") -> set[str]:
        """Return the ids of the rows of a version that could be read, by its file of decisions."""
        table = pq.read_table(f"{self.uri(version)}/decisions.parquet", columns=["id", "decision"])
        rows = table.to_pylist()
        return {row["id"] for row in rows if row["id"] and decision in ("", row["decision"])}

    def selected(self, version: str | None) -> set[str]:
        return self.ids(version, "selected")

    def changes_since(self, before: str) -> dict[str, Any]:
        """Return changes.json of the latest version, which has to be right."""
        current = self.latest
        text = (Path(self.uri(current)) / "changes.json").read_text()
        changes: dict[str, Any] = json.loads(text)
        assert changes["before"] == before
        old, new = self.selected(before), self.selected(current)
        counts = {"added": len(new - old), "dropped": len(old - new)}
        assert changes["selection"] == counts
        pools = self.ids(before), self.ids(current)
        counts = {"added": len(pools[1] - pools[0]), "removed": len(pools[0] - pools[1])}
        assert changes["pool"] == counts
        found = diff_results(self.uri(before), self.uri(current))
        by_change: dict[str, set[str]] = {"added": set(), "dropped": set()}
        for row in found.table.to_pylist():
            by_change[row["change"]].add(row["id"])
        assert by_change == {"added": new - old, "dropped": old - new}
        assert json.loads(json.dumps(found.summary())) == changes
        assert all(row.conversation is not None for row in found.examples)
        return changes

    def history(self) -> list[VersionSummary]:
        return list_history(str(self.output))

    def vectors(self) -> int:
        """Return how many rows have a vector in the store."""
        parts = (self.store / "embeddings").rglob("part-*.parquet")
        return sum(pq.read_metadata(part).num_rows for part in parts)


@pytest.fixture
def month(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Month:
    from deita_tasks.tasks import approval

    monkeypatch.setattr(approval, "POLL", 0.1)
    return Month(tmp_path, monkeypatch)


def kill_tonight(month: Month) -> None:
    """Run the night in a process of its own, which is killed by SIGKILL in its second shard."""
    month.day += 1
    places = [str(place) for place in (month.pool, month.store, month.output)]
    budget = str(month.settings["budget"])
    command = [sys.executable, "-m", "tests.support.killed_reselect", *places, budget]
    process = start(command, **server_of_the_tests())
    said, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, said


def stop_before_latest_moves(month: Month, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a night that ends when its version is complete; return the version."""

    def stop(*_: object) -> None:
        raise RuntimeError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "write_version_card", stop)
        month.night("Failed")
    left = month.history()[-1]
    assert left.state == "not published"
    return left.version


def test_a_month_of_nights(month: Month, monkeypatch: pytest.MonkeyPatch) -> None:
    month.add(20)
    month.night("Completed")
    month.night("NothingNew")

    month.add(4)  # rows come, and a setting changes
    month.settings["budget"] = 12
    changes = month.night("Completed")
    assert changes["pool"] == {"added": 4, "removed": 0}
    assert changes["settings"] == [{"name": "selection.budget", "before": 10, "after": 12}]
    month.night("NothingNew")

    with month.add(2).open("a") as file:  # a broken row, then a broken file
        file.write('{"messages": [\n')
    month.night("Completed")
    assert read_manifest(month.uri(month.latest)).counts.quarantined == 1
    broken = month.pool / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    month.night("Failed")
    broken.unlink()
    month.night("NothingNew")

    month.add(10)  # kill -9 in the middle: the next night goes on where it ended
    before, vectors = month.latest, month.vectors()
    kill_tonight(month)
    kept = month.vectors() - vectors
    assert 0 < kept < 10
    assert month.latest == before
    embedded = len(components.embedded)
    month.night("Completed")
    assert len(components.embedded) - embedded == 10 - kept

    month.add(3)  # killed before latest moves: the next night publishes what it finds
    left = stop_before_latest_moves(month, monkeypatch)
    computed = len(components.embedded), len(components.scored)
    month.night("Completed")
    assert month.latest == left
    assert (len(components.embedded), len(components.scored)) == computed
    month.add(2)  # the same, but more rows come before the next night
    left = stop_before_latest_moves(month, monkeypatch)
    month.add(2)
    month.night("Completed")
    assert month.latest not in (None, left)

    newest = month.latest  # back to the one before, and no night undoes that
    back = use_version(str(month.output), "previous").after
    month.night("Refused")
    month.night("Refused")
    assert month.latest == back
    month.add(3)
    changes = month.night("Completed")
    assert changes["before"] == back
    assert changes["pool"]["added"] == 7, "with the rows that came before latest was moved back"
    assert [each.state for each in month.history() if each.version == newest] == ["withdrawn"]

    arrived = month.add(2)
    person = Answer(f"night {month.day + 1}", decision="publish")
    month.night("Completed", approve=True)
    assert "2 conversations joined the pool" in person.join()
    month.night("NothingNew")

    rows = arrived.read_bytes()  # a file leaves, and comes back with a copy
    arrived.unlink()
    changes = month.night("Completed")
    assert "no longer in the pool" in [reason["why"] for reason in changes["why"]]
    arrived.write_bytes(rows)
    computed = len(components.embedded), len(components.scored)
    (month.pool / "copy.jsonl").write_bytes(rows)
    assert month.night("Completed")["pool"] == {"added": 2, "removed": 0}
    month.night("NothingNew")
    month.settings["max_similarity"] = 0.95
    month.night("Completed")
    del month.settings["max_similarity"]  # an older version has this digest, and is not taken
    month.night("Completed")
    assert (len(components.embedded), len(components.scored)) == computed

    newest = month.latest  # back by name, and forward again
    use_version(str(month.output), month.history()[-2].version)
    month.night("Refused")
    use_version(str(month.output), str(newest))
    month.night("NothingNew")
    month.night("NothingNew", approve=True)
    assert len(versions.list_versions(str(month.output))) == KEEP
    assert month.day == 26
