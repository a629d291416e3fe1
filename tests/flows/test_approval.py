"""A person decides whether `latest` moves: a run by hand waits for the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError

from deita_tasks.config import Advanced, Selection, Source, Versions
from deita_tasks.errors import UsageError
from deita_tasks.results import versions
from tests.support import components
from tests.support.small_pool import ROWS, write_rows

pytestmark = pytest.mark.flow
Reselect = Callable[..., Any]


@pytest.fixture
def reselect(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reselect:
    """reselect(budget=…, approve=…) over the folder in/, into out/; returns the final state."""
    from deita_tasks.tasks import approval
    from flows.reselect import reselect_subset

    monkeypatch.setattr(approval, "POLL", 0.1)
    write_rows(tmp_path / "in" / "pool.jsonl", ROWS[:20])

    def run(budget: int, name: str = "reselect", **versions: Any) -> Any:
        return reselect_subset.with_options(flow_run_name=name)(
            source=Source(input=[str(tmp_path / "in")]),
            export=Versions(output=str(tmp_path / "out"), **versions),
            selection=Selection(budget=budget),
            advanced=Advanced(store=str(tmp_path / "store"), shard_rows=8),
            return_state=True,
        )

    return run


def eventually(read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` returns as soon as the server has it."""
    for _ in range(100):
        with suppress(PrefectHTTPStatusError):
            return read(*arguments)
        time.sleep(0.1)
    return read(*arguments)


class Answer:
    """A person who answers the run `name` as soon as it waits."""

    def __init__(self, name: str, **form: str) -> None:
        self.name, self.form, self.question = name, form, ""
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        with get_client(sync_client=True) as client:
            run = self._wait(client)
            assert run.state is not None
            keyset = run.state.state_details.run_input_keyset
            assert keyset is not None
            for key in ("schema", "description"):  # saved a moment after the state
                self.question = eventually(client.read_flow_run_input, run.id, keyset[key])
            client.resume_flow_run(run.id, run_input=self.form)

    def _wait(self, client: Any) -> FlowRun:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[self.name]))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for run in client.read_flow_runs(flow_run_filter=named):
                if run.state and run.state.is_paused():
                    return run  # type: ignore[no-any-return]
            time.sleep(0.1)
        raise AssertionError("no run waits")

    def join(self) -> str:
        self._thread.join(60)
        return self.question


def test_a_person_publishes_or_refuses(reselect: Reselect, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    person = Answer("first", decision="publish")
    first = reselect(10, name="first", approve=True)
    assert "10 of 20 rows are selected" in person.join()
    assert versions.latest(output) == first.result()["version"]

    person = Answer("second", decision="refuse", comment="too few")
    second = reselect(4, name="second", approve=True)
    assert f"Since {first.result()['version']}" in person.join()
    assert "6 dropped: the budget is smaller" in person.question
    assert "- `selection.budget: 10 -> 4`" in person.question
    assert (second.name, second.is_completed()) == ("Refused", True)
    assert "too few" in second.message
    assert versions.latest(output) == first.result()["version"]
    refused = second.result()["version"]
    assert versions.list_versions(output) == sorted([first.result()["version"], refused])

    components.reset()
    again = reselect(4, approve=True)  # nobody is asked again
    assert (again.name, again.result()["version"]) == ("Refused", refused)
    assert (components.embedded, components.scored) == ([], [])
    unasked = reselect(4)
    assert unasked.result()["version"] == versions.latest(output) == refused
    assert versions.list_versions(output) == sorted([first.result()["version"], refused])


def test_without_an_answer_the_run_fails_and_the_next_asks_again(
    reselect: Reselect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = str(tmp_path / "out")
    late = reselect(10, approve=True, approve_within=1 / 3600)
    assert late.is_failed()
    assert "nobody approved version" in caplog.text
    [made] = versions.list_versions(output)
    assert versions.latest(output) is None
    person = Answer("later", decision="publish")
    done = reselect(10, name="later", approve=True)
    person.join()
    assert done.result()["version"] == versions.latest(output) == made


def test_nobody_can_answer_on_a_temporary_server(
    reselect: Reselect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEITA_TEMPORARY_SERVER", "1")
    with pytest.raises(UsageError, match="temporary Prefect server"):
        reselect(10, approve=True).result()
    assert not (tmp_path / "out").exists()
