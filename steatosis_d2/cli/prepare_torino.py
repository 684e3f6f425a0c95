"""
Prepare the liver tiles of the Torino steatosis challenge, outlined by hand by an expert.

Expects <source>/image/<case>_<n>.webp and <source>/manual/<case>_<n>.png, whose connected
components are the droplets. See datasets/README.md.

examples:
  %(prog)s --source downloads/torino_liver
  %(prog)s --source torino.zip --output data/torino --splits splits.json
"""

import functools

from steatosis_d2.cli.prepare_options import build_prepare_parser, prepare_published
from steatosis_d2.data.coco import DROPLET
from steatosis_d2.data.instance_masks import encode_binary_file
from steatosis_d2.data.prepare import read_sample
from steatosis_d2.data.sources import list_torino


def build_parser(prog):
    """The command's options."""
    return build_prepare_parser(
        prog,
        __doc__,
        dataset_name="liver_torino",
        source="folder with image/ and manual/, or a zip file of it",
    )


def run(arguments):
    """Write the data set."""
    prepare_published(
        arguments,
        list_samples=list_torino,
        read=functools.partial(read_sample, encode_masks=encode_binary_file),
        category=DROPLET,
        description="liver tiles of the steatosis challenge, Politecnico di Torino",
    )
