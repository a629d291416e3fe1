"""The README is true: its Python runs, its tree is the tree, its links lead somewhere."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BLOCKS = [text for language, text in FENCED if language == "python"]
LINK = re.compile(r"\]\(([^)#\s]+)")


@pytest.mark.slow
@pytest.mark.flow
@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(
    block: str,
    prefect_server: None,
    sample_pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sample_pool.open(encoding="utf-8") as rows:  # a few are enough to see that it runs
        (tmp_path / "examples").mkdir()
        (tmp_path / "examples" / "pool.jsonl").write_text(
            "".join(islice(rows, 40)), encoding="utf-8"
        )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    if "result" in names:
        assert names["result"]["counts"]["read"] == 40  # type: ignore[index]
        assert (tmp_path / "selection" / "manifest.json").is_file()
    else:
        kept = names["selection"].kept  # type: ignore[attr-defined]
        assert 30 < len(kept) <= 40


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 2


def listed_paths() -> list[str]:
    """Return the paths in the README's tree, each from the root."""
    block = next(text for language, text in FENCED if not language and "deita_tasks/" in text)
    paths, folder = [], ""
    for line in block.splitlines():
        name = line.split()[0]
        if line.startswith("  "):
            paths.append(folder + name)
        else:
            folder = name if name.endswith("/") else ""
            paths.append(name)
    return paths


def loose_modules_and_packages(folder: str) -> set[str]:
    """Return what lies right under `folder`: its modules, and its packages with a slash."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.py")}
    packages = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for path in (ROOT / folder).glob("*/__init__.py")
    }
    return modules - {f"{folder}/__init__.py"} | packages


def test_tree_is_the_tree() -> None:
    listed = listed_paths()
    assert [path for path in listed if not (ROOT / path).exists()] == []
    expected = loose_modules_and_packages("flows") | loose_modules_and_packages("deita_tasks")
    missing = expected - set(listed)
    assert not missing, f"without a caption in the README: {sorted(missing)}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [link for link in LINK.findall(text) if "://" not in link]
    folder = (ROOT / page).parent
    assert [target for target in targets if not (folder / target).exists()] == []
