"""Memory that does not grow with the file, and bombs."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from deita_tasks.conversations import Quarantined
from deita_tasks.errors import InputError
from deita_tasks.loading import compression, read_conversations
from deita_tasks.loading.base import MAX_ROW_BYTES
from tests.support.loading_pools import COMPRESSORS, PLAIN, fates, read

MIB = 1 << 20


def read_and_measure(uri: str) -> tuple[int, int]:
    """Return the number of rows of the pool and the most bytes that Python held while reading."""
    tracemalloc.start()
    count = sum(1 for _ in read_conversations(uri))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, peak


@pytest.mark.parametrize(
    ("container", "packed"),
    [
        ("json_lines", "none"),
        ("json_array", "none"),
        ("csv", "none"),
        ("json_lines", "gzip"),
        ("json_lines", "xz"),
        ("json_array", "zstd"),
    ],
)
def test_memory_does_not_grow_with_the_file(tmp_path, container, packed):
    row = {"prompt": "x" * 10_000, "response": "y" * 10_000}
    peaks = {}
    for rows in (200, 2_000):  # 4 MB and 40 MB
        path = tmp_path / f"{rows}"
        path.write_bytes(COMPRESSORS[packed](PLAIN[container]([row] * rows)))
        count, peaks[rows] = read_and_measure(str(path))
        assert count == rows
    assert peaks[2_000] < peaks[200] + 8 * MIB
    assert peaks[2_000] < 24 * MIB


def test_memory_does_not_grow_with_a_parquet_file_of_one_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr("deita_tasks.loading.parquet.BATCH_BYTES", 2 * MIB)
    texts = [f"{i} " + "x" * 8_000 for i in range(4_000)]
    pq.write_table(
        pa.table({"prompt": texts, "response": texts}),
        tmp_path / "a",
        use_dictionary=False,
        row_group_size=4_000,
    )
    before = pa.total_allocated_bytes()
    count = most = 0
    for _ in read_conversations(str(tmp_path / "a")):
        count += 1
        most = max(most, pa.total_allocated_bytes() - before)
    assert count == 4_000
    assert most < 32 * MIB  # of 64 MB; 19 MiB for this file and for one of 192 MB


def repeat(text: str, times: int) -> pa.Array:
    """An array that holds `text` once, so Parquet stores it once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([text]))


def write_parquet(path: Path, **columns: pa.Array) -> str:
    table = pa.table({"prompt": ["p"] * len(columns["response"]), **columns})
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 4_000
    return str(path)


@pytest.mark.parametrize("shape", ["rows", "list", "map"])
def test_a_parquet_bomb_is_refused_without_being_held(tmp_path, shape):
    """Six gigabytes of one text in rows, in one list or in one map."""
    texts = repeat("x" * 15_000_000, 400)
    columns = {"response": pa.array(["r"])}
    if shape == "rows":
        columns = {"response": texts}
    elif shape == "list":
        columns["extra"] = pa.ListArray.from_arrays([0, 400], texts)
    elif shape == "map":
        keys = pa.array([str(i) for i in range(400)])
        columns["extra"] = pa.MapArray.from_arrays([0, 400], keys, texts)
    uri = write_parquet(tmp_path / "a", **columns)
    del texts, columns
    measure = (
        "import resource, sys\n"
        "from deita_tasks.errors import InputError\n"
        "from deita_tasks.loading import read_conversations\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    sum(1 for row in read_conversations(sys.argv[1]))\n"
        "except InputError as error:\n"
        "    print(error, file=sys.stderr)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, uri], capture_output=True, text=True, check=True
    )
    assert re.search("bytes of Parquet expand to over .* decompression bomb", done.stderr)
    assert int(done.stdout) < 256 << 10  # KiB; 6,000,000 when each text was copied out


