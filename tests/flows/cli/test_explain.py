"""`deita explain`: how an explanation is printed, and that no text of the pool can act."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.decisions import Decision, LedgerRow
from deita_tasks.results.explain import Explanation, RowWithText
from flows.cli import printing
from flows.cli.app import main
from tests.support.handmade import A, B, C
from tests.support.outputs import write_diverse_output

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Limit 0.5: A (10) is selected and blocks B (0.6) and C (1); D and E lack a value."""
    return write_diverse_output(tmp_path_factory.mktemp("five"), 5)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main(["explain", *arguments])
    captured = capsys.readouterr()
    assert not exit.value.code, captured.err
    return captured.out


def test_a_rejected_row_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, B.id, "--output", output)
    assert "\x1b" not in text
    assert (
        f"decision    too similar: similarity 0.6000 to {A.id[:12]}, selected at rank 1, over the "
        "limit of 0.5\n" in text
    )
    assert "rank        2 of 4\n" in text
    assert text.index("B user 0") < text.index("A user 0"), "the row, then what blocked it"


def test_a_selected_row_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, A.id, "--output", output)
    assert "complexity  2.00  1.00  (by user turn)\n" in text
    assert "truncated   longer than a model's window" in text
    assert f"1.0000  {C.id[:12]}  C user 0\n0.6000  {B.id[:12]}  B user 0\n" in text


def test_distances_in_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """B is at (1.2, 1.6) and C at (3, 0), A at (1, 0)."""
    output = write_diverse_output(tmp_path, 5, metric="euclidean", min_distance=2.5)
    text = printed(capsys, C.id, "--output", output)
    assert (
        f"decision    too similar: distance 2.0000 to {A.id[:12]}, selected at rank 1, under the "
        "limit of 2.5\n" in text
    )
    text = printed(capsys, A.id, "--output", output)
    nearest_first = f"1.6125  {B.id[:12]}  B user 0\n2.0000  {C.id[:12]}  C user 0\n"
    assert nearest_first in text


def test_a_quarantined_row_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "pool.jsonl:3", "--output", output)
    assert "decision    quarantined: no_user_turn: the roles are assistant\n" in text
    assert text.endswith("\n{}\n")


def test_a_duplicate_in_plain_lines(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "pool.jsonl:5", "--output", output)
    assert "row         pool.jsonl:4\nrepeated in pool.jsonl:5\n" in text


def test_both_texts_are_side_by_side_in_a_terminal(
    output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "90")
    lines = printed(capsys, B.id, "--output", output).splitlines()
    assert any("B user 0" in line and "A user 0" in line for line in lines)


# ---- hostile texts

HOSTILE = (
    "\x1b[2J[bold red]x[/] [link=http://x]y[/link] :boom: \x07\u202eabc\u2066 a\rb "
    "\x9b31m\ud800 tab\there"
)
ID = "ab" * 16
HOSTILE_TEXT = Conversation(
    (Turn("user", HOSTILE), Turn("assistant", "y" * 2000)), SourceRow(HOSTILE, 1), id=ID
)
HOSTILE_ROW = LedgerRow(
    id=ID,
    source_uri=HOSTILE,
    source_row=1,
    complexity=None,
    quality=None,
    evol_score=None,
    evol_lower=None,
    evol_upper=None,
    rank=None,
    decision="unscorable",
    nearest_id=None,
    similarity=None,
    duplicate_of=None,
    reason=HOSTILE,
    truncated=None,
)


def explanation_of(row: LedgerRow = HOSTILE_ROW, **fields: Any) -> Explanation:
    defaults: dict[str, Any] = {
        "duplicates": [],
        "selector": {},
        "ranked": 0,
        "conversation": HOSTILE_TEXT,
        "raw": None,
        "blocker": None,
        "blocked": [],
        "blocked_rows": 0,
    }
    return Explanation(row=row, **{**defaults, **fields})


def scored_row(decision: Decision) -> LedgerRow:
    return HOSTILE_ROW._replace(decision=decision, rank=1, evol_score=2.0, similarity=0.9)


def other_row(decision: Decision) -> RowWithText:
    return RowWithText(scored_row(decision), HOSTILE_TEXT)


EXPLANATIONS = {
    "alone": explanation_of(),
    "quarantined": explanation_of(raw=HOSTILE, conversation=None),
    "beside its blocker": explanation_of(
        scored_row("too_similar"),
        selector={"max_similarity": 0.5},
        blocker=other_row("selected"),
    ),
    "with what it blocked": explanation_of(
        scored_row("selected"), blocked=[other_row("too_similar")], blocked_rows=1
    ),
}


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("explanation", EXPLANATIONS.values(), ids=EXPLANATIONS.keys())
def test_nothing_in_a_text_can_act(
    terminal: bool,
    explanation: Explanation,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "300")
    printing.print_explanation(explanation)
    text = capsys.readouterr().out
    for our_style in ("\x1b[2m", "\x1b[1m", "\x1b[0m"):
        text = text.replace(our_style, "")
    controls = {char for char in text if ord(char) < 32 or 127 <= ord(char) < 160}
    assert not controls - {"\n", "\t"}
    assert not {"\u202e", "\u2066", "\ud800", "\x1b"} & set(text)
    assert (
        r"\x1b[2J[bold red]x[/] [link=http://x]y[/link] :boom: \x07\u202eabc\u2066 a\x0db "
        r"\x9b31m\ud800 tab" in text
    )


