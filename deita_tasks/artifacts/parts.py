"""Scores and embeddings, stored by row: nothing is computed twice for one fingerprint.

    <store>/scores/<kind>/<fingerprint>/
        part-<shard>-<sha256>.parquet    id, values (a list, one score a pair), cut, problem
        fingerprint.json                 the component that the fingerprint names
        claim-<shard>.json               a run is computing this shard (see `claims.py`)
    <store>/embeddings/<fingerprint>/
        part-<shard>-<sha256>.parquet    id, values (a vector), cut, problem

`id` is what the component keeps its values by: of the text alone, so that rows which differ in
other things share them, or of the whole conversation where a value is the row's own. `cut` counts
the tokens that did not fit the model's window. The name of a part holds the digest of
its bytes, which every process compares before it first uses the part, and of the ids of the shard
that it was computed for. (Parts of early versions have the second alone; their pages have
checksums.) A part may hold only some rows of its shard: answers are kept as they come. Ids are
looked up over all parts: it does not matter which run, file, order or shard computed a row.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import Any

import pandas as pd
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.components import Fingerprint
from deita_tasks.conversations import RowKey
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError
from deita_tasks.storage.failures import storage_errors
from deita_tasks.strict_json import JsonRecord

log = logging.getLogger(__name__)

READERS = 8  # parts fetched at a time from an object store, where waiting takes most of the time
PART_NAME = re.compile(r"part-([0-9a-f]{32}(?:-[0-9a-f]{64})?)\.parquet")
FINGERPRINT_FILE = "fingerprint.json"
CLAIM = "claim-"

SECONDS_PER_PART = 30.0  # of answers that come one by one
SPOOL = 64 << 20  # bytes of a new part held in memory; a larger one goes through a scratch file
COPY_BLOCK = 8 << 20

_checked_parts: set[str] = set()  # undamaged parts outside this machine, by URI

VECTORS_FOLDER = "embeddings"
IDS = pa.schema({"id": pa.string()})
COLUMNS = ("id", "values", "cut", "problem")
WIDTH = "width"  # not stored, but read like a column: the number of components of the vectors


class PartSet(JsonRecord):
    """All parts of one fingerprint. row_key: which of a conversation's ids they have."""

    uri: str
    fingerprint: str
    row_key: RowKey = "id"

    @classmethod
    def create(
        cls, store: str, folder: str, fingerprint: Fingerprint, row_key: RowKey = "id"
    ) -> PartSet:
        """Return the parts of a component's fingerprint under <store>/<folder>/.

        Writes fingerprint.json if it is not there. folder: such as embeddings or scores/quality.
        """
        digest = storage.digest_of(fingerprint)
        uri = storage.join(store, *folder.split("/"), digest)
        part_set = cls(uri=uri, fingerprint=digest, row_key=row_key)
        place = storage.join(part_set.uri, FINGERPRINT_FILE)
        if not storage.exists(place):
            storage.write_json(place, fingerprint)
        return part_set

    def read_fingerprint(self) -> Fingerprint:
        """Return the fingerprint. Raises MissingFile, or DamagedArtifact if it is another one."""
        place = storage.join(self.uri, FINGERPRINT_FILE)
        fingerprint: Fingerprint = storage.read_json(place)
        digest = storage.digest_of(fingerprint)
        if digest != self.fingerprint:
            raise DamagedArtifact(f"{place}: stands for {digest}, expected {self.fingerprint}")
        return fingerprint

    @property
    def has_vectors(self) -> bool:
        """Whether the parts hold vectors; they hold scores otherwise."""
        return self.uri.rsplit("/", 2)[-2] == VECTORS_FOLDER

    def part(self, digest: str) -> str:
        """Return the URI of a part."""
        return storage.join(self.uri, self.part_name(digest))

    @staticmethod
    def part_name(digest: str) -> str:
        """Return the file name of a part."""
        return f"part-{digest}.parquet"

    def digests(self) -> list[str]:
        """Return the digests of all parts, in order, damaged ones included; [] without a folder."""
        names = [uri.rsplit("/", 1)[1] for uri in storage.list_files(self.uri, ".parquet")]
        return [match[1] for match in map(PART_NAME.fullmatch, names) if match]

    def index(self, digests: Sequence[str] | None = None) -> dict[str, pa.Array]:
        """Return the ids in each part, or in some parts, by digest.

        Leaves out damaged parts, with a warning: their rows are computed again.
        """
        digests = self.digests() if digests is None else digests
        with ThreadPoolExecutor(1 if storage.is_local(self.uri) else READERS) as readers:
            ids = readers.map(self._read_ids, digests)
            return {
                digest: part_ids
                for digest, part_ids in zip(digests, ids, strict=True)
                if part_ids is not None
            }

    def _read_ids(self, digest: str) -> pa.Array | None:
        """Return the ids in a part; None for one that is damaged, with a warning, or gone."""
        try:
            if storage.is_local(self.uri):  # elsewhere it would be downloaded for its ids alone
                self.check(digest)
            table = storage.read_table(self.part(digest), ["id"], IDS)
        except DamagedArtifact as error:
            log.warning("leaving out a damaged part; its rows are computed again: %s", error)
            return None
        except MissingFile:
            return None  # compacted or removed since it was listed
        return table["id"].combine_chunks()

    def check(self, digest: str, again: bool = False) -> None:
        """Raise DamagedArtifact if the part's bytes are not those that its name stands for.

        Remembers the parts that it has found undamaged; `again` looks at them once more.
        """
        uri = self.part(digest)
        expected = digest.partition("-")[2]
        if not expected or (uri in _checked_parts and not again):
            return
        is_local = storage.is_local(uri)
        actual = storage.local_sha256(uri, again) if is_local else storage.sha256_of(uri)
        if actual != expected:
            raise DamagedArtifact(f"{uri}: its bytes are not those that its name stands for")
        if not is_local:
            _checked_parts.add(uri)

    def read(self, digest: str) -> pa.Table:
        """Return all rows of a part. Raises MissingFile or DamagedArtifact."""
        return pa.concat_tables(self._row_groups(digest, None))

    def digests_of(self, shard: str) -> list[str]:
        """Return the digests of the parts that were computed for the shard with this digest."""
        return [digest for digest in self.digests() if digest.partition("-")[0] == shard]

    def claim(self, shard: str) -> str:
        """Return the URI of the claim on a shard."""
        return storage.join(self.uri, f"{CLAIM}{shard}.json")

    def claimed_shards(self) -> set[str]:
        """Return the digests of the shards with a claim."""
        names = [uri.rsplit("/", 1)[1] for uri in storage.list_files(self.uri, ".json")]
        return {
            name.removeprefix(CLAIM).removesuffix(".json")
            for name in names
            if name.startswith(CLAIM)
        }

    def write(self, shard: str, tables: Iterable[pa.Table]) -> str:
        """Write `tables`, at least one, as a part of a shard, atomically; return its digest.

        Each becomes a row group, with the schema of the first.
        """
        with storage_errors("TMPDIR"), tempfile.SpooledTemporaryFile(SPOOL) as draft:
            # Not under its name: that is known when the last row is written.
            _write_row_groups(draft, tables)
            draft.seek(0)
            digest = f"{shard}-{hashlib.file_digest(draft, 'sha256').hexdigest()}"
            draft.seek(0)
            with storage.write_atomic(self.part(digest)) as handle:
                shutil.copyfileobj(draft, handle, COPY_BLOCK)
        return digest

    def write_as_they_come(self, shard: str, tables: Iterable[pa.Table]) -> list[str]:
        """Write `tables` as parts of a shard; return their digests.

        A part is written every SECONDS_PER_PART and at the end, also if the tables end with an
        error: what was computed, and perhaps paid for, is kept.
        """
        digests = []
        pending: list[pa.Table] = []
        begun = time.monotonic()
        try:
            for table in tables:
                pending.append(table)
                if time.monotonic() - begun > SECONDS_PER_PART:
                    digests.append(self.write(shard, [_in_order(pending)]))
                    pending.clear()
                    begun = time.monotonic()
        finally:
            if pending:
                digests.append(self.write(shard, [_in_order(pending)]))
        return digests

    def tables(
        self, digests: Iterable[str], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows of some parts, one row group at a time; a row may come twice.

        Compaction may merge a part into another while we read. If one is gone, this also reads
        every part that exists now; a caller that misses an id has to say so.
        """
        read: set[str] = set()
        digests = list(digests)
        for digest in digests:
            with suppress(MissingFile):
                try:
                    yield from self._row_groups(digest, columns)
                except DamagedArtifact as error:
                    raise StorageError(f"{error}; {self._remove_if_damaged(digest)}") from error
                read.add(digest)
        if len(read) < len(set(digests)):
            log.info("%s: parts were merged while they were read; looking again", self.uri)
            yield from self._other_parts(read, columns)

    def _other_parts(self, read: set[str], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield the rows of all parts but those `read`, until a listing shows no other part.

        Compaction may go on meanwhile.
        """
        while others := set(self.digests()) - read:
            for digest in sorted(others):
                with suppress(MissingFile):
                    try:
                        yield from self._row_groups(digest, columns)
                    except DamagedArtifact as error:
                        log.warning("leaving out a damaged part: %s", error)
                    read.add(digest)

    def _remove_if_damaged(self, digest: str) -> str:
        """Remove a part if a second reading finds it damaged too; return what the user can do.

        An index over an object store reads only ids, so it would name the part in every run.
        """
        try:
            for _ in self._row_groups(digest, None):
                pass
        except MissingFile:
            pass
        except DamagedArtifact:
            try:
                storage.remove(self.part(digest))
            except StorageError as error:
                return f"remove it, which is not possible from here ({error})"
        else:
            return "a second reading found no damage: run again"
        return "it is removed: run again, and its rows will be computed"

    def _row_groups(self, digest: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield the row groups of a part with some columns, all of COLUMNS for None.

        Before the first one it checks the bytes. Raises MissingFile or DamagedArtifact.
        """
        columns = COLUMNS if columns is None else columns
        stored = [name for name in columns if name != WIDTH]
        self.check(digest)
        with storage.parquet_file(self.part(digest)) as parquet:
            values = self._values_type(parquet.schema_arrow)
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=stored)
                table.validate(full=True)
                if WIDTH in columns:
                    width = pa.scalar(values.list_size, pa.int32())
                    table = table.append_column(WIDTH, pa.repeat(width, len(table)))
                yield table

    def _values_type(self, schema: pa.Schema) -> pa.DataType:
        """Return the type of the column `values`. Raises DamagedArtifact for another schema."""
        values = schema.field("values").type
        is_list = pa.types.is_fixed_size_list if self.has_vectors else pa.types.is_list
        if schema.names != list(COLUMNS) or not is_list(values):
            raise DamagedArtifact(f"{self.uri}: a part has the columns {schema.names}")
        expected = pa.schema(
            zip(COLUMNS, (pa.string(), values, pa.int32(), pa.string()), strict=True)
        )
        if not schema.equals(expected) or values.value_type != pa.float32():
            raise DamagedArtifact(f"{self.uri}: a part has columns of the types {schema.types}")
        return values


def _in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables, in the same order whichever came first."""
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables).sort_by("id").combine_chunks()


def _write_row_groups(handle: Any, tables: Iterable[pa.Table]) -> None:
    """Write each table, of which there is at least one, as a row group of its own.

    Raises ArrowInvalid for a table that cannot be cast to the schema of the first.
    """
    rest = iter(tables)
    first = next(rest)
    with storage.write_parquet(handle, first.schema) as writer:
        for table in chain([first], rest):
            same = table.cast(first.schema)
            writer.write_table(same, row_group_size=max(1, table.num_rows))


class StageParts(JsonRecord):
    """Where the values of one stage are: some parts of a fingerprint."""

    part_set: PartSet
    digests: list[str]

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of these parts (see `PartSet.tables`)."""
        return self.part_set.tables(self.digests, columns)

    def gather(self, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """Return the rows of these parts in one table, each id once: its first row in them.

        Raises StorageError for a damaged part.
        """
        table = pa.concat_tables(self.tables(columns))
        repeated = pd.Series(table["id"].to_pandas()).duplicated().to_numpy()
        return table.filter(pa.array(~repeated)) if repeated.any() else table


def ids_digest(ids: pa.Array | pa.ChunkedArray) -> str:
    """Return 32 hex digits that name a set of ids, in any order."""
    return hashlib.sha256("\n".join(sorted(ids.to_pylist())).encode()).hexdigest()[:32]
