"""The report: the numbers it states, what it shows, and that nothing in the data can act in it."""

from __future__ import annotations

import html.parser
import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from deita_tasks.artifacts.ledger import build_ledger
from deita_tasks.artifacts.scores import NAMED_VALUES
from deita_tasks.conversations import Conversation
from deita_tasks.decisions import DECISIONS
from deita_tasks.findings import Findings
from deita_tasks.lengths import length_quantiles
from deita_tasks.manifest import Counts, InputFile, StratumCounts, TokenUse
from deita_tasks.records import Rejection, SelectorResult
from deita_tasks.reporting import report as report_module
from deita_tasks.reporting import statistics as statistics_module
from deita_tasks.reporting.changed_rows import shown_rows, with_texts
from deita_tasks.reporting.changes import compare
from deita_tasks.reporting.composition import ColumnCounts, ValueCount, find_vanished
from deita_tasks.reporting.figures import (
    DECISION_COLOURS,
    WIDE,
    Split,
    bin_edges,
    histogram,
    map_size,
    scatter,
    similarity_edges,
    svg,
)
from deita_tasks.reporting.geometry import fit_plane, nearest_similarities
from deita_tasks.reporting.report import Report, ReportData, build_report, required_rows
from deita_tasks.reporting.statistics import distributions
from deita_tasks.selecting.similarity.exact import normalise_rows
from tests.support.report_data import conversation, manifest

HOSTILE = (
    "</details></div><script>alert(1)</script><img src=x onerror=alert(2)><a "
    'href="javascript:alert(3)">x</a> \u202e" onclick="x {{ 7*7 }}'
)


