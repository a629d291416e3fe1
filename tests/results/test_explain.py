"""Explanations of a hand-made result (`handmade.py`), and how they are shown. No flow, no server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deita_tasks.artifacts.selection import write_selection
from deita_tasks.errors import UsageError
from deita_tasks.records import Conversation, SourceRow, Turn
from deita_tasks.results.explain import Explanation, Shown, explain
from deita_tasks.results.selection import write_output
from deita_tasks.selecting import load_selector
from flows.cli import printing
from flows.cli.app import main
from tests.support.handmade import A, B, C, D, E, make

ROOT = Path(__file__).parents[2]
FACTS: dict[str, Any] = {
    "preset": "mini",
    "parameters": {},
    "seed": 0,
    "models": [],
    "computed": {},
    "reused": {},
    "timings": {},
}


def result(folder: Path, budget: int, **rule: Any) -> str:
    """The output of a selection from the hand-made pool."""
    pool, parts = make(folder / "store")
    options = {"budget": budget, **(rule or {"max_similarity": 0.5})}
    selection = write_selection(
        str(folder / "selection"), pool, parts, {"name": "diverse", "options": options}
    )
    facts = {
        **FACTS,
        "fingerprints": {
            "complexity": {},
            "selection": load_selector("diverse", **options).fingerprint(),
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "deita_tasks.results.selection.build_report",
            lambda data: SimpleNamespace(html=b"<!doctype html>", figures={}),
        )
        write_output(pool, parts, selection, str(folder / "out"), "messages", facts)
    return str(folder / "out")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Limit 0.5: A (10) is kept and blocks B (0.6) and C (1); D and E have no score or no vector."""
    return result(tmp_path_factory.mktemp("five"), 5)


# ---- what is known of a row


def test_a_kept_row_and_whom_it_blocked(output: str) -> None:
    found = explain(output, A.id)
    assert found.line["decision"] == "selected"
    assert (found.line["rank"], found.line["evol_score"], found.ranked) == (1, 10, 4)
    assert (found.line["complexity"], found.line["quality"]) == ([2, 1], [3, 4])
    assert found.conversation is not None
    assert found.conversation.turns == A.turns
    assert [(one.line["id"], one.conversation.turns) for one in found.blocked] == [
        (C.id, C.turns),
        (B.id, B.turns),
    ]
    assert [one.line["similarity"] for one in found.blocked] == [1, pytest.approx(0.6)]
    assert found.blocked_rows == 2
    assert found.blocker is None


def test_no_more_are_shown_than_asked_for_and_all_are_counted(output: str) -> None:
    found = explain(output, A.id, shown=1)
    assert [one.line["id"] for one in found.blocked] == [C.id]
    assert found.blocked_rows == 2


def test_a_rejected_row_and_who_blocked_it(output: str) -> None:
    found = explain(output, B.id)
    assert (found.line["decision"], found.line["similarity"]) == ("too_similar", pytest.approx(0.6))
    assert found.blocker is not None
    assert (
        found.blocker.line["id"],
        found.blocker.line["rank"],
        found.blocker.conversation.turns,
    ) == (A.id, 1, A.turns)
    assert (found.blocked, found.blocked_rows) == ([], 0)


def test_a_row_that_was_never_reached(tmp_path: Path) -> None:
    found = explain(result(tmp_path, 1, max_similarity=0.9), B.id)
    assert found.line["decision"] == "below_budget"
    assert found.selector == load_selector("diverse", budget=1, max_similarity=0.9).fingerprint()


@pytest.mark.parametrize(
    ("row", "why"),
    [(D, "quality: turn 1: no digit has any probability"), (E, "embedding: out of memory")],
)
def test_a_row_without_a_score_or_a_vector(row: Conversation, why: str, output: str) -> None:
    found = explain(output, row.id)
    assert (found.line["decision"], found.line["reason"]) == ("unscorable", why)


@pytest.mark.parametrize(
    "wanted", [C.id, C.id[:4], C.id[:9].upper(), "pool.jsonl:4", "pool.jsonl:5"]
)
def test_a_row_by_its_id_the_beginning_of_it_or_its_place(wanted: str, output: str) -> None:
    """A duplicate is explained as the row that it repeats."""
    found = explain(output, wanted)
    assert (found.line["id"], found.line["source_row"]) == (C.id, 4)
    assert [line["source_row"] for line in found.duplicates] == [5]


