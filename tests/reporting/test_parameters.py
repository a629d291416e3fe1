"""Who chose each parameter: the user, the preset, or nobody."""

from __future__ import annotations

from typing import Any

from deita_tasks.config import Advanced, Embedding, Export, Scoring, Selection, Source, Versions
from deita_tasks.presets import MINILM
from deita_tasks.reporting.parameters import ModelUse, Parameter, explain_parameters, list_models
from tests.support.report_data import manifest

# As runs of the preset mini state them.
FINGERPRINTS: dict[str, Any] = {
    "complexity": {"backend": "mini", "model": MINILM, "max_length": 64},
    "quality": {"backend": "mini"},
    "embedding": {"backend": "sentence_transformers", "model": MINILM, "dtype": "float32"},
    "selection": {"strategy": "Diverse", "budget": 150, "metric": "cosine", "max_similarity": 0.9},
}


def explain(fingerprints: dict[str, Any] | None = None, **groups: Any) -> dict[str, Parameter]:
    """The parameters by name, chosen and unset ones."""
    parameters = {name: dict(group) for name, group in groups.items()}
    made = manifest(1, parameters=parameters, fingerprints=fingerprints or FINGERPRINTS)
    explained = explain_parameters(made)
    assert {each.origin for each in explained.chosen} <= {"yours", "preset"}
    assert {each.origin for each in explained.unset} <= {"default"}
    return {each.name: each for each in [*explained.chosen, *explained.unset]}


def test_parameters_are_the_users_the_presets_or_unset() -> None:
    found = explain(
        source=Source(input=["pool.jsonl"]),
        scoring=Scoring(),
        embedding=Embedding(),
        selection=Selection(budget=150),
        export=Export(output="results"),
        advanced=Advanced(),
    )
    expected = {
        "source.input": ('["pool.jsonl"]', "yours"),
        "source.format": ("auto", "default"),
        "scoring.complexity": ("mini", "preset"),
        "scoring.quality": ("mini", "preset"),
        "scoring.score_dtype": ("not set", "default"),
        "embedding.embedding": ("sentence_transformers", "preset"),
        "embedding.embedding_model": (MINILM, "preset"),
        "embedding.embedding_dtype": ("float32", "default"),
        "selection.budget": ("150", "yours"),
        "selection.max_similarity": ("0.9", "preset"),
        "selection.metric": ("cosine", "default"),
        "selection.strategy": ("diverse", "default"),
        "selection.mix": ("not set", "default"),
        "export.output": ("results", "yours"),
        "advanced.retries": ("2", "default"),
    }
    for name, (value, origin) in expected.items():
        assert found[name] == (name, value, origin)


def test_what_the_user_sets_is_the_users_even_if_the_preset_has_it() -> None:
    found = explain(
        selection=Selection(max_similarity=0.9), embedding=Embedding(embedding_model=MINILM)
    )
    assert found["selection.max_similarity"].origin == "yours"
    assert found["embedding.embedding_model"].origin == "yours"


def test_another_component_has_nothing_of_the_preset() -> None:
    provided = {**FINGERPRINTS, "embedding": {"backend": "provided", "column": "vector"}}
    found = explain(provided, embedding=Embedding(embedding="provided"))
    assert found["embedding.embedding"][1:] == ("provided", "yours")
    assert found["embedding.embedding_model"][1:] == ("not set", "default")
    assert found["embedding.embedding_column"][1:] == ("vector", "default")


def test_options_of_versions_are_known() -> None:
    found = explain(export=Versions(output="versions", keep_versions=3))
    assert found["export.keep_versions"].origin == "yours"
    assert found["export.approve"].origin == "default"


def test_unknown_groups_are_shown_and_long_values_are_cut() -> None:
    found = explain(other={"x": ["a" * 300] * 1000}, plain={"y": 1})
    assert found["plain.y"][1:] == ("1", "yours")
    assert len(found["other.x"].value) < 500


def test_models_are_named_by_stage() -> None:
    made = manifest(1, fingerprints={**FINGERPRINTS, "quality": None})
    assert list_models(made) == [
        ModelUse("complexity", "mini", MINILM),
        ModelUse("embedding", "sentence_transformers", MINILM),
    ]
