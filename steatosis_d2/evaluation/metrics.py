"""
The field's metrics, from a matching or from masks; none is ever NaN.

Without truth and without predictions every metric is 1: a healthy tile that is predicted healthy
is a success. Where only one of the two is empty, every metric is 0.
"""

import math

import numpy as np
from pycocotools import mask as coco_mask

from steatosis_d2.evaluation.matching import highest_ious

# Whole percents, divided last: 0.55 is then the same number as an overlap of 11/20.
IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


def instance_metrics(match, *, iou_threshold):
    """
    Detection and segmentation quality of one-to-one matched instances.

    Args:
        match (Match): of one image, or pooled over images.
        iou_threshold (float): overlap from which a pair counts as found.

    Returns:
        dict: ``precision``, ``recall``, ``f1``, ``instance_accuracy`` = TP / (TP + FP + FN),
        ``mean_matched_iou`` (the "average mask IoU" of Johnson 2018), and panoptic quality
        ``pq`` = ``dq`` x ``sq`` (Kirillov et al., CVPR 2019, section 4.1), whose ``dq`` is F1
        and whose ``sq`` is the mean matched IoU.
    """
    ious = match.ious[match.hits(iou_threshold)]
    n_found, n_both = len(ious), match.n_predictions + match.n_truths
    empty = 0.0 if n_both else 1.0
    total_iou = math.fsum(ious)
    f1 = _ratio(2 * n_found, n_both, empty)
    mean_matched_iou = _ratio(total_iou, n_found, empty)
    return {
        "precision": _ratio(n_found, match.n_predictions, empty),
        "recall": _ratio(n_found, match.n_truths, empty),
        "f1": f1,
        "instance_accuracy": _ratio(n_found, n_both - n_found, empty),
        "mean_matched_iou": mean_matched_iou,
        "dq": f1,
        "sq": mean_matched_iou,
        "pq": _ratio(2 * total_iou, n_both, empty),
    }


def dsb2018_score(match):
    """
    Score of the 2018 Data Science Bowl: mean instance accuracy over IoU 0.50:0.05:0.95.

    Args:
        match (Match): of one image; the competition averages over images.

    Returns:
        float: in 0..1.
    """
    return math.fsum(
        instance_metrics(match, iou_threshold=threshold)["instance_accuracy"]
        for threshold in IOU_THRESHOLDS
    ) / len(IOU_THRESHOLDS)


def aggregated_jaccard(iou, *, prediction_areas_px, truth_areas_px):
    """
    Aggregated Jaccard index (AJI) of one image (Kumar et al., IEEE TMI 2017, algorithm 1).

    Every truth takes the prediction that overlaps it most, of equal ones the first; unions
    gather besides all truths and predictions that nobody took.

    Args:
        iou (scipy.sparse array): shape (N, M), from :func:`~.matching.sparse_iou`.
        prediction_areas_px (array-like): int, shape (N,).
        truth_areas_px (array-like): int, shape (M,).

    Returns:
        float: in 0..1.
    """
    if not iou.nnz:
        return 0.0 if len(prediction_areas_px) or len(truth_areas_px) else 1.0
    prediction_areas_px, truth_areas_px = map(np.asarray, (prediction_areas_px, truth_areas_px))
    best_iou = highest_ious(iou, axis=0)
    met = best_iou > 0
    taken = np.ravel(iou.argmax(axis=0))[met]
    areas_of_both = truth_areas_px[met] + prediction_areas_px[taken]
    # IoU = I / (A + B - I), so I = (A + B) IoU / (1 + IoU), a whole number of pixels.
    intersection = np.rint(areas_of_both * best_iou[met] / (1 + best_iou[met])).sum()
    alone = truth_areas_px[~met].sum() + np.delete(prediction_areas_px, taken).sum()
    return float(intersection / (areas_of_both.sum() - intersection + alone))


def unite_masks(rles, *, height, width):
    """
    Foreground of an image: the pixels in any instance.

    Args:
        rles (list[dict]): run-length codes of the image's instances; they may overlap.
        height (int): of the image, in px.
        width (int): of the image, in px.

    Returns:
        dict: one COCO RLE.
    """
    # Merging one by one walks the growing union every time; groups of sqrt(N) keep it short.
    size = math.isqrt(len(rles)) + 1
    groups = [coco_mask.merge(rles[i : i + size]) for i in range(0, len(rles), size)]
    empty = coco_mask.frPyObjects(
        {"size": [height, width], "counts": [height * width]}, height, width
    )
    return coco_mask.merge([empty, *groups])


def count_overlap(foreground, true_foreground):
    """
    Pixels of two foregrounds, whichever instance a pixel belongs to.

    Args:
        foreground (dict): run-length code from :func:`unite_masks`.
        true_foreground (dict): run-length code of the same image.

    Returns:
        tuple[int, int, int]: of the first, of the second, and of both.
    """
    common = coco_mask.merge([foreground, true_foreground], intersect=True)
    return area_px(foreground), area_px(true_foreground), area_px(common)


def dice_coefficient(found_px, true_px, common_px):
    """
    Dice coefficient of two foregrounds.

    Args:
        found_px, true_px, common_px (int): from :func:`count_overlap`, or sums over images.

    Returns:
        float: in 0..1; 1 where both are empty.
    """
    return _ratio(2 * common_px, found_px + true_px, 1.0)


def fat_area_percent(foreground):
    """
    Share of an image that is foreground.

    Args:
        foreground (dict): run-length code from :func:`unite_masks`.

    Returns:
        float: in percent of the image, 0..100.
    """
    return 100 * area_px(foreground) / math.prod(foreground["size"])


def area_px(rle):
    """
    Area of one mask.

    Args:
        rle (dict): run-length code.

    Returns:
        int: in px.
    """
    return int(coco_mask.area(rle))


def _ratio(part, whole, otherwise):
    return part / whole if whole else otherwise
