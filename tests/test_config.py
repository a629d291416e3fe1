"""The parameters of the flow: one flag a field, the tables' names and no others, and nothing that
is silently ignored.
"""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from deita_tasks import config
from deita_tasks.components import Table
from deita_tasks.config import (
    Advanced,
    Budget,
    Comparison,
    Embedding,
    Export,
    Filtering,
    Grid,
    Group,
    Judging,
    Measures,
    Output,
    Preferences,
    Requests,
    Rewriting,
    Runtime,
    ScorerMeasures,
    ScorerTraining,
    Scoring,
    SeedSource,
    Selection,
    Source,
    SubsetOptions,
    Training,
    TrainingData,
    TrainingOptions,
    Versions,
)
from deita_tasks.embedding import EMBEDDERS
from deita_tasks.exporting import FORMATS as OUTPUT_FORMATS
from deita_tasks.loading import FORMATS as INPUT_FORMATS
from deita_tasks.presets import EVERY_ROW, PRESETS
from deita_tasks.scoring import SCORERS
from deita_tasks.selecting import SELECTORS
from deita_tasks.validation import explain_error

MODELS: list[type[BaseModel]] = [
    Source,
    Scoring,
    Embedding,
    Filtering,
    Advanced,
]  # of every command that runs a flow
COMMANDS: dict[str, list[type[BaseModel]]] = {
    "select": [Selection, Export],
    "sweep": [Grid, Output],
    "solve": [Budget],
    "preflight": [],
    "reselect": [Versions],
}
COMMANDS = {command: [*MODELS, *own] for command, own in COMMANDS.items()} | {
    "align": [TrainingData, Training, Preferences, Output, Runtime],
    "compare": [Comparison, Training, Measures, Output, Runtime],
    "train-scorer": [
        *(SeedSource, Rewriting, Judging, Requests, ScorerTraining, ScorerMeasures, Output),
        Runtime,
    ],
}
GROUPS = [group for own in COMMANDS.values() for group in own]
FIELDS = [(group, name) for group in GROUPS for name in group.model_fields]
REQUIRED = {
    Source: {"input": ["pool.jsonl"]},
    Export: {"output": "out"},
    Output: {"output": "out"},
    Versions: {"output": "out"},
    TrainingData: {"input": ["selection"]},
    Training: {"base": "model"},
    Comparison: {"selection": "out"},
    SeedSource: {"input": ["pool.jsonl"], "kind": "complexity"},
    Rewriting: {"rewrite_url": "http://localhost:8000/v1", "rewrite_model": "m"},
    ScorerTraining: {"base": "model"},
}


