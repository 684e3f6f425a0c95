"""
Prepare the liver tiles of Guo et al. (ISBI 2019), as their authors publish them.

Expects <source>/<id>/image/<id>.png and <source>/<id>/masks/<n>.png, one droplet a file. Red and
blue, which the published files hold swapped, are swapped back. See datasets/README.md.

examples:
  python datasets/prepare_guo2019.py --source downloads/guo2019_liver
  python datasets/prepare_guo2019.py --source tiles.zip --output data/guo --fractions 0 1 0
"""

import functools

from steatosis_d2.data.coco import DROPLET
from steatosis_d2.data.instance_masks import encode_mask_folder
from steatosis_d2.data.prepare import prepare_argument_parser, prepare_published, read_sample
from steatosis_d2.data.sources import list_guo2019, read_guo2019_image
from steatosis_d2.errors import exit_cleanly


def main():
    parser = prepare_argument_parser(
        __doc__,
        dataset_name="liver_guo2019",
        source="folder of <id>/image and <id>/masks, or a zip file of it",
    )
    prepare_published(
        parser.parse_args(),
        list_samples=list_guo2019,
        read=functools.partial(
            read_sample, encode_masks=encode_mask_folder, read_image=read_guo2019_image
        ),
        category=DROPLET,
        incomplete=True,  # droplets that the authors' method split wrongly were removed
        description="liver tiles of Guo et al., ISBI 2019; red and blue are swapped back",
    )


if __name__ == "__main__":
    with exit_cleanly():
        main()
