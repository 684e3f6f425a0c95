"""
Choose regions of slides that are worth an expert's time, as tiles to screen and to train from.

Of many squares of tissue, spread over the slides, half are chosen by their amount of fat, so that
none is missing, and half by doubt: scores near the threshold, places where network and classical
method differ, tissue unlike that of the training. The same slides and seed give the same files.
"""

import argparse
import logging
from collections import Counter
from pathlib import Path

from steatosis_d2 import api
from steatosis_d2.cli.option_types import (
    add_network_options,
    network_settings,
    pixel_size_or_estimate,
    positive_integer,
    positive_number,
)
from steatosis_d2.data.images import list_inputs
from steatosis_d2.errors import InputError
from steatosis_d2.inference.plan import name_inputs
from steatosis_d2.install_detectron2 import require_detectron2
from steatosis_d2.slides.slide import SLIDE_SUFFIXES

EXAMPLES = """
examples:
  %(prog)s slides/ --output regions
  %(prog)s slides/ --output regions --regions 100 --size-um 256 --cases cases.csv
then
  steatosis-d2 screen serve regions/labels.json --images regions/images
  steatosis-d2 screen merge regions/labels.json --output screened.json
  steatosis-d2 finetune screened.json --images regions/images --output finetuned
"""


def run(arguments):
    """Choose and write the tiles; slides that cannot be read are named at the end."""
    require_detectron2()
    # It takes seconds to import, which help does without.
    from steatosis_d2.sampling.run import Wanted, read_cases, sample_tiles

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    files, faults = list_inputs(arguments.inputs, suffixes=SLIDE_SUFFIXES)
    if not files:
        raise InputError(api.join_faults(faults))
    tiles, failed = sample_tiles(
        name_inputs(files),
        arguments.output,
        Wanted(
            number=arguments.regions,
            size_um=arguments.size_um,
            fractions=tuple(arguments.fractions),
            seed=arguments.seed,
            mpp=arguments.mpp,
        ),
        cases=read_cases(arguments.cases) if arguments.cases else {},
        model_settings=network_settings(arguments),
        progress=True,
    )
    describe(tiles, arguments)
    faults += failed.values()
    if faults:
        raise InputError(api.join_faults(faults))


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="slide or image, or folder of them"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for all that is written"
    )
    parser.add_argument(
        "--regions",
        type=positive_integer,
        default=40,
        metavar="N",
        help="how many to choose (default: %(default)s)",
    )
    parser.add_argument(
        "--size-um",
        type=positive_number,
        default=200.0,
        metavar="UM",
        help="side of a region (default: %(default)g)",
    )
    parser.add_argument(
        "--mpp",
        type=pixel_size_or_estimate,
        metavar="M",
        help="pixel size of all slides in um/px; default: what each file says",
    )
    parser.add_argument(
        "--cases",
        type=Path,
        metavar="FILE.csv",
        help="file with the columns file_name and case; slides of one case stay in one split "
        "(default: each slide is a case)",
    )
    parser.add_argument(
        "--fractions",
        type=float,
        nargs=3,
        default=(0.8, 0.1, 0.1),
        metavar=("TRAIN", "VAL", "TEST"),
        help="of the cases (default: 0.8 0.1 0.1)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed makes another choice"
    )
    add_network_options(parser)
    return parser


def describe(tiles, arguments):
    """What was chosen, and what to do with it."""
    n_droplets = sum(len(tile.findings.instances) for tile in tiles)
    n_cases = len({tile.region.case for tile in tiles})
    print(f"{len(tiles)} regions of {n_cases} cases, with {n_droplets} labels: {arguments.output}")
    for reason, number in Counter(tile.reason for tile in tiles).most_common():
        print(f"  {number:4}  {reason}")
    if len(tiles) < arguments.regions:
        print(f"There are no more: {arguments.regions} were asked for.")