def test_these_are_all_the_groups() -> None:
    assert set(GROUPS) == {
        one
        for one in vars(config).values()
        if isinstance(one, type)
        and issubclass(one, Group)
        and one not in (Group, SubsetOptions, TrainingOptions)
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_field_names_are_unique_over_the_groups_of_a_command(command: str) -> None:
    names = [name for group in COMMANDS[command] for name in group.model_fields]
    assert len(names) == len(set(names))
    assert not {"preset", "config", "verbose", "help"} & set(names)


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_every_field_explains_itself(group: type[BaseModel], name: str) -> None:
    field = group.model_fields[name]
    assert field.title
    assert field.description
    assert field.description.endswith(".")
    for limit, word in (
        ("ge", "At least"),
        ("le", "Between"),
    ):  # enforced but not shown in the form, so the help has to say it
        if any(getattr(fact, limit, None) is not None for fact in field.metadata):
            assert word in field.description or "Between" in field.description, (
                f"{name} does not say its limits"
            )


@pytest.mark.parametrize(
    ("offered", "table", "besides"),
    [
        (config.PresetName, PRESETS, ()),
        (config.ScorerName, SCORERS, ()),
        (config.EmbedderName, EMBEDDERS, ()),
        (config.StrategyName, SELECTORS, ()),
        (config.InputFormat, INPUT_FORMATS, ("auto",)),
        (config.OutputFormat, OUTPUT_FORMATS, ("input",)),
    ],
)
def test_what_is_offered_is_what_there_is(
    offered: Any, table: Table, besides: tuple[str, ...]
) -> None:
    assert sorted(get_args(offered)) == sorted({*table, *besides})


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_refuses_what_it_does_not_know(group: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="bugdet\n  unknown option"):
        group.model_validate({**REQUIRED.get(group, {}), "bugdet": 5})


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_is_frozen_and_survives_json(group: type[BaseModel]) -> None:
    """The form in the UI and the manifest hold the parameters as JSON."""
    made = group.model_validate(REQUIRED.get(group, {}))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, next(iter(group.model_fields)), None)
    assert group.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("group", "values"),
    [
        (Source, {"input": []}),
        (Source, {"input": "p", "min_good_fraction": 1.01}),
        (Source, {"input": "p", "min_good_fraction": -0.01}),
        (Source, {"input": "p", "min_good_fraction": float("nan")}),
        (Source, {"input": "p", "format": "xml"}),
        (Scoring, {"complexity": "no_such"}),
        (Scoring, {"score_max_length": 63}),
        (Embedding, {"embedding_max_length": 0}),
        (Selection, {"budget": 0}),
        (Selection, {"budget": -1}),
        (Selection, {"budget": 5, "candidates": 4}),
        (Selection, {"target_size": "about"}),
        (Selection, {"budget": 1.5}),
        (Selection, {"strategy": "best"}),
        (Selection, {"max_similarity": 1.1}),
        (Selection, {"max_similarity": float("nan")}),
        (Selection, {"seed": -1}),
        (Budget, {"budget": 0}),
        (Grid, {"budgets": []}),
        (Grid, {"budgets": [5, 0]}),
        (Grid, {"similarities": []}),
        (Grid, {"similarities": [0.9, 1.1]}),
        (Grid, {"similarities": [float("nan")]}),
        (Grid, {"strategies": ["best"]}),
        (Grid, {"coverage_rows": 0}),
        (Export, {"output": "o", "output_format": "auto"}),
        (Advanced, {"shard_rows": 0}),
        (Advanced, {"workers": 0}),
        (Advanced, {"retries": -1}),
        (Advanced, {"device": "tpu"}),
    ],
)
def test_values_out_of_their_limits_are_refused(
    group: type[BaseModel], values: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        group.model_validate(values)


def test_values_at_their_limits_are_taken() -> None:
    assert Source(input=["p"], min_good_fraction=0).min_good_fraction == 0
    assert Source(input=["p"], min_good_fraction=1).min_good_fraction == 1
    assert Selection(budget=1, max_similarity=-1).max_similarity == -1
    assert Selection(max_similarity=1).max_similarity == 1


def test_a_grid_has_each_value_once_and_numbers_ascending() -> None:
    grid = Grid(
        budgets=[9, 3, 9],
        similarities=[0.9, 0.5, 0.9],
        strategies=["top_score", "diverse", "top_score"],
    )
    assert (grid.budgets, grid.similarities, grid.strategies) == (
        [3, 9],
        [0.5, 0.9],
        ["top_score", "diverse"],
    )


def test_one_input_is_a_list_of_one() -> None:
    assert Source.model_validate({"input": "pool.jsonl"}).input == ["pool.jsonl"]
    assert Source(input=["a", "b"]).input == ["a", "b"]


def test_the_defaults_are_the_papers() -> None:
    """A budget of 6,000 is the paper's DEITA-6K; 0.9 its similarity (section 2.5), kept in the
    preset.
    """
    assert Selection().budget == 6000
    assert Selection().strategy == "diverse"
    assert {preset.max_similarity for preset in PRESETS.values()} == {0.9}
    assert PRESETS["paper"].complexity["options"]["model"] == "hkust-nlp/deita-complexity-scorer"
    assert PRESETS["paper"].quality["options"]["model"] == "hkust-nlp/deita-quality-scorer"
    assert PRESETS["paper"].embedding["options"]["model"] == "mistralai/Mistral-7B-v0.1"


@pytest.mark.parametrize("uri", ["s3://me:secret@bucket/x", "s3://AKIA:se/cret@bucket"])
def test_a_password_is_refused_in_every_field_and_in_the_form(uri: str) -> None:
    """Prefect stores the parameters of a run, so a record with a password must not come to be."""
    for group, field in [(Source, "input"), (Advanced, "store"), (Scoring, "complexity_url")]:
        for value in (uri, [uri]):
            with pytest.raises(ValidationError, match="a password in the address") as caught:
                group.model_validate({field: value})
            assert "cret" not in str(caught.value) + explain_error(caught.value)
    pattern = Source.model_json_schema()["properties"]["input"]["items"]["pattern"]
    assert not re.search(pattern, uri)
    for good in ("s3://bucket/a:b@c", "pool.jsonl", "a:b@c/pool", "http://localhost:80/a@b"):
        assert re.search(pattern, good)
        assert Source(input=[good]).input == [good]


# ---- budgets


@pytest.mark.parametrize(
    ("fields", "budget", "rows"),
    [
        ({}, 6000, 6000),
        ({"budget": "all"}, "all", EVERY_ROW),
        ({"budget": "12"}, 12, 12),  # as a form may send it
        ({"budget_tokens": 5}, "all", EVERY_ROW),  # the tokens alone decide
        ({"budget_tokens": 5, "budget": 7}, 7, 7),
    ],
)
def test_a_budget_is_a_number_or_all(fields: dict[str, Any], budget: Any, rows: int) -> None:
    selection = Selection(**fields)
    assert selection.budget == budget
    assert selection.rows == rows
    assert Selection.model_validate(selection.model_dump(mode="json")) == selection


@pytest.mark.parametrize("budget", [0, "some", 1.5, None])
def test_another_budget_is_refused(budget: Any) -> None:
    with pytest.raises(ValidationError, match="budget"):
        Selection(budget=budget)


@pytest.mark.parametrize("name", ["tokenizer_revision", "chat_template", "train_window"])
def test_what_concerns_tokens_needs_a_tokenizer(name: str) -> None:
    value = {"train_window": 512, "chat_template": "vicuna"}.get(name, "main")
    with pytest.raises(ValidationError, match=f"{name} = {value}: needs a tokenizer"):
        Filtering(**{name: value})
    Filtering(**{name: value, "tokenizer": "a/b"})
