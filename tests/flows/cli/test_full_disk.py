"""A full disk, wherever it is: one line that names the place, status 1, and no draft stays."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deita_tasks.errors import UsageError
from flows.cli import server

ROOT = Path(__file__).parents[3]
ROWS = 700
KIB = 1 << 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def write_pool(path: Path) -> None:
    """Write rows that do not compress to a MiB."""
    letters = random.Random(1)
    texts = [letters.randbytes(2 * KIB).hex() for _ in range(ROWS)]
    rows = [{"prompt": text, "response": "r"} for text in texts]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def select(folder: Path, full: str) -> subprocess.CompletedProcess[str]:
    """Run `deita select` with everything in `folder`, but what `full` names on its disk."""
    place = {"store": "store", "output": "output", "TMPDIR": "tmp", "PREFECT_HOME": "home"}
    places = {name: folder / ("disk" if name == full else "") / place[name] for name in place}
    for name in ("TMPDIR", "PREFECT_HOME"):
        places[name].mkdir(exist_ok=True)
    options = ["--complexity", "instruction_length", "--quality", "response_length"]
    options += ["--strategy", "top_score", "--budget", "400", "--input", "pool.jsonl"]
    options += ["--store", str(places["store"]), "--output", str(places["output"])]
    environment = {name: str(places[name]) for name in ("TMPDIR", "PREFECT_HOME")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "select", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("full", ["store", "output", "TMPDIR", "PREFECT_HOME"])
def test_one_line_and_a_rerun_succeeds(full: str, tmp_path: Path, disk: Path) -> None:
    write_pool(tmp_path / "pool.jsonl")
    if full == "TMPDIR":  # the store takes most of the other places
        (disk / "junk").write_bytes(bytes(600 * KIB))
    done = select(tmp_path, full)
    assert done.returncode == (2 if full == "PREFECT_HOME" else 1)
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("deita: ")
    assert str(disk) in last
    assert "the disk is full" in last or "No space left on device" in last
    assert drafts(tmp_path) == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    again = select(tmp_path, full)
    assert again.returncode == 0, again.stderr
    assert drafts(tmp_path) == []


def drafts(folder: Path) -> list[Path]:
    """What a run leaves beside its files: hidden ones, and folders in TMPDIR."""
    kept = [path for name in ("store", "output") for path in folder.rglob(f"{name}/**/.*")]
    return [*kept, *folder.rglob(".output.*"), *folder.rglob("tmp/deita-*")]


@pytest.mark.parametrize("home", ["file/home", "file"])
def test_a_home_of_prefect_that_cannot_be_one(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / home))
    with pytest.raises(UsageError, match=rf"PREFECT_HOME = .*{home}: .*; expected a folder"):
        server._check_home()


def test_a_home_of_prefect_is_made_with_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "absent" / "home"))
    server._check_home()
    assert list((tmp_path / "absent" / "home").iterdir()) == []
