"""Properties of the care of a store: list, collect, verify, compact, whatever lies in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deita_tasks import storage
from deita_tasks.artifacts.compaction import compact
from deita_tasks.artifacts.garbage import find_garbage, remove_garbage
from deita_tasks.artifacts.inventory import list_artifacts, summarise
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import read_selection
from deita_tasks.artifacts.shards import plan_shards
from deita_tasks.artifacts.verify import verify
from deita_tasks.errors import StorageError
from tests.support.small_store import (
    FOLDERS,
    add_part,
    file_names,
    make_pool,
    make_selection,
    part_set,
    problems,
)

OLD = (datetime.now(UTC) - timedelta(days=60)).timestamp()
FOREIGN = "pools/notes.txt", "scores/quality/README.md", "embeddings/.DS_Store"

numbers = st.integers(1, 6)
pools = st.lists(numbers, min_size=1, max_size=6)
part_rows = st.lists(numbers, min_size=1, max_size=4, unique=True)


class StorePlan(NamedTuple):
    """A store to make. pools: row numbers, with repetitions. budgets: of selections, by pool."""

    pools: list[list[int]]
    budgets: list[list[int]]
    parts: list[tuple[str, list[int]]]
    of_another_model: list[tuple[str, list[int]]]
    with_early_names: bool
    is_old: list[bool]
    leftovers: bool


stages = st.sampled_from(sorted(FOLDERS))
store_plans = st.builds(
    StorePlan,
    pools=st.lists(pools, max_size=2, unique_by=tuple),
    budgets=st.lists(st.lists(st.integers(1, 3), max_size=2, unique=True), min_size=2, max_size=2),
    parts=st.lists(st.tuples(stages, part_rows), max_size=4),
    of_another_model=st.lists(st.tuples(stages, part_rows), max_size=2),
    with_early_names=st.booleans(),
    is_old=st.lists(st.booleans(), min_size=7, max_size=7),
    leftovers=st.booleans(),
)


@contextmanager
def temporary_store(plan: StorePlan) -> Iterator[str]:
    """Give the store of `plan`."""
    with TemporaryDirectory(prefix="care-") as folder:
        store = f"{folder}/store"
        os.makedirs(store)
        for stage, rows in plan.parts:
            add_part(store, stage, *rows)
        for stage, rows in plan.of_another_model:
            add_part(store, stage, *rows, model="another")
        for rows, budgets in zip(plan.pools, plan.budgets, strict=False):
            pool = make_pool(store, *rows)
            for stage in FOLDERS:
                add_part(store, stage, *sorted(set(rows)))
                parts = part_set(store, f"{stage}", revision="next")
                plan_shards(parts, store, *pool.distinct, 2)
            for budget in budgets:
                make_selection(store, pool, budget)
        if plan.with_early_names:
            name_by_ids(store)
        if plan.leftovers:
            leave_leftovers(store)
        for number, artifact in enumerate(list_artifacts(store)):
            if plan.is_old[number % len(plan.is_old)]:
                for file in artifact.files:
                    os.utime(f"{store}/{file.name}", (OLD, OLD))
        yield store


def name_by_ids(store: str) -> None:
    """Name every other part as early versions did."""
    for path in sorted(Path(store).rglob("part-*.parquet"))[::2]:
        ids = storage.read_table(str(path), ["id"])["id"]
        path.rename(path.with_name(f"part-{ids_digest(ids)}.parquet"))


def leave_leftovers(store: str) -> None:
    """Leave what killed runs leave, and files of somebody else."""
    for name in FOREIGN:
        storage.write_bytes(f"{store}/{name}", b"mine")
    digest = "0" * 32
    for name in (
        f"pools/{digest}/rows-00000.parquet",
        f"selections/{digest}/kept.parquet",
        f"scores/quality/{digest}/.part-{'1' * 64}.parquet.{digest}",
        f"plans/.{digest}.parquet.{digest}",
    ):
        storage.write_bytes(f"{store}/{name}", b"PAR1half")
    storage.write_bytes(f"{store}/results/quality-{digest}-{digest}", b'{"metadata":{},"result":1}')


def part_sets(store: str) -> Iterator[PartSet]:
    for artifact in list_artifacts(store):
        if artifact.is_part_set:
            uri = f"{store}/{artifact.folder}"
            yield PartSet(uri=uri, fingerprint=artifact.digest)


def values_of(parts: PartSet, ids: set[str] | None = None) -> dict[str, Any]:
    """Return the value of each of `ids` in these parts; of every id for None."""
    if not parts.digests():
        return {}
    table = StageParts(part_set=parts, digests=list(parts.index())).gather(["id", "values"])
    rows = zip(table["id"].to_pylist(), table["values"].to_pylist(), strict=True)
    return {id: value for id, value in rows if ids is None or id in ids}


def selections_of(store: str) -> dict[str, Any]:
    """Return all that each selection rests on: pool, scores, vectors and decisions."""
    found: dict[str, Any] = {}
    for artifact in list_artifacts(store):
        if artifact.kind != "selections":
            continue
        try:
            selection = read_selection(f"{store}/{artifact.folder}")
        except StorageError:
            continue  # unfinished, or damaged
        assert selection.provenance is not None
        pool = Pool.open(f"{store}/pools/{selection.provenance.pool}")
        ids = set(pool.distinct[0].to_pylist())
        values = {stage: values_of(part_set(store, stage), ids) for stage in FOLDERS}
        assert all(each.keys() == ids for each in values.values())
        found[artifact.digest] = [pool.index(), values, selection.read("decisions.parquet")]
    return found


def list_all(store: str) -> None:
    assert len(list(summarise(store))) == len(list_artifacts(store))


def check_collection(store: str, grace: timedelta) -> None:
    selections = selections_of(store)
    young = datetime.now(UTC) - grace
    pools = [
        (pool.uri, pool.index())
        for pool in complete_pools(store)
        if max(os.path.getmtime(path) for path in Path(pool.uri).iterdir()) > young.timestamp()
    ]
    foreign = file_names(store) & set(FOREIGN)
    remove_garbage(store, find_garbage(store, grace))
    assert selections_of(store) == selections
    assert [index.equals(Pool.open(uri).index()) for uri, index in pools] == [True] * len(pools)
    assert foreign <= file_names(store)
    assert find_garbage(store, grace) == []


def complete_pools(store: str) -> Iterator[Pool]:
    for artifact in list_artifacts(store):
        if artifact.kind == "pools" and artifact.digest != "0" * 32:
            yield Pool.open(f"{store}/{artifact.folder}")


# Without shrinking, which takes minutes.
SETTINGS = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
    phases=[Phase.generate],
)


@SETTINGS
@given(plan=store_plans, days=st.sampled_from([0, 7]), merged_rows=st.integers(1, 12))
def test_care_loses_nothing(plan: StorePlan, days: int, merged_rows: int) -> None:
    with temporary_store(plan) as store:
        list_all(store)
        assert problems(store) == {}
        check_collection(store, timedelta(days=days))
        selections = selections_of(store)
        values = {parts.uri: values_of(parts) for parts in part_sets(store)}
        list(compact(store, merged_rows))
        assert list(compact(store, merged_rows)) == []
        assert {parts.uri: values_of(parts) for parts in part_sets(store)} == values
        assert selections_of(store) == selections
        assert problems(store) == {}
        check_collection(store, timedelta(days=days))
        list_all(store)


# ---- damage


class Damage(NamedTuple):
    """A bit that is flipped, or the end of a file that is cut off."""

    share: float
    bit: int | None

    def apply(self, content: bytes) -> bytes:
        position = min(int(self.share * len(content)), len(content) - 1)
        if self.bit is None:
            return content[:position]
        changed = bytearray(content)
        changed[position] ^= 1 << self.bit
        return bytes(changed)


damages = st.builds(Damage, share=st.floats(0, 1), bit=st.one_of(st.none(), st.integers(0, 7)))


def checked_files(store: str) -> list[str]:
    """Return the files that a finished writer has left, in which all damage is noticed."""
    return [
        file.name
        for artifact in list_artifacts(store)
        for file in artifact.files
        if artifact.kind != "drafts" and "0" * 32 not in file.name
    ]


def content_of(path: Path) -> Any:
    """Return what our readers make of a file: damage that leaves that alone may go unnoticed."""
    if path.suffix == ".parquet":
        return storage.read_table(str(path))
    return storage.read_json(str(path))


def is_harmless(path: Path, original: Any) -> bool:
    try:
        return bool(content_of(path) == original)
    except StorageError:
        return False


def rows_to_compute(store: str) -> dict[tuple[str, str], int]:
    """Return how many rows a run over each pool would compute, by pool and stage."""
    return {
        (pool.digest, stage): plan_shards(
            part_set(store, stage), store, *pool.distinct, None
        ).rows_to_compute
        for pool in complete_pools(store)
        for stage in FOLDERS
    }


@SETTINGS
@given(plan=store_plans, damage=damages, choice=st.floats(0, 1, exclude_max=True))
def test_damage_is_named_and_costs_only_itself(
    plan: StorePlan, damage: Damage, choice: float
) -> None:
    with temporary_store(plan) as store:
        names = checked_files(store)
        if not names:
            return
        name = names[int(choice * len(names))]
        path = Path(store, name)
        content, original = path.read_bytes(), content_of(path)
        selections = selections_of(store)
        for work in (list_all, collect, merge):
            if not path.exists():
                return  # it was garbage, or is merged with others
            path.write_bytes(damage.apply(content))
            work(store)
            if path.exists():
                path.write_bytes(content)
            assert selections_of(store) == selections
        if not path.exists():
            return
        before = rows_to_compute(store)
        path.write_bytes(damage.apply(content))
        harmless = is_harmless(path, original)
        found = set(problems(store))
        assert found <= {name, str(Path(name).parent)}
        assert found or harmless
        list(verify(store, remove=True))
        assert problems(store) == {}
        for (pool, stage), rows in rows_to_compute(store).items():
            lost = lost_ids(store, stage, path, original)
            ids = set(Pool.open(f"{store}/pools/{pool}").distinct[0].to_pylist())
            assert rows == before[pool, stage] + len(lost & ids)


def lost_ids(store: str, stage: str, path: Path, original: Any) -> set[str]:
    """Return the ids that only the damaged file `path` held, if it was a part of `stage`."""
    parts = part_set(store, stage)
    if path.exists() or str(path.parent) != parts.uri or path.suffix != ".parquet":
        return set()
    return set(original["id"].to_pylist()) - values_of(parts).keys()


def collect(store: str) -> None:
    remove_garbage(store, find_garbage(store, timedelta(0)))


def merge(store: str) -> None:
    list(compact(store, 8))
