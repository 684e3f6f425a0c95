#!/usr/bin/env python
"""
The main job in two minutes: draw a slide, find its fat, and compare with what is known to be there.

`make demo` runs it. If what is found is not good, it says so and exits with 1: an installation
that does not work must not look as if it did.

example:
  python tools/demo.py output/demo
"""

import argparse
import contextlib
import json
import logging
import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from steatosis_d2 import cli
from steatosis_d2.cli.prepare_slide import SLIDE, TRUTH
from steatosis_d2.evaluation.sizes import SIZE_CLASSES

SEED = 1
MAX_FAT_ERROR_POINTS, MIN_F1 = 1.0, 0.75
LOG = "demo.log"


def main():
    """Run three commands as a user types them, and say how good the result is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="DIR", help="folder for all that is written")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    slide, truth, results, metrics = (
        output / name for name in (SLIDE, TRUTH, "results", "metrics.json")
    )
    with open_log(output) as log:
        print("\n1/3  Draw a slide with a needle biopsy, of which every droplet is known")
        run(
            "prepare slide",
            "--output",
            output,
            "--seed",
            SEED,
            "--workers",
            os.cpu_count(),
            log=log,
        )
        print("\n2/3  Find the fat, with the network that ships")
        run("segment", slide, "--output", results, log=log)
        print("\n3/3  Compare with the truth")
        run(
            "evaluate", "--ground-truth", truth, "--predictions", results / "predictions.json",
            "--output", metrics, log=log,
        )  # fmt: skip

    outcome = read_outcome(results, metrics)
    print(describe(outcome, slide=slide, results=results))
    faults = find_faults(outcome)
    if faults:
        sys.exit(f"error: {'; '.join(faults)}. Something is not right; see {output / LOG}.")


@contextlib.contextmanager
def open_log(output):
    """What libraries have to say goes into this file; progress bars stay on the terminal."""
    with (output / LOG).open("w") as log:
        logging.basicConfig(stream=log, level=logging.INFO)
        logging.captureWarnings(True)
        yield log


def run(command, *options, log):
    """Run one command, and show the line that a user would type."""
    words = [*command.split(), *map(str, options)]
    quoted = (f'"{word}"' if shlex.quote(word) != word else word for word in words)
    print(f"     $ steatosis-d2 {' '.join(quoted)}", flush=True)
    started = time.monotonic()
    with contextlib.redirect_stdout(log):
        cli.main(words)
    print(f"     done in {time.monotonic() - started:.0f} s", flush=True)


@dataclass(frozen=True)
class Outcome:
    """
    What was found, beside what there is.

    Attributes:
        slide_mm2, tissue_mm2 (float): areas.
        fat_percent, true_fat_percent (float): of the tissue.
        droplets, true_droplets (int): how many.
        precision, recall, f1 (float): of droplets, 0 to 1, at IoU 0.5.
        recall_by_size (dict): "below 5 um" and so on -> recall.
    """

    slide_mm2: float
    tissue_mm2: float
    fat_percent: float
    true_fat_percent: float
    droplets: int
    true_droplets: int
    precision: float
    recall: float
    f1: float
    recall_by_size: dict[str, float]


def read_outcome(results, metrics):
    """The outcome from the files that the commands wrote."""
    [row] = pd.read_csv(results / "summary.csv").to_dict("records")
    measured = json.loads(metrics.read_text())
    of_slide = measured["clinical"]["true_fat_area_percent"]
    slide_px = row["width_px"] * row["height_px"]
    instances = measured["instances"]
    return Outcome(
        slide_mm2=slide_px * row["mpp"] ** 2 / 1e6,
        tissue_mm2=row["tissue_area_mm2"],
        fat_percent=row["fat_area_percent"],
        true_fat_percent=of_slide * slide_px / row["tissue_area_px"],
        droplets=row["droplets"],
        true_droplets=instances["truths"],
        precision=instances["precision"],
        recall=instances["recall"],
        f1=instances["f1"],
        recall_by_size={
            name.replace("_", " "): measured["by_size"][f"recall_{name}"] for name in SIZE_CLASSES
        },
    )


def find_faults(outcome):
    """What is worse than it has to be, one sentence each."""
    faults = []
    error_points = abs(outcome.fat_percent - outcome.true_fat_percent)
    if error_points > MAX_FAT_ERROR_POINTS:
        faults.append(
            f"the fat area is {error_points:.1f} points off; expected {MAX_FAT_ERROR_POINTS:g} or "
            "less"
        )
    if not outcome.f1 >= MIN_F1:
        faults.append(f"F1 is {outcome.f1:.2f}; expected {MIN_F1} or more")
    return faults


def describe(outcome, *, slide, results):
    """The last lines, for somebody who has never seen this."""
    by_size = ", ".join(f"{name} {share:.0%}" for name, share in outcome.recall_by_size.items())
    return f"""
The slide has {outcome.tissue_mm2:.1f} mm2 of tissue on {outcome.slide_mm2:.0f} mm2.

                      found     there are
  fat, % of tissue   {outcome.fat_percent:6.1f}     {outcome.true_fat_percent:6.1f}
  droplets           {outcome.droplets:6,}     {outcome.true_droplets:6,}

Of the droplets found, {outcome.precision:.0%} are real.
Of the real ones, {outcome.recall:.0%} were found: {by_size} (F1 {outcome.f1:.2f}).

Open
  {results / "report.html"}   all of it at a glance, in a browser
  {slide}   the slide, in QuPath; then drop on it
  {results / "biopsy.geojson.gz"}   the outlines
  {results / "biopsy.parquet"}   the table, one row a droplet

Next
  source .venv/bin/activate
  steatosis-d2 segment YOUR_SLIDE.svs --output results
  steatosis-d2 segment --help
"""


if __name__ == "__main__":
    main()
