#!/usr/bin/env python
"""
Fit the card that tells large droplets from veins, ducts and glass, and print it as Python source.

What the label generator took for large droplets in outlined images is weighed against what was
outlined. Images may have several pixel sizes; the COCO files state them.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.evaluation.matching import as_rles
from steatosis_d2.labeling.fitting import fit_scorecard, format_scorecard
from steatosis_d2.labeling.generator import label_by_clump_split, prepare_scene
from steatosis_d2.labeling.openings import measure_openings
from steatosis_d2.labeling.parameters import choose_parameters
from steatosis_d2.labeling.scorecards import NO_CARD, OPENING_CARD

EXAMPLES = """
example, which made the card in steatosis_d2/labeling/scorecards.py:
  python tools/fit_opening_card.py liver_torino/train liver_guo2019/train liver_guo2019/test \\
      liver_synthetic/train:160 liver_synthetic_40x/train:104 --break-even 0.4
"""


def main():
    arguments = parse_arguments()
    parts, iou = defaultdict(list), []
    for name, number in arguments.datasets:
        folder = arguments.folder / Path(name).parent
        content = read_coco(folder / "annotations" / f"instances_{Path(name).name}.json")
        for image in tqdm(content["images"][:number], desc=name, disable=None):
            measured, ious = measure_image(image, content, folder / "images")
            iou.append(ious)
            for key, values in measured.items():
                parts[key].append(values)
    iou = np.concatenate(iou)
    card = fit_scorecard(
        {key: np.concatenate(values) for key, values in parts.items()},
        iou,
        names=list(OPENING_CARD.curves),
        iou_range=arguments.iou_range,
        ridge=arguments.ridge,
        break_even=arguments.break_even,
    )
    print(f"# {len(iou)} large droplets, {np.count_nonzero(iou < 0.4)} of them false")
    print(format_scorecard(card))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "datasets",
        nargs="+",
        type=dataset_and_number,
        metavar="DATASET/SPLIT[:N]",
        help="outlined images, as the scripts in datasets/ write them; of these the first N",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("datasets"),
        metavar="DIR",
        help="where the data sets are (default: %(default)s)",
    )
    parser.add_argument(
        "--iou-range",
        type=float,
        nargs=2,
        default=(0.2, 0.5),
        metavar=("LOW", "HIGH"),
        help="IoU with a truth at which one begins to count as fat, and is wholly fat "
        "(default: 0.2 0.5)",
    )
    parser.add_argument(
        "--ridge", type=float, default=1.0, help="penalty on squared log-odds (default: 1)"
    )
    parser.add_argument(
        "--break-even",
        type=float,
        default=0.5,
        metavar="P",
        help="fitted probability that becomes a confidence of 0.5 (default: 0.5)",
    )
    return parser.parse_args()


def dataset_and_number(text):
    """Name, and number of images to take of it: None for all."""
    name, _, number = text.partition(":")
    return name, int(number) if number else None


def measure_image(image, content, folder):
    """Evidence of the large droplets found in one image, and the IoU of each with a truth."""
    if "mpp" not in image:
        raise InputError(
            f"'{image['file_name']}' has no pixel size; expected 'mpp' in its COCO file. Prepare "
            "the data again with --mpp."
        )
    image_rgb, mpp = read_image_rgb(folder / image["file_name"]), image["mpp"]
    parameters = replace(choose_parameters(mpp), opening_card=NO_CARD)
    droplets = label_by_clump_split(image_rgb, mpp=mpp, parameters=parameters)
    large, parts = measure_openings(
        droplets, prepare_scene(image_rgb, mpp=mpp, parameters=parameters)
    )
    height, width = image_rgb.shape[:2]
    truths = as_rles(
        [a["segmentation"] for a in content["annotations"] if a["image_id"] == image["id"]],
        height=height,
        width=width,
    )
    found = [droplets[index].encode(image_rgb.shape) for index in large]
    if not (found and truths):
        return parts, np.zeros(len(large))
    return parts, coco_mask.iou(found, truths, [0] * len(truths)).max(axis=1)


if __name__ == "__main__":
    with exit_cleanly():
        main()
