"""What is wrong with a value, in our own words, for every bound of every parameter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError
from pydantic import BaseModel, Field, ValidationError

from deita_tasks import config
from deita_tasks.validation import explain_error

GROUPS = [
    group
    for group in vars(config).values()
    if isinstance(group, type) and issubclass(group, config.Group) and group.model_fields
]
PYDANTIC_WORDS = re.compile(r"Input|should|validation error|Value error|type=|https?://|valid ")
REQUIRED: dict[str, Any] = {
    "input": ["pool"],
    "output": "out",
    "base": "m",
    "selection": "s",
    "kind": "quality",
    "rewrite_url": "http://localhost/v1",
    "rewrite_model": "m",
}


def unfit_values(schema: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """Values that the schema of a field does not allow, and what has to be expected instead."""
    kind = schema.get("type")
    if "minimum" in schema:
        yield schema["minimum"] - 1, f"at least {schema['minimum']:g}"
    if "maximum" in schema:
        yield schema["maximum"] + 1, f"at most {schema['maximum']:g}"
    if "exclusiveMinimum" in schema:
        yield schema["exclusiveMinimum"], f"more than {schema['exclusiveMinimum']:g}"
    if "enum" in schema:
        yield "no such choice", "one of " + ", ".join(schema["enum"])
    elif kind == "string":
        yield 5, "text"
    elif kind == "integer":
        yield 0.5, "a whole number"
        yield "many", "a whole number"
    elif kind == "number":
        yield "many", "a number"
        yield [1], "a number"
    elif kind == "boolean":
        yield "perhaps", "true or false"
    elif kind == "array":
        yield 5, "a list"
        if "minItems" in schema:
            yield [], f"{schema['minItems']} or more values"


CASES = [
    pytest.param(group, name, value, expected, id=f"{group.__name__}.{name}={value}")
    for group in GROUPS
    for name, schema in group.model_json_schema()["properties"].items()
    for value, expected in unfit_values(schema)
]


@pytest.mark.parametrize(("group", "name", "value", "expected"), CASES)
def test_every_bound_of_every_parameter(
    group: type[config.Group], name: str, value: Any, expected: str
) -> None:
    required = {field: REQUIRED[field] for field in group.model_fields if field in REQUIRED}
    with pytest.raises(ValidationError) as caught:
        group.model_validate({**required, name: value})
    message = explain_error(caught.value, "section")
    assert message.startswith(f"section.{name}: {value!r} arrived; expected ")
    assert expected in message
    assert not PYDANTIC_WORDS.search(message)
    (problem,) = caught.value.errors()  # what Prefect shows of a form
    assert f"section.{name}: {problem['msg']}" == message


def test_every_kind_of_bound_is_tried() -> None:
    """So that a schema which pydantic writes otherwise one day does not empty the test above."""
    expected = {case.values[3] for case in CASES}
    kinds = ("at least", "at most", "more than", "one of", "a whole", "a number", "true", "a list")
    for kind in kinds:
        assert any(str(words).startswith(kind) for words in expected), kind
    fields = {(case.values[0], case.values[1]) for case in CASES}
    assert len(fields) == sum(len(group.model_fields) for group in GROUPS)


@pytest.mark.parametrize(
    ("group", "fields", "message"),
    [
        (
            config.Selection,
            {"budget": "0"},
            "s.budget: 0 arrived; expected a whole number of at least 1, or all",
        ),
        (
            config.Grid,
            {"similarities": [0.5, 2]},
            "s.similarities[1]: 2 arrived; expected at most 1",
        ),
        (config.Grid, {"budgets": [0]}, "s.budgets[0]: 0 arrived; expected at least 1"),
        (config.Source, {}, "option 's.input' is required"),
        (config.Source, {"input": " "}, "s.input[0]: blank; expected a path or a URI"),
        (config.Grid, {"bugdets": [1]}, "s.bugdets: unknown option"),
        (config.Grid, 5, "s: 5 arrived; expected options with values"),
        (
            config.Selection,
            {"candidates": 3},
            "s: candidates = 3: expected at least the budget, 6000",
        ),
        (config.Filtering, {"train_window": 9}, "s: train_window = 9: needs a tokenizer"),
        (
            config.ScorerTraining,
            {"head": "mini", "base": "m"},
            "s: head = mini trains no model: leave out base",
        ),
        (
            config.Advanced,
            {"retries": -1, "workers": 0},
            "s.retries: -1 arrived; expected at least 0; s.workers: 0 arrived; expected at least 1",
        ),
        (
            config.Scoring,
            {"concurrency": "x" * 99},
            f"s.concurrency: '{'x' * 79}... arrived; expected a whole number",
        ),
    ],
)
def test_a_sentence_for_each_mistake(group: type[config.Group], fields: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        group.model_validate(fields)
    assert explain_error(caught.value, "s") == message
    for problem in caught.value.errors():
        assert not PYDANTIC_WORDS.search(problem["msg"])


def test_a_form_fails_in_the_same_words() -> None:
    """Where Prefect checks the parameters of a run, it takes the message from the error."""
    from flows.select import select_subset

    wrong = {"source": {"input": []}, "export": {"output": "o"}, "selection": {"budget": 0}}
    with pytest.raises(ParameterTypeError) as caught:
        select_subset.validate_parameters(wrong)
    assert str(caught.value).splitlines()[1:] == [
        " - source.input: [] arrived; expected 1 or more values",
        " - selection.budget: 0 arrived; expected a whole number of at least 1, or all",
    ]


class Pot(BaseModel):
    """A model with constraints that the parameters do not have."""

    lid: str = Field("a", max_length=2)
    label: str = Field("a", pattern="^[a-z]+$")
    litres: float = Field(1, multiple_of=0.5, lt=9)
    since: complex = 1j


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lid": "glass"}, "lid: 'glass' arrived; expected 2 characters or fewer"),
        ({"label": "A"}, "label: 'A' arrived; expected text like ^[a-z]+$"),
        ({"litres": 0.3}, "litres: 0.3 arrived; expected a multiple of 0.5"),
        ({"litres": 9}, "litres: 9 arrived; expected less than 9"),
        # An error that the table does not have.
        ({"since": "x"}, "since: 'x' arrived; expected a valid "),
    ],
)
def test_other_constraints_and_the_rest(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Pot.model_validate(fields)
    assert explain_error(caught.value).startswith(message)
