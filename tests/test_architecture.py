"""What the layout promises, read from the source: imports go one way, nothing is pickled, nothing
heavy loads unasked.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from deita_tasks.components import Component, Table, component_class
from deita_tasks.embedding import EMBEDDERS
from deita_tasks.embedding.base import Embedder
from deita_tasks.exporting import FORMATS as OUTPUT_FORMATS
from deita_tasks.exporting.base import Exporter
from deita_tasks.loading import FORMATS as INPUT_FORMATS
from deita_tasks.loading.base import RowFormat
from deita_tasks.scoring import SCORERS
from deita_tasks.scoring.base import Scorer
from deita_tasks.selecting import SELECTORS
from deita_tasks.selecting.base import Selector

ROOT = Path(__file__).parents[1]
FOLDERS = ("deita_tasks", "flows", "deployments", "benchmarks", "fitting")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}
STAGES = ("loading", "filtering", "scoring", "embedding", "selecting", "exporting")
# From the ground up. A module imports from the floors below its own, and from its own room; rooms
# of one floor do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "deita_tasks.addresses",
        "deita_tasks.errors",
        "deita_tasks.strict_json",
        "deita_tasks.validation",
        "deita_tasks.decisions",
        "deita_tasks.templating",
        "deita_tasks.terminal",
        "deita_tasks.catalogue",
        "deita_tasks.presets",
        "deita_tasks.recipes",
        "deita_tasks.words",
        "deita_tasks.languages",
    ),
    ("deita_tasks.conversations", "deita_tasks.findings"),
    (
        "deita_tasks.records",
        "deita_tasks.progress",
        "deita_tasks.components",
        "deita_tasks.config",
        "deita_tasks.lengths",
    ),
    ("deita_tasks.storage",),
    ("deita_tasks.manifest", "deita_tasks.models", "deita_tasks.measuring"),
    tuple(f"deita_tasks.{stage}" for stage in STAGES),
    ("deita_tasks.artifacts", "deita_tasks.training", "deita_tasks.finetuning"),
    ("deita_tasks.reporting",),
    ("deita_tasks.results",),
    ("deita_tasks.plan", "deita_tasks.evolving"),
    ("deita_tasks.preflight", "deita_tasks.checking", "deita_tasks.exploring"),
    ("deita_tasks.tasks",),
    ("flows.steps",),
    (
        "flows.select",
        "flows.reselect",
        "flows.sweep",
        "flows.solve",
        "flows.align",
        "flows.compare",
        "flows.train_scorer",
    ),
    ("flows.cli",),
    ("deployments", "benchmarks", "fitting"),
)
PICKLES = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
}


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Every module that `module` imports anywhere in it: inside functions and for type checkers
    too.
    """
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*above, *([node.module] if node.module else [])])
            found.update(
                one if (one := f"{base}.{name.name}") in MODULES else base for name in node.names
            )
    return found


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] in FOLDERS}


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def in_stage(stage: str) -> list[str]:
    return [module for module in MODULES if under(module, f"deita_tasks.{stage}")]


def test_the_reader_of_imports_sees_them() -> None:
    assert "prefect" in imports("deita_tasks.tasks.loading")
    assert "deita_tasks.storage" in imports(
        "deita_tasks.artifacts.pool"
    )  # from deita_tasks import storage
    assert "deita_tasks.plan" in imports("flows.cli.app")  # inside a function
    assert all(in_stage(stage) for stage in STAGES)


