#!/usr/bin/env python
"""Time and memory of each stage on this machine, beside stock Detectron2 and torchvision."""

import argparse
import os
import platform
from dataclasses import asdict
from pathlib import Path

from benchmarks import (
    accuracy,
    coverage,
    evaluation,
    focus,
    labels,
    masks,
    network,
    outputs,
    page,
    slides,
    training,
    vessels,
)
from benchmarks.figures import Options, format_figures, run_alone

from steatosis_d2.errors import exit_cleanly
from steatosis_d2.files import write_json

EXAMPLES = """
examples:
  Everything that this project measures of itself:
    python tools/benchmark.py
  The network on a tile of your own, beside stock Detectron2 and torchvision:
    python tools/benchmark.py --only network --compare stock --tile TILE.png --json figures.json
  What the fast predictor costs in COCO AP on the config's test set:
    python tools/benchmark.py --only accuracy --config-file liver/starter.yaml --weights W.pth
  How much of vessels and tears the network that ships takes for fat:
    python tools/benchmark.py --only vessels
  How often the intervals of a slide's figures hold the truth:
    python tools/benchmark.py --only coverage
  How much fat is lost out of focus, and whether that is seen:
    python tools/benchmark.py --only focus
  How soon the screening page shows a slide of yours, or drawn ones of two sizes:
    python tools/benchmark.py --only page --tile SLIDE.svs
    python tools/benchmark.py --only page
"""

GROUPS = {
    "network": network.MEASURES,
    "masks": masks.MEASURES,
    "training": training.MEASURES,
    "evaluation": evaluation.MEASURES,
    "labels": labels.MEASURES,
    "outputs": outputs.MEASURES,
    "slides": slides.MEASURES,
    "scaling": slides.SCALING_MEASURES,
    "simulation": slides.SIMULATION_MEASURES,
    "accuracy": accuracy.MEASURES,
    "vessels": vessels.MEASURES,
    "coverage": coverage.MEASURES,
    "focus": focus.MEASURES,
    "page": page.MEASURES,
}
# Two take long, the third needs data and weights, three are no matter of speed, the last needs a
# browser.
ONLY_IF_ASKED_FOR = ("scaling", "simulation", "accuracy", "vessels", "coverage", "focus", "page")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=GROUPS,
        default=[group for group in GROUPS if group not in ONLY_IF_ASKED_FOR],
        metavar="GROUP",
        help=f"what to measure, of: {', '.join(GROUPS)} "
        f"(default: all but {', '.join(ONLY_IF_ASKED_FOR)})",
    )
    parser.add_argument(
        "--compare", choices=["stock"], help="measure stock Detectron2 and torchvision as well"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="times that each contender is timed, in turn (default: %(default)s)",
    )
    parser.add_argument(
        "--tile",
        type=Path,
        metavar="FILE",
        help="image for the network, slide for the page (default: drawn ones)",
    )
    parser.add_argument(
        "--config-file",
        default="liver/starter.yaml",
        metavar="FILE",
        help="network for --only accuracy (default: %(default)s)",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="its weights; --only accuracy needs them"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures and the machine as JSON")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; give 1 or more")
    if "accuracy" in arguments.only and arguments.weights is None:
        parser.error("--only accuracy needs --weights")
    return arguments


def describe_machine():
    """Processor, cores and software, in one line."""
    cpu_info = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpu_info.read_text().splitlines() if cpu_info.exists() else [])
        if line.startswith("model name")
    ]
    cpu = models[0] if models else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def main():
    arguments = parse_arguments()
    options = Options(
        compare_stock=arguments.compare == "stock",
        rounds=arguments.rounds,
        tile=arguments.tile,
        config_file=arguments.config_file,
        weights=arguments.weights,
    )
    machine = describe_machine()
    figures = [
        figure
        for group in arguments.only
        for measure in GROUPS[group]
        for figure in run_alone(measure, options)
    ]
    print(machine)
    print(format_figures(figures))
    if arguments.json:
        content = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
        write_json(arguments.json, content, indent=2)


if __name__ == "__main__":
    with exit_cleanly():
        main()
