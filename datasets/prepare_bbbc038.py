"""
Prepare the nucleus images of BBBC038v1 stage1_train (2018 Data Science Bowl).

Expects <source>/<id>/images/<id>.png and <source>/<id>/masks/<hash>.png, one nucleus a file, in
the zip file as downloaded or in a folder; a folder around them is fine. See datasets/README.md.

examples:
  python datasets/prepare_bbbc038.py --source downloads/stage1_train.zip
  python datasets/prepare_bbbc038.py --source stage1_train --output data/nuclei --splits splits.json
"""

import functools
import logging
from pathlib import Path

from steatosis_d2.data.coco import NUCLEUS
from steatosis_d2.data.instance_masks import encode_mask_folder
from steatosis_d2.data.prepare import prepare_argument_parser, read_sample, write_dataset
from steatosis_d2.data.sources import list_bbbc038, open_source
from steatosis_d2.data.splits import choose_splits
from steatosis_d2.errors import exit_cleanly


def main():
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    with open_source(args.source) as folder:
        splits = choose_splits(
            list_bbbc038(folder),
            file=args.splits,
            fractions=args.fractions,
            look_in=(folder, args.source.parent),
        )
        write_dataset(
            splits,
            args.output,
            read=functools.partial(read_sample, encode_masks=encode_mask_folder),
            category=NUCLEUS,
            description="BBBC038v1 stage1_train, 2018 Data Science Bowl",
        )


def parse_arguments():
    parser = prepare_argument_parser(__doc__, dataset_name="nucleus_bbbc038")
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR_OR_ZIP",
        help="stage1_train.zip, or the folder extracted from it",
    )
    return parser.parse_args()


if __name__ == "__main__":
    with exit_cleanly():
        main()
