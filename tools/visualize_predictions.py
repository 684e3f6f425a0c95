#!/usr/bin/env python
"""Draw the outlines of a COCO file's instances onto their images, one picture an image."""

import argparse
from collections import defaultdict
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.errors import exit_cleanly
from steatosis_d2.files import replace_when_done
from steatosis_d2.report.overlay import PREDICTED_RGB, TRUE_RGB, draw_outlines

EXAMPLES = """
examples:
  What a network found, above its score threshold, in green:
    python tools/visualize_predictions.py --images datasets/liver_torino/images \\
        --predictions output/liver_starter/inference/predictions.json --output pictures
  The same with the true outlines under it, in yellow:
    python tools/visualize_predictions.py --images datasets/liver_torino/images \\
        --predictions output/liver_starter/inference/predictions.json \\
        --ground-truth datasets/liver_torino/annotations/instances_val.json --output pictures
"""


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of the images"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="FILE",
        help="COCO file of predictions, labels or truths",
    )
    parser.add_argument(
        "--ground-truth", type=Path, metavar="FILE", help="COCO file of the true instances"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="gets one PNG file an image"
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="lowest score that is drawn (default: %(default)s)",
    )
    return parser.parse_args()


def group_masks(coco, *, score_threshold=0.0):
    """Masks by file name; what has no score, such as a truth, counts as certain."""
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    masks = defaultdict(list)
    for annotation in coco["annotations"]:
        if annotation.get("score", 1.0) >= score_threshold:
            masks[names[annotation["image_id"]]].append(annotation["segmentation"])
    return masks


def main():
    arguments = parse_arguments()
    coco = read_coco(arguments.predictions)
    predicted = group_masks(coco, score_threshold=arguments.score_threshold)
    true = group_masks(read_coco(arguments.ground_truth)) if arguments.ground_truth else {}
    for image in tqdm(coco["images"], unit="image"):
        name = image["file_name"]
        picture = read_image_rgb(arguments.images / name)
        picture = draw_outlines(picture, true.get(name, []), color_rgb=TRUE_RGB)
        picture = draw_outlines(picture, predicted.get(name, []), color_rgb=PREDICTED_RGB)
        with replace_when_done(arguments.output / f"{Path(name).stem}.png") as temporary:
            Image.fromarray(picture).save(temporary)


if __name__ == "__main__":
    with exit_cleanly():
        main()
