"""Where shards are computed changes nothing of the result; and what a run says of itself in
Prefect.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from deita_tasks import storage
from deita_tasks.config import Advanced, Embedding, Scoring, Selection, Source
from deita_tasks.conversations import Conversation
from deita_tasks.embedding import EMBEDDERS
from deita_tasks.errors import ComputeError, MissingExtra, ModelError, UsageError
from deita_tasks.models.stopping import raise_if_stopped
from deita_tasks.plan import plan_run, running_of
from deita_tasks.records import ModelOutput
from deita_tasks.scoring import load_scorer
from tests.support import components
from tests.support.flow_runs import Run, run
from tests.support.small_pool import ROWS, write_rows

pytestmark = pytest.mark.flow

RUNNERS = ("thread", "process", "dask", "ray")


# ---- the same result


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread for every model: on some CPUs, how MKL splits a product changes its last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_worker(
    prefect_server: None,
    one_thread: None,
    sample_pool: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    return selected(sample_pool, tmp_path_factory.mktemp("one"), workers=1)


def selected(pool: Path, folder: Path, **given: Any) -> Run:
    """The first 24 rows of the sample pool by the preset mini: real length scorers, and MiniLM on
    them.
    """
    rows = pool.read_text(encoding="utf-8").splitlines()[:24]
    few = write_rows(folder / "in" / "pool.jsonl", [json.loads(row) for row in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "deita_tasks.results.selection.build_report",
            lambda data: SimpleNamespace(html=b"<!doctype html>", figures={}),
        )
        return run(few, folder / "store", folder / "out", budget=10, shard_rows=6, **given)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_every_runner_gives_the_same(
    runner: str, one_worker: Run, sample_pool: Path, tmp_path: Path
) -> None:
    other = selected(sample_pool, tmp_path, runner=runner, workers=2)
    assert other.result["computed"] == dict.fromkeys(
        ("complexity", "quality", "embedding"), one_worker.result["counts"]["read"]
    )
    assert other.selected == one_worker.selected
    assert [forget_where(row) for row in other.decisions] == [
        forget_where(row) for row in one_worker.decisions
    ]
    names = {path.relative_to(one_worker.store) for path in one_worker.store.rglob("part-*")}
    assert names == {path.relative_to(other.store) for path in other.store.rglob("part-*")}
    for name in names:
        assert storage.read_table(str(other.store / name)).equals(
            storage.read_table(str(one_worker.store / name))
        ), name


def forget_where(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "source_uri"}


# ---- which runner


def test_the_environment_speaks_where_the_parameters_do_not() -> None:
    environment = {"DEITA_RUNNER": "dask", "DEITA_CLUSTER": "tcp://there:8786"}
    assert running_of(Advanced(), {}) == ("thread", None)
    assert running_of(Advanced(), environment) == ("dask", "tcp://there:8786")
    assert running_of(Advanced(runner="ray", cluster="ray://here:10001"), environment) == (
        "ray",
        "ray://here:10001",
    )
    assert running_of(Advanced(runner="process"), environment) == ("process", None)


@pytest.mark.parametrize(
    ("given", "environment", "said"),
    [
        (
            {},
            {"DEITA_RUNNER": "threads"},
            "DEITA_RUNNER = 'threads': expected one of thread, process, dask, ray",
        ),
        (
            {"cluster": "tcp://there:8786"},
            {},
            "cluster = 'tcp://there:8786' with runner = 'thread': expected the runner dask or ray",
        ),
        (
            {"runner": "dask", "cluster": "tcp://there:8786", "workers": 2},
            {},
            "workers = 2 with cluster",
        ),
        (
            {"runner": "process", "num_gpus": 1},
            {},
            "num_gpus = 1 with runner = 'process': expected the runner dask or ray",
        ),
        ({"runner": "process", "store": "memory://s"}, {}, "other processes do not see it"),
    ],
)
def test_what_does_not_go_together_is_told(
    given: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        running_of(Advanced(**given), environment)


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_missing_extra_is_found_before_anything_starts(
    runner: str, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = running_of.__globals__["importlib"].util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == f"prefect_{runner}" else real(name, *rest),
    )
    pool = write_rows(tmp_path / "pool.jsonl", ROWS)
    with pytest.raises(MissingExtra, match=rf"pip install 'deita-tasks\[{runner}\]'"):
        run(pool, tmp_path / "store", tmp_path / "out", runner=runner)
    assert not (tmp_path / "store").exists()


def test_an_error_comes_whole_from_a_worker() -> None:
    error = MissingExtra("dask", "prefect-dask", "dask")
    sent = copy.copy(error)  # by __reduce__, as between processes
    assert (type(sent), str(sent)) == (MissingExtra, str(error))


# ---- a worker computes what the run asks for, or nothing


def test_a_shard_says_which_model_exactly(small_pool: Path, tmp_path: Path) -> None:
    """What is chosen on one machine, a number type or the commit of a branch, is not chosen anew on
    another.
    """
    from deita_tasks.presets import MINILM_REVISION
    from deita_tasks.tasks import list_stages

    plan = plan_run(
        Source(input=[str(small_pool)]),
        "mini",
        Scoring(),
        Embedding(),
        Selection(),
        None,
        Advanced(store=str(tmp_path)),
    )
    stages = list_stages(plan, Advanced(store=str(tmp_path)))
    options = {stage.name: stage.spec["options"] for stage in stages}
    assert options["embedding"]["revision"] == MINILM_REVISION
    assert options["embedding"]["dtype"] == "float32"


def test_a_worker_that_has_another_model_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from deita_tasks.tasks import model_cache

    spec = {"name": "instruction_length", "options": {"kind": "complexity"}}
    asked = storage.digest_of(
        load_scorer(**spec["options"], name="instruction_length").fingerprint()
    )  # type: ignore[arg-type]
    elsewhere = SimpleNamespace(get=lambda: SimpleNamespace(detached=True))
    monkeypatch.setattr(model_cache, "FlowRunContext", elsewhere)
    model_cache.release_models()
    assert model_cache.load_cached("scorer", spec, asked).kind == "complexity"
    model_cache.release_models()
    with pytest.raises(ModelError, match="not with the component of the run"):
        model_cache.load_cached("scorer", spec, "0" * 32)


def test_a_process_keeps_as_many_models_as_a_run_allows() -> None:
    from deita_tasks.tasks import model_cache

    def load(scorer: str, models: int) -> object:
        kind = "complexity" if scorer == "instruction_length" else "quality"
        spec = {"name": scorer, "options": {"kind": kind}}
        return model_cache.load_cached("scorer", spec, models=models)  # type: ignore[arg-type]

    model_cache.release_models()
    first = load("response_length", 2)
    second = load("instruction_length", 2)
    assert load("response_length", 2) is first
    assert load("instruction_length", 2) is second
    assert load("response_length", 1) is first, "the one in use stays"
    assert load("instruction_length", 2) is not second, "the other one was released"
    model_cache.release_models()


# ---- threads: one model, one shard at a time


class SlowEmbedder(components.TopicEmbedder):
    """Computes on a device, batch after batch, each of 50 ms; says what it did when."""

    device: str = "cpu"
    made: ClassVar[list[int]] = []
    at_once: ClassVar[list[int]] = []
    now: ClassVar[set[int]] = set()
    batches: ClassVar[int] = 2
    begun: ClassVar[list[None]] = []

    def model_post_init(self, context: Any) -> None:
        self.made.append(threading.get_ident())

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        self.now.add(threading.get_ident())
        self.at_once.append(len(self.now))
        try:
            for _ in range(self.batches):
                raise_if_stopped()
                self.begun.append(None)
                time.sleep(0.05)
            return super().compute(conversations)
        finally:
            self.now.discard(threading.get_ident())


@pytest.fixture
def slow_embedder(tiny: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SlowEmbedder]]:
    monkeypatch.setitem(EMBEDDERS, "sentence_transformers", f"{__name__}:SlowEmbedder")  # type: ignore[misc]
    SlowEmbedder.made.clear()
    SlowEmbedder.at_once.clear()
    SlowEmbedder.begun.clear()
    yield SlowEmbedder
    SlowEmbedder.batches = 2


def test_threads_share_one_model_and_take_turns(
    slow_embedder: type[SlowEmbedder], small_pool: Path, tmp_path: Path
) -> None:
    run(small_pool, tmp_path / "store", tmp_path / "out", workers=4, shard_rows=4)
    assert len(slow_embedder.at_once) == 8
    assert set(slow_embedder.at_once) == {1}
    by_four = len(slow_embedder.made)
    slow_embedder.made.clear()
    run(small_pool, tmp_path / "store2", tmp_path / "out2", workers=1, shard_rows=4)
    assert by_four == len(slow_embedder.made), "more workers made more models"


def test_a_shard_that_takes_too_long_fails_and_is_tried_again(
    slow_embedder: type[SlowEmbedder], small_pool: Path, tmp_path: Path
) -> None:
    slow_embedder.batches = 200  # 10 s
    with pytest.raises(ComputeError, match=r"not done after 0\.3 s, the shard_timeout"):
        run(
            small_pool,
            tmp_path / "store",
            tmp_path / "out",
            shard_timeout=0.3,
            retries=1,
            shard_rows=30,
        )
    assert len(slow_embedder.at_once) == 2
    assert 0 < len(slow_embedder.begun) <= 2 * 6


# ---- what a run says of itself


def test_a_retry_is_seen_as_one_with_its_reason(
    tiny: None,
    small_pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from prefect.task_engine import SyncTaskRunEngine

    seen: list[tuple[str, str]] = []
    real = SyncTaskRunEngine.set_state

    def set_state(self: Any, state: Any, force: bool = False) -> Any:
        seen.append((self.task_run.name, state.name))
        return real(self, state, force=force)

    monkeypatch.setattr(SyncTaskRunEngine, "set_state", set_state)
    monkeypatch.setattr("deita_tasks.tasks.caching.exponential_backoff", lambda backoff_factor: 0.2)
    caplog.set_level(logging.INFO, "prefect.task_runs")
    components.faults["reason 12.3"] = 1
    run(small_pool, tmp_path / "store", tmp_path / "out", retries=2)
    (retried,) = {task for task, name in seen if name == "AwaitingRetry"}
    assert [name for task, name in seen if task == retried] == [
        "Running",
        "AwaitingRetry",
        "Retrying",
        "Completed",
    ]
    told = [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "task_run_name", "") == retried
    ]
    assert any(
        "a hiccup at 'reason 12.3'" in line and "Retry 1/2 will start" in line for line in told
    )


def test_tags_and_the_log_of_the_algorithm(
    tiny: None, small_pool: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    caplog.set_level(logging.INFO, "deita_tasks")
    ids: list[Any] = []
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}), watched_flow_run(ids):
        run(small_pool, tmp_path / "store", tmp_path / "out", budget=4)
    flow_run, task_runs, logs = told_of(ids[0])
    assert set(flow_run.tags) == {"preset:mini", "pool:pool.jsonl"}
    tags = {task.name: set(task.tags) for task in task_runs}
    assert tags["complexity 1/4"] == {"preset:mini", "pool:pool.jsonl", "stage:complexity"}
    ours = [line.message for line in logs if line.name.startswith("deita_tasks")]
    assert any(line.startswith("diverse: ") and " 4 selected" in line for line in ours)
    assert "complexity: 30 of 30 rows to compute, shards: 4" in ours
    assert len(ours) < 12, "a line a row"


@contextmanager
def watched_flow_run(ids: list[Any]) -> Iterator[None]:
    from prefect.flow_engine import FlowRunEngine

    real = FlowRunEngine.begin_run

    def begin_run(self: Any) -> Any:
        ids.append(self.flow_run.id)
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlowRunEngine, "begin_run", begin_run)
        yield


def told_of(flow_run_id: Any) -> tuple[Any, list[Any], list[Any]]:
    """The flow run, its task runs and its log, as soon as the server has them all."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, LogFilter

    by_id: Any = {"id": {"any_": [flow_run_id]}}
    by_run: Any = {"flow_run_id": {"any_": [flow_run_id]}}
    with get_client(sync_client=True) as client:
        return eventually(
            lambda: (
                client.read_flow_run(flow_run_id),
                client.read_task_runs(flow_run_filter=FlowRunFilter(**by_id)),
                client.read_logs(LogFilter(**by_run)),
            ),
            lambda found: (
                len(found[1]) >= 14
                and any("deita_tasks.tasks.selecting" in line.name for line in found[2])
            ),
        )


