"""Types of options that several commands have."""

import argparse
import math

from steatosis_d2.data.pixel_size import describe_expected, is_possible, read_decimal
from steatosis_d2.labeling.pixel_size import ESTIMATE


def positive_integer(text):
    """A number of things, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is less than 1")
    return number


def non_negative_integer(text):
    """A number of things, at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is less than 0")
    return number


def positive_number(text):
    """A finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return number


def share(text):
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return number


def finite_number(text):
    """Any number that is one."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def pixel_size_um(text):
    """
    Value of the option ``--mpp``.

    Args:
        text (str): what the user typed.

    Returns:
        float: um/px.

    Raises:
        argparse.ArgumentTypeError: it is no number that can be one.
    """
    mpp = read_decimal(text)
    if not is_possible(mpp):
        raise argparse.ArgumentTypeError(f"'{text}' is no pixel size; {describe_expected(mpp)}")
    return mpp


def pixel_size_or_estimate(text):
    """A pixel size in um/px, or the word that asks for an estimate."""
    return text if text == ESTIMATE else pixel_size_um(text)


def add_page(parser):
    """The option --page."""
    parser.add_argument(
        "--page",
        type=positive_integer,
        metavar="N",
        help="of files that hold several pictures of like size (TIFF, OME-Zarr), the one to take, "
        "from 1",
    )


def add_scale_out(group, *, workers_help):
    """The options --workers and --scheduler, of which one can be given."""
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=positive_integer, default=1, metavar="N", help=workers_help
    )
    where.add_argument("--scheduler", metavar="ADDR", help="address of a Dask scheduler")


def add_network_options(group):
    """The options --config-file, --weights, --score-threshold and --set of a trained network."""
    group.add_argument(
        "--config-file", metavar="C", help="config of the network, by path or name in configs/"
    )
    group.add_argument(
        "--weights", metavar="W", help="checkpoint; with neither this nor a config, the package's"
    )
    group.add_argument(
        "--score-threshold",
        type=share,
        metavar="S",
        help="least confidence, 0 to 1, of what is kept; default: the model's own",
    )
    group.add_argument(
        "--set",
        nargs=2,
        action="append",
        metavar=("KEY", "VALUE"),
        help="change a key of the config, for instance --set MODEL.DEVICE cpu; repeatable",
    )


def network_settings(arguments):
    """What :func:`add_network_options` made of the command line, as keywords of the API."""
    return {
        "model": arguments.config_file,
        "weights": arguments.weights,
        "score_threshold": arguments.score_threshold,
        "overrides": [word for pair in arguments.set or () for word in pair],
    }
