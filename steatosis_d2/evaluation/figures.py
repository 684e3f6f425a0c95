"""Every figure of a set of images, from their truths and predictions."""

import math
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask

from steatosis_d2.data.coco import IGNORED_SHARE
from steatosis_d2.evaluation.coco_ap import CocoAP, coco_ap
from steatosis_d2.evaluation.image_pairs import ImagePair
from steatosis_d2.evaluation.matching import (
    Match,
    highest_ious,
    match_instances,
    pool_matches,
    sparse_iou,
)
from steatosis_d2.evaluation.metrics import (
    IOU_THRESHOLDS,
    aggregated_jaccard,
    area_px,
    count_overlap,
    dice_coefficient,
    dsb2018_score,
    fat_area_percent,
    instance_metrics,
    unite_masks,
)
from steatosis_d2.evaluation.paper_protocol import PAPER_METRICS, paper_metrics
from steatosis_d2.evaluation.sizes import count_by_size, metrics_by_size
from steatosis_d2.instances.rle import encode_mask

MATCH_IOU = 0.5
# Of each image; the data set's are their mean and standard deviation over images.
CLINICAL_FIGURES = (
    "count_error",
    "count_difference",
    "fat_area_percent",
    "true_fat_area_percent",
    "fat_area_error_points",
    "fat_area_difference_points",
)


@dataclass(frozen=True)
class ImageMeasurement:
    """
    One image's figures.

    Attributes:
        file_name (str): of the image.
        match (Match): its one-to-one matching.
        figures (dict): name -> number, a row of the per-image table.
        overlap_px (tuple): px of the foreground that was found, of the true one, and of both.
        by_size (dict): from :func:`~.sizes.count_by_size`.
        group (str or None): the kind of image, where the truths tell it.
    """

    file_name: str
    match: Match
    figures: dict
    overlap_px: tuple[int, int, int]
    by_size: dict
    group: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """
    A data set's figures.

    Attributes:
        metrics (dict): group -> name -> float: ``segm`` (COCO AP), ``instances`` (one-to-one at
            IoU 0.50), ``by_iou`` (the same at 0.50 to 0.95), ``paper`` (Guo et al. 2019),
            ``clinical``, and ``by_size`` (by diameter) where all pixel sizes are known.
        images (list[ImageMeasurement]): one an image.
        ap (CocoAP): COCO's figures with their precision-recall curves.
        score_threshold (float): lowest score that counts, in all figures but COCO AP.
    """

    metrics: dict
    images: list[ImageMeasurement]
    ap: CocoAP
    score_threshold: float


def list_metrics():
    """
    Names of all figures that an evaluation may give, as ``metrics.json`` and TensorBoard have them.

    Returns:
        list[str]: ``group/name``.
    """
    one_px = encode_mask(np.ones((1, 1), bool))
    pair = ImagePair("", 1, 1, [one_px], [], [one_px], np.ones(1), mpp=1.0)
    groups = evaluate_pairs([pair]).metrics
    return [f"{group}/{name}" for group, figures in groups.items() for name in figures]


def evaluate_pairs(pairs, *, score_threshold=0.0):
    """
    Measure a data set: COCO AP over all predictions, everything else at one operating point.

    AP ranks predictions by score and so needs the low ones too; counts, areas, F1, PQ and the
    paper's metrics are those of a user who keeps what scores at least ``score_threshold``.
    Predictions that lie mostly in an ignored region and hit no truth count for nothing.

    Pooled figures (``instances``, ``by_iou``) count every instance alike. Figures averaged over
    images are over all images, but for ``f1_per_image``, ``pq_per_image`` and ``paper``, which
    need truths: they leave out images without any (healthy tiles), unless there are no others.
    ``healthy_images_clean_share`` tells how many of those got no false instance. Dice comes three
    times: the mean over images (``dice``), over those where anything is true or found
    (``dice_nonempty``), and of all pixels together (``dice_pooled``).

    Args:
        pairs (list[ImagePair]): from :func:`~.image_pairs.pair_images`.
        score_threshold (float): lowest score that counts.

    Returns:
        Evaluation: fractions in 0..1, except names that end in ``_percent`` or ``_points``
        (percent of the image's area, and differences of them) and counts.
    """
    ap = coco_ap(pairs)
    images = [measure_image(pair, score_threshold=score_threshold) for pair in pairs]
    pooled = pool_matches([image.match for image in images])
    with_truth = [image for image in images if image.match.n_truths] or images
    metrics = {
        "segm": ap.figures,
        "instances": _counts(pooled)
        | instance_metrics(pooled, iou_threshold=MATCH_IOU)
        | {f"{name}_per_image": _mean(with_truth, name) for name in ("f1", "pq")}
        | {name: _mean(images, name) for name in ("aji", "dice", "dsb2018_score")}
        | _dice_of_many(images),
        "by_iou": _metrics_by_iou(pooled),
        "paper": {name: _mean(with_truth, name) for name in PAPER_METRICS},
        "clinical": _clinical_metrics(images),
    }
    by_size = metrics_by_size([image.by_size for image in images])
    if by_size:
        metrics["by_size"] = by_size
    return Evaluation(metrics, images, ap, score_threshold)


