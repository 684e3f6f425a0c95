"""Measured figures, and the ways they are measured in."""

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate


@dataclass(frozen=True)
class Options:
    """
    What the user asked for.

    Attributes:
        compare_stock (bool): measure stock Detectron2 and torchvision beside ours.
        rounds (int): times that each contender is timed.
        tile (Path or None): image to segment; None draws one.
        config_file (str): config of the network whose accuracy is measured.
        weights (Path or None): its weights.
    """

    compare_stock: bool
    rounds: int
    tile: Path | None
    config_file: str
    weights: Path | None


@dataclass(frozen=True)
class Figure:
    """
    One measured number.

    Attributes:
        stage (str): part of the work.
        what (str): what was measured.
        value (float): the median, where it was measured several times.
        unit (str): of the value and of what follows.
        spread (float or None): between the quartiles of several measurements.
        at_most, at_least (float or None): the project's own limit.
    """

    stage: str
    what: str
    value: float
    unit: str
    spread: float | None = None
    at_most: float | None = None
    at_least: float | None = None


def format_figures(figures):
    """
    A table for people.

    Args:
        figures (list[Figure]): in the order to show.

    Returns:
        str: several lines.
    """
    rows = [
        (
            figure.stage,
            figure.what,
            f"{figure.value:.3g} {figure.unit}",
            "" if figure.spread is None else f"{figure.spread:.2g}",
            _format_limit(figure),
        )
        for figure in figures
    ]
    return tabulate(rows, headers=["stage", "what", "measured", "spread", "limit"])


def _format_limit(figure):
    if figure.at_most is not None:
        return f"at most {figure.at_most:g} {figure.unit}"
    if figure.at_least is not None:
        return f"at least {figure.at_least:g} {figure.unit}"
    return ""


def time_in_turn(functions, *, rounds):
    """
    Seconds that each of several functions takes; they take turns, so that all see one machine.

    Args:
        functions (dict): name -> function without arguments.
        rounds (int): times that each is timed, after one time for warming up.

    Returns:
        dict: name -> list of float, one a round.
    """
    seconds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarize(stage, what, values, *, unit="s", **limit):
    """
    Median and spread of several measurements.

    Args:
        stage, what, unit (str): as in :class:`Figure`.
        values (iterable[float]): one a round.
        limit: ``at_most`` or ``at_least``.

    Returns:
        Figure: with the range between the quartiles where there are enough values.
    """
    values = list(values)
    spread = None
    if len(values) > 1:
        lower, _, upper = statistics.quantiles(values, method="inclusive")
        spread = upper - lower
    return Figure(stage, what, statistics.median(values), unit, spread=spread, **limit)


def compare(stage, what, *, slower, faster, at_least=None):
    """
    How many times as fast one contender is as another.

    Args:
        stage, what (str): as in :class:`Figure`.
        slower, faster (list[float]): seconds of the same rounds: their ratios are compared, so
            that what else the machine does in a round falls on both.
        at_least (float or None): the project's limit.

    Returns:
        Figure: the median ratio.
    """
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return summarize(stage, what, ratios, unit="x", at_least=at_least)


def run_alone(function, *arguments):
    """Run a function in a process of its own, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # Pool's could start none themselves
        return pool.submit(function, *arguments).result()


def peak_memory_gb(process_id="self"):
    """Largest resident memory of a process so far (Linux); of this one unless told otherwise."""
    # getrusage() would count what the parent held when it started this process.
    status = Path(f"/proc/{process_id}/status").read_text()
    [peak] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 2**20  # from KiB
