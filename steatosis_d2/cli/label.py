"""Outline fat droplets without a trained model, as one COCO file to screen and to train from."""

import argparse
import logging
from pathlib import Path

from PIL import Image

from steatosis_d2 import api
from steatosis_d2.cli.option_types import add_scale_out, pixel_size_or_estimate
from steatosis_d2.data.images import list_inputs, read_image_rgb
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done
from steatosis_d2.labeling.batch import METHODS
from steatosis_d2.report.overlay import PREDICTED_RGB, draw_outlines

logger = logging.getLogger(__name__)

EXAMPLES = """
examples:
  one folder of tiles scanned at 40x, with pictures of the result:
    %(prog)s data/tiles --output labels.json --mpp 0.25 --overlay overlays
  some files, pixel size unknown (it is then estimated from the nuclei), two processes:
    %(prog)s a.png b.tif --output labels.json --mpp estimate --workers 2
  a cluster that sees the same paths:
    %(prog)s /data/tiles --output labels.json --mpp 0.5 --scheduler tcp://head:8786
"""


def run(arguments):
    """Label all images; those that cannot be labelled are named at the end."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    labels = api.label_inputs(
        arguments.inputs,
        mpp=arguments.mpp,
        method=arguments.method,
        workers=arguments.workers,
        scheduler=arguments.scheduler,
        progress=True,
    )
    labels.write(arguments.output)
    n_labels, n_images = len(labels.coco["annotations"]), len(labels.coco["images"])
    logger.info("%d labels in %d images: %s", n_labels, n_images, arguments.output)
    if arguments.overlay:
        write_overlays(Path(arguments.overlay), labels, arguments.inputs)
    if labels.faults:
        raise InputError(api.join_faults(labels.faults))


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image file, or folder of image files"
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
    parser.add_argument("--overlay", metavar="DIR", help="write a picture of each image's labels")
    add_scale_out(
        parser, workers_help="processes (default: 1); the result is the same with any number"
    )
    return parser


def write_overlays(folder, labels, inputs):
    """A picture of each image that was labelled."""
    files, _ = list_inputs(inputs)
    for file_name, image in labels.images.items():
        if image.fault:
            continue
        image_rgb = read_image_rgb(files[file_name])
        drawn = draw_outlines(image_rgb, image.rles, color_rgb=PREDICTED_RGB)
        with replace_when_done(folder / f"{file_name}.png") as temporary:
            Image.fromarray(drawn).save(temporary)
