#!/usr/bin/env python
"""Make a dataset of synthetic liver tiles whose fat droplets are known exactly."""

import argparse
import functools
import math
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from steatosis_d2.data.coco import DROPLET, annotation_record, image_record, write_coco
from steatosis_d2.data.synthetic import random_liver
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.files import replace_when_done
from steatosis_d2.masks import encode_label_image

SPLITS = ("train", "val", "test")
GLASS_PERIOD, HEALTHY_PERIOD = 20, 6  # one tile in 20 is glass, one in 6 of the others healthy
FAT_FRACTION = (0.005, 0.5)
GLASS_BORDER_SHARE = 0.25  # of the tiles lie near the tissue's border

EXAMPLES = """\
examples:
  A small set to try things out, in well under a minute:
    python datasets/make_synthetic_liver.py --output datasets/liver_synthetic \\
        --train 20 --val 5 --test 5 --size 256

  A larger one at the scale of a 40x scan, with four processes:
    python datasets/make_synthetic_liver.py --output /data/synthetic_40x \\
        --train 1000 --val 100 --test 100 --size 1024 --mpp 0.25 --workers 4

The same arguments give the same files, byte for byte, whatever --workers is.
"""


@dataclass(frozen=True)
class TilePlan:
    """What it takes to make one tile in any process."""

    split: str
    index: int
    seed: int
    size_px: int
    mpp: float

    @property
    def file_name(self):
        return f"{self.split}_{self.index:05d}.png"


def main():
    args = parse_arguments()
    image_folder = args.output / "images"
    image_folder.mkdir(parents=True, exist_ok=True)
    plans = [
        TilePlan(split, index, args.seed, args.size, args.mpp)
        for split in SPLITS
        for index in range(getattr(args, split))
    ]
    make = functools.partial(make_tile, image_folder=image_folder)
    progress = functools.partial(tqdm, total=len(plans), unit="tile", desc="tiles")
    if args.workers == 1:
        droplets = list(progress(map(make, plans)))
    else:
        context = multiprocessing.get_context("spawn")
        with context.Pool(args.workers) as pool:
            droplets = list(progress(pool.imap(make, plans)))
    for split in SPLITS:
        tiles = [tile for tile in zip(plans, droplets, strict=True) if tile[0].split == split]
        path = args.output / "annotations" / f"instances_{split}.json"
        count = write_split(path, tiles, info=dataset_info(args))
        print(f"{path}: {len(tiles)} tiles, {count} droplets")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("datasets/liver_synthetic"),
        metavar="DIR",
        help="gets images/ and annotations/ (default: %(default)s)",
    )
    defaults = {"train": 60, "val": 12, "test": 12}
    for split in SPLITS:
        parser.add_argument(
            f"--{split}",
            type=int,
            default=defaults[split],
            metavar="N",
            help=f"tiles to make for instances_{split}.json (default: %(default)s)",
        )
    parser.add_argument(
        "--size", type=int, default=512, metavar="PX", help="side of a tile (default: %(default)s)"
    )
    parser.add_argument(
        "--mpp", type=float, default=0.5, metavar="M", help="um per pixel (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed makes other tiles (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    check_arguments(args)
    return args


def check_arguments(args):
    """Raise InputError where a number makes no sense."""
    for name, least in (
        *((split, 0) for split in SPLITS),
        ("size", 1),
        ("seed", 0),
        ("workers", 1),
    ):
        value = getattr(args, name)
        if value < least:
            raise InputError(f"--{name} is {value}; expected a whole number of at least {least}.")
    if not 0.05 <= args.mpp <= 4:
        raise InputError(
            f"--mpp is {args.mpp}; expected um per pixel from 0.05 to 4 (a 20x scan has about 0.5)."
        )


def make_tile(plan, *, image_folder):
    """
    Draw one tile and write its picture.

    Args:
        plan (TilePlan): which tile.
        image_folder (Path): where the PNG goes.

    Returns:
        list[dict]: COCO RLEs of its droplets.
    """
    tile = draw_tile(plan)
    with replace_when_done(image_folder / plan.file_name) as temporary:
        Image.fromarray(tile.image_rgb).save(temporary)
    return list(encode_label_image(tile.labels).values())


def draw_tile(plan):
    """The tile of a plan: glass, healthy or fatty, of a stain of its own."""
    rng = np.random.default_rng([plan.seed, SPLITS.index(plan.split), plan.index])
    fat_fraction = math.exp(rng.uniform(*np.log(FAT_FRACTION)))
    glass_fraction = 0.45 if rng.uniform() < GLASS_BORDER_SHARE else 0.0
    if plan.index % HEALTHY_PERIOD == 2:
        fat_fraction = 0.0
    if plan.index % GLASS_PERIOD == 4:
        glass_fraction = 1.0
    liver = random_liver(
        rng, mpp=plan.mpp, fat_fraction=fat_fraction, glass_fraction=glass_fraction
    )
    return liver.render(top=0, left=0, height=plan.size_px, width=plan.size_px)


def write_split(path, tiles, *, info):
    """
    Write the COCO file of one split.

    Args:
        path (Path): the file.
        tiles (list): pairs (TilePlan, its RLEs).
        info (dict): where the dataset comes from.

    Returns:
        int: number of droplets.
    """
    images, annotations = [], []
    for image_id, (plan, rles) in enumerate(tiles, start=1):
        images.append(
            image_record(
                image_id, plan.file_name, height=plan.size_px, width=plan.size_px, mpp=plan.mpp
            )
        )
        for rle in rles:
            annotations.append(annotation_record(len(annotations) + 1, image_id, rle))
    write_coco(path, images, annotations, category=DROPLET, info=info)
    return len(annotations)


def dataset_info(args):
    """What made the dataset, for the COCO files."""
    return {
        "description": "Synthetic H&E-stained liver; the droplets are known exactly",
        "generator": Path(__file__).name,
        "seed": args.seed,
        "size_px": args.size,
        "mpp": args.mpp,
        **{split: getattr(args, split) for split in SPLITS},
    }


if __name__ == "__main__":
    with exit_cleanly():
        main()
