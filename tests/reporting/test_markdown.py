"""The report in brief: its numbers, its images, and that nothing in the data can act in it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import pytest

from deita_tasks.findings import Findings, VanishedValue
from deita_tasks.presets import EVERY_ROW
from deita_tasks.reporting.changed_rows import shown_rows, with_texts
from deita_tasks.reporting.changes import compare
from deita_tasks.reporting.markdown import (
    _told_from,
    best_rows,
    closest_rows,
    code,
    describe_files,
    markdown,
)
from deita_tasks.reporting.report import build_report
from deita_tasks.templating import escape_markdown, one_line
from tests.reporting.test_report import HOSTILE, data, pool
from tests.support.report_data import manifest

FIGURE = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def text_of(**fields: Any) -> str:
    return markdown(
        data(pool(), **fields),
        {"evol_score": FIGURE, "map": FIGURE, "words": FIGURE},
        "s3://bucket/out",
    )


def test_it_states_the_counts_and_where_the_result_lies() -> None:
    text = text_of()
    assert text.startswith(
        "# 10 of 62 rows selected\n\nFrom the best evol score down to rank 10 of 60."
    )
    assert "Written to `s3://bucket/out`: `manifest.json`" in text
    for line in (
        "| too similar | 5 | to a selected row with a better score |",
        "| below budget | 45 |",
        "| quarantined | 2 |",
        "| malformed\\_row | 2 |",
    ):
        assert line in text


def test_an_expression_takes_the_place_of_the_evol_score() -> None:
    selection = {"strategy": "Diverse", "rank_by": "complexity * ifd"}
    text = text_of(manifest=manifest(10, fingerprints={"selection": selection}))
    assert "From the best complexity \\* ifd down to rank 10 of 60." in text
    assert "| complexity \\* ifd | " in text
    assert "evol score" not in text


@pytest.mark.parametrize(
    ("similar", "budget", "sentence"),
    [
        (50, 70, " The budget of 70 was not filled: every row was reached."),
        (50, 10, ""),
        (50, EVERY_ROW, ""),
        (5, 70, ""),  # a budget in tokens ended the selection: 45 rows are below it
        (5, EVERY_ROW, ""),
    ],
)
def test_a_budget_is_not_filled_only_if_every_row_was_reached(
    similar: int, budget: int, sentence: str
) -> None:
    rows = data(pool(), similar=similar, vectors=False)
    fingerprints = {"selection": {"max_similarity": 0.9, "budget": budget}}
    made = manifest(10, counts=rows.manifest.counts, fingerprints=fingerprints)
    found = replace(rows, manifest=made)
    (lead,) = re.findall(r"From the best.*", markdown(found, {}, "out"))
    assert lead.endswith(f".{sentence}")
    assert ("not filled" in lead) == bool(sentence)
    answers = build_report(found).html.decode()
    assert ("was not filled: every row was reached" in answers) == bool(sentence)


def test_figures_are_images_in_the_text() -> None:
    images = re.findall(r"!\[(.*?)\]\(data:image/svg\+xml;base64,(.*?)\)", text_of())
    assert [title for title, _ in images] == [
        "Evol scores of the pool and of the selection",
        "Map of the pool and of the selection in two dimensions",
    ]
    assert all(base64.b64decode(image) == FIGURE for _, image in images)


def test_it_says_what_came_and_went() -> None:
    some = data(pool())
    before = some.ledger.slice(0, 30)
    fingerprints = some.manifest.fingerprints
    changes = compare("version-1", before, some.ledger, (fingerprints, fingerprints))
    text = text_of(changes=changes)
    assert (
        "Compared with `version-1`: 30 conversations were added to the pool and 0 removed; "
        "**0 joined" in text
    )
    assert "- The mean complexity of new rows is within 0.01 of that of the old ones, 2.00." in text


def test_it_shows_what_joined_with_its_text_and_the_settings_by_value() -> None:
    conversations = pool(text=f" {HOSTILE}")
    some = data(conversations)
    before = some.ledger.filter(pc.field("source_row") > 2)
    settings = [{"selection": {"budget": budget}} for budget in (8, 10)]
    changes = compare("version-1", before, some.ledger, (settings[0], settings[1]))
    rows = shown_rows(changes.table)
    texts = {each.id: each for each in conversations}
    text = text_of(changes=replace(changes, examples=with_texts(rows, texts)))
    assert "- `selection.budget: 8 -> 10`" in text
    assert text.count("| question ") == 2
    assert "| new in the pool |" in text
    assert "<script" not in text


def test_tables_hold_the_best_and_the_closest() -> None:
    some = data(pool())
    best, closest = best_rows(some), closest_rows(some)
    assert [row["rank"] for row in best] == list(range(1, 9))
    assert best[0] == {
        "rank": 1,
        "evol score": "1000.00",
        "complexity": "2.00",
        "quality": "2.00",
        "turns": 2,
        "question": "question 0",
    }
    assert [row["similarity"] for row in closest] == ["0.91"] * 5
    assert list(best[0])[-1] == "question", "scores come first, so that the UI shows them"
    assert list(closest[0])[-2:] == ["question", "selected instead"]
    assert {row["selected instead"] for row in closest} == {"question 0"}
    json.dumps([best, closest], allow_nan=False)  # numbers of NumPy are not JSON


def test_a_text_leaves_room_for_the_scores() -> None:
    some = data(pool(text=" and more" * 100))
    assert best_rows(some)[0]["question"] == "question 0 and more and more and more and more…"
    assert closest_rows(some)[0]["selected instead"] == "question 0 and more and more and mo…"


def test_a_near_miss_is_told_from_its_limit() -> None:
    assert _told_from(0.9004, 0.9) == "0.9004"
    assert _told_from(0.9136, 0.9) == "0.91"
    assert _told_from(0.9, None) == "0.90"
    assert _told_from(0.9, 0.9) == "0.900000"


def test_files_are_links_where_a_browser_can_open_them() -> None:
    names = ["report.html", "data/a b.parquet"]
    assert describe_files("/r/x", names, "http://h:1/x") == (
        "Written to `/r/x`: [report.html](http://h:1/x/report.html), "
        "[data/a b.parquet](http://h:1/x/data/a%20b.parquet)."
    )
    assert describe_files("/r/x", names, None) == (
        "Written to `/r/x`: `report.html`, `data/a b.parquet`."
    )


def test_texts_of_the_pool_are_inert() -> None:
    some = data(pool(text=HOSTILE + "\n# heading\n| a | b |\n![x](http://evil)"))
    text = markdown(some, {}, HOSTILE)
    assert "<script" not in text.replace(code(HOSTILE), "")
    for row in (*best_rows(some), *closest_rows(some)):
        assert "\n" not in row["question"]
        assert "\u202e" not in row["question"]
    assert escape_markdown("<b> ![x](y) | `z` \u202e\n#") == r"&lt;b&gt; \!\[x\](y) \| \`z\` \#"
    assert one_line("a\tb\r\nc\ud800 ") == "a b c"


@pytest.mark.parametrize(
    ("text", "shown"), [("/out", "`/out`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```")]
)
def test_a_span_of_code_holds_any_text(text: str, shown: str) -> None:
    assert code(text) == shown


def test_a_selection_of_nothing_has_a_text_too() -> None:
    some = data(pool(), kept=0, similar=0, vectors=False)
    text = markdown(some, {}, "out")
    assert text.startswith("# 0 of 62 rows selected")
    assert best_rows(some) == closest_rows(some) == []
    assert manifest(0).counts.selected == 0


def test_findings_are_listed_and_inert() -> None:
    value = VanishedValue(column="kind", value=HOSTILE, rows=30, expected=3.0)
    findings = Findings(unanswered_exchanges=2, unanswered_rows=1, vanished=[value])
    some = data(pool())
    some = data(pool(), manifest=some.manifest.model_copy(update={"findings": findings}))
    text = markdown(some, {}, "out")
    assert "- 2 exchanges without an answer in 1 conversation were not scored.\n" in text
    assert "- **Warning**: no selected row has kind = &lt;/details&gt;" in text
    assert "<script" not in text
