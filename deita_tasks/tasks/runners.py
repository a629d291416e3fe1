"""Where shards are computed: threads, processes, Dask or Ray, started when the first shard has to
be and ended with the run.

A shard's arguments are references, so a worker needs the store and the Prefect server, and nothing
of what the flow's process holds.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Self

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from deita_tasks import storage
from deita_tasks.config import Advanced, RunnerName
from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.plan import running_of
from deita_tasks.tasks.device_slots import on_gpu, visible_gpus
from deita_tasks.tasks.model_cache import own_environment, stopping

log = logging.getLogger(__name__)


class ShardRunner(AbstractContextManager["ShardRunner"]):
    """The workers of one run. When the block ends with an error, they are not waited for beyond the
    batch that they are at.
    """

    def __init__(self, options: Advanced, components: Sequence[Any]) -> None:
        """`components`: those that may have to compute something."""
        self.options = options
        self.runner, self.cluster = running_of(options)
        self.gpus: Sequence[
            str
        ] = ()  # of this machine, where other processes than this work on them
        self._components = components
        self._started: TaskRunner[Any] | None = None
        self._stack = ExitStack()
        self._stop = threading.Event()

    @property
    def workers(self) -> int:
        """On this machine."""
        return self.options.workers or len(self.gpus) or 1

    @property
    def threads(self) -> int:
        """Threads that one worker's model may use: OMP_NUM_THREADS, or so many that all workers
        together use the machine's cores once.
        """
        said = os.environ.get("OMP_NUM_THREADS", "")
        return int(said) if said.isdigit() else max(1, (os.cpu_count() or 1) // self.workers)

    def map(
        self,
        task: Task[..., Any],
        component: Any,
        each: Mapping[str, Sequence[Any]],
        constant: Mapping[str, Any],
    ) -> list[PrefectFuture[Any]]:
        """Submit `task`, which computes with `component`, once a shard: with `each[name][i]` for
        shard i, and the constant arguments.
        """
        runner = self._start()
        with self._resources([component]):
            return [
                runner.submit(task, {**dict(zip(each, one, strict=True)), **constant})
                for one in zip(*each.values(), strict=True)
            ]

    def call(
        self, task: Task[..., Any], components: Sequence[Any], arguments: dict[str, Any]
    ) -> Any:
        """The result of `task`, which computes with `components`: here, where shards are computed
        here too, or else by a worker.
        """
        if self.runner == "thread":
            return task(**arguments)
        runner = self._start()
        with self._resources(components):
            return runner.submit(task, arguments).result()

    def _start(self) -> TaskRunner[Any]:
        if self._started is None:
            if (
                self.runner != "thread"
                and not self.cluster
                and (self.options.num_gpus or any(map(on_gpu, self._components)))
            ):
                self.gpus = visible_gpus()
                self._check_gpus()
            token = stopping.set(self._stop)  # threads get a copy of what is set now
            self._stack.callback(stopping.reset, token)
            self._stack.enter_context(_one_server())
            self._tell()
            self._started = self._stack.enter_context(RUNNERS[self.runner](self))
        return self._started

    def _check_gpus(self) -> None:
        asked = self.options.num_gpus or 0
        if asked > len(self.gpus):
            raise UsageError(
                f"num_gpus = {asked:g}: this machine has {len(self.gpus)} CUDA devices to "
                "offer; ask for no more than that"
            )

    def _tell(self) -> None:
        log.info(
            "shards are computed by %s",
            f"{self.runner} at {self.cluster}"
            if self.cluster
            else f"{self.workers} workers ({self.runner})",
        )
        if self.cluster and storage.is_local(self.options.store):
            log.warning(
                "the store %s is a folder of this machine: every worker of %s has to see it there",
                self.options.store,
                self.cluster,
            )

    def _resources(self, components: Sequence[Any]) -> AbstractContextManager[Any]:
        gpus = self.options.num_gpus
        if gpus is None and self.runner in ("dask", "ray"):
            gpus = 1.0 if any(map(on_gpu, components)) else 0.0
        if self.runner == "ray":
            from prefect_ray.context import remote_options

            cores = {} if self.cluster else {"num_cpus": self.threads}
            return remote_options(num_gpus=gpus, **cores)  # type: ignore[no-any-return]
        if (
            self.runner == "dask" and self.cluster and gpus
        ):  # on this machine each worker has a GPU of its own
            import dask

            return dask.annotate(resources={"GPU": gpus})  # type: ignore[no-any-return]
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stop.set()
        self._stack.__exit__(kind, error, trace)
        if isinstance(error, BrokenExecutor):
            raise ComputeError(
                f"one of {self.workers} worker processes was ended from outside, most often "
                "because memory ran out: lower workers or "
                "shard_rows, and run again; what was computed is kept"
            ) from error


@contextmanager
def _one_server() -> Iterator[None]:
    """Workers use this run's server, also where that is a temporary one: each would start its own."""
    run = FlowRunContext.get()
    url = str(run.client.api_url) if run is not None else None
    with temporary_settings({PREFECT_API_URL: url}) if url else nullcontext():
        yield


