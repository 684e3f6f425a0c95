"""
Prepare the nucleus images of BBBC038v1 stage1_train (2018 Data Science Bowl).

Expects <source>/<id>/images/<id>.png and <source>/<id>/masks/<hash>.png, one nucleus a file, in
the zip file as downloaded or in a folder; a folder around them is fine. See datasets/README.md.

examples:
  %(prog)s --source downloads/stage1_train.zip
  %(prog)s --source stage1_train --output data/nuclei --splits splits.json
"""

import functools

from steatosis_d2.cli.prepare_options import build_prepare_parser, prepare_published
from steatosis_d2.data.coco import NUCLEUS
from steatosis_d2.data.instance_masks import encode_mask_folder
from steatosis_d2.data.microscopy import tell_microscopy
from steatosis_d2.data.prepare import read_sample
from steatosis_d2.data.sources import list_bbbc038


def build_parser(prog):
    """The command's options."""
    return build_prepare_parser(
        prog,
        __doc__,
        dataset_name="nucleus_bbbc038",
        source="stage1_train.zip, or the folder extracted from it",
    )


def run(arguments):
    """Write the data set."""
    prepare_published(
        arguments,
        list_samples=list_bbbc038,
        read=functools.partial(read_sample, encode_masks=encode_mask_folder),
        category=NUCLEUS,
        group_of=tell_microscopy,
        description="BBBC038v1 stage1_train, 2018 Data Science Bowl",
    )
