"""Components: parts of a stage that a user chooses by name, with their options.

A component is its own typed configuration: a frozen pydantic model that refuses unknown options.
The names are in `catalogue.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from deita_tasks.catalogue import Table
from deita_tasks.errors import UsageError
from deita_tasks.strict_json import JSON
from deita_tasks.validation import explain_error

# What a component's results depend on: its backend, model, revision and options.
Fingerprint: TypeAlias = dict[str, JSON]


class Component(BaseModel):
    """Base class of components: a part of a stage and its options in one.

    The constructor checks every option and loads no model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639 codes of the languages that its model was made for; () where it does not say."""
        return ()


def component_class(table: Table, stage: str, name: str) -> type[Any]:
    """Return the class behind `name`. Raises UsageError for an unknown name."""
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
        raise UsageError(f"{stage} {name!r}: {explain_error(error)}") from error
