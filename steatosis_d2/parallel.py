"""The same function on many items: here, in processes, or on a cluster; results in order."""

import contextlib
import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from steatosis_d2.errors import InputError

_SCHEDULER_TIMEOUT_S = 10


@contextlib.contextmanager
def open_mapper(*, workers=1, scheduler=None):
    """
    Give a function like :func:`map` that yields results in the order of the items.

    Args:
        workers (int): processes on this machine; 1 works in this process.
        scheduler (str or None): address of a Dask scheduler, such as ``tcp://host:8786``; its
            workers need this package, and the files under the same paths.

    Yields:
        callable: (function, items) -> iterator of results; function and items must pickle.

    Raises:
        InputError: the scheduler does not answer, ``distributed`` is not installed, or a worker
            process died.
    """
    if scheduler is not None:
        with _connect(scheduler) as client:
            yield functools.partial(_map_on_cluster, client)
    elif workers > 1:
        # Forking a process that has threads (OpenCV's, torch's) can hang the child.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool, _explain_dead_worker():
            yield pool.map
    else:
        yield map


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
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            f"scheduler '{address}' needs the package 'distributed': pip install distributed."
        ) from None
    try:
        return Client(address, timeout=_SCHEDULER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at '{address}' ({error}); expected an address such as "
            "tcp://host:8786. Start one with 'dask scheduler'."
        ) from None


def _map_on_cluster(client, function, items):
    futures = client.map(function, list(items), pure=False)
    for future in futures:
        yield future.result()
        future.release()
