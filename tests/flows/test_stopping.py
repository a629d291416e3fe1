"""A run that is told to end does so within seconds, in the middle of a shard, and takes its workers
with it; the store stays whole.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.verify import verify
from tests.support.runs import server_of_the_tests, start

pytestmark = [pytest.mark.flow, pytest.mark.slow]

# the shard is now in the model's hands, for most of a minute
LOADED = "loaded sentence-transformers/all-MiniLM-L6-v2"
# of a machine that does other things too; 10 is what is promised, of which a batch takes one
SECONDS = 15


def descendants(pid: int) -> set[int]:
    """The processes that `pid` has started, and those that they have."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child, *descendants(child)}
    return found


def lines_of(process: subprocess.Popen[str]) -> queue.SimpleQueue[str]:
    """What the process says, line by line, without anybody waiting for it."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdout is not None
    threading.Thread(
        target=lambda: [said.put(line) for line in process.stdout], daemon=True
    ).start()  # type: ignore[union-attr]
    return said


def wait_for(text: str, said: queue.SimpleQueue[str]) -> None:
    seen = []
    while True:
        try:
            seen.append(said.get(timeout=180))
        except queue.Empty:
            pytest.fail("".join(seen))
        if text in seen[-1]:
            return


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="looks for a process's children in /proc"
)
@pytest.mark.parametrize(
    ("runner", "number"),
    [
        ("thread", signal.SIGTERM),
        ("thread", signal.SIGINT),
        ("process", signal.SIGTERM),
        ("process", signal.SIGKILL),
        ("dask", signal.SIGTERM),
    ],
)
def test_a_run_ends_in_the_middle_of_a_shard(
    runner: str, number: signal.Signals, prefect_server: None, sample_pool: Path, tmp_path: Path
) -> None:
    flags = {
        "--input": sample_pool,
        "--store": tmp_path / "store",
        "--output": tmp_path / "out",
        "--runner": runner,
        "--shard-rows": 400,
    }
    arguments = [
        sys.executable,
        "-m",
        "flows.cli",
        "select",
        *(str(word) for pair in flags.items() for word in pair),
        "--verbose",
    ]
    process = start(
        arguments, **server_of_the_tests(), PREFECT_LOGGING_LEVEL="INFO", OMP_NUM_THREADS="1"
    )
    try:
        said = lines_of(process)
        wait_for(LOADED, said)
        time.sleep(1)
        children = descendants(process.pid)
        assert bool(children) == (runner != "thread")
        begun = time.monotonic()
        process.send_signal(number)
        process.wait(timeout=60)
        assert process.returncode != 0
        while alive := {child for child in children if Path(f"/proc/{child}").exists()}:
            assert time.monotonic() < begun + SECONDS, f"still there: {alive}"
            time.sleep(0.1)
        assert time.monotonic() < begun + SECONDS
    finally:
        process.kill()
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "store" / "embeddings").rglob("part-*"))
    assert [checked.name for checked in verify(str(tmp_path / "store")) if checked.problem] == []
    assert storage.list_files(
        str(tmp_path / "store" / "plans"), ".parquet"
    )  # what was asked of the shard is there: the run had begun
