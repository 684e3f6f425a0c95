"""
Prepare the nucleus images of BBBC038v1 stage1_train (2018 Data Science Bowl).

Expects <source>/<id>/images/<id>.png and <source>/<id>/masks/<hash>.png, one nucleus a file, in
the zip file as downloaded or in a folder; a folder around them is fine. See datasets/README.md.

examples:
  python datasets/prepare_bbbc038.py --source downloads/stage1_train.zip
  python datasets/prepare_bbbc038.py --source stage1_train --output data/nuclei --splits splits.json
"""

import functools

from steatosis_d2.data.coco import NUCLEUS
from steatosis_d2.data.instance_masks import encode_mask_folder
from steatosis_d2.data.microscopy import tell_microscopy
from steatosis_d2.data.prepare import prepare_argument_parser, prepare_published, read_sample
from steatosis_d2.data.sources import list_bbbc038
from steatosis_d2.errors import exit_cleanly


def main():
    parser = prepare_argument_parser(
        __doc__,
        dataset_name="nucleus_bbbc038",
        source="stage1_train.zip, or the folder extracted from it",
    )
    prepare_published(
        parser.parse_args(),
        list_samples=list_bbbc038,
        read=functools.partial(read_sample, encode_masks=encode_mask_folder),
        category=NUCLEUS,
        group_of=tell_microscopy,
        description="BBBC038v1 stage1_train, 2018 Data Science Bowl",
    )


if __name__ == "__main__":
    with exit_cleanly():
        main()