def eventually(look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    patience = time.monotonic() + 60
    while not enough(found := look()) and time.monotonic() < patience:
        time.sleep(0.5)
    return found


def test_a_tag_names_a_pool_and_not_where_it_lies() -> None:
    from deita_tasks.tasks.run_context import tags_of

    many = Source(input=["s3://team/pools/first.jsonl.zst", "b.jsonl", "c.jsonl"])
    assert tags_of({"preset": "paper", "source": many}) == [
        "preset:paper",
        "pool:first.jsonl.zst and 2 more",
    ]
    assert tags_of({"source": {"input": ["s3://team/pools/x/"]}}) == ["pool:x"]
    training = {"source": {"input": ["results/x"]}, "training": {"base": "org/small"}}
    assert tags_of(training) == ["pool:x", "model:small"]
    assert tags_of({"comparison": {"selection": "results/x"}}) == ["selection:x"]
    assert tags_of({}) == []


# ---- a cluster that is there


@pytest.fixture
def dask_cluster() -> Iterator[str]:
    """A scheduler with two workers, of which number 1 says that it has a GPU."""
    distributed = pytest.importorskip("distributed")
    workers = {
        number: {
            "cls": "distributed.Nanny",
            "options": {
                "nthreads": 1,
                "env": {"WORKER": str(number)},
                "resources": {"GPU": number},
                "silence_logs": 40,
            },
        }
        for number in (0, 1)
    }
    scheduler = {
        "cls": "distributed.Scheduler",
        "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
    }
    with distributed.SpecCluster(workers=workers, scheduler=scheduler, silence_logs=40) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_a_cluster_by_its_address_with_what_a_shard_asks_for(
    prefect_server: None, dask_cluster: str, tmp_path: Path
) -> None:
    from prefect import flow

    from deita_tasks.tasks import ShardRunner
    from tests.support.shared_device import environment_here

    @flow(persist_result=False, result_serializer="json")
    def asked(num_gpus: float) -> set[str]:
        with ShardRunner(
            Advanced(runner="dask", cluster=dask_cluster, num_gpus=num_gpus, store=str(tmp_path)),
            [],
        ) as crew:
            futures = crew.map(environment_here, SimpleNamespace(), {"number": list(range(4))}, {})
            return {future.result()["WORKER"] for future in futures}

    assert asked(1) == {"1"}
    assert asked(0) == {"0", "1"}


def test_gpus_that_this_machine_has_not_are_not_waited_for(
    tiny: None, small_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match="num_gpus = 2: this machine has 1 CUDA devices"):
        run(small_pool, tmp_path / "store", tmp_path / "out", runner="ray", num_gpus=2)


@pytest.mark.slow
def test_a_worker_process_that_is_killed_is_told_of(prefect_server: None, tmp_path: Path) -> None:
    from prefect import flow

    from deita_tasks.tasks import ShardRunner
    from tests.support.shared_device import killed

    @flow(persist_result=False, result_serializer="json")
    def asked() -> None:
        with ShardRunner(Advanced(runner="process", store=str(tmp_path)), []) as crew:
            crew.map(killed, SimpleNamespace(), {"number": [0]}, {})[0].wait()

    with pytest.raises(
        ComputeError,
        match="one of 1 worker processes was killed, most often because memory ran out",
    ):
        asked()
