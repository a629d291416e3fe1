"""What every input format does, for each name in FORMATS."""

from __future__ import annotations

from copy import deepcopy

import pytest

from deita_tasks.components import load_component
from deita_tasks.conversations import SourceRow
from deita_tasks.errors import EmptyFile, UsageError
from deita_tasks.loading import FORMATS, load_layouts, open_pool
from deita_tasks.loading.base import BadRow, RowFormat
from tests.support.loading_pools import SAMPLES, good, json_lines, read

SOURCE = SourceRow("memory://pool", 3)

pytestmark = pytest.mark.parametrize("format", FORMATS)


def common_layout(format: str) -> RowFormat:
    return load_layouts(format)[0]


def test_its_layouts_have_its_name_and_required_columns(format: str) -> None:
    layouts = load_layouts(format)
    assert {layout.name for layout in layouts} == {format}
    assert all(layout.required_columns() for layout in layouts)
    assert len(set(layouts)) == len(layouts)


def test_its_options_are_column_names_and_others_are_refused(format: str) -> None:
    fields = type(common_layout(format)).model_fields
    assert all(field.annotation is str for field in fields.values())
    with pytest.raises(UsageError, match=f"format '{format}': unknown option 'colum'"):
        load_component(FORMATS, "format", format, {"colum": "text"})


def test_rows_become_the_turns_that_they_hold(format: str) -> None:
    rows, expected = SAMPLES[format]
    layout = common_layout(format)
    conversations = [layout.conversation(row, SOURCE) for row in rows]
    assert [conversation.turns for conversation in conversations] == expected
    assert all(conversation.source == SOURCE for conversation in conversations)


def test_a_row_is_left_as_it_is_and_its_other_columns_are_kept(format: str) -> None:
    others = {"id": 7, "nested": {"a": [None]}, "nothing": None}
    for row in SAMPLES[format][0]:
        columns = {**row, **others}
        before = deepcopy(columns)
        extra = common_layout(format).conversation(columns, SOURCE).extra
        assert columns == before
        assert {name: extra[name] for name in others} == others


def test_a_conversation_does_not_depend_on_the_rows_around_it(format: str, tmp_path) -> None:
    rows, expected = SAMPLES[format]
    reversed_pool = good(read(tmp_path / "pool", json_lines(rows[::-1])))
    assert [conversation.turns for conversation in reversed_pool] == expected[::-1]


def test_it_is_detected(format: str, tmp_path) -> None:
    path = tmp_path / "pool"
    path.write_bytes(json_lines(SAMPLES[format][0]))
    assert open_pool(str(path)).format == common_layout(format)


def test_every_layout_needs_each_of_its_required_columns(format: str) -> None:
    for layout in load_layouts(format):
        columns = dict.fromkeys(layout.required_columns(), "text")
        assert layout.matches(columns.keys())
        for name in columns:
            others = {key: value for key, value in columns.items() if key != name}
            assert not layout.matches(others.keys())
            for row, state in ((others, "is missing"), ({**columns, name: None}, "is null")):
                with pytest.raises(BadRow, match=f"the column '{name}' {state}") as caught:
                    layout.conversation(row, SOURCE)
                assert caught.value.reason == "missing_field"


@pytest.mark.parametrize("value", [0, True, 1.5, {}, {"a": 1}, [1], [{}], [[]]], ids=repr)
def test_values_of_another_type_are_bad_rows(format: str, value: object) -> None:
    for layout in load_layouts(format):
        for name in layout.required_columns():
            columns = {**dict.fromkeys(layout.required_columns(), "text"), name: value}
            with pytest.raises(BadRow):
                layout.conversation(columns, SOURCE)


def test_an_empty_file_is_refused(format: str, tmp_path) -> None:
    with pytest.raises(EmptyFile, match="pool: no rows"):
        read(tmp_path / "pool", b"", format)
