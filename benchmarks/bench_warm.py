"""Times `deita select` over a large pool of which the store already holds everything.

    python benchmarks/bench_warm.py
    python benchmarks/bench_warm.py --s3
    python benchmarks/bench_warm.py --pool POOL --store STORE -- OPTIONS OF deita select

The time is the wall time of the whole command, from its start to its end. By default the pool is
110,364 generated conversations and the store a temporary folder. --s3 puts input, store and output
in S3: moto's server, in a process of its own, on the loopback interface. --pool and --store use
your own, with the options after --, for example
-- --complexity instruction_length --quality response_length.

The first command fills the store. Length scorers, and clustered vectors of 384 numbers from a file,
stand in for the models: a run that finds everything in the store does not know what computed it.
Then the command is timed --rounds times; the median counts. For comparison, the same with Prefect's
own temporary server, `deita --help`, and a Python that imports what the command imports, which is
the least that any run can take.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_reuse import generate_conversations

from flows.cli.server import free_port

ROOT = Path(__file__).resolve().parents[1]
DEITA = [sys.executable, "-m", "flows.cli"]
BUCKET = "bench"
DIMENSIONS = 384
BATCH_ROWS = 8192
MOTO_SERVER = "import sys; from moto.server import main; main(sys.argv[1:])"
IMPORTS = "import flows.select, prefect.server.api.server"


def write_inputs(folder: Path, rows: int) -> list[str]:
    """Write a pool and its vectors into `folder`; return the options that name them."""
    lines = generate_conversations(rows, seed=0)
    (folder / "pool.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_vectors(folder / "vectors.parquet", rows)
    return [
        "--complexity",
        "instruction_length",
        "--quality",
        "response_length",
        "--embedding",
        "provided",
        "--embeddings-file",
        str(folder / "vectors.parquet"),
    ]


def write_vectors(path: Path, rows: int) -> None:
    """Write a vector in a cluster for each row, a batch at a time."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(rows // 20 + 1, DIMENSIONS)).astype(np.float32)
    vector_type = pa.list_(pa.float32(), DIMENSIONS)
    schema = pa.schema({"source_row": pa.int64(), "embedding": vector_type})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, BATCH_ROWS):
            numbers = np.arange(start, min(rows, start + BATCH_ROWS))
            count = len(numbers)
            clusters = rng.integers(len(centres), size=count)
            noise = rng.normal(size=(count, DIMENSIONS)).astype(np.float32)
            vectors = centres[clusters] + 0.3 * noise
            flat = pa.array(vectors.ravel(), pa.float32())
            column = pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS)
            writer.write_table(pa.table({"source_row": numbers + 1, "embedding": column}))


@contextmanager
def s3_server() -> Iterator[None]:
    """Run moto's server in its own process, with an empty bucket; os.environ leads to it."""
    port = free_port()
    command = [sys.executable, "-c", MOTO_SERVER, "-H", "127.0.0.1", "-p", str(port)]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            os.environ |= environment
            wait_for_port(port)
            from deita_tasks import storage

            storage.filesystem("s3://")[0].mkdir(BUCKET)
            yield
        finally:
            server.terminate()


def wait_for_port(port: int, seconds: float = 60) -> None:
    """Return when the port accepts connections, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


class CommandRun(NamedTuple):
    """One run of a command: its times, and what it printed."""

    wall_seconds: float
    cpu_seconds: float
    output: str


def run_command(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> CommandRun:
    """Run a command and time it. Raises CalledProcessError if it fails."""
    quiet = {
        "PREFECT_HOME": f"{folder}/prefect",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    cpu_before = child_cpu_seconds()
    start = time.perf_counter()
    process = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **quiet, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall_seconds = time.perf_counter() - start
    return CommandRun(wall_seconds, child_cpu_seconds() - cpu_before, process.stdout)


def child_cpu_seconds() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class WarmBench(NamedTuple):
    """What to run: a pool, a store, and options of `deita select`.

    `folder` is a local scratch folder; `root` is where outputs go, a folder or an S3 URI.
    """

    folder: Path
    root: str
    pool: str
    store: str
    options: list[str]
    rounds: int

    def print_table(self) -> None:
        """Time the commands, and print a row for each."""
        select = self._select_command()
        print("| | seconds | CPU seconds |\n|---|---|---|", flush=True)
        self._print_row("the first run", select)
        output = self._print_row(
            f"again, nothing new (median of {self.rounds})", select, self.rounds
        )
        self._print_row(
            "the same, with Prefect's own temporary server",
            select,
            self.rounds,
            PREFECT_SERVER_EPHEMERAL_ENABLED="true",
        )
        self._print_row("`deita --help`", [*DEITA, "--help"])
        self._print_row("the imports alone", [sys.executable, "-c", IMPORTS])
        print(f"\nload {os.getloadavg()[0]:.1f}; the last run printed:\n\n{output}")

    def _select_command(self) -> list[str]:
        command = [*DEITA, "select", "--input", self.pool, "--store", self.store]
        command += ["--overwrite", "--output", f"{self.root}/output", "--budget", "6000"]
        return [*command, *self.options]

    def _print_row(
        self, name: str, command: Sequence[str], times: int = 1, **environment: str
    ) -> str:
        """Print the medians of `times` runs of a command; return the output of the last one."""
        runs = [run_command(command, self.folder, environment) for _ in range(times)]
        wall = statistics.median(run.wall_seconds for run in runs)
        cpu = statistics.median(run.cpu_seconds for run in runs)
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |", flush=True)
        return runs[-1].output


def run_in_s3(folder: Path, options: list[str], rounds: int) -> None:
    """Copy the inputs in `folder` to S3, and print the table of runs there."""
    from deita_tasks import storage

    root = f"s3://{BUCKET}"
    for file in ("pool.jsonl", "vectors.parquet"):
        storage.filesystem(root)[0].put_file(str(folder / file), f"{BUCKET}/{file}")
    options = [option.replace(str(folder), root) for option in options]
    bench = WarmBench(folder, root, f"{root}/pool.jsonl", f"{root}/store", options, rounds)
    bench.print_table()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=110_364, help="rows to generate without --pool")
    parser.add_argument("--pool", help="your own pool; use it with --store")
    parser.add_argument("--store", help="your own store")
    parser.add_argument("--s3", action="store_true", help="put input, store and output in S3")
    parser.add_argument("--rounds", type=int, default=3)
    arguments, select_options = parser.parse_known_args()
    select_options = [option for option in select_options if option != "--"]
    rounds = arguments.rounds
    with tempfile.TemporaryDirectory(prefix="deita-bench-") as name:
        folder = Path(name)
        pool = arguments.pool
        if not pool:
            select_options += write_inputs(folder, arguments.rows)
            pool = f"{name}/pool.jsonl"
        if arguments.s3 and not arguments.pool:
            with s3_server():
                run_in_s3(folder, select_options, rounds)
            return
        store = arguments.store or f"{name}/store"
        WarmBench(folder, name, pool, store, select_options, rounds).print_table()


if __name__ == "__main__":
    main()