@pytest.mark.parametrize(
    ("lower", "upper", "score", "expected"),
    [
        (
            1.9,
            11.4,
            None,
            "full before; its evol score is at most 11.40, the last one",
        ),
        (11.4, 11.4, 11.4, "full before; its evol score is 11.40, the last one selected has 17.20"),
    ],
)
def test_a_row_beyond_the_budget_is_compared_with_the_last_one_selected(
    lower: float,
    upper: float,
    score: float | None,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    row = HOSTILE_ROW._replace(
        decision="below_budget",
        reason=None,
        evol_score=score,
        evol_lower=lower,
        evol_upper=upper,
        quality=[1.9],
    )
    last = scored_row("selected")._replace(evol_score=17.2)
    selector = {"strategy": "Diverse", "budget": 6000, "ranking": "evol"}
    printing.print_explanation(explanation_of(row, selector=selector, last_selected=last))
    text = capsys.readouterr().out
    assert expected in text
    assert ("between 1.900 and 11.400; complexity not computed" in text) == (score is None)
    # By another ranking, or another rule than the best first, the evol score did not decide.
    for other in ({"ranking": "quality"}, {"strategy": "KCenter"}):
        explanation = explanation_of(row, selector={**selector, **other}, last_selected=last)
        printing.print_explanation(explanation)
        assert "the last one selected" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("selector", "similarity", "decision"),
    [
        (
            {"max_similarity": 0.9},
            0.95,
            "similarity 0.9500 to abababababab, selected at rank 1, over the limit of 0.9",
        ),
        (
            {"max_similarity": 0.37191004},
            0.37191007,
            "similarity 0.37191007 to abababababab, selected at rank 1, over the limit of "
            "0.37191004",
        ),
        (
            {"max_similarity": None, "min_distance": 1.5},
            1.49999,
            "distance 1.49999000 to abababababab, selected at rank 1, under the limit of 1.5",
        ),
    ],
)
def test_a_value_near_the_limit_is_seen_to_be_beyond_it(
    selector: dict[str, float | None],
    similarity: float,
    decision: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = HOSTILE_ROW._replace(decision="too_similar", similarity=similarity)
    explanation = explanation_of(row, selector=selector, blocker=other_row("selected"))
    printing.print_explanation(explanation)
    assert decision in capsys.readouterr().out


def test_long_texts_are_shortened_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_explanation(explanation_of())
    assert "y" * 1500 + " … 500 more characters (--full)" in capsys.readouterr().out
    printing.print_explanation(explanation_of(), full=True)
    text = capsys.readouterr().out
    assert "y" * 2000 in text
    assert "--full" not in text


# ---- the command


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["zzzz", "--output", "OUT"], "no row of"),
        (["zzzz", "--output", "absent"], "no result here"),
        (["zzzz"], "--output"),
        (["--output", "OUT"], "ROW"),
        ([A.id, "--output", "OUT", "--store", "absent"], "--store"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], problem: str, output: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["explain", *(output if part == "OUT" else part for part in arguments)])
    assert exit.value.code == 2
    captured = capfd.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("deita: ")
    assert problem in line
    assert captured.out == ""


def test_it_needs_neither_prefect_nor_a_model(output: str) -> None:
    code = (
        "import sys; from flows.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "explain", B.id, "--output", output]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    loaded = set(process.stderr.split())
    assert not {"prefect", "torch", "transformers", "matplotlib"} & loaded


@pytest.mark.parametrize("by_name", [True, False])
def test_a_row_by_its_text(by_name: bool, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--output", output] if by_name else [output]
    text = printed(capsys, *place, "--text", "B user")
    assert f"id          {B.id}\n" in text
    assert "how far     its similarity is 0.10 above the limit\n" in text
    lines = printed(capsys, *place, "--text", "assistant 0").splitlines()
    assert lines[0].startswith("5 conversations hold this text")
    assert lines[1] == f"{A.id[:12]}  selected      A user 0"


def test_named_scores_and_what_was_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    scores = [
        {"name": "ifd", "values": [0.5, 0.87654]},
        {"name": "provided:helpfulness", "values": [12345.6]},
    ]
    row = scored_row("selected")._replace(
        scores=scores, evol_score=2.5, cut_turns=2, whole_id="f" * 32
    )
    selector = {"strategy": "Diverse", "budget": 9, "ranking": "evol", "rank_by": "2 * ifd"}
    printing.print_explanation(explanation_of(row, selector=selector))
    lines = capsys.readouterr().out.splitlines()
    assert "ifd         0.5  0.8765" in lines
    assert "provided:helpfulness 1.235e+04" in lines
    assert "2 * ifd     2.500" in lines
    (cut,) = [line for line in lines if line.startswith("cut ")]
    assert cut == (
        "cut         its last 2 turns were left out to fit the training window; with them, its id "
        f"is {'f' * 32}"
    )
