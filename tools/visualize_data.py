#!/usr/bin/env python
"""Show what a network is trained on: one picture an image, with the true outlines in yellow."""

import argparse
from itertools import islice
from pathlib import Path

import cv2
from PIL import Image
from tqdm import tqdm

from steatosis_d2.errors import InputError, exit_cleanly

with exit_cleanly():  # says how to get Detectron2 where it is missing
    from steatosis_d2.data.mapper import IGNORED_CLASS, InstanceMapper
    from steatosis_d2.data.stream import ImageStream, load_records
    from steatosis_d2.engine.hooks import draw_batch
    from steatosis_d2.engine.trainer import check_registered
    from steatosis_d2.model_zoo import get_config

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.files import replace_when_done
from steatosis_d2.instances.rle import as_rle
from steatosis_d2.report.overlay import TRUE_RGB, draw_outlines

BOX_RGB = (0, 90, 200)

EXAMPLES = """
examples:
  What the network sees: scaled, cropped, turned, stained, in the order of training:
    python tools/visualize_data.py --config-file configs/liver/starter.yaml --output pictures
  The data sets as they are registered, before any augmentation:
    python tools/visualize_data.py --config-file configs/liver/starter.yaml --output pictures \\
        --source annotation
  One augmentation by itself, to judge its strength:
    python tools/visualize_data.py --config-file configs/liver/starter.yaml --output pictures \\
        INPUT.AFFINE_PROBABILITY 0.0 INPUT.BLUR_PROBABILITY 0.0 INPUT.STAIN_PROBABILITY 1.0
  Your own COCO file, with boxes and classes:
    python tools/visualize_data.py --config-file configs/liver/starter.yaml --output pictures \\
        --boxes DATASETS.TRAIN "('coco:mine/annotations/instances_train.json:mine/images',)" \\
        DATASETS.TRAIN_SHARES "()"
"""


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="as for tools/train_net.py"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="gets PNG files named by their place and image, such as 00003_tile.png",
    )
    parser.add_argument(
        "--source",
        choices=["train", "annotation"],
        default="train",
        help="train: what the network sees, by SEED, or as with SEED 0 where that is negative; "
        "annotation: the images of DATASETS.TRAIN as they are (default: %(default)s)",
    )
    parser.add_argument(
        "--number",
        type=int,
        default=20,
        metavar="N",
        help="pictures to write; of annotation, for each data set (default: %(default)s)",
    )
    parser.add_argument("--boxes", action="store_true", help="draw boxes and class names as well")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change, last on the line",
    )
    arguments = parser.parse_args()
    if arguments.number < 1:
        parser.error(f"--number is {arguments.number}; expected at least 1")
    return arguments


def show_train(cfg, *, number, boxes):
    """Names and pictures of the first images of training, as the network sees them."""
    records, weights = load_records(cfg)
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    mapper = InstanceMapper(cfg, is_train=True)
    stream = ImageStream(records, mapper, weights=weights, seed=max(cfg.SEED, 0))
    for place in range(number):
        sample = stream[place]
        picture = draw_batch([sample], channel_order=cfg.INPUT.FORMAT)
        if boxes:
            instances = sample["instances"]
            draw_boxes(
                picture,
                instances.gt_boxes.tensor.tolist(),
                [
                    "ignored" if index == IGNORED_CLASS else classes[index]
                    for index in instances.gt_classes
                ],
            )
        yield sample["file_name"], picture


def show_annotation(cfg, *, number, boxes):
    """Names and pictures of the first images of each data set, as they are registered."""
    for name in cfg.DATASETS.TRAIN:
        for record in islice(DatasetCatalog.get(name), number):
            annotations = record["annotations"]
            picture = read_image_rgb(record["file_name"])
            picture = draw_outlines(picture, read_masks(record), color_rgb=TRUE_RGB)
            if boxes:
                classes = MetadataCatalog.get(name).thing_classes
                draw_boxes(
                    picture,
                    [
                        BoxMode.convert(one["bbox"], one["bbox_mode"], BoxMode.XYXY_ABS)
                        for one in annotations
                    ],
                    [classes[annotation["category_id"]] for annotation in annotations],
                )
            yield record["file_name"], picture


def read_masks(record):
    """Run-length codes of an image's instances."""
    size = {"height": record["height"], "width": record["width"]}
    try:
        return [as_rle(one.get("segmentation"), **size) for one in record["annotations"]]
    except ValueError as error:
        raise InputError(f"image '{record['file_name']}': {error}") from None


def draw_boxes(picture, boxes_xyxy, names):
    """Draw boxes and what is in them onto a picture, in place."""
    for box, name in zip(boxes_xyxy, names, strict=True):
        left, top, right, bottom = map(round, box)
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), BOX_RGB)
        cv2.putText(picture, name, (left, top - 2), cv2.FONT_HERSHEY_PLAIN, 0.7, BOX_RGB)


def main():
    arguments = parse_arguments()
    cfg = get_config(arguments.config_file, arguments.opts)
    check_registered(cfg.DATASETS.TRAIN, key="DATASETS.TRAIN")
    show = {"train": show_train, "annotation": show_annotation}[arguments.source]
    pictures = show(cfg, number=arguments.number, boxes=arguments.boxes)
    for place, (file_name, picture) in enumerate(tqdm(pictures, unit="picture")):
        path = arguments.output / f"{place:05d}_{Path(file_name).stem}.png"
        with replace_when_done(path) as temporary:
            Image.fromarray(picture).save(temporary)


if __name__ == "__main__":
    with exit_cleanly():
        main()
