"""Threads, processes and a cluster give the same instances, though a worker dies on the way."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from benchmarks.virtual_slide import ColorModel, DiskSlide
from PIL import Image

from steatosis_d2.errors import InputError
from steatosis_d2.inference import pipeline
from steatosis_d2.inference.parallel import open_executor, open_mapper
from steatosis_d2.inference.plan import SlideInput, Tiling
from steatosis_d2.inference.slide_run import prepare_folder

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    """1400 x 1100 px with some 200 disks."""
    path = tmp_path_factory.mktemp("slides") / "disks.png"
    Image.fromarray(DiskSlide(1400, 1100, seed=5).read_region(0, 0, 1400, 1100)).save(path)
    return path


class ByteRecorder:
    """Outputs that are kept as the bytes of the file of instances."""

    def check(self, slide):
        pass

    def write(self, segmented, folder):
        self.content = segmented.path.read_bytes()


def segment(slide_path, folder, *, report=lambda progress: None, **where):
    """Bytes of the instances of a slide, in the order in which they are given."""
    recorder = ByteRecorder()
    prepare_folder(folder, {}, resume=False)
    with open_executor(**where) as executor:
        faults = pipeline.segment_slides(
            [SlideInput(slide_path, slide_path.name, slide_path.stem)],
            make_model=ColorModel,
            facts=executor.submit(pipeline.describe_model, ColorModel).result(),
            executor=executor,
            tiling=Tiling(tile_px=256, overlap_px=128),
            parameters={},
            folder=folder,
            outputs=recorder,
            report=report,
        )
    assert faults == {}
    return recorder.content


@pytest.fixture(scope="module")
def in_threads(slide_path, tmp_path_factory):
    content = segment(slide_path, tmp_path_factory.mktemp("threads"))
    assert len(content) > 20_000
    return content


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_give_the_same_bytes(slide_path, tmp_path, in_threads):
    assert segment(slide_path, tmp_path, workers=2) == in_threads


@pytest.fixture
def scheduler():
    """Address of a scheduler on this machine, without workers."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def start_worker(scheduler):
    """Function that starts a worker as a process of its own: (*options) -> process."""
    workers = []

    def start(*options):
        command = [Path(sys.executable).with_name("dask"), "worker", scheduler, "--no-dashboard"]
        command += ["--no-nanny", "--nthreads", "1", *options]
        worker = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(TOOLS)},  # where the stand-in for a network lies
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cluster_gives_the_same_bytes_though_a_worker_is_killed(
    slide_path, tmp_path, in_threads, scheduler, start_worker
):
    workers = [start_worker(), start_worker()]

    def kill_one(progress):
        if progress.n_done == 20:
            workers[0].send_signal(signal.SIGKILL)
            workers[0].wait()

    assert segment(slide_path, tmp_path, scheduler=scheduler, report=kill_one) == in_threads
    assert workers[0].poll() == -signal.SIGKILL
    assert workers[1].poll() is None


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_workers_with_a_gpu_get_all_calls(scheduler, start_worker):
    from distributed import Client

    start_worker("--name", "without")
    start_worker("--name", "with", "--resources", "GPU=1")
    with Client(scheduler) as client, contextlib.ExitStack() as stack:
        client.wait_for_workers(2, timeout=60)
        executor = stack.enter_context(open_executor(scheduler=scheduler))
        assert executor.count_slots() == 1
        futures = [executor.submit(abs, -number) for number in range(20)]
        assert [future.result(timeout=60) for future in futures] == list(range(20))
        workers = client.scheduler_info(n_workers=-1)["workers"]
        n_results = {workers[address]["name"]: len(k) for address, k in client.has_what().items()}
    assert n_results == {"with": 20, "without": 0}


def test_few_calls_are_in_flight_and_results_keep_their_order():
    running, most = 0, 0
    lock = threading.Lock()
    taken = []

    def work(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001 * (item % 3))
        with lock:
            running -= 1
        return 10 * item

    def tasks():
        for item in range(100):
            taken.append(item)
            yield f"tag {item}", item if item % 10 else None

    with open_executor() as executor:
        for n_seen, (tag, future) in enumerate(executor.run_in_order(work, tasks())):
            assert tag == f"tag {n_seen}"
            assert (future and future.result()) == (10 * n_seen if n_seen % 10 else None)
            assert len(taken) <= n_seen + 3 * executor.count_slots()
    assert n_seen == 99
    assert most <= executor.count_slots()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_dead_worker_process_is_explained():
    with (
        pytest.raises(InputError, match="a worker process died"),
        open_executor(workers=2) as executor,
    ):
        executor.submit(os._exit, 1).result()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    with open_mapper(workers=workers) as map_in_order:
        assert list(map_in_order(abs, [3, -1, -2])) == [3, 1, 2]


def test_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("steatosis_d2.inference.parallel._SCHEDULER_TIMEOUT_S", 1)
    with (
        pytest.raises(InputError, match=r"tcp://127.0.0.1:9.*dask scheduler"),
        open_mapper(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


def test_address_without_a_port_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("steatosis_d2.inference.parallel._SCHEDULER_TIMEOUT_S", 1)
    with pytest.raises(InputError, match="nonsense"), open_mapper(scheduler="nonsense"):
        pass
