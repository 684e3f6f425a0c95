"""The same function on many items: in threads, in processes or on a cluster; results in order."""

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import cv2

from steatosis_d2.errors import InputError, needs_extra

logger = logging.getLogger(__name__)

_SCHEDULER_TIMEOUT_S = 10
# Calls in flight for each that can run at once: nobody idles, and memory is bounded.
_IN_FLIGHT_PER_SLOT = 3
# Of this process: one computes while the others read ahead.
_THREADS = 3


@dataclass(frozen=True)
class Executor:
    """
    Something that runs calls beside the caller.

    Attributes:
        submit (callable): (function, item) -> future. Both must pickle unless it runs threads.
        count_slots (callable): () -> how many calls can run at once, at present.
        n_processes (int): of this machine that work at the same time; 0 where others do.
    """

    submit: Callable[[Callable, Any], Any]
    count_slots: Callable[[], int]
    n_processes: int = 1

    def run_in_order(self, function, tasks):
        """
        Call a function for many items, some of them ahead of the caller.

        Args:
            function (callable): item -> result.
            tasks (iterable): of pairs: a tag that stays here, and the item, or None for no call.
                They are taken one by one, as there is room.

        Yields:
            tuple: tag, and future of the result (None for no call), in the order of the tasks.
        """
        waiting: deque = deque()
        for tag, item in tasks:
            waiting.append((tag, None if item is None else self.submit(function, item)))
            if len(waiting) >= _IN_FLIGHT_PER_SLOT * self.count_slots():
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


@contextlib.contextmanager
def open_executor(*, workers=1, scheduler=None):
    """
    Start what runs calls.

    Args:
        workers (int): processes on this machine, among which its cores are divided; 1 is threads
            of this process.
        scheduler (str or None): address of a Dask scheduler, such as ``tcp://host:8786``. It and
            its workers need this package, and the workers the files under the same paths. Where
            some workers declare a resource ``GPU``, each call takes one, and the others get none.

    Yields:
        Executor: open until the block ends; calls that have not begun by then are dropped.

    Raises:
        InputError: the scheduler does not answer, ``distributed`` is not installed, or a worker
            died.
    """
    if scheduler is not None:
        with _connect(scheduler) as client, _explain_lost_cluster(scheduler):
            yield _use_cluster(client)
    elif workers > 1:
        with _explain_dead_worker(), _shut_down(_start_processes(workers)) as pool:
            yield Executor(pool.submit, lambda: workers, n_processes=workers)
    else:
        with _shut_down(ThreadPoolExecutor(_THREADS)) as pool:
            yield Executor(pool.submit, lambda: _THREADS)


@contextlib.contextmanager
def open_mapper(*, workers=1, scheduler=None):
    """
    Give a function like :func:`map` that yields results in the order of the items.

    Args:
        workers (int): processes on this machine; 1 works in this process.
        scheduler (str or None): as in :func:`open_executor`.

    Yields:
        callable: (function, items) -> iterator of results; function and items must pickle.

    Raises:
        InputError: as in :func:`open_executor`.
    """
    if scheduler is None and workers == 1:
        yield map
        return
    with open_executor(workers=workers, scheduler=scheduler) as executor:
        yield functools.partial(_map_with, executor)


def _map_with(executor, function, items):
    for _, future in executor.run_in_order(function, ((None, item) for item in items)):
        yield future.result()


@contextlib.contextmanager
def _shut_down(pool):
    """Close a pool without working off what waits in it: Ctrl-C is answered soon."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_processes(workers):
    # Forking a process that has threads (OpenCV's, torch's) can hang the child.
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_worker,
        initargs=(max(1, _count_cores() // workers),),
    )


def _count_cores():
    """Those that this process may use, where the system says so."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _prepare_worker(n_threads):
    """Keep a worker to its share of the cores, and tie its life to that of its parent."""
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))  # torch reads it when imported
    cv2.setNumThreads(n_threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # Nobody else would end the workers of a parent that was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _explain_dead_worker():
    try:
        yield
    except BrokenProcessPool:
        raise InputError(
            "a worker process died, most likely for want of memory; use fewer workers "
            "(--workers), or smaller images."
        ) from None


def _connect(address):
    with needs_extra("dask", f"scheduler '{address}'"):
        from distributed import Client
    # Of a lost scheduler it logs a traceback; _explain_lost_cluster says it in a line.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        return Client(address, timeout=_SCHEDULER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at '{address}' ({error}); expected an address such as "
            "tcp://host:8786. Start one with 'dask scheduler'."
        ) from None


def _use_cluster(client):
    """The executor of a cluster, as soon as it has a worker."""
    if not client.nthreads():
        logger.info("Waiting for the cluster's first worker.")
        client.wait_for_workers(1)
    if _count_gpus(client):
        return Executor(
            functools.partial(client.submit, pure=False, resources={"GPU": 1}),
            lambda: max(1, _count_gpus(client)),
            n_processes=0,
        )
    return Executor(
        functools.partial(client.submit, pure=False),
        lambda: max(1, sum(client.nthreads().values())),
        n_processes=0,
    )


def _count_gpus(client):
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return int(sum(worker["resources"].get("GPU", 0) for worker in workers))


@contextlib.contextmanager
def _explain_lost_cluster(address):
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise InputError(
            f"scheduler '{address}': one call ended several workers, most likely for want of "
            f"memory ({error}); give them more, or use smaller images."
        ) from None
    except FutureCancelledError:
        raise InputError(f"scheduler '{address}' was lost; is it still running?") from None
