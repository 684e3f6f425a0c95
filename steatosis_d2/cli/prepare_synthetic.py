"""
Make a dataset of synthetic liver tiles whose fat droplets are known exactly.

Of each 20 tiles one is blank glass and six are healthy: images without annotations. The others
hold a fat fraction of 0.005 to 0.5, and each has a stain of its own. Every second tile is crowded
with veins, portal tracts and bile ducts, whose open lumina are the white that is taken for fat most
easily; three have strips of glass. The COCO files state all white that is no fat. The same
arguments give the same files, byte for byte.

examples:
  %(prog)s --train 20 --val 5 --test 5 --size 256
  %(prog)s --output data/synthetic_40x --train 1000 --val 100 \\
      --test 100 --size 1024 --mpp 0.25 --seed 7 --workers 4
"""

import argparse
import functools
import math
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from steatosis_d2.cli.option_types import non_negative_integer, positive_integer
from steatosis_d2.cli.prepare_options import add_drawing_options
from steatosis_d2.data.coco import DROPLET, annotation_record, image_record, write_coco
from steatosis_d2.data.synthetic import STAINS, add_structures, random_liver
from steatosis_d2.files import replace_when_done
from steatosis_d2.instances.rle import encode_label_image, encode_mask

DEFAULT_TILES = {"train": 60, "val": 12, "test": 12}
SPLITS = tuple(DEFAULT_TILES)
# By index, in each PERIOD tiles
GLASS_TILES, HEALTHY_TILES, VESSEL_TILES, PERIOD = (4,), (2, 7, 9, 13, 15, 18), range(1, 20, 2), 20
GAP_TILES, GAP_SHARE = (3, 10, 15), (0.08, 0.35)
FAT_FRACTION = (0.005, 0.5)
BORDER_SHARE = 0.25  # of the tiles lie at the border of the tissue
BORDER_GLASS_FRACTION = 0.3


@dataclass(frozen=True)
class TilePlan:
    """What it takes to make one tile in any process."""

    split: str
    index: int
    seed: int
    size_px: int
    mpp: float
    stain: str

    @property
    def file_name(self):
        return f"{self.split}_{self.index:05d}.png"


def run(args):
    """Draw all tiles and write the data set."""
    image_folder = args.output / "images"
    image_folder.mkdir(parents=True, exist_ok=True)
    plans = [
        TilePlan(split, index, args.seed, args.size, args.mpp, args.stain)
        for split in SPLITS
        for index in range(getattr(args, split))
    ]
    make = functools.partial(make_tile, image_folder=image_folder)
    progress = functools.partial(tqdm, total=len(plans), unit="tile", desc="tiles", disable=None)
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
        print(f"{path}: tiles {len(tiles)}, droplets {count}")


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    datasets = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    parser.add_argument(
        "--output",
        type=Path,
        default=datasets / "liver_synthetic",
        metavar="DIR",
        help="folder for images/ and annotations/ (default: %(default)s)",
    )
    for split, count in DEFAULT_TILES.items():
        parser.add_argument(
            f"--{split}",
            type=non_negative_integer,
            default=count,
            metavar="N",
            help=f"tiles in instances_{split}.json (default: %(default)s)",
        )
    parser.add_argument(
        "--size",
        type=positive_integer,
        default=512,
        metavar="PX",
        help="side of a tile (default: %(default)s)",
    )
    parser.add_argument(
        "--stain",
        choices=STAINS,
        default="hematoxylin-eosin",
        help="the weights that ship have seen no other than the first (default: %(default)s)",
    )
    add_drawing_options(parser, seed_help="another seed makes other tiles")
    return parser


def make_tile(plan, *, image_folder):
    """
    Draw one tile and write its picture.

    Args:
        plan (TilePlan): which tile.
        image_folder (Path): where the PNG goes.

    Returns:
        tuple: COCO RLEs of its droplets, and of all white that is no fat.
    """
    tile = draw_tile(plan)
    with replace_when_done(image_folder / plan.file_name) as temporary:
        Image.fromarray(tile.image_rgb).save(temporary)
    return list(encode_label_image(tile.labels).values()), encode_mask(tile.white_not_fat)


def draw_tile(plan):
    """The tile of a plan: glass, healthy or fatty, with few or many veins, in its own stain."""
    rng = np.random.default_rng([plan.seed, SPLITS.index(plan.split), plan.index])
    fat_fraction = math.exp(rng.uniform(*np.log(FAT_FRACTION)))
    glass_fraction = BORDER_GLASS_FRACTION if rng.uniform() < BORDER_SHARE else 0.0
    if plan.index % PERIOD in HEALTHY_TILES:
        fat_fraction = 0.0
    if plan.index % PERIOD in GLASS_TILES:
        glass_fraction = 1.0
    liver = random_liver(
        rng,
        mpp=plan.mpp,
        fat_fraction=fat_fraction,
        glass_fraction=glass_fraction,
        stain=plan.stain,
    )
    place = plan.index % PERIOD
    liver = add_structures(
        liver,
        rng,
        crowded=place in VESSEL_TILES,
        gap_share=float(rng.uniform(*GAP_SHARE)) if place in GAP_TILES else 0.0,
    )
    return liver.render(top=0, left=0, height=plan.size_px, width=plan.size_px)


def write_split(path, tiles, *, info):
    """
    Write the COCO file of one split.

    Args:
        path (Path): the file.
        tiles (list): pairs (TilePlan, what :func:`make_tile` gives).
        info (dict): where the dataset comes from.

    Returns:
        int: number of droplets.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, (plan, (rles, other_white)) in enumerate(tiles, start=1):
        images.append(
            image_record(
                image_id,
                plan.file_name,
                height=plan.size_px,
                width=plan.size_px,
                mpp=plan.mpp,
                other_white=other_white,
            )
        )
        for rle in rles:
            annotations.append(annotation_record(len(annotations) + 1, image_id, rle))
    write_coco(path, images, annotations, category=DROPLET, info=info)
    return len(annotations)


def dataset_info(args):
    """What made the dataset, for the COCO files."""
    return {
        "description": "Synthetic liver; the droplets are known exactly",
        "stain": args.stain,
        "generator": "make_synthetic_liver.py",
        "seed": args.seed,
        "size_px": args.size,
        "mpp": args.mpp,
        **{split: getattr(args, split) for split in SPLITS},
    }
