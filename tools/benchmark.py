#!/usr/bin/env python
"""Time and memory of each stage on this machine, on drawn data that are the same everywhere."""

import argparse
import contextlib
import functools
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
import tracemalloc
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.errors import exit_cleanly
from steatosis_d2.files import write_json
from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import choose_parameters
from steatosis_d2.masks import decode_mask, encode_crop

LARGE_TILE_PX = 8192
LARGE_TILE_INSTANCES = 10_000
# BBBC038's usual validation split: images of 192,388 px and 37 nuclei on average.
NUCLEUS_IMAGE_PX = 438
NUCLEI_PER_IMAGE = 37
VALIDATION_IMAGES = 60
PREDICTIONS_PER_IMAGE = 100  # of a trained network, false ones included
INFERRED_IMAGES = 6  # inference is slow, and its time varies little


@dataclass(frozen=True)
class Figure:
    """One measured number, and the project's limit for it, in the same unit."""

    stage: str
    what: str
    value: float
    unit: str
    limit: float | None = None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures and the machine as JSON")
    arguments = parser.parse_args()
    machine = describe_machine()
    figures = [figure for measure in MEASURES for figure in run_alone(measure)]
    print(machine)
    print(format_figures(figures))
    if arguments.json:
        content = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
        write_json(arguments.json, content, indent=2)


def run_alone(measure):
    """Run one measurement in a process of its own, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure)


def describe_machine():
    cpu_info = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpu_info.read_text().splitlines() if cpu_info.exists() else [])
        if line.startswith("model name")
    ]
    cpu = models[0] if models else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def format_figures(figures):
    rows = [
        (
            figure.stage,
            figure.what,
            f"{figure.value:.2f} {figure.unit}",
            "" if figure.limit is None else f"{figure.limit:g} {figure.unit}",
        )
        for figure in figures
    ]
    return tabulate(rows, headers=["stage", "what", "measured", "limit"])


def peak_memory_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def measure_large_tile():
    """Every figure of one tile as large as they come, from the content of two COCO files."""
    from steatosis_d2.evaluation.evaluate import evaluate_pairs
    from steatosis_d2.evaluation.pairing import pair_images

    rng = np.random.default_rng(0)
    number, side = LARGE_TILE_INSTANCES, LARGE_TILE_PX
    centres_rc, radii = random_disks(rng, number, side)
    shifted_rc = centres_rc + rng.normal(0, 2, centres_rc.shape)
    truth = coco_content([draw_disks(centres_rc, radii, side)], side)
    predicted = draw_disks(shifted_rc, radii * rng.uniform(0.8, 1.1, radii.shape), side)
    predictions = coco_content([predicted], side, scores=rng.random(number))
    start = time.perf_counter()
    pairs = pair_images(truth, predictions, truth_name="truth", predictions_name="predictions")
    evaluate_pairs(pairs)
    seconds = time.perf_counter() - start
    what = f"{number} predictions against as many truths in {side} x {side} px"
    return [
        Figure("evaluation", what, seconds, "s", limit=5),
        Figure("evaluation", "peak memory of that process", peak_memory_gb(), "GB", limit=1),
    ]


def measure_validation():
    """A network's inference beside the evaluation of as many predictions as it may give."""
    import torch
    from detectron2.modeling import build_model

    from steatosis_d2.config import load_config

    cfg = load_config("nucleus/mask_rcnn_R_50_FPN.yaml")
    side, rng = NUCLEUS_IMAGE_PX, np.random.default_rng(0)
    model = build_model(cfg).eval()
    start = time.perf_counter()
    for _ in range(INFERRED_IMAGES):
        pixels = torch.from_numpy(rng.integers(0, 256, (3, side, side), np.uint8))
        with torch.inference_mode():
            [output] = model([{"image": pixels}])
        output["instances"].to("cpu")  # a GPU works on until its results are asked for
    inference_s = (time.perf_counter() - start) / INFERRED_IMAGES
    inferred = f"an image of {side} x {side} px, R-50-FPN (random weights) on {cfg.MODEL.DEVICE}"
    figures = [Figure("inference", inferred, 1000 * inference_s, "ms")]
    # What a trained network gives, and what the configuration allows at most
    for number in (PREDICTIONS_PER_IMAGE, cfg.TEST.DETECTIONS_PER_IMAGE):
        evaluation_s = time_evaluation(rng, predictions_per_image=number) / VALIDATION_IMAGES
        what = f"an image of {VALIDATION_IMAGES}, {number} predictions in each"
        share = 100 * evaluation_s / inference_s
        figures += [
            Figure("evaluation", what, 1000 * evaluation_s, "ms"),
            Figure("evaluation", "share of the inference", share, "%", limit=5),
        ]
    return figures