class Page(html.parser.HTMLParser):
    """The page's tags as (tag, attributes), and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("details", "div", "table", "figure", "section", "main"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("details", "div", "table", "figure", "section", "main"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pool(n: int = 60, text: str = "", extra: dict[str, Any] | None = None) -> list[Conversation]:
    return [
        conversation(
            f"u: question {i} {'word ' * i}{text}",
            f"a: answer {i}{text}",
            *(["u: more", "a: again"] if i % 5 == 0 else []),
            row=i + 1,
        )
        for i in range(n)
    ]


def data(
    conversations: list[Conversation],
    kept: int = 10,
    similar: int = 5,
    vectors: bool = True,
    **fields: Any,
) -> ReportData:
    """Rank order is the order given; the first `kept` are selected, the next `similar` blocked by
    the first, two are bad.
    """
    ids = [one.id for one in conversations]
    n = len(ids)
    turns = [[2.0] * len(one.pairs) for one in conversations]
    scores = {
        "id": ids,
        "complexity": pa.array(turns, pa.list_(pa.float32())),
        "quality": pa.array(turns, pa.list_(pa.float32())),
    }
    evol_scores = [float(1000 - i) for i in range(n)]
    table = pa.table(
        {
            **scores,
            **dict.fromkeys(("evol_score", "evol_lower", "evol_upper"), evol_scores),
            "truncated": [False] * n,
            "problem": pa.nulls(n, pa.string()),
            "scores": pa.nulls(n, NAMED_VALUES),
        }
    )
    rejected = [
        Rejection(ids[i], "too_similar", ids[0], 0.9 + i / 1000)
        for i in range(kept, kept + similar)
    ]
    rejected += [Rejection(ids[i], "below_budget") for i in range(kept + similar, n)]
    places = {
        "source_uri": [one.source.uri for one in conversations],
        "source_row": [one.source.row for one in conversations],
    }
    quarantine = pa.table(
        {
            "source_uri": ["pool.jsonl"] * 2,
            "source_row": [901, 902],
            "reason": ["malformed_row"] * 2,
            "detail": ["not JSON", HOSTILE],
            "raw": ["{", HOSTILE],
        }
    )
    ledger, counts = build_ledger(
        pa.table({"id": ids, **places}), quarantine, table, SelectorResult(ids[:kept], rejected)
    )
    required = required_rows(ledger)
    shapes = {
        "id": ids,
        "n_pairs": [len(one.pairs) for one in conversations],
        "n_words": [len(one.turns[0].content) for one in conversations],
    }
    given: dict[str, Any] = {
        "manifest": manifest(
            selected=kept,
            counts=counts,
            fingerprints={
                "complexity": {"x": 1},
                "selection": {"max_similarity": 0.9 if vectors else None, "budget": kept},
            },
        ),
        "ledger": ledger,
        "shapes": pa.table(shapes),
        "conversations": {one.id: one for one in conversations if one.id in required.conversations},
        "quarantine": quarantine,
    }
    if vectors:
        rng = np.random.default_rng(0)
        given |= {
            "vector_ids": required.vectors,
            "vectors": rng.normal(size=(len(required.vectors), 16)).astype(np.float32),
        }
    return ReportData(**{**given, **fields})


@cache
def common() -> Report:
    """The report of sixty rows; several tests look at it."""
    return build_report(data(pool()))


def test_it_states_the_counts_and_shows_every_figure() -> None:
    report = common()
    text = re.sub(r"\s+", " ", Page(report.html).text)
    assert "10 of 62 rows selected" in text
    assert "down to rank 10 of 60." in text, "the five rejected rows come after the last kept one"
    assert "conversations6010" in text, "distinct ones of the pool, and selected ones"
    for lost in ("too similar5", "below budget45", "quarantined2", "truncated for embedding2"):
        assert lost in text
    assert "duplicate0" not in text
    assert report.figures.keys() == {
        "decisions",
        "evol_score",
        "complexity",
        "quality",
        "words",
        "turns",
        "similarity",
        "map",
    }
    assert all(
        figure.startswith(b"<svg") and figure.rstrip().endswith(b"</svg>")
        for figure in report.figures.values()
    )
    assert report.html.count(b"<svg") == 8


def test_every_decision_has_a_colour_of_its_own() -> None:
    assert list(DECISION_COLOURS) == list(DECISIONS)
    assert len(set(DECISION_COLOURS.values())) == len(DECISIONS)


def test_what_filters_left_out_has_its_reasons() -> None:
    given = data(pool())
    reason = "its turn 1 is turn 1 of test.jsonl:7, word for word"
    decisions = given.ledger["decision"].to_pylist()
    place = len(decisions) - 1 - decisions[::-1].index("below_budget")
    decisions[place] = "contaminated"
    reasons = given.ledger["reason"].to_pylist()
    reasons[place] = reason
    table = given.ledger
    for name, values in (("decision", decisions), ("reason", reasons)):
        column = table.schema.get_field_index(name)
        table = table.set_column(column, name, pa.array(values, pa.string()))
    tokens = TokenUse(selected=900, budget=1000, lengths=length_quantiles([3, 4]))
    noted = given.manifest.model_copy(update={"tokens": tokens, "notes": ["test.jsonl: 1 row"]})
    report = build_report(replace(given, ledger=table, manifest=noted))
    text = re.sub(r"\s+", " ", Page(report.html).text)
    assert "Left out by filters" in text
    assert f"row {table['source_row'][place].as_py()} of" in text
    assert reason in text
    assert "900 tokens are selected; of the budget of 1,000, 100 are left" in text
    assert "WARNING: test.jsonl: 1 row" in text
    assert "Left out by filters" not in Page(common().html).text


def test_it_is_the_same_bytes_for_the_same_data() -> None:
    assert build_report(data(pool())) == common()


def test_the_page_asks_for_nothing_and_runs_nothing() -> None:
    page = common().html
    tags = Page(page).tags
    policy = next(
        attrs["content"]
        for tag, attrs in tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    for tag, attrs in tags:
        assert tag not in (
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "audio",
            "video",
        )
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href", "action", "data"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,"))
    assert b"@import" not in page
    assert not re.search(rb"url\((?!#)", page)


def test_hostile_texts_are_shown_and_do_nothing() -> None:
    settings = {HOSTILE: {"x": HOSTILE}}
    rows = pool(text=HOSTILE)
    plain, hostile = (
        build_report(data(pool())),
        build_report(
            data(
                rows,
                manifest=data(rows).manifest.model_copy(
                    update={"parameters": settings, "preset": HOSTILE}
                ),
            )
        ),
    )
    page = Page(hostile.html)
    assert page.open == [], "every element is closed where it should be"
    for tag, attrs in page.tags:
        assert tag not in ("script", "img")
        assert not any(name.startswith("on") for name in attrs)
        assert "javascript" not in (attrs.get("href") or "")
    assert page.text.count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in page.text
    assert [tag for tag, _ in page.tags].count("details") == [
        tag for tag, _ in Page(plain.html).tags
    ].count("details")


def test_what_joined_and_left_is_shown_with_its_text() -> None:
    """The second ten conversations take the places of the first; a text shows and does nothing."""
    rows = pool(text=HOSTILE)
    some = data(rows)
    before = some.ledger.filter(pc.field("decision") != "selected").set_column(
        some.ledger.schema.get_field_index("decision"),
        "decision",
        pa.array(["selected"] * 10 + ["below_budget"] * 42),
    )
    settings = [{"selection": {"budget": budget}} for budget in (60, 80)]
    changes = compare("version-1", before, some.ledger, (settings[0], settings[1]))
    changed = shown_rows(changes.table)
    examples = with_texts(changed, {each.id: each for each in rows})
    page = Page(build_report(replace(some, changes=replace(changes, examples=examples))).html)
    assert page.open == []
    text = re.sub(r"\s+", " ", page.text)
    section = text[text.index("Changes since the previous version") :]
    section = section[: section.index("Decisions on all rows")]
    assert "selection.budget: 60 -> 80" in section
    assert section.index("Joined the selection") < section.index("Left the selection")
    assert section.count("new in the pool") == 11, "ten rows, and the table of reasons"
    assert section.count("<script>alert(1)</script>") > 20
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert "too similar to a new selected conversation (0.9" in section


def test_examples_stand_beside_the_row_that_blocked_them() -> None:
    text = re.sub(r"\s+", " ", Page(common().html).text)
    closest = text[
        text.index("Near misses: rejected conversations closest to the similarity limit") :
    ]
    assert (
        closest.index("similarity 0.9100")
        < closest.index("similarity 0.9110")
        < closest.index("similarity 0.9140")
    )
    first = closest[closest.index("similarity 0.9100") : closest.index("similarity 0.9110")]
    assert "question 10 " in first[: first.index("Kept")]
    assert "question 0 " in first[first.index("Kept") :]
    assert "Best selected" in text
    assert text.index("rank 1 ") < text.index("rank 2 ")


def test_of_distances_the_greatest_are_nearest_to_the_limit() -> None:
    """And there is no figure of cosine similarities, which such a strategy does not go by."""
    fingerprints = {
        "selection": {
            "metric": "euclidean",
            "max_similarity": None,
            "min_distance": 0.95,
            "budget": 10,
        }
    }
    counts = data(pool()).manifest.counts
    report = build_report(
        data(pool(), manifest=manifest(selected=10, counts=counts, fingerprints=fingerprints))
    )
    text = re.sub(r"\s+", " ", Page(report.html).text)
    closest = text[
        text.index("Near misses: rejected conversations closest to the distance limit") :
    ]
    assert "Their distance is just under the limit of 0.95" in closest
    assert (
        closest.index("distance 0.9140")
        < closest.index("distance 0.9130")
        < closest.index("distance 0.9100")
    )
    assert "similarity" not in report.figures
    assert "map" in report.figures


def test_long_texts_and_many_turns_are_cut_and_say_so() -> None:
    long = conversation("u: " + "x" * 5000, "a: b", *["u: c", "a: d"] * 9)
    text = Page(build_report(data([long, *pool(20)])).html).text
    assert "3,500 more characters" in text
    assert "14 more turns" in text


def test_quarantine_names_reasons_places_and_texts() -> None:
    text = re.sub(r"\s+", " ", Page(common().html).text)
    section = text[text.index("Quarantined Rows that") :]
    assert re.search(r"malformed row ?2", section)
    assert "row 901 of pool.jsonl: not JSON" in section


def test_without_vectors_there_is_no_similarity_and_no_map() -> None:
    report = build_report(data(pool(), similar=0, vectors=False))
    assert report.figures.keys() == {
        "decisions",
        "evol_score",
        "complexity",
        "quality",
        "words",
        "turns",
    }
    assert b'href="#space"' not in report.html
    assert b"Similarity</h2>" not in report.html


def test_an_empty_selection_and_an_empty_pool() -> None:
    text = Page(build_report(data(pool(), kept=0, similar=0)).html).text
    assert "Nothing was selected." in text
    assert "0 of 62 rows selected" in text
    empty = data(pool(3), kept=0, similar=0, vectors=False)
    nothing = ReportData(
        manifest=empty.manifest.model_copy(
            update={"counts": Counts(**dict.fromkeys(Counts.model_fields, 0))}
        ),
        ledger=empty.ledger.slice(0, 0),
        shapes=empty.shapes.slice(0, 0),
        conversations={},
        quarantine=empty.quarantine.slice(0, 0),
    )
    assert "0 of 0 rows selected" in Page(build_report(nothing).html).text


def test_one_selected_row_and_equal_values_draw() -> None:
    same = [conversation(f"u: {i}", "a: b", row=i) for i in range(3)]
    report = build_report(data(same, kept=1, similar=0, vectors=False))
    assert b"1 of 5 rows selected" in report.html


def test_rows_without_a_usable_vector_are_left_off_the_map() -> None:
    given = data(pool())
    assert given.vectors is not None
    given.vectors[3] = np.nan
    given.vectors[4] = 0
    assert b"(58 of 60)" in build_report(given).figures["map"]


def test_a_random_selection_is_not_said_to_go_from_the_top_down() -> None:
    given = data(pool(), kept=10, similar=0, vectors=False)
    ledger = given.ledger
    rank = ledger["rank"].to_pylist()
    swapped = [None if r is None else 61 - r for r in rank]
    page = build_report(
        ReportData(
            **{
                **given.__dict__,
                "conversations": {one.id: one for one in pool()},
                "ledger": ledger.set_column(
                    ledger.schema.get_field_index("rank"), "rank", pa.array(swapped, pa.int64())
                ),
            }
        )
    ).html
    assert "The selection does not follow the evol score from the top down." in Page(page).text


def test_what_is_wanted_is_bounded_and_the_same_for_any_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report_module, "SAMPLE_POOL", 20)
    monkeypatch.setattr(report_module, "SAMPLE_KEPT", 4)
    ledger = data(pool(), vectors=False).ledger
    required = required_rows(ledger)
    ids = sorted(id_ for id_ in ledger["id"].to_pylist() if id_)
    kept = sorted(row["id"] for row in ledger.to_pylist() if row["decision"] == "selected")
    assert set(required.vectors) == set(ids[:20]) | set(kept[:4])
    assert required_rows(ledger.take(pa.array(range(ledger.num_rows - 1, -1, -1)))) == required


def test_measures_count_distinct_rows_and_every_user_turn() -> None:
    rows = [
        conversation("u: a b", "a: c", "u: d", "a: e"),
        conversation("u: f", "a: g", row=2),
        conversation("u: h", "a: i", row=3),
    ]
    inputs = data(rows, kept=1, similar=1, vectors=False)
    splits = distributions(inputs.ledger, inputs.shapes)
    assert splits["user turns"].pool.tolist() == [2, 1, 1]
    assert splits["user turns"].selected.tolist() == [2]
    assert splits["complexity"].pool.tolist() == [2.0] * 4
    assert splits["quality"].selected.tolist() == [2.0, 2.0]
    assert splits["evol score"].pool.tolist() == [1000.0, 999.0, 998.0]


def test_the_page_stays_small_for_a_large_pool() -> None:
    rows = [
        conversation(f"u: {i}" + " long" * 3000, "a: " + "text " * 3000, row=i) for i in range(400)
    ]
    assert len(build_report(data(rows, kept=100, similar=50)).html) < 2_000_000


def test_topics_say_of_how_many_rows_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "SAMPLE_POOL", 40)
    given = data(pool())
    lazy = given.manifest.model_copy(update={"evaluation": "lazy"})
    for made, sentence in (
        (given.manifest, "Counted over 40 of the pool's 60 rows and 10 of the 10 selected ones."),
        (lazy, "10 of the 10 selected ones: a sample, as lazy evaluation gives only some rows"),
    ):
        page = Page(build_report(replace(given, manifest=made)).html)
        assert sentence in page.text[page.text.index("Clusters of the map") :]


class AnyConversation(dict[str, Conversation]):
    """The same conversation for every id."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self._conversation = conversation

    def __missing__(self, id: str) -> Conversation:
        return self._conversation


