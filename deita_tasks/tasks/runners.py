"""Where shards are computed: threads, processes, Dask or Ray.

They start when the first shard does and end with the run. The arguments of a shard are references:
a worker needs the store and the Prefect server, but nothing from the flow's process.
"""

from __future__ import annotations

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
from deita_tasks.tasks.device_slots import is_on_gpu, visible_gpus
from deita_tasks.tasks.hosts import check_dask_hosts
from deita_tasks.tasks.model_cache import stop_event, worker_environment

log = logging.getLogger(__name__)


class ShardRunner(AbstractContextManager["ShardRunner"]):
    """Runs the shards of one run on its workers.

    If the block ends with an error, workers stop after the batch that they are at.
    """

    def __init__(self, options: Advanced, components: Sequence[Any]) -> None:
        """components: those that may have to compute something."""
        self.options = options
        self.runner, self.cluster = running_of(options)
        self.gpus: Sequence[str] = ()  # of this machine, for worker processes
        self._components = components
        self._task_runner: TaskRunner[Any] | None = None
        self._stack = ExitStack()
        self._stop = threading.Event()

    @property
    def workers(self) -> int:
        """Number of workers on this machine.

        As many as the user sets, else one for each GPU, else one.
        """
        return self.options.workers or len(self.gpus) or 1

    @property
    def threads(self) -> int:
        """Threads that one worker's model may use.

        OMP_NUM_THREADS, or an equal share of the machine's cores.
        """
        setting = os.environ.get("OMP_NUM_THREADS", "")
        if setting.isdigit():
            return int(setting)
        return max(1, (os.cpu_count() or 1) // self.workers)

    def map(
        self,
        task: Task[..., Any],
        component: Any,
        varying: Mapping[str, Sequence[Any]],
        constant: Mapping[str, Any],
    ) -> list[PrefectFuture[Any]]:
        """Submit `task`, which computes with `component`, once for each shard.

        Shard i gets `varying[name][i]` and the constant arguments.
        """
        runner = self._start()
        futures = []
        with self._resources([component]):
            for values in zip(*varying.values(), strict=True):
                arguments = dict(zip(varying, values, strict=True))
                futures.append(runner.submit(task, {**arguments, **constant}))
        return futures

    def call(
        self, task: Task[..., Any], components: Sequence[Any], arguments: dict[str, Any]
    ) -> Any:
        """Return the result of `task`, computed with `components` where the shards are."""
        if self.runner == "thread":
            return task(**arguments)
        runner = self._start()
        with self._resources(components):
            return runner.submit(task, arguments).result()

    def _start(self) -> TaskRunner[Any]:
        """Return the task runner, started at the first call; later calls find it running.

        Raises UsageError if `num_gpus` are more than there are, or if a host of the cluster lacks
        something.
        """
        if self._task_runner is None:
            if self.runner != "thread" and not self.cluster and self._needs_gpus():
                self.gpus = visible_gpus()
                self._check_gpus()
            token = stop_event.set(self._stop)  # threads get a copy of what is set now
            self._stack.callback(stop_event.reset, token)
            self._stack.enter_context(_use_this_server())
            self._log_workers()
            self._check_hosts()
            self._task_runner = self._stack.enter_context(RUNNERS[self.runner](self))
        return self._task_runner

    def _needs_gpus(self) -> bool:
        """Return whether workers need GPUs: by `num_gpus`, or for a component on CUDA."""
        return bool(self.options.num_gpus) or any(map(is_on_gpu, self._components))

    def _check_gpus(self) -> None:
        """Raise UsageError if `num_gpus` asks for more CUDA devices than this machine has."""
        num_gpus = self.options.num_gpus or 0
        if num_gpus > len(self.gpus):
            raise UsageError(
                f"num_gpus = {num_gpus:g}: this machine has {len(self.gpus)} CUDA "
                "devices; expected "
                "no more than that"
            )

    def _log_workers(self) -> None:
        """Log where shards are computed; warn of a store that a cluster may not see."""
        workers = "worker" if self.workers == 1 else "workers"
        place = f"{self.workers} {workers} ({self.runner})"
        if self.cluster:
            place = f"{self.runner} at {self.cluster}"
        log.info("computing shards on %s", place)
        if self.cluster and storage.is_local(self.options.store):
            log.warning(
                "the store %s is a local folder: every worker of %s has to find it there",
                self.options.store,
                self.cluster,
            )

    def _check_hosts(self) -> None:
        """Check every host of a Dask cluster.

        Raises UsageError for one that lacks something, ComputeError for one that does not answer.
        """
        if self.runner == "dask" and self.cluster:
            store = storage.absolute(self.options.store)
            log.info("%s", check_dask_hosts(self.cluster, store, PREFECT_API_URL.value()))

    def _resources(self, components: Sequence[Any]) -> AbstractContextManager[Any]:
        """Return a context in which submitted shards ask for the GPUs and cores that they need.

        Only Dask and Ray place shards by what they ask for; threads and processes need nothing.
        """
        num_gpus = self.options.num_gpus
        if num_gpus is None and self.runner in ("dask", "ray"):
            num_gpus = 1.0 if any(map(is_on_gpu, components)) else 0.0
        if self.runner == "ray":
            from prefect_ray.context import remote_options

            cores = {} if self.cluster else {"num_cpus": self.threads}
            return remote_options(num_gpus=num_gpus, **cores)  # type: ignore[no-any-return]
        if self.runner == "dask" and self.cluster and num_gpus:
            import dask

            # On this machine each worker has a GPU of its own.
            return dask.annotate(resources={"GPU": num_gpus})  # type: ignore[no-any-return]
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
                f"one of {self.workers} worker processes was killed, most often because memory ran "
                "out: lower workers or shard_rows, and run again; what was computed is kept"
            ) from error


