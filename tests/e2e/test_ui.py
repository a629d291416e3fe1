"""`make ui`: a server that serves the deployments, and ends with everything it started."""

from __future__ import annotations

import re
import signal
import sqlite3
import sys
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from flows.cli.server import free_port
from tests.e2e.conftest import CHEAP, ended, processes, until, write_long_pool
from tests.support.runs import start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_it_serves_runs_and_ends_all_that_it_started(small_pool: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "deployments.ui",
        "--root",
        str(tmp_path),
        "--input",
        str(small_pool),
        "--port",
        str(free_port()),
    ]
    process = start(command, PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1")
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "Prefect UI:" in line)
        api = re.search(r"(http://127.0.0.1:\d+)/v2/deployments", said)[1] + "/api"  # type: ignore[index]
        sessions = {
            one.session for one in processes() if one.parent == process.pid
        }  # each of its processes leads one
        assert len(sessions) == 3
        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            found = {one.name: one for one in client.read_deployments()}
            assert set(found) == {"select", "reselect", "sweep", "align", "compare", "train-scorer"}
            assert {(one.work_pool_name, one.paused) for one in found.values()} == {(None, False)}
            given = {
                **found["select"].parameters,
                **CHEAP,
                "selection": {"budget": 5, "strategy": "top_score"},
            }
            run = ended(
                client,
                client.create_flow_run_from_deployment(
                    found["select"].id, parameters=given, name="five of them"
                ).id,
            )
            assert run.state is not None
            assert run.state.name == "Completed", run.state.message
            assert run.name == "five of them"
            folder = f"five-of-them-{str(run.id)[-8:]}"
            assert (tmp_path / "results" / "select" / folder / "report.html").is_file()
            [report] = client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["deita-report"]))
            )
            link = re.search(r"\[report.html\]\((.+?)\)", str(report.data))
            assert link is not None
            assert "<html" in httpx.get(link[1]).raise_for_status().text
            given |= {
                "source": {"input": [str(write_long_pool(tmp_path))]},
                "export": {"output": "long"},
                "selection": {},
            }
            client.create_flow_run_from_deployment(found["select"].id, parameters=given)
            until(
                lambda: len(list(tmp_path.glob(".deita/scores/quality/*/part-*"))) > 1
            )  # and now it embeds, which takes minutes
            # As if its process had been lost: nobody else reports the end of this one.
            client.create_flow_run_from_deployment(
                found["select"].id, parameters=given, state=Running()
            )
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
    assert process.returncode == 0
    until(lambda: not [one for one in processes() if one.session in sessions], 10)
    with sqlite3.connect(tmp_path / ".deita" / "prefect" / "prefect.db") as database:
        found_states = database.execute(
            "SELECT run.state_type, state.message FROM flow_run AS run "
            "JOIN flow_run_state AS state ON state.id = run.state_id ORDER BY run.created"
        )
        (first, _), (cut_short, reason), (lost, advice) = found_states.fetchall()
    assert first == "COMPLETED"
    # Prefect reports a run as cancelled, or as crashed if it had only just started.
    assert cut_short in ("CANCELLED", "CRASHED")
    assert reason
    assert lost == "CRASHED"
    assert "run it again to resume" in advice
