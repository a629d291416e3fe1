"""Components: a wrong name, option or value is one clear sentence, before anything loads."""

from __future__ import annotations

import sys
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from deita_tasks.catalogue import Table
from deita_tasks.components import Component, component_class, load_component
from deita_tasks.errors import UsageError
from deita_tasks.validation import explain_error


class Kettle(Component):
    """A component to try things on."""

    litres: float = Field(gt=0)
    material: Literal["steel", "glass"] = "steel"
    model: str = "k1"


TABLE: Table = {"kettle": f"{__name__}:Kettle", "absent": "tests.no_such_module:Nothing"}


def test_a_component_is_its_options() -> None:
    made = load_component(TABLE, "appliance", "kettle", {"litres": 1.5})
    assert made == Kettle(litres=1.5)
    with pytest.raises(ValidationError, match="frozen"):
        made.litres = 2.0


def test_only_the_chosen_one_is_imported() -> None:
    assert component_class(TABLE, "appliance", "kettle") is Kettle
    assert "tests.no_such_module" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        component_class(TABLE, "appliance", "absent")


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        component_class(TABLE, "appliance", "ketle")
    assert (
        str(caught.value)
        == "unknown appliance 'ketle': expected one of kettle, absent; did you mean 'kettle'?"
    )
    with pytest.raises(UsageError) as caught:
        component_class(TABLE, "appliance", "zzz")
    assert str(caught.value) == "unknown appliance 'zzz': expected one of kettle, absent"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "appliance 'kettle': option 'litres' is required"),
        ({"litres": 1, "liters": 2}, "appliance 'kettle': unknown option 'liters'"),
        ({"litres": 0}, "appliance 'kettle': litres: 0 arrived; expected more than 0"),
        (
            {"litres": 1, "material": "tin"},
            "appliance 'kettle': material: 'tin' arrived; expected one of steel, glass",
        ),
        ({"material": "tin", "x": 1}, None),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, object], message: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        load_component(TABLE, "appliance", "kettle", options)
    said = str(caught.value)
    assert "\n" not in said
    assert caught.value.exit_status == 2
    if message is None:  # three faults: all are named
        assert all(
            part in said
            for part in ("option 'litres' is required", "material: 'tin'", "unknown option 'x'")
        )
    else:
        assert said == message


def test_explain_names_a_nested_place() -> None:
    class Kitchen(Component):
        kettles: list[Kettle]

    with pytest.raises(ValidationError) as caught:
        Kitchen.model_validate({"kettles": [{"litres": "much"}]})
    assert explain_error(caught.value).startswith("kettles[0].litres: 'much' arrived; ")
