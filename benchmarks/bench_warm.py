"""A large pool once more, with nothing new: the wall time of the whole command, its start and its
end included.

    python benchmarks/bench_warm.py                             110,364 generated conversations, a store in a temporary folder
    python benchmarks/bench_warm.py --s3                        input, store and output in S3: moto's server, a process on the loopback
    python benchmarks/bench_warm.py --pool POOL --store STORE -- --complexity instruction_length --quality response_length
                                                                a pool and a store of one's own; after -- what `deita select` is given

The first command fills the store: length scorers, and clustered vectors of 384 numbers from a file
stand for the models, since a run that finds everything in the store does not know what has computed
it. Then the command is timed --rounds times; the median counts. Beside it stand the same with
Prefect's own temporary server instead of the command's, `deita --help`, and a Python that imports
what the command imports: what no run can go below.
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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_reuse import generated

from flows.cli.server import free_port

ROOT = Path(__file__).resolve().parents[1]
DEITA = [sys.executable, "-m", "flows.cli"]
BUCKET = "bench"


def write_inputs(folder: Path, rows: int) -> list[str]:
    """A pool with its vectors, in `folder`; the options that name them."""
    (folder / "pool.jsonl").write_text("\n".join(generated(rows, seed=0)) + "\n", encoding="utf-8")
    dice = np.random.default_rng(0)
    centres = dice.normal(size=(rows // 20 + 1, 384)).astype(np.float32)
    with pq.ParquetWriter(
        folder / "vectors.parquet",
        pa.schema({"source_row": pa.int64(), "embedding": pa.list_(pa.float32(), 384)}),
    ) as out:
        for start in range(0, rows, 8192):
            numbers = np.arange(start, min(rows, start + 8192))
            vectors = centres[dice.integers(len(centres), size=len(numbers))] + 0.3 * dice.normal(
                size=(len(numbers), 384)
            ).astype(np.float32)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), 384)
            out.write_table(pa.table({"source_row": numbers + 1, "embedding": flat}))
    lengths = ["--complexity", "instruction_length", "--quality", "response_length"]
    return [
        *lengths,
        "--embedding",
        "provided",
        "--embeddings-file",
        str(folder / "vectors.parquet"),
    ]


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """moto's server as a process of its own; the environment that leads to it, and an empty bucket."""
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "import sys; from moto.server import main; main(sys.argv[1:])",
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
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
            until = time.monotonic() + 60
            while time.monotonic() < until:
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            from deita_tasks import storage

            storage.filesystem("s3://")[0].mkdir(BUCKET)
            yield environment
        finally:
            server.terminate()


def timed(
    command: Sequence[str], folder: Path, more: Mapping[str, str]
) -> tuple[float, float, str]:
    """Wall seconds and CPU seconds of a command, with what it says on standard output; it has to
    end well. `more`: environment.
    """
    quiet = {
        "PREFECT_HOME": f"{folder}/prefect",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **quiet, **more},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def bench(folder: Path, root: str, pool: str, store: str, options: list[str], rounds: int) -> None:
    """Print the table."""
    select = [
        *DEITA,
        "select",
        "--input",
        pool,
        "--store",
        store,
        "--overwrite",
        "--output",
        f"{root}/output",
        "--budget",
        "6000",
        *options,
    ]
    print("| | seconds | CPU seconds |\n|---|---|---|", flush=True)

    def tell(name: str, command: Sequence[str], times: int = 1, **environment: str) -> str:
        runs = [timed(command, folder, environment) for _ in range(times)]
        wall, cpu = (
            statistics.median(run[0] for run in runs),
            statistics.median(run[1] for run in runs),
        )
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |", flush=True)
        return runs[-1][2]

    tell("the first run", select)
    said = tell(f"again, nothing new (median of {rounds})", select, rounds)
    tell(
        "the same, with Prefect's own temporary server",
        select,
        rounds,
        PREFECT_SERVER_EPHEMERAL_ENABLED="true",
    )
    tell("`deita --help`", [*DEITA, "--help"])
    tell(
        "the imports alone",
        [sys.executable, "-c", "import flows.select, prefect.server.api.server"],
    )
    print(f"\nload {os.getloadavg()[0]:.1f}; the last run said:\n\n{said}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=110_364, help="rows to generate without --pool")
    parser.add_argument("--pool", help="a pool of one's own, with --store")
    parser.add_argument("--store", help="a store of one's own")
    parser.add_argument("--s3", action="store_true", help="input, store and output in S3")
    parser.add_argument("--rounds", type=int, default=3)
    given, options = parser.parse_known_args()
    options = [option for option in options if option != "--"]
    with tempfile.TemporaryDirectory(prefix="deita-bench-") as name:
        folder = Path(name)
        if given.pool:
            bench(folder, name, given.pool, given.store or f"{name}/store", options, given.rounds)
            return
        options += write_inputs(folder, given.rows)
        if not given.s3:
            bench(
                folder,
                name,
                f"{name}/pool.jsonl",
                given.store or f"{name}/store",
                options,
                given.rounds,
            )
            return
        with s3_server():
            from deita_tasks import storage

            root = f"s3://{BUCKET}"
            for file in ("pool.jsonl", "vectors.parquet"):
                storage.filesystem(root)[0].put_file(str(folder / file), f"{BUCKET}/{file}")
            options = [option.replace(name, root) for option in options]
            bench(folder, root, f"{root}/pool.jsonl", f"{root}/store", options, given.rounds)


if __name__ == "__main__":
    main()
