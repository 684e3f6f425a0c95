"""What the ``prepare_*`` commands have in common."""

import argparse
import logging
import math
import os
from pathlib import Path

from steatosis_d2.cli.option_types import (
    non_negative_integer,
    pixel_size_um,
    positive_integer,
)
from steatosis_d2.data.pixel_size import read_decimal
from steatosis_d2.data.prepare import write_dataset
from steatosis_d2.data.sources import open_source
from steatosis_d2.data.splits import DEFAULT_FRACTIONS, choose_splits
from steatosis_d2.data.synthetic import DRAWABLE_MPP

logger = logging.getLogger(__name__)


def build_prepare_parser(prog, description, *, dataset_name=None, source=None):
    """
    Options that all ``prepare_*`` commands have in common.

    Args:
        prog (str): what usage calls the command.
        description (str): what the command expects, with examples.
        dataset_name (str or None): folder under $DETECTRON2_DATASETS that is the default output;
            without it, the user has to name one.
        source (str or None): what a published data set's ``--source`` is; without it, the command
            adds options of its own for where the images are.

    Returns:
        argparse.ArgumentParser: complete where ``source`` is given.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    datasets = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    parser.add_argument(
        "--output",
        type=Path,
        required=dataset_name is None,
        default=dataset_name and datasets / dataset_name,
        metavar="DIR",
        help="folder for images/ and annotations/"
        + (" (default: %(default)s)" if dataset_name else ""),
    )
    if source is not None:
        parser.add_argument("--source", type=Path, required=True, metavar="DIR_OR_ZIP", help=source)
    parser.add_argument("--mpp", type=pixel_size_um, help="pixel size in um/px, if you know it")
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument(
        "--splits",
        type=Path,
        metavar="FILE",
        help='JSON {"train": [names], "val": [names], "test": [names]}; '
        "default: splits.json in or beside the source, if there is one",
    )
    splits.add_argument(
        "--fractions",
        type=_fraction,
        nargs=3,
        action=_SumToOne,
        metavar=("TRAIN", "VAL", "TEST"),
        help="split by case instead: parts of the cases, which add up to 1 "
        f"(default without a splits file: {' '.join(map(str, DEFAULT_FRACTIONS))})",
    )
    return parser


def prepare_published(
    args, *, list_samples, read, category, description, group_of=None, incomplete=False
):
    """
    List, split and write a published data set, as the command's options say.

    Args:
        args (argparse.Namespace): of :func:`build_prepare_parser` with a source.
        list_samples (callable): folder -> list of samples, from
            :mod:`steatosis_d2.data.sources`.
        read, category, description, group_of, incomplete: as for
            :func:`steatosis_d2.data.prepare.write_dataset`.

    Raises:
        InputError: the source, the splits or an image is at fault.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logger.info("preparing %s", description)
    with open_source(args.source) as folder:
        splits = choose_splits(
            list_samples(folder),
            file=args.splits,
            fractions=args.fractions,
            look_in=(folder, args.source.parent),
        )
        write_dataset(
            splits,
            args.output,
            read=read,
            category=category,
            mpp=args.mpp,
            group_of=group_of,
            incomplete=incomplete,
            description=description,
        )


def add_drawing_options(parser, *, seed_help):
    """
    Options of what draws synthetic tissue.

    Args:
        parser (argparse.ArgumentParser): of the command.
        seed_help (str): what another seed changes.
    """
    parser.add_argument(
        "--seed",
        type=non_negative_integer,
        default=0,
        metavar="S",
        help=f"{seed_help} (default: %(default)s)",
    )
    parser.add_argument(
        "--mpp",
        type=drawable_pixel_size,
        default=0.5,
        metavar="M",
        help="um/px: 0.5 is a scan at 20x, 0.25 one at 40x (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=positive_integer,
        default=1,
        metavar="N",
        help="processes to draw with; the files do not depend on it (default: %(default)s)",
    )


def drawable_pixel_size(text):
    """um/px of synthetic tissue, as typed, or the error that argparse shows."""
    mpp = pixel_size_um(text)
    if not DRAWABLE_MPP[0] <= mpp <= DRAWABLE_MPP[1]:
        raise argparse.ArgumentTypeError(
            f"'{text}' is out of range; expected {DRAWABLE_MPP[0]} to {DRAWABLE_MPP[1]} um/px"
        )
    return mpp


class _SumToOne(argparse.Action):
    """Three fractions that add up to 1."""

    def __call__(self, parser, namespace, values, option_string=None):
        if not math.isclose(sum(values), 1, abs_tol=1e-6):
            parser.error(f"{option_string}: {' + '.join(map(str, values))} is not 1")
        setattr(namespace, self.dest, values)


def _fraction(text):
    fraction = read_decimal(text)
    if not 0 <= fraction <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no fraction; expected 0 to 1")
    return fraction
