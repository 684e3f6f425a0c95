#!/usr/bin/env python
"""Classical label generators side by side on outlined tiles, as a Markdown table."""

import argparse
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from steatosis_d2.cli.option_types import pixel_size_um
from steatosis_d2.data.coco import DROPLET, annotation_record, image_record, read_coco, write_coco
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.labeling.methods import METHODS
from steatosis_d2.labeling.parameters import choose_parameters

logger = logging.getLogger(__name__)

EXAMPLE = """
example:
  python tools/compare_labels.py --images datasets/liver_torino/images --mpp 0.5 \\
      --ground-truth datasets/liver_torino/annotations/instances_val.json
  adds liverquant where it is installed: pip install -e .[bench]
"""

# Heading -> group and name of the figure; all but the last two are pooled over images.
COLUMNS = {
    "F1": ("instances", "f1"),
    "precision": ("instances", "precision"),
    "recall": ("instances", "recall"),
    "PQ": ("instances", "pq"),
    "paper AP50": ("paper", "paper_ap50"),
    "Dice": ("instances", "dice"),
}


def main():
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    truth = read_coco(arguments.ground_truth)
    contents = label_images(truth, arguments.images, list_generators(), mpp=arguments.mpp)
    rows = []
    for name, content in contents.items():
        if arguments.output:
            write_coco(
                arguments.output / f"{name}.json",
                content["images"],
                content["annotations"],
                category=DROPLET,
                info={"description": f"droplets found by {name}"},
            )
        pairs = pair_images(
            truth, content, truth_name=arguments.ground_truth, predictions_name=name
        )
        metrics = evaluate_pairs(pairs).metrics
        figures = [metrics[group][key] for group, key in COLUMNS.values()]
        rows.append([name, *figures])
    print(tabulate(rows, headers=["method", *COLUMNS], tablefmt="pipe", floatfmt=".3f"))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ground-truth", required=True, metavar="FILE", help="COCO file of truths")
    parser.add_argument(
        "--mpp",
        type=pixel_size_um,
        metavar="M",
        help="pixel size in um/px (default: as the file of truths says)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write each method's labels to DIR/METHOD.json"
    )
    return parser.parse_args()


def list_generators():
    """Dict of name -> function from an RGB image and its um/px to scored COCO RLEs."""
    generators = {name: label_with(method) for name, method in METHODS.items()}
    try:
        import liverquant
    except ImportError:
        logger.warning("liverquant is left out: not installed (pip install -e .[bench]).")
        return generators
    return generators | {"liverquant": label_with_liverquant(liverquant)}


def label_with(method):
    def label(image_rgb, mpp):
        droplets = method(image_rgb, mpp=mpp, parameters=choose_parameters(mpp))
        return [(droplet.encode(image_rgb.shape), droplet.score) for droplet in droplets]

    return label


def label_with_liverquant(liverquant):
    def label(image_rgb, mpp):
        globules = liverquant.detect_fat_globules_contour(image_rgb, resolution=mpp)
        masks = [np.zeros(image_rgb.shape[:2], np.uint8) for _ in globules]
        for mask, globule in zip(masks, globules, strict=True):
            liverquant.draw_geocontours(mask, [globule], mode="imagej")
        return [(encode_mask(mask > 0), 1.0) for mask in masks if mask.any()]

    return label


def label_images(truth, folder, generators, *, mpp):
    """Dict of generator's name -> content of a COCO file of its labels; mpp None: the truth's."""
    records, annotations = [], defaultdict(list)
    for image in tqdm(truth["images"], unit="image", disable=None):
        image_rgb = read_image_rgb(folder / image["file_name"])
        height, width = image_rgb.shape[:2]
        image_mpp = mpp or image.get("mpp")
        if image_mpp is None:
            raise InputError(
                f"the file of truths does not say the pixel size of '{image['file_name']}'; give "
                "it with --mpp (um/px)."
            )
        records.append(image_record(image["id"], image["file_name"], height=height, width=width))
        for name, label in generators.items():
            for rle, score in label(image_rgb, image_mpp):
                number = len(annotations[name]) + 1
                annotations[name].append(annotation_record(number, image["id"], rle, score=score))
    return {name: {"images": records, "annotations": annotations[name]} for name in generators}


if __name__ == "__main__":
    with exit_cleanly():
        main()