def test_the_page_stays_under_2_mb_at_100_000_rows_of_costly_characters() -> None:
    """A quotation mark takes five bytes of a page; every list is as long as it may be."""
    quotes = '"' * 5_000
    given = data(pool(), kept=10, similar=20)
    row_numbers = pa.array(range(100_000))
    others = given.ledger.filter(pc.field("decision").isin(["selected", "below_budget"]))
    many = others.take(pc.bit_wise_and(row_numbers, 31))
    ids = pc.binary_join_element_wise("row", pc.cast(row_numbers, pa.string()), "-")
    many = many.set_column(0, "id", ids)
    ledger = pa.concat_tables([given.ledger, many])
    required = required_rows(ledger)
    shapes = {"id": ids, "n_pairs": row_numbers, "n_words": row_numbers}
    values = [ValueCount(f"{quotes} {i}", 5_000, 0 if i else 10) for i in range(5_000)]
    columns = [ColumnCounts(f"{quotes} {i}", values) for i in range(25)]
    made = given.manifest.model_copy(
        update={
            "parameters": {"source": {"input": [quotes] * 1_000}},
            "fingerprints": {**given.manifest.fingerprints, "complexity": {"files": quotes * 100}},
            "inputs": [InputFile(uri=quotes, digest="x", rows=1, format="x")] * 1_000,
            "strata": [
                StratumCounts(column="x", stratum=quotes, rows=1, minimum=0, maximum=1, selected=0)
            ]
            * 1_000,
        }
    )
    vectors = np.random.default_rng(0).normal(size=(len(required.vectors), 16))
    turns = ["u: " + quotes, "a: " + quotes] * 4
    report = build_report(
        replace(
            given,
            manifest=made,
            ledger=ledger,
            shapes=pa.table(shapes),
            conversations=AnyConversation(conversation(*turns)),
            vector_ids=required.vectors,
            vectors=vectors.astype(np.float32),
            columns=columns,
        )
    )
    assert b"of the pool's 100,060 rows" in report.html
    assert len(report.html) < 2_000_000


