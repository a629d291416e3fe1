"""Deployed from the YAML to a real server with a process worker: runs through the API, on a
schedule, and cancelled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling

from tests.conftest import ROOT
from tests.e2e.conftest import CHEAP, POOL_ROWS, Site, ended, processes, until, write_long_pool

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def start(site: Site, deployment: str, parameters: Mapping[str, Any]) -> FlowRun:
    """A run of the deployment with these parameters beside its own, as the API starts it."""
    held = site.client.read_deployment_by_name(deployment)
    whole = {
        name: {**held.parameters.get(name, {}), **values}
        for name, values in {**CHEAP, **parameters}.items()
    }
    return site.client.create_flow_run_from_deployment(
        held.id, parameters={**held.parameters, **whole}
    )


def task_names(site: Site, run: FlowRun) -> list[str]:
    found = site.client.read_task_runs(
        task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
    )
    return sorted(one.name for one in found)


def artifacts(site: Site, run: FlowRun) -> dict[str, Any]:
    """What a run shows, by key."""
    found = site.client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    )
    return {one.key: one.data for one in found if one.key}


def test_deployments_that_explain_themselves(deployed: Site) -> None:
    found = {one.name: one for one in deployed.client.read_deployments()}
    assert set(found) == {"select", "reselect", "sweep", "align", "compare", "train-scorer"}
    for one in found.values():
        assert one.work_pool_name == "deita"
        assert one.description
        assert not one.paused
        results = str(deployed.root / "results")
        if one.name == "compare":
            assert one.parameters["comparison"] == {"selection": f"{results}/reselect"}
            continue
        pool = f"{results}/reselect" if one.name == "align" else str(deployed.root / "pools")
        assert one.parameters["source"]["input"] == [pool]
    assert deployed.client.read_work_pool("deita").type == "process"
    [nightly] = found["reselect"].schedules
    assert (nightly.schedule.cron, nightly.active) == ("0 3 * * *", False)  # type: ignore[union-attr]
    assert not found["select"].schedules


def test_deploying_again_keeps_the_schedule(deployed: Site) -> None:
    reselect = deployed.client.read_deployment_by_name("reselect-subset/reselect")
    [held] = reselect.schedules
    weekly = CronSchedule(cron="0 4 * * 1", timezone="Europe/Berlin")
    deployed.client.update_deployment_schedule(reselect.id, held.id, active=True, schedule=weekly)
    deployed.run("deployments.deploy")
    [held] = deployed.client.read_deployment(reselect.id).schedules
    assert (held.schedule, held.active) == (weekly, True)
    deployed.client.update_deployment_schedule(reselect.id, held.id, active=False)


def test_prefect_deploys_the_file_at_the_root_as_it_stands(deployed: Site) -> None:
    """With no variables set, to the pool that is there."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    variables = {
        name: value for name, value in deployed.environment.items() if not name.startswith("DEITA_")
    }
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    select = deployed.client.read_deployment_by_name("select-subset/select")
    assert select.parameters["source"] == {"input": ["pools"]}
    assert select.pull_steps == [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
    ]
    deployed.run("deployments.deploy")  # as the other tests want it


def test_a_run_started_through_the_api(deployed: Site, worker: Any) -> None:
    run = ended(
        deployed.client,
        start(
            deployed,
            "select-subset/select",
            {"selection": {"budget": 20}, "advanced": {"shard_rows": 1000}},
        ).id,
    )
    assert run.state is not None
    assert run.state.name == "Completed", run.state.message
    assert run.name == "select 20 of pools by mini"
    folder = f"select-20-of-pools-by-mini-{str(run.id)[-8:]}"
    output = deployed.root / "results" / "select" / folder
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["counts"]["read"] == POOL_ROWS
    assert (
        manifest["counts"]["selected"]
        == len((output / "selected.jsonl").read_text().splitlines())
        == 20
    )
    assert pq.read_table(output / "decisions.parquet").num_rows == POOL_ROWS
    names = task_names(deployed, run)
    assert {"load pool", "complexity 1/1", "quality 1/1", "select", "export"} <= set(names)
    # A round, or a part that an earlier run has computed.
    assert {"embedding round 1 1/1", "embedding 1/1"} & set(names)
    shown = artifacts(deployed, run)
    assert shown["evaluation-progress"] == 100
    assert f"20 of {POOL_ROWS} rows selected" in shown["deita-report"]
    assert shown["deita-report"].count("data:image/svg+xml;base64,") >= 3
    best = json.loads(shown["deita-best"])
    assert best
    assert max(float(row["evol score"]) for row in best) == float(best[0]["evol score"])


