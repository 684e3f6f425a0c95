"""
Prepare the liver tiles of the Torino steatosis challenge, outlined by hand by an expert.

Expects <source>/image/<case>_<n>.webp and <source>/manual/<case>_<n>.png, whose connected
components are the droplets. See datasets/README.md.

examples:
  python datasets/prepare_torino.py --source downloads/torino_liver
  python datasets/prepare_torino.py --source torino.zip --output data/torino --splits splits.json
"""

import functools
import logging
from pathlib import Path

from steatosis_d2.data.coco import DROPLET
from steatosis_d2.data.instance_masks import encode_binary_file
from steatosis_d2.data.prepare import (
    pixel_size_um,
    prepare_argument_parser,
    read_sample,
    write_dataset,
)
from steatosis_d2.data.sources import list_torino, open_source
from steatosis_d2.data.splits import choose_splits
from steatosis_d2.errors import exit_cleanly


def main():
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    with open_source(args.source) as folder:
        splits = choose_splits(
            list_torino(folder),
            file=args.splits,
            fractions=args.fractions,
            look_in=(folder, args.source.parent),
        )
        write_dataset(
            splits,
            args.output,
            read=functools.partial(read_sample, encode_masks=encode_binary_file),
            category=DROPLET,
            mpp=args.mpp,
            description="liver tiles of the steatosis challenge, Politecnico di Torino",
        )


def parse_arguments():
    parser = prepare_argument_parser(__doc__, dataset_name="liver_torino")
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR_OR_ZIP",
        help="folder with image/ and manual/, or a zip file of it",
    )
    parser.add_argument("--mpp", type=pixel_size_um, help="pixel size in um/px, if you know it")
    return parser.parse_args()


if __name__ == "__main__":
    with exit_cleanly():
        main()
