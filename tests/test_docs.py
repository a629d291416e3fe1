"""The documentation is true: the example runs, the command's reference is what the command prints,
the glossary and the project's files agree with the code.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deita_tasks.decisions import DECISIONS
from deita_tasks.scoring import SCORERS, load_scorer
from tests.conftest import ROOT
from tests.support.density import python_files, syntax_tree
from tests.test_architecture import FLOORS

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


# ---- docs/security.md


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = page.split("## Promises")[1].split("## ")[0].splitlines()
    promises = [row for row in rows if row.startswith("|")][2:]
    assert len(promises) > 10
    for promise in promises:
        tests = re.findall(r"`(tests/[^`]+)::(\w+)`", promise)
        assert tests, promise
        for path, name in tests:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert f"def {name}(" in source, f"{path}::{name}"


# ---- CONTRIBUTING.md


def test_the_example_scorer_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example, table_line = blocks(CONTRIBUTING, "python")
    name, place = re.findall(r'"([^"]+)"', table_line)
    module, _, class_name = place.partition(":")
    file_name = f"{module.rpartition('.')[2]}.py"
    assert f"deita_tasks/scoring/{file_name}" in CONTRIBUTING
    (tmp_path / file_name).write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SCORERS, name, f"{Path(file_name).stem}:{class_name}")  # type: ignore[arg-type]

    scorer = load_scorer(name, step=2)
    scores = scorer.score([("Sum up this text.", ""), ("Why? How?", "So."), ("?" * 9, "")])

    assert scores.dtype == np.float32
    assert scores.tolist() == [1, 5, 6]
    assert scorer.fingerprint() == {"backend": "question_marks", "version": 1, "step": 2}


def test_floors_are_those_of_the_architecture() -> None:
    (floors,) = blocks(CONTRIBUTING, "text")
    from_the_top = [tuple(line.split(", ")) for line in floors.splitlines()]
    short_names = [
        tuple(package.removeprefix("deita_tasks.") for package in floor) for floor in FLOORS
    ]
    assert from_the_top[::-1] == short_names


def test_files_that_are_named_exist() -> None:
    paths = re.findall(r"`([\w./-]+\.(?:py|md|txt|toml))`", CONTRIBUTING)
    example = "deita_tasks/scoring/question_marks.py"
    assert [path for path in paths if path != example and not (ROOT / path).exists()] == []


# ---- the site


@pytest.mark.slow
def test_reference_of_the_command_line_is_what_it_prints() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    script = subprocess.run(
        [sys.executable, "docs/generate_cli.py", "--print"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert script.stdout == page, "run: python docs/generate_cli.py"
    commands = re.findall(r"^## deita (\w+)$", page, re.MULTILINE)
    (overview,) = re.findall(r"^## deita\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)
    listed = re.findall(r"^│ ([a-z]+)  ", overview, re.MULTILINE)
    assert sorted(listed) == sorted(commands)


HOW_TO_PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Of pip, vLLM, Prefect, Dask and accelerate; of the modules in deployments/.
OTHER_OPTIONS = {
    *("--index-url", "--port", "--logprobs-mode", "--pool", "--nthreads", "--resources"),
    *("--root", "--cron", "--active", "--no-active", "--storage", "--pool-type", "--image"),
    *("--memory", "--gpus", "--aws-credentials", "--block", "--remove", "--type", "--all"),
    *("--volumes", "--build-arg", "--from-literal", "--preload"),
    *("--multi-gpu", "--num-processes"),
}


@pytest.mark.parametrize("page", [ROOT / "README.md", *HOW_TO_PAGES], ids=lambda page: page.name)
def test_options_exist(page: Path) -> None:
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    options = set(OPTION.findall(page.read_text(encoding="utf-8")))
    assert options - OTHER_OPTIONS - set(OPTION.findall(reference)) == set()


def pages_in(navigation: Any) -> list[str]:
    """Return the files that a navigation of mkdocs names."""
    if isinstance(navigation, str):
        return [navigation]
    branches = navigation.values() if isinstance(navigation, dict) else navigation
    return [page for branch in branches for page in pages_in(branch)]


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    files = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(pages_in(settings["nav"])) == files


# ---- docs/glossary.md


def rows_under(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading of the glossary, without the table's head."""
    section = GLOSSARY.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_glossary_has_the_decisions() -> None:
    decisions = [row[0].strip("`") for row in rows_under("Decisions")]
    assert decisions == list(DECISIONS)


@pytest.mark.parametrize("row", rows_under("Data") + rows_under("Method"), ids=lambda row: row[0])
def test_a_term_is_in_the_code(row: list[str]) -> None:
    term, meaning, place = row
    assert term and meaning
    find("deita_tasks." + place.strip("`"))


def find(place: str) -> Any:
    """Return what a dotted name stands for: a module, or something in one."""
    module, _, name = place.rpartition(".")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError:
        return attribute_of(find(module), name)


def attribute_of(owner: Any, name: str) -> Any:
    """Return an attribute, or the annotation of a field. Raises AttributeError."""
    fields = getattr(owner, "__annotations__", {})
    if name in fields:
        return fields[name]
    return getattr(owner, name)


# ---- pyproject.toml and the workflow


def test_the_workflow_runs_what_ci_runs() -> None:
    steps = WORKFLOW["jobs"]["test"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    ci_lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands == [line for line in ci_lines if line.startswith("make ")]


def test_pythons_agree() -> None:
    tested = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    prefix = "Programming Language :: Python :: "
    classifiers = PYPROJECT["project"]["classifiers"]
    versions = [entry.removeprefix(prefix) for entry in classifiers if entry.startswith(prefix)]
    assert [version for version in versions if "." in version] == tested
    assert PYPROJECT["project"]["requires-python"] == f">={tested[0]}"


def package_names(requirements: list[str]) -> set[str]:
    """Return the packages that requirements name, in the form that modules have."""
    names = [re.split(r"[\[<>=]", requirement)[0] for requirement in requirements]
    return {name.lower().replace("-", "_") for name in names}


def test_every_import_is_declared() -> None:
    project = PYPROJECT["project"]
    declared = package_names(project["dependencies"])
    for requirements in project["optional-dependencies"].values():
        declared |= package_names(requirements)
    other_names = {
        "yaml": "pyyaml",
        "slugify": "python_slugify",
        "pydantic_core": "pydantic",
        "sklearn": "scikit_learn",
    }
    # Not beside Prefect: docs/how-to/vllm-server.md.
    known = declared | {"vllm", "deita_tasks", "flows", "deployments"} | sys.stdlib_module_names
    imported = {
        name.split(".")[0]
        for folder in ("deita_tasks", "flows", "deployments")
        for path in python_files(folder)
        for name in absolute_imports(syntax_tree(path))
    }
    assert {other_names.get(name, name) for name in imported} - known == set()


def absolute_imports(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that a module imports by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_what_the_docs_need_is_pinned() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = package_names(constraints.splitlines())
    requirements = PYPROJECT["project"]["optional-dependencies"]["docs"]
    assert package_names(requirements) <= pinned
