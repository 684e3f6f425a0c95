"""
Prepare the liver tiles of the Torino steatosis challenge, outlined by hand by an expert.

Expects <source>/image/<case>_<n>.webp and <source>/manual/<case>_<n>.png, whose connected
components are the droplets. See datasets/README.md.

examples:
  python datasets/prepare_torino.py --source downloads/torino_liver
  python datasets/prepare_torino.py --source torino.zip --output data/torino --splits splits.json
"""

import functools

from steatosis_d2.data.coco import DROPLET
from steatosis_d2.data.instance_masks import encode_binary_file
from steatosis_d2.data.prepare import prepare_argument_parser, prepare_published, read_sample
from steatosis_d2.data.sources import list_torino
from steatosis_d2.errors import exit_cleanly


def main():
    parser = prepare_argument_parser(
        __doc__,
        dataset_name="liver_torino",
        source="folder with image/ and manual/, or a zip file of it",
    )
    prepare_published(
        parser.parse_args(),
        list_samples=list_torino,
        read=functools.partial(read_sample, encode_masks=encode_binary_file),
        category=DROPLET,
        description="liver tiles of the steatosis challenge, Politecnico di Torino",
    )


if __name__ == "__main__":
    with exit_cleanly():
        main()
