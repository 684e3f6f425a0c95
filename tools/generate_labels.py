#!/usr/bin/env python
"""Outline fat droplets without a trained model, as one COCO file to screen and to train from."""

import argparse
import logging
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from steatosis_d2.data.coco import DROPLET, write_coco
from steatosis_d2.data.images import list_inputs, read_image_rgb
from steatosis_d2.data.prepare import pixel_size_um
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.files import replace_when_done
from steatosis_d2.inference.parallel import open_mapper
from steatosis_d2.labeling.batch import (
    METHODS,
    as_coco_records,
    describe_run,
    label_files,
)
from steatosis_d2.report.overlay import PREDICTED_RGB, draw_outlines

logger = logging.getLogger(__name__)

EXAMPLES = """
examples:
  one folder of tiles scanned at 40x, with pictures of the result:
    python tools/generate_labels.py data/tiles --output labels.json --mpp 0.25 --overlay overlays
  some files, pixel size unknown (20x or 40x is then told from the nuclei), two processes:
    python tools/generate_labels.py a.png b.tif --output labels.json --workers 2
  a cluster that sees the same paths:
    python tools/generate_labels.py /data/tiles --output labels.json --mpp 0.5 \\
        --scheduler tcp://head:8786
"""


def main():
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    files, faults = list_inputs(arguments.inputs)
    labelled = label_all(files, arguments)
    images, annotations = as_coco_records(labelled, mpp=arguments.mpp)
    info = describe_run(labelled.values(), method=arguments.method, mpp=arguments.mpp)
    write_coco(arguments.output, images, annotations, category=DROPLET, info=info)
    logger.info("%d labels in %d images: %s", len(annotations), len(images), arguments.output)
    faults += [image.fault for image in labelled.values() if image.fault]
    if faults:
        raise InputError("\nerror: ".join(faults))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
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
        type=pixel_size_um,
        metavar="M",
        help="pixel size of all inputs in um/px; without it, 20x or 40x is told from the nuclei "
        "of each image, and said in the log and in the file",
    )
    parser.add_argument("--overlay", metavar="DIR", help="write a picture of each image's labels")
    scale_out = parser.add_mutually_exclusive_group()
    scale_out.add_argument(
        "--workers",
        type=positive_integer,
        default=1,
        metavar="N",
        help="processes (default: 1); the result is the same with any number",
    )
    scale_out.add_argument(
        "--scheduler", metavar="ADDR", help="address of a Dask scheduler, to work on its cluster"
    )
    return parser.parse_args()


def positive_integer(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is less than 1")
    return number


def label_all(files, arguments):
    """Label every file and write its overlay: dict of file name -> LabelledImage."""
    labelled = {}
    with open_mapper(workers=arguments.workers, scheduler=arguments.scheduler) as map_in_order:
        results = label_files(
            list(files.values()),
            method=arguments.method,
            mpp=arguments.mpp,
            map_in_order=map_in_order,
        )
        progress = tqdm(results, total=len(files), unit="image", disable=None)
        for (file_name, path), image in zip(files.items(), progress, strict=True):
            labelled[file_name] = image
            if image.assumed_mpp is not None:
                logger.warning(
                    "'%s': pixel size unknown; taken as %g um/px from its nuclei. Give --mpp.",
                    file_name,
                    image.assumed_mpp,
                )
            if arguments.overlay and not image.fault:
                write_overlay(Path(arguments.overlay) / f"{file_name}.png", path, image)
    return labelled


def write_overlay(output, path, image):
    drawn = draw_outlines(read_image_rgb(path), image.rles, color_rgb=PREDICTED_RGB)
    with replace_when_done(output) as temporary:
        Image.fromarray(drawn).save(temporary)


if __name__ == "__main__":
    with exit_cleanly():
        main()