def measure_image(pair, *, score_threshold):
    """
    Every figure of one image at an operating point.

    Args:
        pair (ImagePair): the image's truths and predictions.
        score_threshold (float): lowest score that counts.

    Returns:
        ImageMeasurement: with the figures of the per-image table.
    """
    pair = leave_out_ignored(_at_operating_point(pair, score_threshold))
    iou = sparse_iou(pair.predictions, pair.truths)
    match = match_instances(iou)
    foreground, true_foreground = (
        unite_masks(rles, height=pair.height, width=pair.width)
        for rles in (pair.predictions, pair.truths)
    )
    overlap_px = count_overlap(foreground, true_foreground)
    fat_percent, true_fat_percent = fat_area_percent(foreground), fat_area_percent(true_foreground)
    figures = (
        _counts(match)
        | instance_metrics(match, iou_threshold=MATCH_IOU)
        | {
            "dsb2018_score": dsb2018_score(match),
            "aji": aggregated_jaccard(
                iou,
                prediction_areas_px=[area_px(rle) for rle in pair.predictions],
                truth_areas_px=[area_px(rle) for rle in pair.truths],
            ),
            "dice": dice_coefficient(*overlap_px),
        }
        | paper_metrics(highest_ious(iou, axis=1), n_truths=len(pair.truths))
        | {
            "count_difference": len(pair.predictions) - len(pair.truths),
            "count_error": abs(len(pair.predictions) - len(pair.truths)),
            "true_fat_area_percent": true_fat_percent,
            "fat_area_percent": fat_percent,
            "fat_area_difference_points": fat_percent - true_fat_percent,
            "fat_area_error_points": abs(fat_percent - true_fat_percent),
        }
    )
    by_size = count_by_size(pair, match, iou_threshold=MATCH_IOU)
    return ImageMeasurement(pair.file_name, match, figures, overlap_px, by_size, pair.group)


def _at_operating_point(pair, score_threshold):
    # Predictions are in descending order of the scores.
    n_kept = int(np.count_nonzero(pair.scores >= score_threshold))
    return replace(pair, predictions=pair.predictions[:n_kept], scores=pair.scores[:n_kept])


def leave_out_ignored(pair):
    """
    Leave out the predictions that lie mostly in an ignored region and hit no truth.

    Args:
        pair (ImagePair): an image's truths and predictions.

    Returns:
        ImagePair: the same, with fewer predictions.
    """
    if not pair.ignored or not pair.predictions:
        return pair
    region = unite_masks(pair.ignored, height=pair.height, width=pair.width)
    # As a crowd, the region's "IoU" is the share of the prediction that lies inside.
    share_inside = coco_mask.iou(pair.predictions, [region], [True])[:, 0]
    hits = highest_ious(sparse_iou(pair.predictions, pair.truths), axis=1) >= MATCH_IOU
    kept = np.flatnonzero(hits | (share_inside <= IGNORED_SHARE))
    return replace(pair, predictions=[pair.predictions[i] for i in kept], scores=pair.scores[kept])


def _counts(match):
    return {
        "truths": match.n_truths,
        "predictions": match.n_predictions,
        "true_positives": int(match.hits(MATCH_IOU).sum()),
    }


def _metrics_by_iou(match):
    return {
        f"{name}_{round(100 * threshold)}": instance_metrics(match, iou_threshold=threshold)[name]
        for name in ("precision", "recall", "f1", "instance_accuracy")
        for threshold in IOU_THRESHOLDS
    }


def _dice_of_many(images):
    nonempty = [image for image in images if any(image.overlap_px)] or images
    pooled_px = [
        sum(pixels) for pixels in zip(*(image.overlap_px for image in images), strict=True)
    ]
    return {
        "dice_nonempty": _mean(nonempty, "dice"),
        "dice_pooled": dice_coefficient(*pooled_px),
    }


def _clinical_metrics(images):
    healthy = [image for image in images if not image.match.n_truths]
    clean = [image for image in healthy if not image.match.n_predictions]
    metrics = {
        "images": len(images),
        "healthy_images": len(healthy),
        "healthy_images_clean_share": len(clean) / len(healthy) if healthy else 1.0,
    }
    for name in CLINICAL_FIGURES:
        metrics[name] = _mean(images, name)
        metrics[f"{name}_sd"] = _standard_deviation(images, name)
    return metrics


def _mean(images, name):
    return math.fsum(image.figures[name] for image in images) / len(images)


def _standard_deviation(images, name):
    """Of a sample; 0 for a single image, which shows no spread."""
    if len(images) == 1:
        return 0.0
    mean = _mean(images, name)
    squares = math.fsum((image.figures[name] - mean) ** 2 for image in images)
    return math.sqrt(squares / (len(images) - 1))