def test_histograms_and_maps_of_many_rows_stay_small() -> None:
    """A million values are forty bars; 6,000 points are one image."""
    rng = np.random.default_rng(1)
    many = Split(rng.normal(size=1_000_000), rng.normal(size=1_000_000))
    assert len(svg("x", WIDE, histogram(many, "x", "rows"))) < 50_000
    points = rng.normal(size=(6_000, 2))
    picture = svg(
        "map", map_size(points), scatter(points[:4_000], points[4_000:], (4_000, 2_000), (0.1, 0.1))
    )
    assert len(picture) < 900_000
    assert picture.count(b"<use") < 50


# ---- the numbers behind the figures


def test_the_plane_is_that_of_the_singular_value_decomposition() -> None:
    rng = np.random.default_rng(3)
    for shape in ((40, 7), (9, 30)):
        rows = rng.normal(size=shape).astype(np.float32)
        plane = fit_plane(rows)
        assert plane is not None
        centred = rows - rows.mean(axis=0, dtype=np.float64)
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        expected = left[:, :2] * values[:2]
        placed = plane.place(rows)
        assert np.allclose(np.abs(placed), np.abs(expected), atol=1e-6)
        assert np.allclose(plane.explained, values[:2] ** 2 / (values**2).sum())


@pytest.mark.parametrize(
    "rows", [np.zeros((0, 5)), np.ones((1, 5)), np.ones((8, 5)), np.ones((8, 1)), np.eye(2)]
)
def test_rows_that_span_no_plane_have_no_map(rows: Any) -> None:
    assert fit_plane(rows.astype(np.float32)) is None