# ---- threads: one model, which one shard uses at a time; more threads read and write beside it


def _threads(crew: ShardRunner) -> AbstractContextManager[Any]:
    return ThreadPoolTaskRunner(max_workers=crew.workers)


# ---- processes of this machine, each with a model of its own


@contextmanager
def _processes(crew: ShardRunner) -> Iterator[Any]:
    before = set(multiprocessing.active_children())
    gpus = multiprocessing.get_context("spawn").SimpleQueue() if crew.gpus else None
    for number in range(crew.workers if gpus else 0):
        gpus.put(crew.gpus[number % len(crew.gpus)])  # type: ignore[union-attr]
    with ProcessPoolTaskRunner(
        max_workers=crew.workers, initializer=begin_process, initargs=(crew.threads, gpus)
    ) as runner:
        try:
            yield runner
        except BaseException:
            for child in set(multiprocessing.active_children()) - before:
                # a part is written whole or not at all, so nothing is lost but the shard that it
                # was at
                child.terminate()
            raise


def begin_process(threads: int, gpus: Any) -> None:
    """Begin a worker process: its share of the cores, its own GPU, and an end with the process that
    started it.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to all; the one who started us decides
    own_environment["OMP_NUM_THREADS"] = str(threads)
    if gpus is not None:
        own_environment["CUDA_VISIBLE_DEVICES"] = gpus.get()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ---- Dask and Ray: on this machine, or a cluster that is there


def _dask(crew: ShardRunner) -> AbstractContextManager[Any]:
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    from prefect_dask import DaskTaskRunner

    if crew.cluster:
        return DaskTaskRunner(address=crew.cluster)  # type: ignore[no-any-return]
    logging.getLogger("distributed").setLevel(logging.WARNING)
    threads = {
        "OMP_NUM_THREADS": str(crew.threads),
        "MKL_NUM_THREADS": str(crew.threads),
    }  # Dask itself says 1
    workers = {}
    for number in range(crew.workers):
        gpu = {"CUDA_VISIBLE_DEVICES": crew.gpus[number % len(crew.gpus)]} if crew.gpus else {}
        options = {"nthreads": 1, "env": {**threads, **gpu}}
        workers[number] = {"cls": "distributed.Nanny", "options": options}
    scheduler = {
        "cls": "distributed.Scheduler",
        "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
    }
    local = {"workers": workers, "scheduler": scheduler}
    return DaskTaskRunner(cluster_class="distributed.SpecCluster", cluster_kwargs=local)  # type: ignore[no-any-return]


def _ray(crew: ShardRunner) -> AbstractContextManager[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray import RayTaskRunner

    if crew.cluster:
        return RayTaskRunner(address=crew.cluster)  # type: ignore[no-any-return]
    local = {
        "num_cpus": crew.workers
        * crew.threads,  # Ray gives a shard `threads` of them, and sets OMP_NUM_THREADS to that
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "object_store_memory": 128
        * 2**20,  # shards are references: the least that Ray takes will do
        **({"num_gpus": len(crew.gpus)} if crew.gpus else {}),
    }
    return RayTaskRunner(init_kwargs=local)  # type: ignore[no-any-return]


RUNNERS: Mapping[RunnerName, Callable[[ShardRunner], AbstractContextManager[Any]]] = {
    "thread": _threads,
    "process": _processes,
    "dask": _dask,
    "ray": _ray,
}
