"""What the README shows is true: its Python runs, and its tree is the tree."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BLOCKS = [text for language, text in FENCED if language == "python"]


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


def tree() -> list[str]:
    """The paths in the README's tree, from the root on."""
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


def test_tree_is_the_tree() -> None:
    listed = tree()
    assert [path for path in listed if not (ROOT / path).exists()] == []
    modules = {
        path.relative_to(ROOT).as_posix()
        for folder in ("flows", "deita_tasks")
        for path in (ROOT / folder).glob("*.py")
    }
    folders = {
        path.parent.relative_to(ROOT).as_posix() + "/"
        for path in (ROOT / "deita_tasks").glob("*/__init__.py")
    }
    missing = {path for path in modules | folders if not path.endswith("__init__.py")} - set(listed)
    assert not missing, f"without a caption in the README: {sorted(missing)}"
