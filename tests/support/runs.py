"""The command line as a process of its own, for tests that kill it or read all its output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
LENGTHS = {
    "complexity": "instruction_length",
    "quality": "response_length",
}  # scorers that cost nothing and can be worked out by hand


def command(pool: str, store: str, output: str, *more: str, budget: int = 10) -> list[str]:
    """`deita select` by lengths and without vectors: no model is loaded."""
    flags = {
        "--input": pool,
        "--store": store,
        "--output": output,
        "--budget": str(budget),
        "--strategy": "top_score",
    }
    flags |= {f"--{kind}": scorer for kind, scorer in LENGTHS.items()}
    return [
        sys.executable,
        "-m",
        "flows.cli",
        "select",
        *(word for pair in flags.items() for word in pair),
        *more,
    ]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """The process; `environment` is added to ours."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # Tests that run in the background of a script inherit that Ctrl-C is ignored.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, **environment}, **pipes)  # type: ignore[call-overload, no-any-return]
    finally:
        signal.signal(signal.SIGINT, heard)


def finish(arguments: list[str], **environment: str) -> str:
    """What the process says; it has to end well."""
    process = start(arguments, **environment)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def server_of_the_tests() -> Mapping[str, str]:
    """The environment in which a process uses the session's Prefect server, and so starts none of
    its own.
    """
    from prefect.settings import PREFECT_API_URL

    return {"PREFECT_API_URL": str(PREFECT_API_URL.value())}


def texts_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below `folder` with its bytes."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()
