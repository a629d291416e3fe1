"""A check of a record says what a second selection with the record decides."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks.checking import check_argument, check_records, open_checker
from deita_tasks.errors import ModelError, UsageError
from deita_tasks.results.reading import read_manifest
from deita_tasks.results.records import Subset
from flows.cli.app import main
from tests.support import components
from tests.support.check_results import write_result
from tests.support.flow_fixtures import AGAIN, BAD, BASE, tiny_components
from tests.support.small_pool import row_id, row_score


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with tiny_components():
        yield


@pytest.fixture(scope="module")
def base(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_result(tmp_path_factory.mktemp("base"), BASE, budget=10)


def record(topic: str, asked: int, answered: int) -> dict[str, Any]:
    question = f"On {topic} " + "so " * asked
    answer = f"About {topic} " + "and " * answered
    turns = [("user", question.strip()), ("assistant", answer.strip())]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def decisions(output: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(output) / "decisions.parquet").to_pylist()
    return rows


def kept(output: str) -> set[str]:
    return {row["id"] for row in decisions(output) if row["decision"] == "selected"}


RECORDS = [
    record("taxes", 40, 200),
    record("stars", 30, 90),
    record("chess", 11, 60),
    record("verbs", 2, 1),
    record("moons", 50, 300),
]


@pytest.mark.parametrize(
    "options", [{}, {"strategy": "top_score"}, {"rank_by": "complexity + length/100"}]
)
def test_a_second_selection_decides_the_same(options: Any, tmp_path: Path) -> None:
    options = {"budget": 10, **options}
    first = write_result(tmp_path / "first", BASE, **options)
    checks = check_records(first, RECORDS)
    assert len({check.decision for check in checks}) > 1, "the records show too little"
    for number, (row, check) in enumerate(zip(RECORDS, checks, strict=True)):
        second = write_result(tmp_path / str(number), [*BASE, row], **options)
        (line,) = [found for found in decisions(second) if found["id"] == row_id(row)]
        assert check.decision == line["decision"]
        assert check.evol_score == line["evol_score"]
        assert "rank_by" in options or check.evol_score == row_score(row)
        assert check.rank == check.last_rank == line["rank"]
        assert (check.complexity, check.quality) == (line["complexity"], line["quality"])
        if check.decision == "too_similar":
            assert check.blocker is not None and check.blocker.row.id == line["nearest_id"]
            assert check.blocker.similarity == line["similarity"]
        assert {left.id for left in check.leaving} == kept(first) - kept(second)
        joined = kept(second) - kept(first) - {row_id(row)}
        assert {let_in.id for let_in in check.let_in} <= joined
        assert len(joined) <= len(check.let_in) + check.open_places


def test_records_that_are_no_candidates(base: str) -> None:
    same, bad, unknown = check_records(base, [AGAIN, BAD, {"messages": 3}])
    assert (same.decision, same.id) == ("duplicate", row_id(AGAIN))
    assert "pool.jsonl:4, " in same.reason
    assert same.evol_score == row_score(AGAIN)
    assert (bad.decision, bad.reason[:12]) == ("quarantined", "no_user_turn")
    assert (unknown.decision, unknown.record) == ("quarantined", "row 3")
    assert bad.format == "messages"


def test_nothing_is_computed_twice_or_written(base: str) -> None:
    row = record("rivers", 5, 5)
    store = Path(base).parent
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    components.reset()
    check_records(base, [row, BASE[0]])
    assert components.embedded == [row_id(row)]
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    assert open_checker(base) is open_checker(base)


KINDS = [{**row, "kind": "ab"[number % 2]} for number, row in enumerate(BASE)]


@pytest.mark.parametrize("strategy", ["diverse", "top_score", "quality_only"])
@pytest.mark.parametrize(
    "strata", [{"strata": "kind", "per_stratum": 3}, {"mix": "kind=a:0.3,*:..8"}]
)
def test_a_second_selection_with_strata_decides_the_same(
    strata: Any, strategy: str, tmp_path: Path
) -> None:
    options = {"budget": 10, "strategy": strategy, **strata}
    first = write_result(tmp_path / "first", KINDS, **options)
    records = [{**row, "kind": "ba"[number % 2]} for number, row in enumerate(RECORDS)]
    for number, (row, check) in enumerate(zip(records, check_records(first, records), strict=True)):
        second = write_result(tmp_path / str(number), [*KINDS, row], **options)
        (line,) = [found for found in decisions(second) if found["id"] == row_id(row)]
        assert check.decision == line["decision"]
        if check.decision == "too_similar":
            assert check.blocker is not None and check.blocker.row.id == line["nearest_id"]
        if not check.open_places:
            leaving = {left.id for left in check.leaving}
            assert leaving == kept(first) - kept(second)
            joined = kept(second) - kept(first) - {row_id(row)}
            assert {let_in.id for let_in in check.let_in} == joined


def test_a_random_draw_is_known(tmp_path: Path) -> None:
    options = {"budget": 10, "strategy": "random"}
    first = write_result(tmp_path / "first", BASE, **options)
    checks = check_records(first, RECORDS)
    for number, (row, check) in enumerate(zip(RECORDS, checks, strict=True)):
        second = write_result(tmp_path / str(number), [*BASE, row], **options)
        assert (check.decision == "selected") == (row_id(row) in kept(second))
        assert {left.id for left in check.leaving} == kept(first) - kept(second)
    drawn = "its turn in the random draw comes {} the end of the budget"
    reasons = {check.decision: check.reason for check in checks}
    assert reasons == {
        "selected": drawn.format("before"),
        "below_budget": drawn.format("after"),
    }


def test_strata_that_change_with_the_record(tmp_path: Path) -> None:
    """A tenth of the budget is 1 row, and one row has the kind c: with another, two would."""
    rows = [*KINDS, {**record("harps", 3, 4), "kind": "c"}]
    output = write_result(tmp_path, rows, budget=20, mix="kind=c:0.1,*:0.9")
    new, without = check_records(output, [{**RECORDS[0], "kind": "c"}, RECORDS[1]])
    assert new.decision is without.decision is None
    assert new.reason == "the budget is divided anew with it: whether it would come in takes a run"
    assert "no column 'kind'" in without.reason


@pytest.mark.parametrize("options", [{"strategy": "k_center"}, {"clusters": 3}])
def test_what_takes_a_run(options: Any, tmp_path: Path) -> None:
    output = write_result(tmp_path, BASE, budget=10, **options)
    (check,) = check_records(output, [RECORDS[0]])
    assert check.decision is None
    assert check.reason.endswith("takes a run")
    assert check.evol_score == row_score(RECORDS[0])
    assert check.nearest is not None and check.nearest.row.id in kept(output)


def test_the_result_checks_records_itself(base: str, tmp_path: Path) -> None:
    row = record("rivers", 5, 5)
    subset = Subset(uri=base, manifest=read_manifest(base), tasks={})
    one: Any = subset.check(row)
    several: Any = subset.check([row])
    assert [one] == several
    place = tmp_path / "some.jsonl"
    place.write_text(json.dumps(row) + "\n" + json.dumps(BAD) + "\n", encoding="utf-8")
    checks: Any = subset.check(str(place))
    assert [check.record for check in checks] == [f"{place}:1", f"{place}:2"]


def test_json_and_standard_input(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(RECORDS[0])
    (of_text,) = check_argument(base, text)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    (of_input,) = check_argument(base, "-")
    assert of_text == of_input == check_records(base, [RECORDS[0]])[0]


def test_the_command(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            main(["check", *arguments, "--against", base])
        assert not exit.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    text = printed(json.dumps(RECORDS[0]))
    assert "record      row 1, read as messages\n" in text
    assert f"evol score  {row_score(RECORDS[0]):.3f}\n" in text
    place = tmp_path / "some.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in [*RECORDS, BAD]), encoding="utf-8")
    table = printed(str(place)).splitlines()
    assert len(table) == 1 + len(RECORDS) + 1, table
    assert "quarantined" in table[-1]
    lines = printed(str(place), "--json").splitlines()
    assert [json.loads(line) for line in lines] == [
        check.to_dict() for check in check_records(base, str(place))
    ]


def test_no_result(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no result here .*deita select"):
        check_records(str(tmp_path), [])


def test_other_models_than_those_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = write_result(tmp_path, BASE, budget=10)
    monkeypatch.setattr(
        components.TopicEmbedder, "fingerprint", lambda self: {"backend": "topics", "version": 2}
    )
    with pytest.raises(ModelError, match="embedding: this machine would compute with"):
        check_records(output, [RECORDS[0]])
