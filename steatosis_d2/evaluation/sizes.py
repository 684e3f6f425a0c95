"""
Figures by size of droplet, where the pixel size is known.

The smallest droplets decide F1, since most droplets are small; the largest decide the fat area.
"""

import math

import numpy as np

from steatosis_d2.evaluation.metrics import area_px

# Name of the class -> equivalent diameters, from the first to below the second, in um.
SIZE_CLASSES = {
    "below_5_um": (0.0, 5.0),
    "5_to_10_um": (5.0, 10.0),
    "from_10_um": (10.0, math.inf),
}


def count_by_size(pair, match, *, iou_threshold):
    """
    How many truths of each size were found, and how many predictions of each size are right.

    Args:
        pair (ImagePair): one image's truths and predictions.
        match (Match): of them.
        iou_threshold (float): overlap from which a pair counts as found.

    Returns:
        dict: name of the class -> ndarray of int: truths, those found, predictions, those right.
        Empty where the pixel size is not known.
    """
    if pair.mpp is None:
        return {}
    hits = match.hits(iou_threshold)
    sides = (
        (pair.truths, match.truths[hits]),
        (pair.predictions, match.predictions[hits]),
    )
    counts: dict[str, list[int]] = {name: [] for name in SIZE_CLASSES}
    for rles, matched in sides:
        diameters_um = np.array([_diameter_um(rle, pair.mpp) for rle in rles])
        for name, (smallest_um, largest_um) in SIZE_CLASSES.items():
            is_in = (diameters_um >= smallest_um) & (diameters_um < largest_um)
            counts[name] += [int(is_in.sum()), int(is_in[matched].sum())]
    return {name: np.array(numbers) for name, numbers in counts.items()}


def metrics_by_size(counts):
    """
    Recall of truths and precision of predictions, by size, of all images together.

    Args:
        counts (list[dict]): from :func:`count_by_size`, one an image.

    Returns:
        dict: name -> number; empty unless every image's pixel size is known. A figure of a class
        that holds nothing is 1.
    """
    if not all(counts):
        return {}
    metrics: dict[str, float] = {}
    for name in SIZE_CLASSES:
        truths, found, predictions, right = np.sum([image[name] for image in counts], axis=0)
        metrics |= {
            f"truths_{name}": int(truths),
            f"recall_{name}": float(found / truths) if truths else 1.0,
            f"predictions_{name}": int(predictions),
            f"precision_{name}": float(right / predictions) if predictions else 1.0,
        }
    return metrics


def _diameter_um(rle, mpp):
    return 2 * math.sqrt(area_px(rle) / math.pi) * mpp