def time_evaluation(rng, *, predictions_per_image):
    """Seconds to evaluate a validation split with the Detectron2 evaluator."""
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.structures import Instances

    from steatosis_d2.evaluation.evaluator import SteatosisEvaluator

    side = NUCLEUS_IMAGE_PX
    images = [draw_disks(*random_disks(rng, NUCLEI_PER_IMAGE, side), side)] * VALIDATION_IMAGES
    predicted = images[0] + draw_disks(
        *random_disks(rng, predictions_per_image - NUCLEI_PER_IMAGE, side), side
    )
    masks = torch.from_numpy(np.stack([decode_mask(rle) for rle in predicted]))
    scores = torch.linspace(1, 0, len(masks))
    output = {"instances": Instances((side, side), pred_masks=masks, scores=scores)}
    with tempfile.TemporaryDirectory() as folder:
        truth_file = Path(folder, "truth.json")
        write_json(truth_file, coco_content(images, side))
        name = f"drawn_nuclei_{predictions_per_image}"
        MetadataCatalog.get(name).set(json_file=str(truth_file))
        start = time.perf_counter()
        evaluator = SteatosisEvaluator(name, folder)
        for image_id in range(1, VALIDATION_IMAGES + 1):
            evaluator.process([{"image_id": image_id}], [output])
        evaluator.evaluate()
        return time.perf_counter() - start


def measure_labels():
    """The label generator on one core, beside liverquant where it is installed."""
    cv2.setNumThreads(1)
    mpp = 0.25
    label = functools.partial(label_by_clump_split, mpp=mpp, parameters=choose_parameters(mpp))
    tile, large = (draw_tissue(1024, droplets=100), draw_tissue(2048, droplets=400))
    generators = {"clump split": lambda: label(tile), "four times as large": lambda: label(large)}
    with contextlib.suppress(ImportError):
        import liverquant

        generators["liverquant"] = lambda: liverquant.detect_fat_globules(tile, resolution=mpp)
    seconds = time_in_turn(generators)
    tracemalloc.start()
    label(tile)
    bytes_per_pixel = tracemalloc.get_traced_memory()[1] / (tile.size / 3)
    growth = seconds["four times as large"] / seconds["clump split"] / 4
    what = "1024 x 1024 px, 100 droplets, one core"
    figures = [
        Figure("labels", what, seconds["clump split"], "s", limit=0.35),
        Figure("labels", "time a pixel of a tile four times as large", growth, "x", limit=1.25),
        Figure("labels", "peak memory above the image", bytes_per_pixel, "bytes/px", limit=12),
    ]
    if "liverquant" in seconds:
        share = seconds["clump split"] / seconds["liverquant"]
        figures.append(Figure("labels", "time against liverquant's", share, "x", limit=1))
    return figures


def time_in_turn(functions, *, rounds=5):
    """Median seconds of each of several functions; they take turns, so that all see one machine."""
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def draw_tissue(side_px, *, droplets):
    """Grainy pink with white disks, uint8, shape (side_px, side_px, 3)."""
    rng = np.random.default_rng(0)
    grain = cv2.GaussianBlur(rng.normal(0, 50, (side_px, side_px)), (0, 0), 2)
    image_rgb = np.array([172, 86, 152]) + grain[..., np.newaxis]
    for (row, column), radius in zip(*random_disks(rng, droplets, side_px), strict=True):
        cv2.circle(image_rgb, (int(column), int(row)), int(radius), (238, 238, 238), -1)
    return cv2.GaussianBlur(image_rgb, (0, 0), 1.5).clip(0, 255).astype(np.uint8)


def coco_content(images, side_px, *, scores=None):
    """Content of a COCO file of square images, given the run-length codes of each."""
    records = [
        image_record(image_id, f"{image_id}.png", height=side_px, width=side_px)
        for image_id in range(1, len(images) + 1)
    ]
    of_each = [(image_id, rle) for image_id, rles in enumerate(images, 1) for rle in rles]
    annotations = [
        annotation_record(i + 1, image_id, rle, score=None if scores is None else scores[i])
        for i, (image_id, rle) in enumerate(of_each)
    ]
    return {"images": records, "annotations": annotations}


def random_disks(rng, number, side_px):
    """Centres (row, column) and radii in px of disks well within a square image."""
    return rng.uniform(40, side_px - 40, (number, 2)), rng.uniform(5, 25, number)


def draw_disks(centres_rc, radii, side_px):
    """Run-length codes of disks in a square image."""
    return [
        draw_disk(row, column, radius, side_px)
        for (row, column), radius in zip(centres_rc, radii, strict=True)
    ]


def draw_disk(row, column, radius, side_px):
    top, left = int(row - radius), int(column - radius)
    size = int(2 * radius) + 2
    rows, columns = np.ogrid[top : top + size, left : left + size]
    crop = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return encode_crop(crop, top=top, left=left, height=side_px, width=side_px)


MEASURES = (measure_large_tile, measure_validation, measure_labels)

if __name__ == "__main__":
    with exit_cleanly():
        main()
