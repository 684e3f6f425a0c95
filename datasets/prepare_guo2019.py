"""
Prepare the liver tiles of Guo et al. (ISBI 2019), as their authors publish them.

Expects <source>/<id>/image/<id>.png and <source>/<id>/masks/<n>.png, one droplet a file. Red and
blue, which the published files hold swapped, are swapped back. See datasets/README.md.

examples:
  python datasets/prepare_guo2019.py --source downloads/guo2019_liver
  python datasets/prepare_guo2019.py --source tiles.zip --output data/guo --fractions 0 1 0
"""

import functools
import logging
from pathlib import Path

from steatosis_d2.data.coco import DROPLET
from steatosis_d2.data.instance_masks import encode_mask_folder
from steatosis_d2.data.prepare import (
    pixel_size_um,
    prepare_argument_parser,
    read_sample,
    write_dataset,
)
from steatosis_d2.data.sources import list_guo2019, open_source, read_guo2019_image
from steatosis_d2.data.splits import choose_splits
from steatosis_d2.errors import exit_cleanly

logger = logging.getLogger(__name__)


def main():
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logger.info("red and blue of the published tiles are swapped back")
    with open_source(args.source) as folder:
        splits = choose_splits(
            list_guo2019(folder),
            file=args.splits,
            fractions=args.fractions,
            look_in=(folder, args.source.parent),
        )
        write_dataset(
            splits,
            args.output,
            read=functools.partial(
                read_sample, encode_masks=encode_mask_folder, read_image=read_guo2019_image
            ),
            category=DROPLET,
            mpp=args.mpp,
            description="liver tiles of Guo et al., ISBI 2019",
        )


def parse_arguments():
    parser = prepare_argument_parser(__doc__, dataset_name="liver_guo2019")
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR_OR_ZIP",
        help="folder of <id>/image and <id>/masks, or a zip file of it",
    )
    parser.add_argument("--mpp", type=pixel_size_um, help="pixel size in um/px, if you know it")
    return parser.parse_args()


if __name__ == "__main__":
    with exit_cleanly():
        main()
