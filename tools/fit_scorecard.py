#!/usr/bin/env python
"""Fit the label generator's scorecard to outlined images, and print it as Python source."""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from steatosis_d2.cli.option_types import pixel_size_um
from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.evaluation.matching import as_rles
from steatosis_d2.labeling.fitting import fit_scorecard, format_scorecard, measure_proposals
from steatosis_d2.labeling.parameters import choose_parameters

EXAMPLES = """
examples, which made the two cards in steatosis_d2/labeling/scorecards.py:
  python tools/fit_scorecard.py --images datasets/liver_torino/images --mpp 0.5 \\
      --ground-truth datasets/liver_torino/annotations/instances_train.json \\
      --iou-range 0.4 0.8 --ridge 1 --break-even 0.25
  python tools/fit_scorecard.py --images datasets/liver_guo2019/images --mpp 0.25 \\
      --ground-truth datasets/liver_guo2019/annotations/instances_*.json \\
      --iou-range 0.4 0.9 --ridge 0.5 --break-even 0.3
"""


def main():
    arguments = parse_arguments()
    parameters = choose_parameters(arguments.mpp)
    outlined = [read_coco(path) for path in arguments.ground_truth]
    parts, iou = measure_images(outlined, arguments, parameters)
    card = fit_scorecard(
        parts,
        iou,
        names=list(parameters.scorecard.curves),
        iou_range=arguments.iou_range,
        ridge=arguments.ridge,
        break_even=arguments.break_even,
    )
    print(format_scorecard(card))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--ground-truth", required=True, nargs="+", metavar="FILE", help="COCO files of truths"
    )
    parser.add_argument(
        "--mpp",
        type=pixel_size_um,
        required=True,
        metavar="M",
        help="pixel size in um/px; it also chooses the parameters and the parts of the card",
    )
    parser.add_argument(
        "--iou-range",
        type=float,
        nargs=2,
        default=(0.4, 0.8),
        metavar=("LOW", "HIGH"),
        help="IoU with a truth at which a proposal begins to count as good, and is wholly good",
    )
    parser.add_argument("--ridge", type=float, default=1.0, help="penalty on squared log-odds")
    parser.add_argument(
        "--break-even",
        type=float,
        default=0.25,
        metavar="P",
        help="fitted probability that becomes a confidence of 0.5",
    )
    return parser.parse_args()


def measure_images(outlined, arguments, parameters):
    """Evidence and IoU of the proposals in all images, end to end."""
    parts, iou = defaultdict(list), []
    for file_name, truths in tqdm(list_truths(outlined), unit="image", disable=None):
        image_rgb = read_image_rgb(arguments.images / file_name)
        height, width = image_rgb.shape[:2]
        rles = as_rles(truths, height=height, width=width)
        for measured, proposals_iou in measure_proposals(
            image_rgb, rles, mpp=arguments.mpp, parameters=parameters
        ):
            iou.append(proposals_iou)
            for name, values in measured.items():
                parts[name].append(values)
    if not iou:
        raise InputError(f"no bright region in the images in '{arguments.images}'.")
    return {name: np.concatenate(values) for name, values in parts.items()}, np.concatenate(iou)


def list_truths(outlined):
    """File name and true masks of each image of several COCO files."""
    images = []
    for content in outlined:
        truths = defaultdict(list)
        for annotation in content["annotations"]:
            truths[annotation["image_id"]].append(annotation["segmentation"])
        images += [(image["file_name"], truths[image["id"]]) for image in content["images"]]
    return images


if __name__ == "__main__":
    with exit_cleanly():
        main()
