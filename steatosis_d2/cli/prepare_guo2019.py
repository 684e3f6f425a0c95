"""
Prepare the liver tiles of Guo et al. (ISBI 2019), as their authors publish them.

Expects <source>/<id>/image/<id>.png and <source>/<id>/masks/<n>.png, one droplet a file. Red and
blue, which the published files hold swapped, are swapped back. See datasets/README.md.

examples:
  %(prog)s --source downloads/guo2019_liver
  %(prog)s --source tiles.zip --output data/guo --fractions 0 1 0
"""

import functools

from steatosis_d2.cli.prepare_options import build_prepare_parser, prepare_published
from steatosis_d2.data.coco import DROPLET
from steatosis_d2.data.instance_masks import encode_mask_folder
from steatosis_d2.data.prepare import read_sample
from steatosis_d2.data.sources import list_guo2019, read_guo2019_image


def build_parser(prog):
    """The command's options."""
    return build_prepare_parser(
        prog,
        __doc__,
        dataset_name="liver_guo2019",
        source="folder of <id>/image and <id>/masks, or a zip file of it",
    )


def run(arguments):
    """Write the data set."""
    prepare_published(
        arguments,
        list_samples=list_guo2019,
        read=functools.partial(
            read_sample, encode_masks=encode_mask_folder, read_image=read_guo2019_image
        ),
        category=DROPLET,
        incomplete=True,  # droplets that the authors' method split wrongly were removed
        description="liver tiles of Guo et al., ISBI 2019; red and blue are swapped back",
    )
