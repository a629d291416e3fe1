"""What pydantic finds wrong with a value, in our own words: what arrived, and what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

OUR_ERROR = "unexpected_value"
MAX_VALUE_CHARACTERS = 80
# By pydantic's name of the error. Names in braces are those that pydantic gives with it.
EXPECTED = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "{min_length} or more values",
    "too_long": "{max_length} values or fewer",
    "string_too_short": "{min_length} or more characters",
    "string_too_long": "{max_length} characters or fewer",
    "string_pattern_mismatch": "text like {pattern}",
    "literal_error": "one of {expected}",
    "finite_number": "a finite number",
    "none_required": "nothing",
}
# By the beginning of that name.
EXPECTED_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "options with values",
    "model": "options with values",
}
PYDANTIC_START = re.compile(
    r"^(Input|[A-Z]\w+) should (be |have )?|^(Value error|Assertion failed), "
)


def explain_error(error: ValidationError, section: str = "") -> str:
    """Return a pydantic error in one line: each wrong option, its value and what was expected.

    section: what the options belong to, which stands before their names.
    """
    problems = error.errors(include_url=False)
    return "; ".join(_explain_problem(problem, section) for problem in problems)


def in_our_words(error: ValidationError) -> ValidationError:
    """Return the same error with our messages, for whoever shows it, such as Prefect.

    A missing option stays what it is to pydantic: the command line then names its flag.
    """
    problems: list[InitErrorDetails] = []
    for problem in error.errors(include_url=False):
        is_missing = problem["type"] == "missing"
        kind = "missing" if is_missing else our_error(_message(problem))
        problems.append({"type": kind, "loc": problem["loc"], "input": problem["input"]})
    return ValidationError.from_exception_data(error.title, problems, hide_input=True)


def our_error(message: str) -> PydanticCustomError:
    """Return what a validator of a whole group raises, with all that there is to say.

    It runs after `in_our_words`: before a ValueError pydantic would put words of its own.
    """
    return PydanticCustomError(OUR_ERROR, "{message}", {"message": message})


def unexpected(value: object, expected: str) -> str:
    """Return "0 arrived; expected at least 1"."""
    return f"{_shown(value)} arrived; expected {expected}"


def _explain_problem(problem: Mapping[str, Any], section: str) -> str:
    """Return one problem in a line, with the option's dotted name: "group.option: 0 arrived; ...".

    An error of a whole model has no name, only its message.
    """
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"]]
    where = f"{section}{''.join(steps)}".removeprefix(".")
    if problem["type"] == "extra_forbidden":
        return f"unknown option {where!r}"
    if problem["type"] == "missing":
        return f"option {where!r} is required"
    message = _message(problem)
    return f"{where}: {message}" if where else message


def _message(problem: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, without the name of its option."""
    kind = problem["type"]
    if kind == "extra_forbidden":
        return "unknown option"
    if kind == "missing":
        return "required"
    if kind == OUR_ERROR:
        return str(problem["msg"])
    if kind in ("value_error", "assertion_error"):  # of our validators: they name what arrived
        return PYDANTIC_START.sub("", problem["msg"])
    return unexpected(problem["input"], _expected(problem))


def _expected(problem: Mapping[str, Any]) -> str:
    """Return what pydantic expected: in our words for the kinds that we know, else in its own."""
    kind = problem["type"]
    context = problem.get("ctx", {})
    words = {name: _bare(value) for name, value in context.items()}
    if kind in EXPECTED:
        return EXPECTED[kind].format_map(words)
    start = kind.split("_")[0]
    return EXPECTED_KINDS.get(start) or PYDANTIC_START.sub("", problem["msg"])


def _bare(value: object) -> str:
    """Return a bound or a list of choices without what pydantic adds: 1.0, 'a', 'b' or 'c'."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).replace("' or '", "', '").replace("'", "")


def _shown(value: object) -> str:
    """Return a value as a person writes it: numbers bare, also those that came as text."""
    text = value if isinstance(value, str) and _is_number(value) else repr(value)
    hidden = len(text) > MAX_VALUE_CHARACTERS
    return f"{text[:MAX_VALUE_CHARACTERS]}..." if hidden else text


def _is_number(text: str) -> bool:
    """Return whether a text reads as a decimal number, such as "-1.5e3", and so is shown bare."""
    return re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text) is not None