def test_a_quarantined_row_by_its_place(output: str) -> None:
    found = explain(output, "pool.jsonl:3")
    assert (found.line["decision"], found.line["reason"]) == (
        "quarantined",
        "no_user_turn: the roles are assistant",
    )
    assert (found.conversation, found.raw) == (None, "{}")


def test_a_store_that_has_moved(tmp_path: Path) -> None:
    output = result(tmp_path, 5)
    shutil.move(tmp_path / "store", tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="--store"):
        explain(output, A.id)
    assert explain(output, A.id, str(tmp_path / "elsewhere")).conversation is not None


def test_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run had its store as a relative path."""
    monkeypatch.chdir(tmp_path)
    result(Path("here"), 5)
    monkeypatch.chdir(ROOT)
    assert explain(str(tmp_path / "here" / "out"), A.id).conversation is not None


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("abc", "at least its first 4 characters"),
        ("zzzz", "no row of"),
        ("pool.jsonl:8", "no conversation in row 8"),
        ("other.jsonl:1", "no such file"),
    ],
)
def test_a_row_that_is_not_there(wanted: str, said: str, output: str) -> None:
    with pytest.raises(UsageError, match=said):
        explain(output, wanted)


def test_what_is_no_result_of_a_selection(tmp_path: Path, output: str) -> None:
    with pytest.raises(UsageError, match="no result here"):
        explain(str(tmp_path / "absent"), A.id)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="not that of a selection"):
        explain(str(tmp_path), A.id)


def test_a_beginning_that_several_ids_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    import pyarrow as pa

    from deita_tasks import storage

    read = storage.read_table

    def two_alike(uri: str, columns: Any = None) -> pa.Table:
        table = read(uri, columns)
        ids = ["abcd1", "abcd2", *table["id"].to_pylist()[2:]]
        return (
            table.set_column(0, "id", pa.array(ids)) if uri.endswith("decisions.parquet") else table
        )

    monkeypatch.setattr(storage, "read_table", two_alike)
    with pytest.raises(UsageError, match=r"2 ids begin so \(abcd1, abcd2\)"):
        explain(output, "abcd")


# ---- how it is shown


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["explain", *arguments])
    assert not caught.value.code, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_rejected_row_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, B.id, "--output", output)
    assert "\x1b" not in said
    assert (
        f"decision    too similar: similarity 0.6000 to {A.id[:12]}, kept at rank 1, over the "
        "limit of 0.5\n" in said
    )
    assert "rank        2 of 4\n" in said
    assert said.index("B user 0") < said.index("A user 0"), (
        "the row first, then the one that blocked it"
    )


def test_a_kept_row_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, A.id, "--output", output)
    assert "complexity  2.00  1.00  (by user turn)\n" in said
    assert "cut         longer than a model's window" in said
    assert f"1.0000  {C.id[:12]}  C user 0\n0.6000  {B.id[:12]}  B user 0\n" in said


def test_distances_in_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """B stands at (1.2, 1.6) and C at (3, 0), A at (1, 0)."""
    output = result(tmp_path, 5, metric="euclidean", min_distance=2.5)
    said = shown(capsys, C.id, "--output", output)
    assert (
        f"decision    too similar: distance 2.0000 to {A.id[:12]}, kept at rank 1, under the "
        "limit of 2.5\n" in said
    )
    said = shown(capsys, A.id, "--output", output)
    assert f"1.6125  {B.id[:12]}  B user 0\n2.0000  {C.id[:12]}  C user 0\n" in said, (
        "the nearest first"
    )


def test_a_quarantined_row_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, "pool.jsonl:3", "--output", output)
    assert "decision    quarantined: no_user_turn: the roles are assistant\n" in said
    assert said.endswith("\n{}\n")


def test_a_duplicate_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "row         pool.jsonl:4\nrepeated in pool.jsonl:5\n" in shown(
        capsys, "pool.jsonl:5", "--output", output
    )


def test_both_texts_stand_side_by_side_in_a_terminal(
    output: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "90")
    lines = shown(capsys, B.id, "--output", output).splitlines()
    assert any("B user 0" in line and "A user 0" in line for line in lines)


HOSTILE = (
    "\x1b[2J[bold red]x[/] [link=http://x]y[/link] :boom: \x07\u202eabc\u2066 a\rb "
    "\x9b31m\ud800 tab\there"
)


def hostile(**fields: Any) -> Explanation:
    line: dict[str, Any] = dict.fromkeys(
        ("complexity", "quality", "evol_score", "rank", "truncated", "nearest_id", "similarity")
    )
    line |= {
        "id": "ab" * 16,
        "source_uri": HOSTILE,
        "source_row": 1,
        "decision": "unscorable",
        "reason": HOSTILE,
    }
    row = Conversation(
        (Turn("user", HOSTILE), Turn("assistant", "y" * 2000)), SourceRow(HOSTILE, 1), {}, "ab" * 16
    )
    given: dict[str, Any] = {
        "line": line,
        "duplicates": [],
        "selector": {},
        "ranked": 0,
        "conversation": row,
        "raw": None,
    }
    return Explanation(**{**given, "blocker": None, "blocked": [], "blocked_rows": 0, **fields})


def other(decision: str) -> Shown:
    shown = hostile()
    assert shown.conversation is not None
    return Shown(
        {**shown.line, "decision": decision, "rank": 1, "evol_score": 2.0, "similarity": 0.9},
        shown.conversation,
    )


BESIDE: list[dict[str, Any]] = [
    {},
    {"raw": HOSTILE, "conversation": None},
    {
        "line": {**hostile().line, **other("too_similar").line},
        "selector": {"max_similarity": 0.5},
        "blocker": other("selected"),
    },
    {
        "line": {**hostile().line, **other("selected").line},
        "blocked": [other("too_similar")],
        "blocked_rows": 1,
    },
]


@pytest.mark.parametrize(
    ("rule", "near", "said"),
    [
        (
            {"max_similarity": 0.9},
            0.95,
            "similarity 0.9500 to abababababab, kept at rank 1, over the limit of 0.9",
        ),
        (
            {"max_similarity": 0.37191004},
            0.37191007,
            "similarity 0.37191007 to abababababab, kept at rank 1, over the limit of 0.37191004",
        ),
        (
            {"max_similarity": None, "min_distance": 1.5},
            1.49999,
            "distance 1.49999000 to abababababab, kept at rank 1, under the limit of 1.5",
        ),
    ],
)
def test_what_is_near_the_limit_is_seen_to_be_beyond_it(
    rule: dict[str, Any], near: float, said: str, capsys: Any
) -> None:
    line = {**hostile().line, "decision": "too_similar", "similarity": near}
    printing.print_explanation(hostile(line=line, selector=rule, blocker=other("selected")))
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "given", BESIDE, ids=["alone", "quarantined", "beside its blocker", "with what it blocked"]
)
def test_nothing_in_a_text_can_act(
    terminal: bool, given: dict[str, Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "300")
    printing.print_explanation(hostile(**given))
    said = capsys.readouterr().out
    ours = said.replace("\x1b[2m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert not {char for char in ours if ord(char) < 32 or 127 <= ord(char) < 160} - {"\n", "\t"}
    assert not {"\u202e", "\u2066", "\ud800", "\x1b"} & set(ours)
    assert (
        r"\x1b[2J[bold red]x[/] [link=http://x]y[/link] :boom: \x07\u202eabc\u2066 a\x0db "
        r"\x9b31m\ud800 tab" in ours
    )


def test_long_texts_are_cut_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_explanation(hostile())
    said = capsys.readouterr().out
    assert "y" * 1500 + " … 500 more characters (--full)" in said
    printing.print_explanation(hostile(), full=True)
    said = capsys.readouterr().out
    assert "y" * 2000 in said
    assert "--full" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zzzz", "--output", "OUT"], "no row of"),
        (["zzzz", "--output", "absent"], "no result here"),
        (["zzzz"], "--output"),
        (["--output", "OUT"], "ID"),
        ([A.id, "--output", "OUT", "--store", "absent"], "--store"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], said: str, output: str, capfd: Any
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["explain", *(output if one == "OUT" else one for one in arguments)])
    assert caught.value.code == 2
    shown = capfd.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("deita: ")
    assert said in line
    assert shown.out == ""


def test_it_needs_neither_prefect_nor_a_model(output: str) -> None:
    code = (
        "import sys; from flows.cli.app import main\ntry: main(sys.argv[1:])\nfinally: "
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "explain", B.id, "--output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not {"prefect", "torch", "transformers", "matplotlib"} & set(done.stderr.split())


def test_the_manifest_names_the_pool(output: str) -> None:
    manifest = json.loads((Path(output) / "manifest.json").read_text())
    assert manifest["pool"] == str(Path(output).parent / "store" / "pools" / "p")
    assert manifest["truncated"] == {"complexity": 0, "quality": 1, "embedding": 0}
