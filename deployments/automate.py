"""Register automations with the Prefect server: `python -m deployments.automate NAME ...`.

Each is a file in `deployments/automations`; registering again replaces it. Without a name: which
there are, and which the server has.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from deployments.offer import connect, fail

FOLDER = Path(__file__).with_name("automations")
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_automation(name: str) -> dict[str, Any]:
    """Return the automation in the file `name`, with the names in it not yet looked up."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return content


def look_up(
    client: SyncPrefectClient, automation: dict[str, Any], block: str | None
) -> AutomationCore:
    """Return the automation with the ids that this server has for its deployment and block."""
    for action in automation["actions"]:
        if "deployment_id" in action:
            action["deployment_id"] = _deployment_id(client, action["deployment_id"])
        if "block_document_id" in action:
            action["block_document_id"] = _block_id(client, automation["name"], block)
    return AutomationCore.model_validate(automation)


def _deployment_id(client: SyncPrefectClient, name: str) -> str:
    try:
        return str(client.read_deployment_by_name(name).id)
    except ObjectNotFound:
        fail(f"the server has no deployment {name}: run `python -m deployments.deploy` first")


def _block_id(client: SyncPrefectClient, automation: str, block: str | None) -> str:
    kind, _, name = (block or "").partition("/")
    if not name:
        fail(f"{automation!r} needs --block TYPE/NAME of a notification block: slack-webhook/team")
    try:
        return str(client.read_block_document_by_name(name, kind).id)
    except ObjectNotFound:
        fail(f"--block {block}: the server has no such block; create it in the UI, under Blocks")


def register(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Register an automation in place of those of its name."""
    earlier = client.read_automations_by_name(automation.name)
    client.create_automation(automation)
    for each in earlier:
        client.delete_automation(each.id)


def remove(client: SyncPrefectClient, name: str) -> None:
    """Remove the automations of this name, if there are any."""
    for each in client.read_automations_by_name(name):
        client.delete_automation(each.id)


def main(arguments: Sequence[str] | None = None) -> None:
    """Register or remove automations, or list them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--block", help="notification block of notify-*: slack-webhook/team")
    parser.add_argument("--remove", action="store_true", help="remove them from the server")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        fail(f"no automation {', '.join(unknown)}; expected {', '.join(NAMES)}")
    with connect() as client:
        for name in options.names:
            automation = read_automation(name)
            if options.remove:
                remove(client, automation["name"])
            else:
                register(client, look_up(client, automation, options.block))
        for name in NAMES:
            found = client.read_automations_by_name(read_automation(name)["name"])
            is_on = any(each.enabled for each in found)
            print(f"{name:20} {'on' if is_on else 'off'}")


if __name__ == "__main__":
    main()
