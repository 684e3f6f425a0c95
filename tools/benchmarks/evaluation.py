"""The evaluation: of one tile as large as they come, and of a validation split."""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.drawn import coco_content, draw_disks, random_disks
from benchmarks.figures import Figure, peak_memory_gb
from steatosis_d2.files import write_json
from steatosis_d2.instances.rle import decode_mask

LARGE_TILE_PX = 8192
LARGE_TILE_INSTANCES = 10_000
# BBBC038's usual validation split: images of 192,388 px and 37 nuclei on average.
NUCLEUS_IMAGE_PX = 438
NUCLEI_PER_IMAGE = 37
VALIDATION_IMAGES = 60
PREDICTIONS_PER_IMAGE = 100  # of a trained network, false ones included
INFERRED_IMAGES = 6  # inference is slow, and its time varies little


def measure_large_tile(_):
    """Every figure of one tile as large as they come, from the content of two COCO files."""
    from steatosis_d2.evaluation.figures import evaluate_pairs
    from steatosis_d2.evaluation.image_pairs import pair_images

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
        Figure("evaluation", what, seconds, "s", at_most=5),
        Figure("evaluation", "peak memory of that process", peak_memory_gb(), "GB", at_most=1),
    ]


def measure_validation(_):
    """A network's inference beside the evaluation of as many predictions as it may give."""
    import torch
    from detectron2.modeling import build_model

    from steatosis_d2.model_zoo import get_config

    cfg = get_config("nucleus/mask_rcnn_R_50_FPN.yaml")
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
    figures = [Figure("evaluation", f"inference of {inferred}", 1000 * inference_s, "ms")]
    # What a trained network gives, and what the configuration allows at most
    for number in (PREDICTIONS_PER_IMAGE, cfg.TEST.DETECTIONS_PER_IMAGE):
        evaluation_s = time_evaluation(rng, predictions_per_image=number) / VALIDATION_IMAGES
        what = f"an image of {VALIDATION_IMAGES}, {number} predictions in each"
        share = 100 * evaluation_s / inference_s
        figures += [
            Figure("evaluation", what, 1000 * evaluation_s, "ms"),
            Figure("evaluation", "share of the inference", share, "%", at_most=5),
        ]
    return figures


def time_evaluation(rng, *, predictions_per_image):
    """Seconds to evaluate a validation split with the Detectron2 evaluator."""
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.structures import Instances

    from steatosis_d2.evaluation.detectron2_evaluator import SteatosisEvaluator

    side = NUCLEUS_IMAGE_PX
    images = [draw_disks(*random_disks(rng, NUCLEI_PER_IMAGE, side), side)] * VALIDATION_IMAGES
    predicted = images[0] + draw_disks(
        *random_disks(rng, predictions_per_image - NUCLEI_PER_IMAGE, side), side
    )
    masks = torch.from_numpy(np.stack([decode_mask(rle) for rle in predicted]))
    scores = torch.linspace(1, 0, len(masks))
    classes = torch.zeros(len(scores), dtype=torch.long)
    found = Instances((side, side), pred_masks=masks, scores=scores, pred_classes=classes)
    output = {"instances": found}
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


MEASURES = (measure_large_tile, measure_validation)