def test_nearest_similarities_leave_the_row_itself_out() -> None:
    rows, fit = normalise_rows(
        np.array([[1, 0], [0, 2], [3, 3], [0, 0], [-1, 0], [np.nan, 1]], np.float32)
    )
    rows = rows[fit]
    assert fit.tolist() == [True, True, True, False, True, False]
    half = np.sqrt(0.5)
    assert np.allclose(nearest_similarities(rows, 4), [half, half, half, 0.0])
    assert np.allclose(nearest_similarities(rows, 1), [half])
    assert len(nearest_similarities(rows[:1], 4)) == 0
    assert nearest_similarities(rows[[0, 3]], 2).tolist() == [-1.0, -1.0], (
        "opposite rows, and no row is its own neighbour"
    )


def test_no_similarity_bin_straddles_the_limit_and_all_are_covered() -> None:
    for limit, lowest in ((0.9, 0.1), (0.62, 0.61), (1.0, 0.99), (-0.5, -0.7), (None, 0.3)):
        edges = similarity_edges(lowest, limit)
        assert limit is None or np.isclose(edges, limit).any()
        assert edges[0] <= lowest
        assert edges[-1] >= 1 - 1e-9
        assert len(edges) >= 2


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[], [0], [5, 5, 5], [0, 0, 1], list(range(1000))])
def test_bins_ascend_whatever_the_values(values: list[int], log: bool) -> None:
    assert (np.diff(bin_edges(np.array(values), None, log)) > 0).all()


