"""What a run is called, and the folder that is named after it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect.utilities.names import generate_slug

from deita_tasks.config import Export, Selection, Source
from deita_tasks.tasks import run_name
from deita_tasks.tasks.run_name import in_run_folder, is_generated, name_run, run_folder

RUN = UUID("ac2bc226-e4c8-4086-a9c8-4ee83592f73f")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A run of a deployment, in whose context the test is."""
    flow_run = SimpleNamespace(id=RUN, name="March", deployment_id=RUN)
    source, selection = Source(input=["a/pool.jsonl"]), Selection(budget=5)
    parameters = {"source": source, "selection": selection}
    context = SimpleNamespace(flow_run=flow_run, parameters=parameters)
    monkeypatch.setattr(run_name.FlowRunContext, "get", lambda: context)
    return flow_run


name = name_run("select {selection.budget} of {source.name}")


@pytest.mark.parametrize(
    "typed", ["March", "math-subset", "Math-Subset", "a - b", "for the review"]
)
def test_a_name_that_a_person_typed_is_kept(run: Any, typed: str) -> None:
    run.name = typed
    assert name() == typed


@pytest.mark.parametrize("made_up", ["Rustic-Vole", "Ergonomic-Indri", "red-fox"])
def test_a_name_that_prefect_made_up_says_what_runs(run: Any, made_up: str) -> None:
    run.name = made_up
    assert name() == "select 5 of pool.jsonl"


def test_a_run_without_a_form_says_what_runs(run: Any) -> None:
    run.deployment_id = None
    assert name() == "select 5 of pool.jsonl"


def test_every_name_of_the_server_is_known() -> None:
    assert all(is_generated(generate_slug(2)) for _ in range(200))


def test_each_run_has_a_folder_of_its_own(run: Any) -> None:
    output = in_run_folder(Export(output="s3://team/{run}/subset", overwrite=True))
    assert output == Export(output="s3://team/march-3592f73f/subset", overwrite=True)
    plain = Export(output="results")
    assert in_run_folder(plain) == plain


@pytest.mark.parametrize(
    "typed",
    [
        "../../etc/passwd",
        "..",
        "/",
        "a\\b",
        "C:",
        "",
        "\0",
        "~root",
        "  ",
        "x" * 500,
        "{run}",
        "%2e",
    ],
)
def test_a_folder_is_one_step_whatever_was_typed(typed: str) -> None:
    folder = run_folder(typed, str(RUN))
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}-3592f73f", folder)


def test_a_folder_reads_like_the_name() -> None:
    name = "select 150 of pool.jsonl by mini"
    assert run_folder(name, str(RUN)) == "select-150-of-pool-jsonl-by-mini-3592f73f"
