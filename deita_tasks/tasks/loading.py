"""Load a pool: every row normalised, or quarantined with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from textwrap import shorten

import pyarrow as pa
from prefect import get_run_logger
from prefect.assets import materialize
from pydantic import JsonValue

from deita_tasks import progress, storage
from deita_tasks.artifacts.pool import QUARANTINE_FILE, Pool, pool_uri
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.runs import mark_run
from deita_tasks.artifacts.scores import is_high_ifd
from deita_tasks.config import Advanced, Source
from deita_tasks.conversations import Conversation, Quarantined
from deita_tasks.errors import EmptyFile, InputError, StorageError, TooManyBadRows
from deita_tasks.loading import log_passed_over, open_unless_empty
from deita_tasks.manifest import InputFile
from deita_tasks.plan import Plan
from deita_tasks.tasks.assets import materializing
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.filtering import exclusion_digests
from deita_tasks.tasks.references import reference_digests
from deita_tasks.tasks.selecting import part_digests, selection_digest
from deita_tasks.terminal import escape

MAX_REASONS = 8  # in the message about bad rows
MAX_DETAIL = 200  # characters
EMPTY = "empty"  # the format of an empty file
LOADER_VERSION = 3  # increase it to load every pool anew


def locate_pool(store: str, files: Sequence[str], format: str) -> str:
    """Return where the pool of `files` lies; their content names it.

    pools/<digest>, by the URIs and contents of the files in order, the format and LOADER_VERSION.
    Reads every file once for its digest.
    """
    contents = [[uri, storage.content_digest(uri)] for uri in files]
    return pool_uri(store, _pool_digest(contents, format))


def _pool_digest(contents: Sequence[Sequence[str]], format: str) -> str:
    """Return the digest of the pool of files with these contents: [uri, digest] of each."""
    return storage.digest_of({"files": contents, "format": format, "loader": LOADER_VERSION})


def is_intact(uri: str) -> bool:
    """Return whether a complete, undamaged pool lies under `uri`."""
    try:
        return Pool.open(uri).is_intact()
    except StorageError:
        return False


@contextmanager
def open_pool(plan: Plan, source: Source, options: Advanced) -> Iterator[Pool]:
    """Give the pool of a plan's files; reads them only if the store does not have it.

    Until the block ends, `deita store gc` leaves everything alone that the plan needs.
    """
    log_passed_over(plan.passed_over, get_run_logger())
    uri = locate_pool(options.store, plan.files, source.format)
    with mark_plan(plan, uri, options):
        with progress.bar("load", None):
            load = materializing(load_pool, uri, source.name, plan.files)
            call_cached(load, options, is_intact(uri), uri, plan.files, source.format)
        pool = Pool.open(uri)
        check_good_fraction(pool, {}, source.min_good_fraction)
        yield pool


def mark_plan(plan: Plan, pool: str, options: Advanced) -> AbstractContextManager[None]:
    """Keep from `gc` what a plan needs of the pool under the URI `pool`, until the block ends."""
    digest = pool.rsplit("/", 1)[-1]
    return mark_run(
        storage.absolute(options.store),
        digest,
        part_digests(plan),
        selection_digest(plan, digest),
        exclusion_digests(plan, digest),
        reference_digests(plan, digest),
    )


@materialize("deita://pool", name="load-pool", task_run_name="load pool", **CACHED)
def load_pool(key: str, files: Sequence[str], format: str) -> dict[str, JsonValue]:
    """Read every row of `files` into the pool artifact `key`; return its pool.json.

    Raises EmptyFile if the files have no row at all, InputError if they are not those that `key`
    names. Bad rows raise nothing: they are quarantined.
    """
    inputs: list[InputFile] = []
    summary = write_pool(key, _read_rows(key, files, format, inputs), inputs)
    if not summary.rows:
        raise EmptyFile(f"{', '.join(files)}: no rows; expected conversations")
    return summary.to_dict()


def _read_rows(
    key: str, files: Sequence[str], format: str, inputs: list[InputFile]
) -> Iterator[Conversation | Quarantined]:
    """Yield the rows of all files in order, and append each finished file to `inputs`.

    Raises InputError if the files are not those that `key` names.
    """
    logger = get_run_logger()
    for uri in files:
        digest = storage.content_digest(uri)
        rows = 0
        file = open_unless_empty(uri, format)
        logger.info("reading %s", file or f"{uri}: skipped, the file is empty")
        for row in file or ():
            rows += 1
            progress.tick(1)
            yield row
        if storage.content_digest(uri) != digest:
            raise InputError(f"{uri}: changed during reading; run again when nothing writes to it")
        row_format = file.format.name if file else EMPTY
        inputs.append(InputFile(uri=uri, digest=digest, rows=rows, format=row_format))
    contents = [[file.uri, file.digest] for file in inputs]
    if _pool_digest(contents, format) != key.rsplit("/", 1)[-1]:
        raise InputError(
            f"{', '.join(files)}: changed during reading; run again when nothing writes there"
        )


def check_good_fraction(
    pool: Pool,
    unscorable: Mapping[str, int],
    min_good_fraction: float,
    shares: Mapping[str, float] | None = None,
    excluded: int = 0,
) -> None:
    """Raise TooManyBadRows if a smaller share of the rows read is good.

    unscorable: rows without a score, by reason, which begins with the stage. shares: of the pool's
    rows, those that each stage has looked at; a stage that has looked at half of them is supposed
    to find as many bad ones in the other half. excluded: rows that filters left out, which count
    neither as good nor as bad; a row with a high IFD is no bad row.
    """
    unscorable = {reason: count for reason, count in unscorable.items() if not is_high_ifd(reason)}
    table = pool.quarantine(["reason", "detail", "source_uri", "source_row"])
    bad = Counter(table["reason"].to_pylist())
    rows = pool.summary.rows - excluded
    good = float(rows - sum(bad.values()))
    for reason, count in unscorable.items():
        good -= count / _share_of(reason, shares or {})
    bad.update(unscorable)
    if good < min_good_fraction * rows:
        examples = _first_rows(table)
        lines = [
            f"  {reason}: {count:,} {'row' if count == 1 else 'rows'}"
            f"{_looked_at(reason, shares or {})}{examples.get(reason, '')}"
            for reason, count in bad.most_common(MAX_REASONS)
        ]
        raise TooManyBadRows(
            f"{good:,.0f} of {rows:,} rows are good, less than the required "
            f"{min_good_fraction:.0%}:\n"
            + ";\n".join(lines)  # the command prints all in one line
            + f".\nEvery bad row is in {storage.join(pool.uri, QUARANTINE_FILE)}; fix the pool or "
            "lower min_good_fraction."
        )


def _share_of(reason: str, shares: Mapping[str, float]) -> float:
    """Return the share of the rows that the stage of a reason has looked at."""
    stage, _, _ = reason.partition(": ")
    return shares.get(stage, 1.0)


def _looked_at(reason: str, shares: Mapping[str, float]) -> str:
    """Return " of the 40% of the pool that were looked at" for a count; "" if it is of all rows."""
    share = _share_of(reason, shares)
    return f" of the {share:.0%} of the pool that were looked at" if share < 1 else ""


def _first_rows(table: pa.Table) -> dict[str, str]:
    """Return where the first row of each reason stands, and what is wrong with it."""
    examples: dict[str, str] = {}
    for row in table.to_pylist():
        if row["reason"] not in examples:
            file = row["source_uri"].rsplit("/", 1)[-1]
            detail = shorten(escape(row["detail"]), MAX_DETAIL, placeholder=" ...")
            examples[row["reason"]] = f", first {file} row {row['source_row']:,}: {detail}"
    return examples
