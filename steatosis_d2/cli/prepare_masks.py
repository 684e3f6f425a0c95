"""
Prepare your own images and masks.

Masks are matched with images by name, in one of four layouts:
  folder   <masks>/<name>/*.png   one file an instance: 0 and one more value
  labels   <masks>/<name>.png     0 is background, each other value one instance (8 to 32 bits)
  binary   <masks>/<name>.png     0 and one more value; connected components are the instances
  stack    <masks>/<name>.tif     one page an instance: 0 and one more value
Masks are PNG, TIFF or BMP. Colours may stand for values, with black for 0, and so may
transparency. The layout is detected, and the log says which was taken; where files
fit more than one, the script asks for --layout. See datasets/README.md.

examples:
  %(prog)s --images tiles --masks masks --output data/mine --mpp 0.25
  %(prog)s --images tiles --masks labels --output data/nuclei \\
      --category nucleus --layout labels --fractions 0.7 0.15 0.15 --case-pattern '^[^_]+'
"""

import argparse
import functools
import logging
import re
from pathlib import Path

from steatosis_d2.cli.prepare_options import build_prepare_parser
from steatosis_d2.data.coco import DROPLET, NUCLEUS
from steatosis_d2.data.instance_masks import ENCODERS, detect_layout
from steatosis_d2.data.prepare import read_sample, write_dataset
from steatosis_d2.data.sources import case_of_name, pair_images_with_masks
from steatosis_d2.data.splits import choose_splits

logger = logging.getLogger(__name__)


def run(args):
    """Write the data set."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    samples = pair_images_with_masks(
        args.images,
        args.masks,
        case_of=functools.partial(case_of_name, pattern=args.case_pattern),
    )
    splits = choose_splits(
        samples,
        file=args.splits,
        fractions=args.fractions,
        look_in=(args.images, args.images.parent),
    )
    layout = args.layout or detect_layout([sample.masks_path for sample in samples])
    logger.info("layout of the masks: %s (%s)", layout, "as stated" if args.layout else "detected")
    write_dataset(
        splits,
        args.output,
        read=functools.partial(read_sample, encode_masks=ENCODERS[layout]),
        category=args.category,
        mpp=args.mpp,
    )


def build_parser(prog):
    """The command's options."""
    parser = build_prepare_parser(prog, __doc__)
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of images"
    )
    parser.add_argument(
        "--masks", type=Path, required=True, metavar="DIR", help="folder of masks, as above"
    )
    parser.add_argument("--layout", choices=list(ENCODERS), help="default: detected")
    parser.add_argument("--category", choices=[DROPLET, NUCLEUS], default=DROPLET)
    parser.add_argument(
        "--case-pattern",
        type=regular_expression,
        metavar="REGEX",
        default=".*",
        help="finds the case (patient, slide) in an image's name, as its first group or as the "
        "whole match; images of a case stay in one split (default: each image is a case)",
    )
    return parser


def regular_expression(text):
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no regular expression: {error}") from None