@pytest.fixture(scope="session")
def base_model(deployed: Site) -> Path:
    """A tiny model where the deployment's form looks for one."""
    pytest.importorskip("trl", reason="the extra train is not installed")
    from tests.support.tiny_base import write_base

    return write_base(deployed.root / "base-model")


def test_align_as_its_form_opens(deployed: Site, worker: Any, base_model: Path) -> None:
    align = deployed.client.read_deployment_by_name("align-model/align")
    source = {"input": [str(deployed.root / "pools")], "min_good_fraction": 0}
    run = ended(
        deployed.client,
        deployed.client.create_flow_run_from_deployment(
            align.id, parameters={**align.parameters, "source": source}
        ).id,
    )
    assert run.state is not None
    assert run.state.name == "Completed", run.state.message
    [output] = (deployed.root / "results" / "align").iterdir()
    manifest = json.loads((output / "manifest.json").read_text())
    assert (output / "model.safetensors").is_file()
    assert {"sft", "export"} <= set(task_names(deployed, run))
    shown = artifacts(deployed, run)
    assert shown["training-progress"] == 100
    losses = [point["loss"] for point in json.loads(shown["training-curve"])]
    assert losses[0] == f"{manifest['stages'][0]['first_loss']:.2f}"


def test_a_new_version_starts_align(deployed: Site, worker: Any, base_model: Path) -> None:
    assert "align-new-versions   on" in deployed.run("deployments.automate", "align-new-versions")
    client = deployed.client
    align = client.read_deployment_by_name("align-model/align")
    before = {run.id for run in of(deployed, align.id)}
    output = deployed.root / "results" / "watched"
    selected = start(deployed, "reselect-subset/reselect", {"export": {"output": str(output)}})
    assert ended(client, selected.id).state.name == "Completed"  # type: ignore[union-attr]
    until(lambda: {run.id for run in of(deployed, align.id)} - before)
    [started] = {run.id for run in of(deployed, align.id)} - before
    run = ended(client, started)
    deployed.run("deployments.automate", "align-new-versions", "--remove")
    assert run.state is not None
    assert run.state.name == "Completed", run.state.message
    [model] = (deployed.root / "results" / "watched-models").iterdir()
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["parents"][0]["version"] == model.name


def answer(site: Site, run: UUID, **form: str) -> Any:
    """Answer a suspended run as the UI does; return the question."""
    state = until(lambda: _paused(site, run))
    keyset = state.state_details.run_input_keyset
    question = site.client.read_flow_run_input(run, keyset["description"])
    site.client.resume_flow_run(run, run_input=form)
    return question


def _paused(site: Site, run: UUID) -> Any:
    state = site.client.read_flow_run(run).state
    assert state is not None
    assert not state.is_final(), state.message
    return state if state.is_paused() else None


def test_a_suspended_version_is_published_once_by_the_answer(deployed: Site, worker: Any) -> None:
    output = deployed.root / "results" / "approved"
    export = {"output": str(output), "approve": True}
    run = start(deployed, "reselect-subset/reselect", {"export": export}).id
    state = until(lambda: _paused(deployed, run))
    [version] = (output / "versions").iterdir()
    written = (version / "manifest.json").read_bytes()
    assert not (output / "latest").exists()
    assert state.name == "Suspended"

    until(lambda: not _is_busy(worker))  # its process has ended
    with (deployed.root / "pools" / "late.jsonl").open("w") as late:  # after the question
        late.write(json.dumps({"instruction": "Say one more thing.", "output": "One more."}))
    try:
        assert "rows are selected" in answer(deployed, run, decision="publish")
        ended_run = ended(deployed.client, run)
    finally:
        (deployed.root / "pools" / "late.jsonl").unlink()
    assert ended_run.state is not None
    assert ended_run.state.name == "Completed", ended_run.state.message
    assert (output / "latest").resolve() == version
    assert [path.name for path in (output / "versions").iterdir()] == [version.name]
    assert (version / "manifest.json").read_bytes() == written
    names = task_names(deployed, ended_run)
    assert names.count("select") == names.count("export") == 1
    assert names.count(f"publish {version.name}") == 1


