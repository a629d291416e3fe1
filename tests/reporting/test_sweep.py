"""The page of a sweep: what it states, what it draws, and that it is one file in which nothing can
act.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from deita_tasks.manifest import InputFile, SweepManifest
from deita_tasks.reporting import sweep as sweep_module
from deita_tasks.reporting import sweep_figures
from deita_tasks.reporting.sweep import SweepData, SweepRow, build_page
from tests.reporting.test_report import HOSTILE, Page
from tests.support.report_data import manifest

NAN = float("nan")


def row(
    strategy: str,
    limit: float | None,
    budget: int,
    kept: int | None = None,
    score: float = 2.0,
    **fields: Any,
) -> SweepRow:
    measures = {
        "mean_evol_score": score,
        "coverage_mean": 0.25,
        "coverage_worst": 0.75,
        "redundancy": 0.5,
    }
    random = {
        "random_mean_evol_score": 1.5,
        "random_coverage_mean": 0.5,
        "random_coverage_worst": 1.25,
        "random_redundancy": NAN,
    }
    return SweepRow(
        **{
            "strategy": strategy,
            "max_similarity": limit,
            "budget": budget,
            "kept": kept or budget,
            **measures,
            **random,
            **fields,
        }
    )


ROWS = [
    row("diverse", 0.5, 10, 7, score=9.125),
    row("top_score", None, 10),
    row("random", None, 10),
    row("diverse", 0.5, 1000, 7, score=9.125),
    row("top_score", None, 1000, redundancy=NAN),
    row("random", None, 1000),
]


def data(rows: list[SweepRow] = ROWS, **fields: Any) -> SweepData:
    of_selections = {
        *("seed", "counts", "strata", "truncated", "findings", "left_out"),
        *("tokens", "notes"),
    }
    shared = manifest(selected=1).model_dump(exclude=of_selections)
    made = SweepManifest(**{**shared, "candidates": 5000, "coverage_rows": 2000, **fields})
    overlap = np.eye(len(rows)) * 0.75 + 0.25
    return SweepData(made, rows, overlap)


@pytest.fixture(scope="module")
def page() -> bytes:
    return build_page(data())


def test_it_states_the_table(page: bytes) -> None:
    text = re.sub(r"\s+", " ", Page(page).text)
    assert "6 selections compared" in text
    assert "5,000 distinct conversations: 3 settings at 2 budgets" in text
    assert "a sample of 2,000 of them" in text
    assert "diverse 0.5107pool ran out 9.1251.500 0.25000.5000 0.75001.2500 0.5000" in text, (
        "the random one's under each number"
    )
    assert "top_score1,0001,000 2.0001.500 0.25000.5000 0.75001.2500 –" in text
    assert "The pool runs out before the budget in 2 of the selections" in text


def test_it_says_which_values_are_better(page: bytes) -> None:
    text = Page(page).text
    assert text.count("Lower is better") == 3
    assert text.count("Higher is better") == 1


def test_it_is_one_file_that_asks_nothing_of_the_network(page: bytes) -> None:
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "iframe", "object", "embed", "base", "form"}
    links = [
        value
        for _, attributes in tags
        for name, value in attributes.items()
        if name in ("href", "src", "xlink:href", "action")
    ]
    assert all(str(link).startswith(("#", "data:image/png;base64,")) for link in links), links
    assert page.count(b"<svg") == 4 + 2
    assert b"default-src 'none'" in page


def test_no_name_in_it_can_act() -> None:
    hostile = InputFile(uri=HOSTILE, digest=HOSTILE, rows=1, format=HOSTILE)
    tags = Page(
        build_page(data(ROWS[:3], inputs=[hostile], preset=HOSTILE, parameters={HOSTILE: HOSTILE}))
    ).tags
    assert not any(
        tag == "script" or any(name.startswith("on") for name in attributes)
        for tag, attributes in tags
    )
    assert not any(tag == "img" for tag, _ in tags)


def test_equal_data_give_equal_bytes(page: bytes) -> None:
    assert build_page(data()) == page


def test_a_line_stands_at_what_was_kept_and_random_has_every_size() -> None:
    """A selection of 7 rows for a budget of 10 is beside the random one of 7, not of 10."""
    lines = sweep_module._curves(ROWS, "mean_evol_score")
    assert lines == {
        "diverse 0.5": [(7, 9.125)],
        "top_score": [(10, 2.0), (1000, 2.0)],
        "random": [(7, 1.5), (10, 1.5), (1000, 1.5)],
    }
    axes = Figure().subplots()
    sweep_figures.lines(lines, sweep_figures.colours(list(lines)), "mean evol score")(axes)
    drawn = {str(line.get_label()): line for line in axes.get_lines()}
    assert {name: list(zip(*line.get_data(), strict=True)) for name, line in drawn.items()} == lines
    assert [name for name, line in drawn.items() if line.is_dashed()] == ["random"]
    assert axes.get_xscale() == "log", "10 and 1,000 on one axis"


def test_settings_can_be_told_apart() -> None:
    names = ["diverse 0.5", "diverse 0.7", "diverse 0.9", "top_score", "length", "random"]
    colours = sweep_figures.colours(names * 2)
    assert list(colours) == names
    assert len(set(colours.values())) == len(names)


def test_a_heat_map_has_its_numbers() -> None:
    axes = Figure().subplots()
    sweep_figures.heat_map(np.array([[1.0, 0.25], [0.25, 1.0]]), ["a", "b"])(axes)
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.25", "0.25", "1.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_more_budgets_than_maps() -> None:
    rows = [row(name, None, budget) for budget in range(1, 9) for name in ("top_score", "random")]
    page = build_page(data(rows))
    assert page.count(b"<svg") == 4 + sweep_module.MAX_MAPS
    assert "The 6 largest of 8 budgets." in Page(page).text
