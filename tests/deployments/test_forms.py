"""Prefect's form of each flow: what it shows and refuses, and its initial values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from deita_tasks.config import Scoring, Selection
from deita_tasks.plan import PRESETS
from deployments.offer import read_deployments

MODELS = ["preset", "scoring", "embedding", "filtering", "advanced"]
CARDS = {  # in the order of the form: what most runs set comes first
    "select": ["source", "selection", "export", *MODELS],
    "reselect": ["source", "selection", "export", *MODELS],
    "sweep": ["source", "grid", "output", *MODELS],
    "align": ["source", "training", "output", "preferences", "advanced"],
    "compare": ["comparison", "training", "output", "measures", "advanced"],
    "train-scorer": [
        *("source", "rewriting", "training", "output", "judging", "requests", "measures"),
        "advanced",
    ],
}
BOXES = {
    "string",
    "integer",
    "number",
    "boolean",
}  # each a box, a list of choices or a switch; an object would be a JSON editor


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema by which the server makes the form of a deployment, and by which it refuses
    values.
    """
    entrypoint = next(one["entrypoint"] for one in read_deployments() if one["name"] == name)
    flow: Any = load_flow_from_entrypoint(entrypoint)
    made: dict[str, Any] = parameter_schema(flow).model_dump()  # as Prefect deploys and serves it
    return made


def cards(name: str) -> dict[str, dict[str, Any]]:
    """By parameter, the group behind it; the parameters that are no group are left out."""
    whole = schema(name)
    references = {
        name: one["$ref"].removeprefix("#/definitions/")
        for name, one in whole["properties"].items()
        if "$ref" in one
    }
    return {name: whole["definitions"][reference] for name, reference in references.items()}


def fields() -> Iterator[tuple[str, str, str]]:
    return (
        (name, card, field)
        for name in CARDS
        for card, group in cards(name).items()
        for field in group["properties"]
    )


def opened(name: str) -> dict[str, Any]:
    """What the form of a deployment opens with."""
    deployment = next(each for each in read_deployments() if each["name"] == name)
    parameters: dict[str, Any] = deployment["parameters"]
    return parameters


def refuse(name: str, parameters: dict[str, Any]) -> None:
    """As the server does where a run is created."""
    validate(parameters, schema(name), raise_on_error=True, preprocess=True, ignore_required=False)


def test_these_are_the_deployments() -> None:
    assert {one["name"] for one in read_deployments()} == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_the_cards_are_the_groups(name: str) -> None:
    properties = schema(name)["properties"]
    assert sorted(properties, key=lambda one: properties[one]["position"]) == CARDS[name]
    assert set(cards(name)) == set(CARDS[name]) - {"preset"}
    for card, group in cards(name).items():
        assert group["description"].endswith("."), f"{card} does not say what it is"
        assert group["additionalProperties"] is False
    if name in ("align", "compare", "train-scorer"):
        return
    preset = properties["preset"]
    assert preset["enum"] == list(PRESETS)
    assert preset["default"] == "mini"
    assert all(f"{one}:" in preset["description"] for one in PRESETS)


@pytest.mark.parametrize(("name", "card", "field"), fields())
def test_every_field_is_a_box_that_explains_itself(name: str, card: str, field: str) -> None:
    group = cards(name)[card]
    one = group["properties"][field]
    assert one["title"][0].isupper()
    assert "_" not in one["title"]
    assert one["description"].endswith(".")
    assert "anyOf" not in one, "the form would show tabs"
    inside = one["items"] if one["type"] == "array" else one
    assert inside["type"] in BOXES
    said = one["description"].lower()
    least, most = inside.get("minimum"), inside.get("maximum")
    if most is not None:
        assert f"between {least:g} and {most:g}" in said
    elif least is not None:
        assert f"at least {least:g}" in said
    if "exclusiveMinimum" in inside:
        assert f"more than {inside['exclusiveMinimum']:g}" in said
    assert None not in inside.get("enum", ()), "the form would show a box instead of the choices"


