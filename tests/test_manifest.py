"""The manifest: its names, its checks."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from deita_tasks.manifest import Counts, Manifest, package_versions
from tests.support.report_data import manifest


def test_the_file_has_the_documented_fields() -> None:
    text = manifest(selected=2).to_json()
    read = json.loads(text)
    assert set(read) == {
        "format_version",
        "created",
        "preset",
        "parameters",
        "seed",
        "inputs",
        "pool",
        "models",
        "fingerprints",
        "counts",
        "computed",
        "reused",
        "truncated",
        "timings",
        "versions",
        "outputs",
    }
    assert read["format_version"] == 1
    assert read["created"] == "2026-01-02T02:04:05Z", "in UTC"
    assert read["counts"] == {
        "read": 1007,
        "selected": 2,
        "too_similar": 3,
        "below_budget": 1000,
        "duplicate": 1,
        "quarantined": 1,
        "unscorable": 0,
    }
    assert read["computed"] == {"complexity": 5, "quality": 0, "embedding": 0}
    assert read["truncated"] == {"complexity": 0, "quality": 0, "embedding": 2}
    assert Manifest.model_validate_json(text) == manifest(selected=2)


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match="the decisions add up to 3 rows where 4 were read"):
        Counts(
            read=4,
            selected=1,
            too_similar=1,
            below_budget=1,
            duplicate=0,
            quarantined=0,
            unscorable=0,
        )


def test_it_refuses_unknown_fields_and_times_without_a_zone() -> None:
    with pytest.raises(ValidationError, match="count_s"):
        manifest(selected=1, count_s=1)
    with pytest.raises(ValidationError, match="timezone"):
        manifest(selected=1, created="2026-01-02T03:04:05")


def test_a_new_one_is_of_now_in_whole_seconds_of_utc() -> None:
    fields = manifest(selected=1).model_dump(exclude={"created"})
    created = Manifest(**fields).created
    assert created.microsecond == 0
    assert created.utcoffset().total_seconds() == 0  # type: ignore[union-attr]


def test_parameters_as_a_table() -> None:
    made = manifest(
        selected=1,
        parameters={
            "selection": {"budget": 6000, "max_similarity": None},
            "source": {"input": ["ä"]},
            "empty": {},
        },
    )
    assert made.settings() == [
        ("selection.budget", "6000"),
        ("selection.max_similarity", "null"),
        ("source.input", '["ä"]'),
        ("empty", "{}"),
    ]


def test_versions_name_python_and_what_is_installed() -> None:
    versions = package_versions(["numpy", "no-such-package-of-ours"])
    assert set(versions) == {"python", "numpy"}
    assert {
        "deita-tasks",
        "prefect",
        "torch",
        "transformers",
        "sentence-transformers",
        "pandas",
        "pyarrow",
    } <= set(package_versions())
