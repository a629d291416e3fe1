"""Run the example code of a docstring."""

from __future__ import annotations

import textwrap
from types import ModuleType
from typing import Any


def run_example(docstring: str | None, *modules: ModuleType) -> dict[str, Any]:
    """Run the indented code in `docstring` with the names of `modules`; return all names."""
    assert docstring is not None
    lines = [line for line in docstring.splitlines() if not line or line.startswith("    ")]
    names: dict[str, Any] = {"__name__": "example"}
    for module in modules:
        names.update({name: value for name, value in vars(module).items() if name[:2] != "__"})
    code = compile(textwrap.dedent("\n".join(lines)), "docstring", "exec", dont_inherit=True)
    exec(code, names)
    return names
