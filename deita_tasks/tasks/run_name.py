"""The name of a flow run, and the folder of a run that is named after it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from coolname.data import config as word_lists  # Prefect names runs with it, and installs it
from prefect.context import FlowRunContext
from slugify import slugify

from deita_tasks.config import RUN_PLACEHOLDER, Output

OutputT = TypeVar("OutputT", bound=Output)

# The names that Prefect's form suggests, such as Rustic-Vole: one of these, and an animal.
FORM_NAME = re.compile(
    "(Awesome|Bespoke|Electronic|Elegant|Ergonomic|Fantastic|Generic|Gorgeous|Handcrafted|Handmade|"
    "Incredible|Intelligent|Licensed|Luxurious|Modern|Oriental|Practical|Recycled|Refined|Rustic|"
    "Sleek|Small|Tasty|Unbranded)-[A-Z][a-z]+"
)
MAX_FOLDER_NAME = 60  # characters
ID_DIGITS = 8  # of the run's id, from its end: the beginning of some is the time


def name_run(template: str) -> Callable[[], str]:
    """Return what names the runs of a flow: as a person did, else after their parameters.

    template: such as "select {selection.budget} of {source.name}".
    """

    def name() -> str:
        """Return what a person called a run of a deployment; for any other the filled template."""
        context = FlowRunContext.get()
        assert context is not None, "Prefect asks for a name within a run"
        run = context.flow_run
        if run is not None and run.deployment_id is not None and not is_generated(run.name):
            return run.name
        return template.format(**(context.parameters or {}))

    return name


def is_generated(name: str) -> bool:
    """Return whether Prefect has made up this name: "Rustic-Vole" in its form, else "red-fox"."""
    if FORM_NAME.fullmatch(name):
        return True
    words = name.split("-")
    return len(words) == 2 and _words().issuperset(words)


@cache
def _words() -> frozenset[str]:
    """Return every word of which Prefect makes names of runs, adjectives and animals together."""
    entries: Any = word_lists.values()
    lists = [entry["words"] for entry in entries if entry["type"] == "words"]
    return frozenset(word for words in lists for word in words)


def in_run_folder(output: OutputT) -> OutputT:
    """Return the output with the current run's folder in place of {run}.

    Unchanged outside a run, and where its address has no {run}.
    """
    context = FlowRunContext.get()
    if RUN_PLACEHOLDER not in output.output or context is None or context.flow_run is None:
        return output
    folder = run_folder(context.flow_run.name, str(context.flow_run.id))
    uri = output.output.replace(RUN_PLACEHOLDER, folder)
    return output.model_copy(update={"output": uri})


def run_folder(name: str, run_id: str) -> str:
    """Return a folder name for a run: its own name and the end of its id, so no two runs share it.

    Only small letters, digits and dashes, whatever a person typed: it is one step of a path.
    """
    words = slugify(name, max_length=MAX_FOLDER_NAME)
    return f"{words or 'run'}-{run_id[-ID_DIGITS:]}"