@contextmanager
def _use_this_server() -> Iterator[None]:
    """Make workers use this run's server, a temporary one too: each would start its own."""
    context = FlowRunContext.get()
    url = str(context.client.api_url) if context is not None else None
    with temporary_settings({PREFECT_API_URL: url}) if url else nullcontext():
        yield


# ---- threads: one model, used by one shard at a time; more threads read and write meanwhile


def _threads(shards: ShardRunner) -> AbstractContextManager[Any]:
    """Return a runner of threads in the flow's process, which share its one loaded model."""
    return ThreadPoolTaskRunner(max_workers=shards.workers)


# ---- processes of this machine, each with its own model


@contextmanager
def _processes(shards: ShardRunner) -> Iterator[Any]:
    """Give a runner of spawned processes, each with a GPU of its own if there are any.

    After an error in the block they are ended at once, not at the end of their shards.
    """
    earlier_children = set(multiprocessing.active_children())
    gpus = _gpu_queue(shards) if shards.gpus else None
    task_runner = ProcessPoolTaskRunner(
        max_workers=shards.workers, initializer=begin_process, initargs=(shards.threads, gpus)
    )
    with task_runner as runner:
        try:
            yield runner
        except BaseException:
            for child in set(multiprocessing.active_children()) - earlier_children:
                # A part is written whole or not at all: this loses only the current shard.
                child.terminate()
            raise


def _gpu_queue(shards: ShardRunner) -> Any:
    """Return a queue with the GPU of each worker."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    for number in range(shards.workers):
        queue.put(shards.gpus[number % len(shards.gpus)])
    return queue


def begin_process(threads: int, gpus: Any) -> None:
    """Set up a worker process: its share of the cores, its GPU, and an end with its parent.

    gpus: a queue with the names of GPUs, of which each process takes one; None where none are
    needed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    worker_environment["OMP_NUM_THREADS"] = str(threads)
    if gpus is not None:
        worker_environment["CUDA_VISIBLE_DEVICES"] = gpus.get()
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Wait for the end of the process that started this one, then end too, with status 1.

    A killed flow would otherwise leave its workers behind, and their memory with them.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ---- Dask and Ray: on this machine, or on an existing cluster


def _dask(shards: ShardRunner) -> AbstractContextManager[Any]:
    """Return a runner on the cluster's scheduler, or on new workers of this machine.

    Such a worker computes one shard at a time. A new scheduler listens on 127.0.0.1 alone, on any
    free port.
    """
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    from prefect_dask import DaskTaskRunner

    if shards.cluster:
        return DaskTaskRunner(address=shards.cluster)  # type: ignore[no-any-return]
    logging.getLogger("distributed").setLevel(logging.WARNING)
    workers = {}
    for number in range(shards.workers):
        options = {"nthreads": 1, "env": _dask_environment(shards, number)}
        workers[number] = {"cls": "distributed.Nanny", "options": options}
    address = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": "distributed.Scheduler", "options": address}
    return DaskTaskRunner(  # type: ignore[no-any-return]
        cluster_class="distributed.SpecCluster",
        cluster_kwargs={"workers": workers, "scheduler": scheduler},
    )


def _dask_environment(shards: ShardRunner, worker: int) -> dict[str, str]:
    """Return the environment of a worker by its number: its share of the cores, and its GPU."""
    # Dask itself sets one thread.
    threads = str(shards.threads)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if shards.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = shards.gpus[worker % len(shards.gpus)]
    return environment


def _ray(shards: ShardRunner) -> AbstractContextManager[Any]:
    """Return a runner on an existing Ray cluster, or on a Ray of this machine alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray import RayTaskRunner

    if shards.cluster:
        return RayTaskRunner(address=shards.cluster)  # type: ignore[no-any-return]
    options = {
        # Ray gives a shard `threads` of them, and sets OMP_NUM_THREADS to that.
        "num_cpus": shards.workers * shards.threads,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        # Shards are references: the least that Ray accepts is enough.
        "object_store_memory": 128 * 2**20,
    }
    if shards.gpus:
        options["num_gpus"] = len(shards.gpus)
    return RayTaskRunner(init_kwargs=options)  # type: ignore[no-any-return]


RUNNERS: Mapping[RunnerName, Callable[[ShardRunner], AbstractContextManager[Any]]] = {
    "thread": _threads,
    "process": _processes,
    "dask": _dask,
    "ray": _ray,
}
