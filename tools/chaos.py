#!/usr/bin/env python
"""
Let accidents happen to `segment`, and see that nothing is lost or silently wrong.

A slide is segmented by the classical method. Once nothing happens: that gives the files to compare
with. Then, at a random moment of a run,

  kill       the process is killed (SIGKILL)
  disk       the disk has no more room than a random share of what is needed (root, Linux)
  worker     one of two worker processes is killed
  scheduler  the Dask scheduler is killed
  truncate   the slide loses its end while it is read
  clock      the clock is set back by a year

What was harmed is mended and the run is resumed, also while it is being resumed. A run that ends
by itself must end well or with one line that says what is wrong; in the end all files must be the
same, byte for byte.

examples:
  %(prog)s kill --number 1000
  %(prog)s kill disk truncate clock worker scheduler --number 20 --seed 7
"""

import argparse
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from steatosis_d2 import segment
from steatosis_d2.data.synthetic import random_biopsy
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.inference.slide_run import JOURNAL
from steatosis_d2.labeling.methods import CLUMP_SPLIT
from steatosis_d2.slides.pyramid_writer import write_pyramid
from steatosis_d2.slides.slide import ArraySlide

HEIGHT_PX, WIDTH_PX, MPP = 700, 1500, 0.5
TILING = {"tile_px": 256, "overlap_px": 64}
# Of the runs that an accident has ended, those that are finished in peace; the others meet with
# the next accident while they are resumed.
FINISHED_SHARE = 0.3
HANGS_AFTER_S = 120
YEAR_S = 365 * 24 * 3600


