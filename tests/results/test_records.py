"""What the flows return: records with fields, which subscripts read too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deita_tasks.manifest import SweepManifest
from deita_tasks.results.records import (
    LimitSolution,
    ResultRecord,
    Subset,
    SubsetVersion,
    Sweep,
    TaskCounts,
)
from tests.support.handmade import FACTS, INPUTS, A, B
from tests.support.outputs import write_diverse_output
from tests.support.report_data import manifest

TASKS = {"complexity": TaskCounts(cached=1, run=2)}
TASKS_JSON = {"complexity": {"cached": 1, "run": 2}}


def subset() -> Subset:
    return Subset(uri="out", manifest=manifest(selected=2), tasks=TASKS)


def version(**fields: object) -> SubsetVersion:
    return SubsetVersion(version="20260131T235959Z-0123456789abcdef", uri="out", **fields)


def sweep() -> Sweep:
    sweep_manifest = SweepManifest(
        **dict(FACTS), inputs=INPUTS, pool="p", candidates=3, coverage_rows=3
    )
    return Sweep(uri="out", manifest=sweep_manifest, selections=[{"selection": "random-1"}])


SOLUTION = LimitSolution(max_similarity=0.6, kept=2, candidates=3)
RESULTS = [subset(), version(), version(subset=subset(), changes={}), sweep(), SOLUTION]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_every_result_reads_like_a_dict_of_json(result: ResultRecord) -> None:
    fields = dict(result)
    assert fields == {**result} == result.to_json_fields()
    assert list(result.keys()) == list(fields)
    assert json.loads(json.dumps(fields)) == fields
    for name, value in fields.items():
        assert name in result
        assert result[name] == value
    assert "absent" not in result
    with pytest.raises(KeyError):
        result["absent"]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_every_result_comes_back_from_json(result: ResultRecord) -> None:
    assert type(result).model_validate(json.loads(json.dumps(result.to_dict()))) == result


def test_a_subset_has_the_fields_of_its_manifest_and_its_tasks() -> None:
    result = subset()
    assert result["counts"] == {
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
    assert result["counts"]["selected"] == result.manifest.counts.selected
    assert result["tasks"] == TASKS_JSON
    assert dict(result) == {**result.manifest.to_dict(), "tasks": TASKS_JSON}


def test_a_new_version_has_its_subset() -> None:
    result = version(subset=subset(), changes={"before": "v1"})
    assert result.is_new
    assert dict(result) == {
        "version": result.version,
        "uri": "out",
        "new": True,
        "manifest": dict(subset()),
        "changes": {"before": "v1"},
    }


def test_a_version_that_is_up_to_date_has_none() -> None:
    result = version()
    assert not result.is_new
    assert (result["new"], result["manifest"], result["changes"]) == (False, None, None)


def test_a_sweep_has_the_fields_of_its_manifest_and_its_selections() -> None:
    result = sweep()
    assert dict(result) == {
        **result.manifest.to_dict(),
        "selections": [{"selection": "random-1"}],
    }


def test_a_solution_has_its_fields() -> None:
    assert dict(SOLUTION) == {"max_similarity": 0.6, "kept": 2, "candidates": 3}


def test_the_ledger_can_be_loaded(tmp_path: Path) -> None:
    uri = write_diverse_output(tmp_path, 5)
    for result in (
        Subset(uri=uri, manifest=manifest(selected=2), tasks={}),
        SubsetVersion(version="v", uri=uri),
    ):
        ledger = result.load()
        assert len(ledger) == 7
        assert list(ledger["decision"][:3]) == ["selected", "too_similar", "quarantined"]
        assert list(ledger["id"][:2]) == [A.id, B.id]
