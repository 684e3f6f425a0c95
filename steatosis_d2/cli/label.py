"""Outline fat droplets without a trained model, as one COCO file to screen and to train from."""

import argparse
import logging
import shutil
from pathlib import Path

from steatosis_d2 import api
from steatosis_d2.cli.option_types import add_page, add_scale_out, pixel_size_or_estimate
from steatosis_d2.errors import InputError
from steatosis_d2.inference.outputs import OVERLAY_PX
from steatosis_d2.labeling.methods import METHODS

logger = logging.getLogger(__name__)

EXAMPLES = """
examples:
  one folder of tiles scanned at 40x, with pictures of the result:
    %(prog)s data/tiles --output labels.json --mpp 0.25 --overlay overlays
  some files, pixel size unknown (it is then estimated from the nuclei), two processes:
    %(prog)s a.png b.tif --output labels.json --mpp estimate --workers 2
  whole slides, going on after an interruption:
    %(prog)s slides/ --output labels.json --workers 4 --resume
  a cluster that sees the same paths:
    %(prog)s /data/tiles --output labels.json --mpp 0.5 --scheduler tcp://head:8786
"""


def run(arguments):
    """Label all inputs; those that cannot be labelled are named at the end."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    output = Path(arguments.output)
    journals = output.parent / f".{output.name}.journal"
    labels = api.label_inputs(
        arguments.inputs,
        mpp=arguments.mpp,
        page=arguments.page,
        method=arguments.method,
        workers=arguments.workers,
        scheduler=arguments.scheduler,
        progress=True,
        overlays=arguments.overlay,
        journals=journals,
        resume=arguments.resume,
    )
    labels.write(output)
    n_labels, n_images = len(labels.coco["annotations"]), len(labels.coco["images"])
    logger.info("%d labels in %d images: %s", n_labels, n_images, output)
    if labels.faults:
        raise InputError(api.join_faults(labels.faults))
    shutil.rmtree(journals)


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
    parser.add_argument("--output", required=True, metavar="FILE", help="COCO file to write")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="clump-split",
        help="clump-split (default); watershed is a plain threshold and watershed, to compare with",
    )
    parser.add_argument(
        "--mpp",
        type=pixel_size_or_estimate,
        metavar="M",
        help="pixel size of all inputs in um/px; default: what each file says. 'estimate' takes it "
        "from the nuclei where the file says nothing, and notes so in the COCO file",
    )
    add_page(parser)
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help=f"write a picture of each input's labels, of at most {OVERLAY_PX} px",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run of the same output"
    )
    add_scale_out(
        parser, workers_help="processes (default: 1); the result is the same with any number"
    )
    return parser
