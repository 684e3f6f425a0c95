"""
Make a checkpoint small enough to give away: the network's weights alone, in half precision. Or
make an ONNX file of it, which other programs run.

With its config, the network also runs on images of its training sets, to note between which
values its features lie. Processors with VNNI (Intel since 2019, AMD since 2022) then compute in
8-bit integers, about 1.5 times as fast as in bfloat16 and 3 times as fast as in float32. The
colours of these images are noted, too: `steatosis-d2 sample` finds tissue that is unlike them.

With the metrics of an evaluation, reports say how far the network's figures were from the truth.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import torch

from steatosis_d2.cli.option_types import positive_integer
from steatosis_d2.engine.checkpoint import VALIDATION_KEY
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done

EXAMPLES = """
examples:
  %(prog)s output/liver_starter/model_final.pth --output liver_starter.pth
  %(prog)s output/liver_starter/model_final.pth --output liver_starter.pth \\
      --config-file configs/liver/starter.yaml \\
      --metrics output/liver_starter/inference/metrics.json --metrics-of 'Torino, validation'
  the network that ships, for other programs:
    %(prog)s --format onnx --output liver.onnx
"""
CALIBRATION_IMAGES = 64
CHECKPOINT, ONNX = "checkpoint", "onnx"


def run(arguments):
    """Write the file, and say its size and fingerprint."""
    if arguments.format == ONNX:
        facts = export_onnx(arguments)
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
    else:
        export_checkpoint(arguments)
    content = arguments.output.read_bytes()
    print(f"{arguments.output}: {len(content) / 1e6:.1f} MB")
    print(f"SHA-256 {hashlib.sha256(content).hexdigest()}")


def export_checkpoint(arguments):
    """Write the small checkpoint."""
    weights = read_weights(arguments.checkpoint)
    exported = {"model": {name: halve(value) for name, value in weights.items()}}
    if arguments.config_file is not None:
        exported |= calibrate(arguments.config_file, arguments.checkpoint)
    if arguments.metrics is not None:
        exported[VALIDATION_KEY] = read_validation(arguments.metrics, arguments.metrics_of)
    with replace_when_done(arguments.output) as temporary:
        torch.save(exported, temporary)


def export_onnx(arguments):
    """Write the network as ONNX; returns what its metadata say."""
    # These take seconds to import, and plain export does without them.
    from steatosis_d2.inference.models import MaskRCNNChoice
    from steatosis_d2.inference.onnx_export import write_onnx

    choice = MaskRCNNChoice(
        arguments.config_file,
        weights=arguments.checkpoint and str(arguments.checkpoint),
        overrides=("MODEL.DEVICE", "cpu", "TEST.PRECISION", "float32"),
    )
    return write_onnx(arguments.output, choice(), tile_px=arguments.tile_px)


class Parser(argparse.ArgumentParser):
    """Refuses options that do not go together."""

    def parse_args(self, *args, **kwargs):
        """As ``ArgumentParser.parse_args``."""
        arguments = super().parse_args(*args, **kwargs)
        if arguments.format == CHECKPOINT and arguments.checkpoint is None:
            self.error("a checkpoint is needed; only --format onnx takes the one that ships")
        if arguments.format == ONNX and arguments.metrics is not None:
            self.error("--metrics is for --format checkpoint")
        return arguments


def build_parser(prog):
    """The command's options."""
    parser = Parser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        help="written by tools/train_net.py; without it, --format onnx takes what ships",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="the checkpoint's config: note the ranges of its features for 8-bit integers; with "
        "--format onnx, the network's (default: liver/starter.yaml)",
    )
    parser.add_argument(
        "--format",
        choices=(CHECKPOINT, ONNX),
        default=CHECKPOINT,
        help="what to write (default: %(default)s)",
    )
    parser.add_argument(
        "--tile-px",
        type=positive_integer,
        default=1024,
        metavar="N",
        help="with --format onnx: side of the tiles that it takes (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="metrics.json of train_net.py --eval-only, on images that it was not trained on",
    )
    parser.add_argument(
        "--metrics-of", default="", metavar="TEXT", help="what these images are, for readers"
    )
    return parser


def read_validation(path, images_name):
    """What a report says of a network's own error (dict), from an evaluation's metrics."""
    try:
        clinical = json.loads(path.read_text(encoding="utf-8"))["clinical"]
        return {
            "of": images_name,
            "images": int(clinical["images"]),
            "count_error": float(f"{clinical['count_error']:.3g}"),
            "fat_area_error_points": float(f"{clinical['fat_area_error_points']:.3g}"),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{path}' has no clinical figures ({error!r}); expected metrics.json as "
            "train_net.py --eval-only writes it."
        ) from None


def read_weights(path):
    """The network's tensors; where averaged weights were trained, they are the averaged ones."""
    if not path.is_file():
        raise InputError(f"checkpoint '{path}' does not exist; check the path.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["model"]
    except Exception as error:
        raise InputError(
            f"'{path}' is no checkpoint of tools/train_net.py ({str(error).splitlines()[0]})."
        ) from None


def calibrate(config_file, checkpoint):
    """Ranges of features and colours of images of the training sets, as a checkpoint's entries."""
    # These take seconds to import, and plain export does without them.
    from detectron2.data import DatasetCatalog

    from steatosis_d2.data.colours import COLOURS_KEY, ColourStatistics, describe_colours
    from steatosis_d2.data.images import read_image_rgb
    from steatosis_d2.inference.feature_ranges import measure_feature_ranges
    from steatosis_d2.model_zoo import get_config
    from steatosis_d2.modeling.quantization import RANGES_KEY

    cfg = get_config(config_file, ["MODEL.WEIGHTS", str(checkpoint)])
    n_each = max(1, CALIBRATION_IMAGES // len(cfg.DATASETS.TRAIN))
    records = [
        record
        for name in cfg.DATASETS.TRAIN
        for record in take_evenly(DatasetCatalog.get(name), n_each)
    ]
    tiles = ((read_image_rgb(one["file_name"]), one.get("mpp")) for one in records)
    print(f"Noting ranges of features, and colours, on {len(records)} training images.")
    ranges = measure_feature_ranges(cfg, tiles)
    described = [describe_colours(read_image_rgb(one["file_name"])) for one in records]
    return {RANGES_KEY: ranges, COLOURS_KEY: ColourStatistics.of(described).as_lists()}


def take_evenly(items, at_most):
    """Some items, from beginning to end."""
    return items[:: max(1, math.ceil(len(items) / at_most))]


def halve(tensor):
    return tensor.half() if tensor.is_floating_point() else tensor