def test_it_shows_what_the_selection_is_made_of_and_what_vanished() -> None:
    columns = [
        ColumnCounts("source file", [ValueCount("pool.jsonl", 60, 10)]),
        ColumnCounts(HOSTILE, [ValueCount("kept", 40, 10), ValueCount(HOSTILE, 20, 0)]),
    ]
    made = data(pool())
    findings = Findings(
        rows=60, unanswered_exchanges=3, unanswered_rows=2, vanished=find_vanished(columns[1])
    )
    manifest = made.manifest.model_copy(update={"findings": findings})
    page = Page(build_report(data(pool(), manifest=manifest, columns=columns)).html)
    text = re.sub(r"\s+", " ", page.text)
    assert "3 exchanges without an answer in 2 conversations were not scored." in text
    assert "The same in every row: source file (pool.jsonl)." in text
    assert "kept40 66.7%10 100.0%" in text
    assert "20 33.3%0 0.0%" in text
    assert "WARNING: no selected row has </details></div><script>alert(1)" in text
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}


def test_turns_and_words_are_compared_by_range() -> None:
    """Of sixty rows, every fifth has two user turns; row i has a length of 11 + 5 i up to i = 9,
    then 12 + 5 i. The first ten are selected.
    """
    text = re.sub(r"\s+", " ", Page(common().html).text)
    assert "user turnspoolselected 148 80.0%8 80.0% 212 20.0%2 20.0%" in text
    assert "0 to 498 13.3%8 80.0% 50 to 9910 16.7%2 20.0%" in text


def test_where_only_some_rows_are_scored_a_sample_stands_for_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics_module.pool_sample, "__defaults__", (5,))
    whole = data(pool(), kept=10, similar=0, vectors=False)
    table = whole.ledger
    sample = statistics_module.pool_sample(table)["id"].to_pylist()
    is_scored = pc.or_(pc.is_in(table["id"], pa.array(sample)), pc.less_equal(table["rank"], 10))
    for name in ("evol_score", "complexity"):
        values = pc.if_else(is_scored, table[name], pa.scalar(None, table[name].type))
        table = table.set_column(table.schema.get_field_index(name), name, values)
    splits = statistics_module.distributions(table, whole.shapes)
    by_id = dict(zip(table["id"].to_pylist(), table["evol_score"].to_pylist(), strict=True))
    assert sorted(splits["evol score"].pool) == sorted(by_id[id] for id in sample)
    assert len(splits["evol score"].selected) == 10
    assert len(splits["quality"].pool) > len(splits["complexity"].pool)
    page = Page(build_report(replace(whole, ledger=table)).html).text
    assert "a random sample of 5 rows stands for the pool" in page
    assert "evol score at most" in page