def room_of(module: str) -> tuple[int, str]:
    """The floor of a module, and its room there."""
    return next(
        (floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms if under(module, room)
    )


@pytest.mark.parametrize(
    "module", [module for module in MODULES if module not in {"deita_tasks", "flows"}]
)
def test_imports_lead_down(module: str) -> None:
    floor, room = room_of(module)
    rooms = {name: room_of(name) for name in ours(module) - {"deita_tasks", "flows"}}
    wrong = {name for name, (below, other) in rooms.items() if below >= floor and other != room}
    assert not wrong, f"{module} (floor {floor}) imports {wrong}: expected only what lies below it"


@pytest.mark.parametrize(
    "module", [module for module in MODULES if module.startswith("deita_tasks")]
)
def test_the_package_knows_no_flow(module: str) -> None:
    assert not {name for name in ours(module) if not under(name, "deita_tasks")}
    if not under(module, "deita_tasks.tasks"):
        assert not {name for name in ours(module) if under(name, "deita_tasks.tasks")}
        assert not {name for name in imports(module) if name.split(".")[0].startswith("prefect")}, (
            f"{module}: only deita_tasks/tasks/ may"
        )


def test_flows_use_stages_through_tasks() -> None:
    for module in MODULES:
        if under(module, "flows"):
            assert not {
                name
                for name in ours(module)
                if under(name, *(f"deita_tasks.{stage}" for stage in STAGES))
            }, module
            assert not {
                name for name in ours(module) if under(name, "deployments", "benchmarks")
            }, module


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_pickled_and_no_code_comes_with_a_model(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] in PICKLES}
    for call in (node for node in ast.walk(tree(module)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        said = {keyword.arg: keyword.value for keyword in call.keywords}
        place = f"{module}:{call.lineno}: {name}"
        assert not name.endswith(
            ("torch.load", "torch.save", ".to_pickle", "read_pickle", "yaml.load", "unsafe_load")
        ), place
        assert name not in {"eval", "exec"}, place
        for forbidden in ("trust_remote_code", "allow_pickle"):
            value = said.get(forbidden)
            assert value is None or (isinstance(value, ast.Constant) and value.value is False), (
                f"{place}({forbidden}=...)"
            )
    for constant in _strings(tree(module)):
        assert constant not in {"pickle", "compressed/pickle"}, f"{module}: {constant!r}"


def _strings(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def test_every_task_and_flow_remembers_in_json() -> None:
    """Prefect's own choice is pickle; a task or flow that does not say otherwise pickles as soon as
    somebody turns persistence on.
    """
    from prefect import Flow, Task

    from deita_tasks.tasks.caching import PLAIN_JSON

    modules = [module for module in MODULES if under(module, "flows", "deita_tasks.tasks")]
    found = {
        f"{one.fn.__module__}.{name}": one
        for module in map(import_module, modules)
        for name, one in vars(module).items()
        if isinstance(one, Task | Flow)
    }
    assert len(found) >= 6
    serializers = ("json", PLAIN_JSON)
    others = {name for name, one in found.items() if one.result_serializer not in serializers}
    assert others == set()


@pytest.mark.parametrize(
    "wanted",
    [
        "deita_tasks.config, flows.cli.app",
        "deita_tasks.plan, deita_tasks.artifacts.pool",
        *(f"deita_tasks.{stage}" for stage in STAGES),
    ],
)
def test_nothing_heavy_loads_unasked(wanted: str) -> None:
    """`deita --help` answers at once, and a wrong option is told before torch has loaded."""
    heavy = (
        "torch",
        "prefect",
        "transformers",
        "sentence_transformers",
        "datasets",
        "matplotlib",
        "tokenizers",
        "trl",
        "peft",
        "accelerate",
    )
    code = f"import sys, {wanted}; print(*sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("table", "stage", "name", "base"),
    [
        (table, stage, name, base)
        for table, stage, base in (
            (INPUT_FORMATS, "format", RowFormat),
            (SCORERS, "scorer", Scorer),
            (EMBEDDERS, "embedder", Embedder),
            (SELECTORS, "strategy", Selector),
            (OUTPUT_FORMATS, "output format", Exporter),
        )
        for name in table
    ],
)
def test_every_name_in_a_table_is_a_component(
    table: Table, stage: str, name: str, base: type[Component]
) -> None:
    found = component_class(table, stage, name)
    assert issubclass(found, base)
    assert not inspect.isabstract(found)
    assert found.model_config.get("frozen") is True
    assert found.model_config.get("extra") == "forbid"
    assert table[name].split(":")[0] == found.__module__
