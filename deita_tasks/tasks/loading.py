"""Read a pool: every row normalised, or quarantined with its reason."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefect import get_run_logger, task

from deita_tasks import progress, storage
from deita_tasks.artifacts.pool import Pool, pool_uri, write_pool
from deita_tasks.config import Advanced, Source
from deita_tasks.errors import EmptyFile, InputError, StorageError, TooManyBadRows
from deita_tasks.loading import open_unless_empty
from deita_tasks.plan import Plan
from deita_tasks.records import Conversation, Quarantined
from deita_tasks.tasks.caching import CACHED, call

EMPTY = "empty"  # the format of a file that holds nothing
LOADER_VERSION = 1  # of what a pool's rows become; another number loads every pool anew


def plan_pool(store: str, files: Sequence[str], format: str) -> tuple[str, bool]:
    """Where the pool of `files` lies, by their content, and whether it is there and whole."""
    uri = pool_uri(store, _digest([[uri, storage.content_digest(uri)] for uri in files], format))
    try:
        return uri, Pool.open(uri).is_intact()
    except StorageError:
        return uri, False


def _digest(contents: Sequence[Sequence[str]], format: str) -> str:
    """Names the pool of files with these contents: [uri, digest] of each."""
    return storage.digest_of(
        {"files": [list(one) for one in contents], "format": format, "loader": LOADER_VERSION}
    )


def load(plan: Plan, source: Source, options: Advanced) -> Pool:
    """The pool of a plan's files, read anew only where it is not there."""
    uri, intact = plan_pool(options.store, plan.files, source.format)
    with progress.bar("load", None):
        call(load_pool, options, intact, uri, plan.files, source.format)
    pool = Pool.open(uri)
    check_floor(pool, {}, source.min_good_fraction)
    return pool


@task(name="load-pool", task_run_name="load pool", **CACHED)
def load_pool(key: str, files: Sequence[str], format: str) -> dict[str, Any]:
    """Read every row of `files` into the pool artifact `key`; returns its pool.json."""
    facts: dict[str, Any] = {"inputs": []}
    summary = write_pool(key, _rows(key, files, format, facts["inputs"]), facts)
    if not summary["good"] + summary["quarantined"]:
        raise EmptyFile(f"{', '.join(files)}: no rows; expected conversations")
    return summary


def _rows(
    key: str, files: Sequence[str], format: str, inputs: list[dict[str, Any]]
) -> Iterator[Conversation | Quarantined]:
    """The rows of all files in order; says in `inputs` what each file was. Raises InputError where
    they are not those that `key` names.
    """
    logger = get_run_logger()
    for uri in files:
        digest, rows = storage.content_digest(uri), 0
        file = open_unless_empty(uri, format)
        logger.info("reading %s", file or f"{uri}: an empty file, passed over")
        for row in file or ():
            rows += 1
            progress.tick(1)
            yield row
        if storage.content_digest(uri) != digest:
            raise InputError(
                f"{uri}: changed while it was read; run again when nobody writes to it"
            )
        inputs.append(
            {
                "uri": uri,
                "digest": digest,
                "rows": rows,
                "format": file.format.name if file else EMPTY,
            }
        )
    if (
        _digest([[one["uri"], one["digest"]] for one in inputs], format) != key.rsplit("/", 1)[-1]
    ):  # the pool is filed under it
        raise InputError(
            f"{', '.join(files)}: changed before all was read; run again when nobody writes there"
        )


def check_floor(pool: Pool, unscorable: Mapping[str, int], floor: float) -> None:
    """Raises TooManyBadRows where fewer than `floor` of the rows read are good; `unscorable` counts
    rows by why they have no score.
    """
    bad = Counter(pool.quarantine(["reason"])["reason"].to_pylist())
    bad.update(unscorable)
    read = pool.summary["good"] + pool.summary["quarantined"]
    good = read - sum(bad.values())
    if good < floor * read:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in bad.most_common(5))
        raise TooManyBadRows(
            f"{good:,} of {read:,} rows are good, which is under the floor of "
            f"{floor:.0%}: {reasons}. "
            f"Each bad row is in {storage.join(pool.uri, 'quarantine.parquet')}; mend the "
            "pool or lower min_good_fraction."
        )
