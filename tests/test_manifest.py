"""manifest.json: its fields and its checks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from deita_tasks.manifest import (
    Counts,
    Manifest,
    SweepManifest,
    digest_outputs,
    package_versions,
)
from tests.support.report_data import manifest


def test_the_file_has_the_documented_fields_in_a_readers_order() -> None:
    text = manifest(selected=2).to_json()
    read = json.loads(text)
    assert list(read) == [
        "format_version",
        "created",
        "preset",
        "parameters",
        "inputs",
        "pool",
        "models",
        "fingerprints",
        "evaluation",
        "computed",
        "reused",
        "skipped",
        "languages",
        "timings",
        "passed_over",
        "versions",
        "outputs",
        "seed",
        "counts",
        "strata",
        "truncated",
        "left_out",
        "findings",
        "tokens",
        "notes",
        "content_digest",
    ]
    assert read["format_version"] == 1
    assert read["created"] == "2026-01-02T02:04:05Z", "in UTC"
    assert read["counts"] == {
        "read": 1007,
        "selected": 2,
        "too_similar": 3,
        "below_budget": 1000,
        "stratum_full": 0,
        "duplicate": 1,
        "quarantined": 1,
        "unscorable": 0,
        "contaminated": 0,
        "too_long": 0,
    }
    assert read["computed"] == {"complexity": 5, "quality": 0, "embedding": 0}
    assert read["truncated"] == {"complexity": 0, "quality": 0, "embedding": 2}
    assert Manifest.model_validate_json(text) == manifest(selected=2)


def test_a_manifest_of_a_sweep_has_fields_of_its_own() -> None:
    of_selection = {
        *("seed", "counts", "strata", "truncated", "left_out", "findings"),
        *("tokens", "notes"),
    }
    fields = manifest(selected=2).model_dump(exclude=of_selection)
    sweep = SweepManifest(**fields, candidates=2, coverage_rows=1)
    names = list(json.loads(sweep.to_json()))
    assert names[:3] == ["format_version", "created", "preset"]
    assert names[-3:] == ["candidates", "coverage_rows", "content_digest"]
    assert of_selection.isdisjoint(names)


def test_a_record_comes_back_from_its_json_fields() -> None:
    original = manifest(selected=2)
    assert original.to_file_fields() == json.loads(original.to_json())
    assert Manifest.model_validate(original.to_file_fields()) == original
    assert Manifest.model_validate(original.to_dict()) == original


def test_files_of_the_output_have_size_and_digest(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part").write_bytes(b"1")
    (tmp_path / "data" / "manifest.json").write_bytes(b"")  # not that of the result
    (tmp_path / "manifest.json").write_bytes(b"{}")
    outputs = digest_outputs(tmp_path)
    assert list(outputs) == ["data/manifest.json", "data/part"]
    one = hashlib.sha256(b"1").hexdigest()
    assert outputs["data/part"].to_dict() == {"sha256": one, "bytes": 1}


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
    result = manifest(
        selected=1,
        parameters={
            "selection": {"budget": 6000, "max_similarity": None},
            "source": {"input": ["ä"]},
            "empty": {},
        },
    )
    assert result.settings() == [
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