def test_long_texts_in_few_bytes_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    """A pool may hold them as long as it is no bomb: a row that is too long is skipped unread."""
    monkeypatch.setattr(compression, "BOMB_BYTES", 1 << 40)
    monkeypatch.setattr("deita_tasks.loading.arrow_rows.MAX_ROW_BYTES", 4 * MIB)
    monkeypatch.setattr("deita_tasks.loading.arrow_rows.BATCH_BYTES", 4 * MIB)
    offsets = [0, *range(30), 59]
    lists = pa.ListArray.from_arrays(offsets, repeat("y" * (2 * MIB), 59))
    texts = repeat("x" * MIB, len(lists))
    uri = write_parquet(tmp_path / "a", response=texts, extra=lists)
    before = pa.total_allocated_bytes()
    problems = []
    for row in read_conversations(uri):
        problems.append(row.reason if isinstance(row, Quarantined) else "")
        assert pa.total_allocated_bytes() - before < 32 * MIB
    assert problems == [*[""] * 30, "too_long"]


@pytest.mark.slow
@pytest.mark.parametrize("opening", [b'{"prompt":"', b'[{"prompt":"', b'prompt,response\n"', b"["])
def test_a_line_of_a_gibibyte_is_refused_without_being_held(tmp_path, opening):
    """In lines, in an array, in CSV, and as nothing but brackets."""
    filler = b"[" if opening == b"[" else b"x"
    good_row = b'{"prompt":"p","response":"r"}\n'
    head = good_row if opening.startswith(b"{") else b""
    packer = zstandard.ZstdCompressor().compressobj()
    with open(tmp_path / "a", "wb") as file:
        file.write(packer.compress(head + opening))
        for _ in range(1_024):
            file.write(packer.compress(filler * MIB))
        file.write(packer.compress(b'","response":"r"}\n' + good_row if head else b"\n"))
        file.write(packer.flush())
    tracemalloc.start()
    try:
        rows = list(read_conversations(str(tmp_path / "a")))
        actual = list(fates(rows).values())
    except InputError as error:
        assert re.search("500 times|does not end within|no row can be read", str(error))
        actual = []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert actual in ([], ["ok", "too_long", "ok"])
    assert peak < 5 * MAX_ROW_BYTES


def test_a_bomb_is_refused_before_it_fills_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "BOMB_BYTES", 2 * MIB)
    row = b'{"prompt":"p","response":"r"}\n'
    for name in ("gzip", "bzip2", "xz", "zstd"):
        packed = COMPRESSORS[name](row + b" " * (8 * MIB))
        with pytest.raises(InputError, match=f"{name} expand to over .* decompression bomb"):
            read(tmp_path / name, packed)
    assert (
        len(read(tmp_path / "dull", gzip.compress(row * 100_000, 1))) == 100_000
    )  # one row over and over, and yet a pool


def test_a_zstd_window_that_would_fill_the_memory_is_refused(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(InputError, match="zstd stream is damaged"):
        read(tmp_path / "a", packer.compress(b"{}\n") + packer.flush())


def test_many_lines_within_one_quote_are_given_back_as_lines(tmp_path):
    content = b'prompt,response\np,r\n"open,y\n' + b"\n" * 300_000 + b"p,r\n" * 257
    actual = fates(read(tmp_path / "a.csv", content))
    assert actual == {2: "ok", 3: "malformed_row", 300_260: "ok"}


def test_a_file_is_read_from_the_store_in_blocks(monkeypatch):
    """A pool in S3 is not downloaded first."""
    sizes = []
    row = b'{"prompt":"' + b"p" * 1_000 + b'","response":"r"}\n'

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            sizes.append(size)
            return super().read(size)

        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("read in blocks")

    fs = fsspec.filesystem("memory")
    fs.pipe("/watched", row * 4_000)
    monkeypatch.setattr("deita_tasks.storage.open_read", lambda uri: Watched(fs.cat("/watched")))
    assert not any(isinstance(row, Quarantined) for row in read_conversations("memory://watched"))
    assert sizes and all(0 < (size or -1) <= MIB for size in sizes)
    fs.rm("/watched")