def _is_busy(worker: subprocess.Popen[bytes]) -> bool:
    return any(each.session == worker.pid != each.pid for each in processes())


def test_what_is_wrong_is_told(deployed: Site, worker: Any) -> None:
    """By the server where it can see it, and in the state's message where only the run can."""
    with pytest.raises(PrefectHTTPStatusError, match="0 is less than the minimum of 1"):
        start(deployed, "select-subset/select", {"selection": {"budget": 0}})
    missing = str(deployed.root / "no_such.jsonl")
    run = ended(
        deployed.client,
        start(
            deployed,
            "select-subset/select",
            {"source": {"input": [missing]}, "export": {"output": "out"}},
        ).id,
    )
    assert run.state is not None
    assert run.state.name == "Failed"
    assert f"{missing}: no such file or folder" in str(run.state.message)
    assert set(run.tags) == {"deita", "pool:no_such.jsonl", "preset:mini"}


def of(site: Site, deployment: UUID) -> list[FlowRun]:
    return site.client.read_flow_runs(
        flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    )


def test_a_schedule_fires_and_what_was_missed_is_run_once(
    deployed: Site, request: pytest.FixtureRequest
) -> None:
    client = deployed.client
    reselect = client.read_deployment_by_name("reselect-subset/reselect")
    # As if no worker had been there for a while: runs that were to start already, and nobody has
    # taken them.
    every = IntervalSchedule(interval=timedelta(seconds=3), anchor_date=datetime.now(UTC))
    [schedule] = client.create_deployment_schedules(
        reselect.id, [DeploymentScheduleCreate(schedule=every, active=True, parameters=CHEAP)]
    )
    until(lambda: len([run for run in of(deployed, reselect.id) if run.expected_start_time]) > 3)
    time.sleep(9)
    due = {
        run.id
        for run in of(deployed, reselect.id)
        if run.auto_scheduled  # other tests may have started some by hand
        and run.expected_start_time
        and run.expected_start_time <= datetime.now(UTC)
    }
    assert len(due) >= 3
    request.getfixturevalue("worker")
    try:
        late = [ended(deployed.client, run) for run in due]
    finally:
        client.delete_deployment_schedule(reselect.id, schedule.id)
    by_state = {run.state.name for run in late if run.state}
    assert by_state == {"Completed", "Cancelled"}
    [ran] = [run for run in late if run.state and run.state.name == "Completed"]
    assert {run.state.message for run in late if run.state and run is not ran} == {
        "Deployment concurrency limit reached."
    }
    versions = [
        path
        for path in (deployed.root / "results" / "reselect" / "versions").iterdir()
        if path.is_dir()
    ]
    assert len(versions) == 1
    assert "deita-report" in artifacts(deployed, ran)


def test_cancel_stops_a_run_and_leaves_the_store_whole(
    deployed: Site, worker: subprocess.Popen[bytes]
) -> None:
    pool = write_long_pool(deployed.root)
    store = str(deployed.root / "long-store")
    given = {
        "source": {"input": [str(pool)]},
        "export": {"output": "long"},
        "advanced": {"store": store, "shard_rows": 20},
    }
    run = start(deployed, "select-subset/select", given).id
    until(
        lambda: list(Path(store).glob("embeddings/*/part-*"))
    )  # in the midst of what takes minutes
    since = time.monotonic()
    deployed.client.set_flow_run_state(run, Cancelling())
    stopped = ended(deployed.client, run)
    assert stopped.state is not None
    assert stopped.state.name == "Cancelled"
    until(lambda: [one.pid for one in processes() if one.session == worker.pid] == [worker.pid], 30)
    assert time.monotonic() - since < 60
    assert not (deployed.root / "long").exists()
    deployed.run("flows.cli.app", "store", "verify", "--store", store)