@pytest.mark.parametrize(("name", "card", "field"), fields())
def test_a_default_is_a_value_that_the_form_takes(name: str, card: str, field: str) -> None:
    group = cards(name)[card]
    one = group["properties"][field]
    if field in group.get("required", ()):
        assert "default" not in one
    elif "default" in one:
        validate(
            {field: one["default"]},
            {"type": "object", "properties": {field: one}},
            raise_on_error=True,
        )
    else:
        said = one["description"].lower() + group["description"].lower()
        assert "default:" in said or "for " in said, (
            f"{field} may be empty, and nothing says what that means"
        )


@pytest.mark.parametrize("name", CARDS)
def test_what_the_form_opens_with_is_taken(name: str) -> None:
    parameters = opened(name)
    refuse(name, parameters)
    assert parameters["advanced"]["store"] == ".deita"
    for card, group in cards(name).items():
        assert set(group.get("required", ())) <= set(parameters.get(card, ())), (
            f"{card} opens with a field that has to be filled in"
        )
    defaults = [one["default"] for one in schema(name)["properties"].values() if "default" in one]
    assert not [one for one in defaults if isinstance(one, dict) and None in one.values()], (
        "the form sends it, and the server refuses it"
    )


PYTHON = re.compile(
    r"\b(None|True|False|null|lists?|tuples?|dicts?|str|ints?|bools?|floats?|kwargs|Optional"
    r"|Literal|Returns|Raises)\b|\w\(\)|``|\bself\b|\.py\b"
)


@pytest.mark.parametrize("name", CARDS)
def test_a_form_says_nothing_in_python(name: str) -> None:
    """Of the deployment, its cards and its fields."""
    entrypoint = next(each["entrypoint"] for each in read_deployments() if each["name"] == name)
    texts = {name: str(load_flow_from_entrypoint(entrypoint).description)}
    for card, group in cards(name).items():
        texts[card] = group["description"]
        for field, one in group["properties"].items():
            texts[f"{card}.{field}"] = f"{one['title']}: {one['description']}"
    assert {place: text for place, text in texts.items() if PYTHON.search(text)} == {}


WRONG = [
    ("selection", {"budget": 0}),
    ("selection", {"budget": "many"}),
    ("selection", {"budget": 1.5}),
    ("selection", {"strategy": "best"}),
    ("selection", {"bugdet": 10}),
    ("selection", {"max_similarity": 1.01}),
    ("selection", {"max_similarity": -1.01, "metric": "cosine"}),
    ("selection", {"metric": "hamming"}),
    ("selection", {"weight": 2}),
    ("source", {"input": []}),
    ("source", {"input": [" "]}),
    ("source", {"min_good_fraction": 1.01}),
    ("scoring", {"complexity": "no_such"}),
    ("scoring", {"score_max_length": 63}),
    ("scoring", {"request_timeout": 0}),
    ("embedding", {"embedding_max_length": 15}),
    ("export", {"output": ""}),
    ("export", {"output_format": "xml"}),
    ("advanced", {"retries": -1}),
    ("advanced", {"device": "tpu"}),
]


@pytest.mark.parametrize(("card", "values"), WRONG)
def test_a_wrong_value_is_refused(card: str, values: dict[str, Any]) -> None:
    parameters = opened("select")
    refuse("select", parameters)  # nothing else is wrong
    with pytest.raises(ValidationError):
        refuse("select", {**parameters, card: {**parameters.get(card, {}), **values}})


def test_what_needs_a_value_is_asked_for() -> None:
    with pytest.raises(ValidationError, match="source"):
        refuse("select", {"export": {"output": "out"}})


@pytest.mark.parametrize(
    ("card", "group"),
    [("scoring", Scoring(complexity="causal_lm")), ("selection", Selection(budget=5, weight=1))],
)
def test_a_group_made_in_python_is_taken(card: str, group: Any) -> None:
    """run_deployment(parameters={"selection": Selection(budget=5)}) sends a group as JSON."""
    refuse("select", {**opened("select"), card: group.model_dump(mode="json")})


def test_a_similarity_by_another_metric_has_no_bounds() -> None:
    refuse(
        "select",
        {**opened("select"), "selection": {"metric": "dot", "max_similarity": 40}},
    )


def test_reselect_is_periodic_and_never_beside_itself() -> None:
    one = next(one for one in read_deployments() if one["name"] == "reselect")
    assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert len(one["schedules"]) == 1
