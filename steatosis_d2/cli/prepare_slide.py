"""
Draw a slide of synthetic liver whose fat droplets are known exactly, to try things on.

It has two cores of a needle biopsy on 10 mm2 of glass: healthy and fatty lobules, veins, portal
tracts and tears. <output>/biopsy.tif is a pyramidal TIFF with its pixel size, <output>/truth.json
holds the droplets (COCO). The same seed gives the same files, byte for byte.

examples:
  %(prog)s --output demo
  %(prog)s --output demo --seed 7 --mpp 0.25 --workers 4
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from steatosis_d2.cli.prepare_options import add_drawing_options
from steatosis_d2.data.coco import DROPLET, annotation_record, image_record, write_coco
from steatosis_d2.data.synthetic import random_biopsy
from steatosis_d2.inference.parallel import open_mapper
from steatosis_d2.instances.rle import encode_label_image
from steatosis_d2.slides.pyramid_writer import write_pyramid
from steatosis_d2.slides.slide import ArraySlide

SLIDE, TRUTH = "biopsy.tif", "truth.json"
# Scanners write JPEG of about this quality
JPEG_QUALITY = 90


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help=f"folder for {SLIDE} and {TRUTH}"
    )
    add_drawing_options(parser, seed_help="another seed: another patient, stain and scanner")
    return parser


def run(arguments):
    """Draw the slide, and write it and its truth."""
    biopsy = random_biopsy(arguments.seed, mpp=arguments.mpp)
    with open_mapper(workers=arguments.workers) as map_in_order:
        drawn = biopsy.render(map_in_order=with_progress(map_in_order))
    droplets = encode_label_image(drawn.labels).values()
    arguments.output.mkdir(parents=True, exist_ok=True)
    slide = ArraySlide(drawn.image_rgb, mpp=arguments.mpp)
    write_pyramid(arguments.output / SLIDE, slide, jpeg_quality=JPEG_QUALITY)
    image = image_record(
        1, SLIDE, height=biopsy.height, width=biopsy.width, mpp=arguments.mpp, mpp_source="given"
    )
    write_coco(
        arguments.output / TRUTH,
        [image],
        [annotation_record(number, 1, rle) for number, rle in enumerate(droplets, start=1)],
        category=DROPLET,
        info={"description": "Synthetic biopsy of liver", "seed": arguments.seed},
    )
    print(
        f"{arguments.output / SLIDE}: {biopsy.width} x {biopsy.height} px, {len(droplets)} droplets"
    )


def with_progress(map_in_order):
    """The same mapper with a bar on a terminal."""

    def map_and_show(function, items):
        return tqdm(
            map_in_order(function, items), total=len(items), desc="drawing", unit="piece",
            disable=None,
        )  # fmt: skip

    return map_and_show
