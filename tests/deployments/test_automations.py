"""The automations in files are ones that Prefect's server takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect.events.schemas.automations import EventTrigger, Posture

from deployments.automate import NAMES, look_up, main, read_automation

DEPLOYMENT, BLOCK = UUID(int=1), UUID(int=2)


class Server:
    """A client of a server with the deployment align and one notification block."""

    def read_deployment_by_name(self, name: str) -> Any:
        assert name == "align-model/align"
        return SimpleNamespace(id=DEPLOYMENT)

    def read_block_document_by_name(self, name: str, kind: str) -> Any:
        assert (kind, name) == ("slack-webhook", "team")
        return SimpleNamespace(id=BLOCK)


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_an_automation(name: str) -> None:
    found = look_up(Server(), read_automation(name), "slack-webhook/team")  # type: ignore[arg-type]
    [action] = found.model_dump()["actions"]
    ids = [action.get("deployment_id"), action.get("block_document_id")]
    expected = {"run-deployment": [DEPLOYMENT, None], "send-notification": [None, BLOCK]}
    assert ids == expected.get(action["type"], [None, None])


def test_a_run_that_waits_for_a_person_is_no_zombie() -> None:
    """A suspended run sends no heartbeat; the event of its suspension disarms the trigger."""
    trigger = look_up(Server(), read_automation("end-zombie-runs"), None).trigger  # type: ignore[arg-type]
    assert isinstance(trigger, EventTrigger)
    assert (trigger.posture, trigger.after) == (Posture.Proactive, {"prefect.flow-run.heartbeat"})
    assert trigger.expect == {"prefect.flow-run.*"}


def test_a_name_that_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such"])
    assert "no automation no-such; expected align-new-versions, " in capsys.readouterr().err


def test_a_notification_needs_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        look_up(Server(), read_automation("notify-on-failure"), None)  # type: ignore[arg-type]
    assert "--block TYPE/NAME" in capsys.readouterr().err
