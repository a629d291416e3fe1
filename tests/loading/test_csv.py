"""CSV whose quotes do not fit: whole records are set aside, and none is made of pieces."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deita_tasks.loading import csv_text
from deita_tasks.loading.base import Row
from tests.support.loading_pools import fates, read

SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Texts made of what means something in CSV.
TEXT = st.lists(
    st.sampled_from(['"', '""', ",", "\n", "\r\n", "\\", "a", "bc", " ", "d, e", "f\ng, h", ",\n"]),
    max_size=6,
).map("".join)
WRITERS = [
    {"quoting": csv.QUOTE_MINIMAL},
    {"quoting": csv.QUOTE_ALL},
    {"quoting": csv.QUOTE_MINIMAL, "lineterminator": "\n"},
]
ESCAPING = {"quoting": csv.QUOTE_ALL, "doublequote": False, "escapechar": "\\"}
HEADER = ["prompt", "response"]


def write(rows, **options) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, **options).writerows(rows)
    return out.getvalue()


def rows_of(text: str) -> list[Row]:
    content = ",".join(HEADER) + "\r\n" + text
    return list(csv_text.rows([content.encode()]))


def texts(rows: list[Row]) -> list[tuple[str, ...]]:
    return [tuple(row.columns.values()) for row in rows if row.columns is not None]


def is_readable(row) -> bool:
    """A row of blank cells is a blank line without quotes, and one like the header is no row."""
    return any(row) and list(row) != HEADER


TABLE = st.lists(st.tuples(TEXT, TEXT).filter(is_readable), min_size=1, max_size=6)


@SETTINGS
@given(TABLE, st.sampled_from(WRITERS))
def test_a_table_without_faults_comes_out_whole(table, options):
    assert texts(rows_of(write(table, **options))) == table


@SETTINGS
@given(TABLE, st.tuples(TEXT, TEXT).filter(is_readable), TABLE, st.sampled_from(WRITERS), st.data())
@example([("a", "b")], ("x", "b\nc"), [("d", "e"), ("f", "g,")], WRITERS[0], None)
def test_a_lost_quote_makes_no_rows(before, broken, after, options, data):
    record = write([broken], **options)
    places = [i for i, character in enumerate(record) if character == '"']
    if not places:
        return
    place = data.draw(st.sampled_from(places)) if data else places[0]
    text = write(before, **options) + record[:place] + record[place + 1 :] + write(after, **options)
    originals = {*before, broken, *after}
    assert [row for row in texts(rows_of(text)) if row not in originals] == []


def test_a_broken_record_of_several_lines_is_one_bad_row(tmp_path):
    """Backslashes in place of doubled quotes; two of its lines look like rows of two cells."""
    broken = '"Say \\"a, b\\" twice","Then this.\nAfter that, nothing\nAt last, an end"\n'
    content = "prompt,response\n" + "p,r\n" * 3 + broken + "q,s\n" * 3
    rows = read(tmp_path / "a.csv", content.encode())
    assert fates(rows) == {2: "ok", 3: "ok", 4: "ok", 5: "malformed_row"} | dict.fromkeys(
        (8, 9, 10), "ok"
    )
    assert "the 3 lines up to line 7 are set aside" in rows[3].detail


def test_a_lost_quote_does_not_cost_the_rest_of_the_file(tmp_path):
    content = "prompt,response\n" + '"open,b\n' + "p,r\n" * 10_000
    rows = read(tmp_path / "a.csv", content.encode())
    assert list(fates(rows).values()) == ["malformed_row"] + ["ok"] * (10_000 - 256)


@pytest.mark.parametrize("cell", ["b\nc, d", "b\nc, d\ne, f"])
def test_a_cell_that_lost_its_opening_quote_takes_the_lines_before_with_it(tmp_path, cell):
    content = f'prompt,response\n"x, 1",y\na,{cell}"\n"q, 1",r\n'
    rows = read(tmp_path / "a.csv", content.encode())
    assert [row.turns[0].content for row in rows[1:]] == ["q, 1"]
    assert fates(rows)[2] == "malformed_row"


@SETTINGS
@given(TABLE, st.tuples(TEXT, TEXT).filter(is_readable), TABLE, st.sampled_from(WRITERS))
def test_a_record_with_escaped_quotes_makes_no_rows(before, broken, after, options):
    text = write(before, **options) + write([broken], **ESCAPING) + write(after, **options)
    rows = texts(rows_of(text))
    doubled = [tuple(cell.replace("\\", "\\\\") for cell in broken)]
    originals = {*before, *doubled, broken, *after}
    assert [row for row in rows if row not in originals] == []
