"""Tables of components: a name, and the import string of the class behind it.

A class is imported only when it is chosen, so that torch or vLLM loads only where it is wanted.
A component is its own typed configuration: a frozen pydantic model that refuses unknown options.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from deita_tasks.errors import UsageError
from deita_tasks.strict_json import JSON

Table = Mapping[str, str]
# What a component's results depend on: its backend, model, revision and options.
Fingerprint: TypeAlias = dict[str, JSON]


class Component(BaseModel):
    """A stage's part and its options in one: constructing it checks every option and loads no
    model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def component_class(table: Table, stage: str, name: str) -> type[Any]:
    """The class behind `name`. Raises UsageError for a name that the table does not have."""
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown {stage} {name!r}: expected one of {', '.join(table)}{hint}")
    module, _, attribute = table[name].partition(":")
    loaded: type[Any] = getattr(import_module(module), attribute)
    return loaded


def load_component(table: Table, stage: str, name: str, options: Mapping[str, Any]) -> Any:
    """An instance of the component `name` with `options`. Raises UsageError for a wrong name,
    option or value.
    """
    component = component_class(table, stage, name)
    try:
        return component(**options)
    except ValidationError as error:
        raise UsageError(f"{stage} {name!r}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """A pydantic error in one line: each wrong option, what arrived, what is the matter with it."""
    parts = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parts.append(f"unknown option {where!r}")
        elif problem["type"] == "missing":
            parts.append(f"option {where!r} is required")
        else:
            parts.append(
                f"{where} = {problem['input']!r}: {problem['msg']}" if where else problem["msg"]
            )
    return "; ".join(parts)
