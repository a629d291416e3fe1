"""Ask a person whether `latest` may move to a new version.

A run of a deployment is suspended: its process ends, and the answer starts another, which publishes
that very version or refuses it. A run that somebody started by hand waits for the answer.
"""

from __future__ import annotations

import os
from typing import Literal

from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from deita_tasks.config import TEMPORARY_SERVER
from deita_tasks.errors import ApprovalMissing, UsageError

KEY = "publish-"  # and the version: the name of the pause
POLL = 5  # seconds between two looks for an answer


class Approval(RunInput):
    """The form that a person fills in."""

    decision: Literal["publish", "refuse"] = Field(
        title="Decision",
        description="publish: latest moves to the version. refuse: the version stays, latest too.",
    )
    comment: str = Field("", title="Comment", description="Why; a refusal keeps it.")


def check_can_ask() -> None:
    """Raise UsageError if no person can reach the server of this run.

    Such are a temporary server, which ends with the command, and no server at all.
    """
    if TEMPORARY_SERVER in os.environ or not PREFECT_API_URL.value():
        raise UsageError(
            "approve: this run has a temporary Prefect server, where nobody can answer; set "
            "PREFECT_API_URL to a server with a UI, or leave approve out"
        )


def awaited_version() -> str | None:
    """Return the version about which this run asked before it was suspended; None if it did not."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    keys = context.flow_run.empirical_policy.pause_keys or set()
    return next((_version_of(key) for key in keys if key.startswith(KEY)), None)


def _key_of(version: str) -> str:
    """Return the name of the pause about a version; `_version_of` reads it back."""
    return f"{KEY}{version.lower()}"  # Prefect allows no capitals


def _version_of(key: str) -> str:
    """Return the version that a key of `_key_of` asks about: the moment in capitals again."""
    moment, _, digest = key.removeprefix(KEY).partition("-")
    return f"{moment.upper()}-{digest}"


def ask_to_publish(version: str, question: str, hours: float) -> Approval:
    """Return a person's answer; a deployment's run ends here, and begins anew with the answer.

    question: Markdown, shown above the form. Raises ApprovalMissing after `hours` without answer.
    """
    form = Approval.with_initial_data(description=question)
    seconds = round(hours * 3600)
    context = FlowRunContext.get()
    if context is not None and context.flow_run and context.flow_run.deployment_id:
        return suspend_flow_run(wait_for_input=form, timeout=seconds, key=_key_of(version))
    try:
        return pause_flow_run(form, timeout=seconds, poll_interval=POLL, key=_key_of(version))
    except FlowPauseTimeout as error:
        raise ApprovalMissing(
            f"nobody approved version {version} within {hours:g} hours; it is complete, and latest "
            "stays: run again to be asked again"
        ) from error