@dataclass
class Trial:
    """
    A slide, the folder of its results, and what these have to be.

    Attributes:
        slide (Path): what is segmented.
        original (Path): a copy of it that no accident reaches.
        output (Path): the folder.
        log (Path): what the last run printed.
        expected (dict): file name -> fingerprint; empty until a run was left in peace.
        end (str): how the last run ended, in a word.
    """

    slide: Path
    original: Path
    output: Path
    log: Path
    expected: dict[str, str] = field(default_factory=dict)
    end: str = ""

    def start(self, *, before=None, **options):
        """A process that goes on with the run; ``before`` is called in it first."""
        context = multiprocessing.get_context("fork")  # imports once for a thousand runs
        process = context.Process(target=_segment, args=(self, before, options))
        process.start()
        return process

    def wait(self, process):
        """
        Wait for a run to end.

        Returns:
            str or None: what is wrong about its end. To be killed is not, nor is an error in one
            line.
        """
        process.join(HANGS_AFTER_S)
        if process.exitcode is None:
            process.kill()
            return f"no end within {HANGS_AFTER_S} s"
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        ends = {0: "ended well", -signal.SIGKILL: "killed"}
        if process.exitcode == 1 and "error: " in text:
            ends[1] = "stopped with an error in one line"
        if "Traceback" in text or process.exitcode not in ends:
            return f"exit code {process.exitcode}:\n{text}"
        self.end = ends[process.exitcode]
        return None

    def finish(self, **options):
        """Go on with the run in peace, and begin anew; returns what is wrong, or None."""
        process = self.start(**options)
        fault = self.wait(process)
        if not fault and process.exitcode:
            fault = self.log.read_text()
        found = self.fingerprints()
        if not fault and self.expected and found != self.expected:
            names = sorted(
                name
                for name in found.keys() | self.expected.keys()
                if found.get(name) != self.expected.get(name)
            )
            fault = f"other bytes than those of an unbroken run: {', '.join(names)}"
        self.expected = self.expected or found
        if not fault:
            for path in self.output.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return fault

    def fingerprints(self):
        """File name -> SHA-256 of all that a user gets."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.output.glob("*"))
            if path.is_file()
        }


def _segment(trial, before, options):
    """What a child process does."""
    with trial.log.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if before is not None:
        before()
    with exit_cleanly():
        results = segment(
            trial.slide, trial.output, model=CLUMP_SPLIT, resume=True, **TILING, **options
        )
        if results.faults:
            raise InputError("; ".join(results.faults))


def kill(trial, rng, duration_s):
    process = trial.start()
    time.sleep(rng.uniform(0, 1.1 * duration_s))
    process.kill()
    return trial.wait(process)


def fill_disk(trial, rng, duration_s):
    needed = sum(path.stat().st_size for path in trial.output.rglob("*") if path.is_file())
    room = shutil.disk_usage(trial.output).free
    ballast = trial.output / ".ballast"
    free = int(rng.uniform(0, max(needed, 2_000_000)))
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room - free))
    try:
        return trial.wait(trial.start())
    finally:
        ballast.unlink()


def kill_worker(trial, rng, duration_s):
    process = trial.start(workers=2)
    time.sleep(rng.uniform(0, 2 * duration_s + 3))  # they import for some seconds
    workers = [
        int(pid)
        for pid in _read(f"/proc/{process.pid}/task/{process.pid}/children").split()
        if "spawn_main" in _read(f"/proc/{pid}/cmdline")
    ]
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
    return trial.wait(process)


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:  # the process has ended
        return ""


def kill_scheduler(trial, rng, duration_s):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        address_file = Path(folder, "scheduler.json")
        dask = Path(sys.executable).with_name("dask")
        quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        options = ["--scheduler-file", address_file, "--no-dashboard"]
        scheduler = subprocess.Popen([dask, "scheduler", "--port", "0", *options], **quiet)
        stack.callback(scheduler.kill)
        worker = subprocess.Popen([dask, "worker", *options, "--death-timeout", "20"], **quiet)
        stack.callback(worker.kill)
        while not address_file.exists():
            time.sleep(0.1)
        address = json.loads(address_file.read_text())["address"]
        process = trial.start(scheduler=address)
        time.sleep(rng.uniform(0, duration_s + 5))
        scheduler.kill()
        return trial.wait(process)


def truncate(trial, rng, duration_s):
    process = trial.start()
    # A run that begins with what is left of a slide is right to refuse the whole one later.
    while process.is_alive() and not any(trial.output.rglob(JOURNAL)):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, duration_s))
    os.truncate(trial.slide, int(rng.uniform(0, trial.slide.stat().st_size)))
    fault = trial.wait(process)
    trial.slide.unlink()
    shutil.copy(trial.original, trial.slide)
    return fault


def set_clock_back(trial, rng, duration_s):
    n_calls = int(rng.integers(0, 20))
    return trial.wait(trial.start(before=functools.partial(_set_clock_back, n_calls)))


def _set_clock_back(n_calls):
    """From so many calls on, it is a year earlier."""
    now, left = time.time, iter(range(n_calls))
    time.time = lambda: now() - (0 if next(left, None) is not None else YEAR_S)


ACCIDENTS = {
    "kill": kill,
    "disk": fill_disk,
    "worker": kill_worker,
    "scheduler": kill_scheduler,
    "truncate": truncate,
    "clock": set_clock_back,
}


def run(name, number, trial, rng):
    """
    Let one kind of accident happen again and again.

    Args:
        name (str): of :data:`ACCIDENTS`.
        number (int): how often.
        trial (Trial): what it happens to.
        rng (numpy.random.Generator): decides on the moments.

    Returns:
        list[str]: what was wrong: it stops at the first. The counts are printed.
    """
    for _ in range(2):  # the first one imports and fills caches
        start = time.perf_counter()
        if fault := trial.finish():
            return [f"without any accident: {fault}"]
    duration_s = time.perf_counter() - start
    counts: Counter[str] = Counter()
    for accident in tqdm(range(1, number + 1), desc=name, disable=None):
        fault = ACCIDENTS[name](trial, rng, duration_s)
        counts[trial.end] += 1
        if not fault and (accident == number or rng.random() < FINISHED_SHARE):
            fault = trial.finish()
            counts["finished and compared"] += not fault
        if fault:
            break
    ends = ", ".join(f"{n} {end}" for end, n in counts.items())
    print(f"{name}: {accident} accidents; {ends}", flush=True)
    return [f"{name}: {fault}"] if fault else []


def draw_slide(path):
    """A piece of a synthetic biopsy, as a pyramidal TIFF in JPEG."""
    drawn = random_biopsy(0, mpp=MPP).liver.render(
        top=300, left=600, height=HEIGHT_PX, width=WIDTH_PX
    )
    write_pyramid(path, ArraySlide(drawn.image_rgb, mpp=MPP), jpeg_quality=90)


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("accidents", nargs="+", choices=ACCIDENTS, metavar="ACCIDENT")
    parser.add_argument(
        "--number", type=int, default=20, metavar="N", help="of each (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    return parser


@contextlib.contextmanager
def open_trial(*, on_small_disk):
    """A slide and an empty folder for its results; where a disk is to be filled, in memory."""
    with tempfile.TemporaryDirectory(prefix="chaos_") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "output").mkdir()
        if on_small_disk:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder / "output"], check=True
            )
            stack.callback(subprocess.run, ["umount", folder / "output"], check=True)
        # In a process of its own: OpenCV's threads would not survive in those that are forked.
        drawing = multiprocessing.get_context("fork").Process(
            target=draw_slide, args=(folder / "original.tif",)
        )
        drawing.start()
        drawing.join()
        shutil.copy(folder / "original.tif", folder / "slide.tif")
        yield Trial(
            folder / "slide.tif", folder / "original.tif", folder / "output", folder / "log"
        )


def main():
    arguments = build_parser().parse_args()
    faults = []
    for name in arguments.accidents:
        with open_trial(on_small_disk=name == "disk") as trial:
            faults += run(name, arguments.number, trial, np.random.default_rng(arguments.seed))
    if faults:
        raise InputError("\n".join(faults))


if __name__ == "__main__":
    with exit_cleanly():
        main()
