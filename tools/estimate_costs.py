#!/usr/bin/env python
"""Slides an hour, and the cost of many, worked out from what tools/benchmark.py measured."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from steatosis_d2.errors import InputError, exit_cleanly

STAGE = "a megapixel, core time"
READING, REST, ALL = "reading", "merging and outputs", "all, with the starter model"
# Not measured: what such machines have and cost, as a round guess to be replaced by your own.
SETUPS = (
    # name, nodes, cores and GPUs of a node, price of a node and hour in $
    ("1 CPU machine", 1, 16, 0, 0.8),
    ("1 GPU", 1, 16, 1, 2.0),
    ("8 GPUs", 1, 128, 8, 16.0),
    ("100 CPU nodes", 100, 16, 0, 0.8),
)
EXAMPLES = """
examples:
    python tools/benchmark.py --only slides --json figures.json
    python tools/estimate_costs.py figures.json --tissue-mpx 1500 --slide-gb 1
"""


@dataclass(frozen=True)
class MegapixelCost:
    """
    Seconds of one core for a megapixel of tissue, as measured.

    Attributes:
        reading (float): decoding the slide.
        model (float): the network.
        rest (float): merging, journal and outputs; one process does these for a slide.
    """

    reading: float
    model: float
    rest: float


@dataclass(frozen=True)
class Setup:
    """
    Machines, as assumed.

    Attributes:
        name (str): for the table.
        nodes (int): machines, each with a run of its own.
        cores (int): of a node.
        gpus (int): of a node; each has a run of its own.
        price (float): of a node and hour.
    """

    name: str
    nodes: int
    cores: int
    gpus: int
    price: float


def main():
    arguments = parse_arguments()
    cost = read_costs(arguments.figures)
    rows = [describe_setup(Setup(*setup), cost, arguments) for setup in SETUPS]
    print(
        f"measured, core seconds a megapixel: reading {cost.reading:.4f}, model {cost.model:.4f}, "
        f"merging and outputs {cost.rest:.4f}\n"
        f"assumed: {arguments.tissue_mpx:g} megapixels of tissue and {arguments.slide_gb:g} GB a "
        f"slide, a GPU as fast as {arguments.gpu_cores:g} cores, storage of "
        f"{arguments.storage_gb_s:g} GB/s in all, and the machines and prices below\n"
    )
    headers = ["machines", "cores", "GPUs", "$/h", "slides/h", "hours", "$", "bottleneck"]
    print(f"{arguments.slides} slides:")
    print(tabulate(rows, headers=headers, floatfmt=("", "", "", ".2f", ".1f", ".1f", ".0f", "")))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", metavar="FILE", help="JSON of tools/benchmark.py --only slides")
    for option, default, text in (
        ("--slides", 10_000, "how many slides"),
        ("--tissue-mpx", 1500, "megapixels of tissue on a slide: a biopsy of 90 mm2 at 0.25 um/px"),
        ("--slide-gb", 1.0, "GB that are read of a slide"),
        ("--gpu-cores", 40.0, "cores that a GPU replaces in the network"),
        ("--storage-gb-s", 2.0, "GB a second that the slides' storage gives to all machines"),
    ):
        parser.add_argument(
            option, type=type(default), default=default, help=f"{text} (default: %(default)s)"
        )
    arguments = parser.parse_args()
    if min(value for name, value in vars(arguments).items() if name != "figures") <= 0:
        parser.error("all numbers must be above 0")
    return arguments


def read_costs(path):
    """
    Costs of a megapixel from a file of figures.

    Args:
        path (str): JSON of tools/benchmark.py.

    Returns:
        MegapixelCost: in seconds of one core.

    Raises:
        InputError: a figure is missing.
    """
    try:
        figures = json.loads(Path(path).read_text(encoding="utf-8"))["figures"]
        found = {figure["what"]: figure["value"] for figure in figures if figure["stage"] == STAGE}
        reading, rest, everything = (float(found[what]) for what in (READING, REST, ALL))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"'{path}' has not all figures of the stage '{STAGE}' ({error}); expected the file "
            "that 'python tools/benchmark.py --only slides --json FILE' writes."
        ) from None
    return MegapixelCost(reading=reading, model=everything - reading - rest, rest=rest)


def find_bottleneck(setup, cost, *, tissue_mpx, slide_gb, gpu_cores, storage_gb_s):
    """
    What takes longest when all stages run at once on different slides.

    Args:
        setup (Setup): the machines.
        cost (MegapixelCost): of one core.
        tissue_mpx (float): megapixels of tissue on a slide.
        slide_gb (float): GB that are read of a slide.
        gpu_cores (float): cores that a GPU replaces in the network.
        storage_gb_s (float): GB a second, for all machines together.

    Returns:
        tuple[str, float]: its name, and seconds a slide.
    """
    cores, gpus = setup.nodes * setup.cores, setup.nodes * setup.gpus
    runs = max(setup.nodes, gpus)
    stages = {
        "merging (one core a run)": cost.rest * tissue_mpx / runs,
        "storage": slide_gb / storage_gb_s,
    }
    if gpus:
        stages["network on GPUs"] = cost.model * tissue_mpx / (gpu_cores * gpus)
        stages["reading on cores"] = (cost.reading + cost.rest) * tissue_mpx / cores
    else:
        stages["network on cores"] = (cost.reading + cost.model + cost.rest) * tissue_mpx / cores
    return max(stages.items(), key=lambda stage: stage[1])


def describe_setup(setup, cost, arguments):
    """A row of the table."""
    name, seconds = find_bottleneck(
        setup,
        cost,
        tissue_mpx=arguments.tissue_mpx,
        slide_gb=arguments.slide_gb,
        gpu_cores=arguments.gpu_cores,
        storage_gb_s=arguments.storage_gb_s,
    )
    hours = arguments.slides * seconds / 3600
    price = setup.nodes * setup.price
    cores, gpus = setup.nodes * setup.cores, setup.nodes * setup.gpus
    return setup.name, cores, gpus, price, 3600 / seconds, hours, hours * price, name


if __name__ == "__main__":
    with exit_cleanly():
        main()
