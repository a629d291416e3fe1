"""The code stays readable: how dense it may be, and how high the modules may be stacked.

`python -m tests.support.density` prints every figure.
"""

from __future__ import annotations

import pytest

from tests.support.density import (
    ALL_CODE,
    PACKAGES,
    functions,
    imported_modules,
    long_lines,
    longest_chain,
    mean_density,
    nested_ternaries,
    room_imports,
)

MOST_TOKENS_PER_LINE = 7.0
MOST_LINES_PER_FUNCTION = 45
LONGEST_LINE = 100
MOST_FLOORS = 11


@pytest.mark.parametrize("folder", PACKAGES)
def test_lines_are_not_dense(folder: str) -> None:
    assert mean_density(folder) <= MOST_TOKENS_PER_LINE


@pytest.mark.parametrize("folder", PACKAGES)
def test_functions_fit_on_a_screen(folder: str) -> None:
    long = [function for function in functions(folder) if function.lines > MOST_LINES_PER_FUNCTION]
    assert long == []


@pytest.mark.parametrize("folder", ALL_CODE)
def test_lines_are_not_long(folder: str) -> None:
    assert list(long_lines(folder, LONGEST_LINE)) == []


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_ternary_contains_another(folder: str) -> None:
    assert list(nested_ternaries(folder)) == []


def test_imports_are_read() -> None:
    assert "deita_tasks.storage" in imported_modules("deita_tasks.artifacts.pool")
    assert "deita_tasks.plan" in room_imports()["flows.cli"]  # imported inside a function


def test_the_longest_chain_of_imports() -> None:
    chain = longest_chain(room_imports())
    assert len(chain) <= MOST_FLOORS, " -> ".join(chain)


def test_a_circle_of_imports_is_an_error() -> None:
    with pytest.raises(ValueError, match="circle of imports: a -> b -> a"):
        longest_chain({"a": {"b"}, "b": {"a"}})
