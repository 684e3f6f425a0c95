"""
Which prediction is which true instance: sparse overlaps and one-to-one matching.

Masks are COCO run-length codes (RLE), one an instance. Only pairs whose boxes meet are ever
compared, so that neither an N x M nor an N x H x W array exists, however large the tile.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from pycocotools import mask as coco_mask
from scipy import sparse
from scipy.sparse import csgraph

from steatosis_d2.instances.rle import as_rle, encode_label_image

# Weight of the sum of squares against the sum: decides between equal totals, never between
# totals that differ by more than rounding.
TIE_WEIGHT = 1e-9


@dataclass(frozen=True)
class Match:
    """
    One-to-one pairs of predictions and truths, each pair with its overlap.

    Attributes:
        predictions (ndarray): int, shape (K,), index of each pair's prediction.
        truths (ndarray): int, shape (K,), index of each pair's truth.
        ious (ndarray): float64, shape (K,), intersection over union of each pair, above 0.
        n_predictions (int): number of predictions, paired or not.
        n_truths (int): number of true instances, paired or not.
    """

    predictions: np.ndarray
    truths: np.ndarray
    ious: np.ndarray
    n_predictions: int
    n_truths: int

    def hits(self, iou_threshold):
        """
        Pairs that count as found at a threshold: those that overlap at least as much.

        Args:
            iou_threshold (float): in 0..1.

        Returns:
            ndarray: bool, shape (K,).
        """
        return self.ious >= iou_threshold


def as_rles(masks, *, height, width):
    """
    Instances in any of the usual forms as run-length codes.

    Args:
        masks (ndarray or list): a label image, integer, shape (H, W), 0 background; or one entry
            an instance, each a COCO RLE (compressed or not) or a list of polygons
            ``[x1, y1, x2, y2, ...]`` in px that together are the instance.
        height (int): of the image, in px.
        width (int): of the image, in px.

    Returns:
        list[dict]: COCO RLE, ``{"size": [height, width], "counts": bytes or str}``.

    Raises:
        ValueError: a mask is of another form or size.

    Examples:
        >>> rles = as_rles(np.array([[1, 1, 0], [0, 0, 2]]), height=2, width=3)
        >>> [int(coco_mask.area(rle)) for rle in rles]
        [2, 1]
    """
    if isinstance(masks, np.ndarray):
        if masks.shape != (height, width):
            raise ValueError(
                f"label image has shape {masks.shape}; expected ({height}, {width}) as its image."
            )
        return list(encode_label_image(masks).values())
    return [as_rle(mask, height=height, width=width) for mask in masks]


def sparse_iou(predictions, truths):
    """
    Intersection over union of every prediction with every truth that it meets.

    Args:
        predictions (list[dict]): N codes, as :func:`as_rles` gives them.
        truths (list[dict]): M codes of the same image.

    Returns:
        scipy.sparse.csr_array: float64, shape (N, M); pairs without a common pixel are not stored.

    Examples:
        >>> wide = as_rles(np.array([[1, 1, 1, 0]]), height=1, width=4)
        >>> narrow = as_rles(np.array([[0, 1, 1, 0]]), height=1, width=4)
        >>> sparse_iou(wide, narrow).toarray().round(3).tolist()
        [[0.667]]
    """
    prediction, truth = _pairs_of_meeting_boxes(predictions, truths)
    first_of_each = np.flatnonzero(np.diff(prediction, prepend=-1))
    ious = [
        coco_mask.iou([truths[j] for j in group], [predictions[i]], [False])[:, 0]
        for i, group in zip(
            prediction[first_of_each], np.split(truth, first_of_each[1:]), strict=False
        )
    ]
    iou = sparse.coo_array(
        (np.concatenate(ious or [np.empty(0)]), (prediction, truth)),
        shape=(len(predictions), len(truths)),
    ).tocsr()
    iou.eliminate_zeros()
    return iou


def highest_ious(iou, *, axis):
    """
    Highest overlap of each prediction (axis 1) or of each truth (axis 0).

    Args:
        iou (scipy.sparse.csr_array): shape (N, M), from :func:`sparse_iou`.
        axis (int): the axis to look along.

    Returns:
        ndarray: float64, shape (N,) or (M,); 0 where nothing is met.
    """
    # scipy cannot reduce an axis of length 0.
    return iou.max(axis=axis).toarray().ravel() if iou.nnz else np.zeros(iou.shape[1 - axis])


def match_instances(iou):
    """
    Pair predictions and truths one to one so that the sum of their overlaps is greatest.

    The pairs do not depend on a threshold: apply one, or many, to the result. Among pairings of
    equal sum the one with the larger single overlaps is taken, so that the order of the
    instances changes no figure.

    Args:
        iou (scipy.sparse array): shape (N, M), from :func:`sparse_iou`.

    Returns:
        Match: every pair that shares a pixel and belongs to the pairing.

    Examples:
        >>> match = match_instances(sparse.csr_array([[0.8, 0.6], [0.7, 0.0]]))
        >>> match.predictions.tolist(), match.truths.tolist(), match.ious.tolist()
        ([0, 1], [1, 0], [0.6, 0.7])
        >>> int(match.hits(0.65).sum())
        1
    """
    n_predictions, n_truths = iou.shape
    benefit = iou.tocsr(copy=True)
    # Every prediction may also stay alone, in a column of its own. 1 is added to all its choices
    # alike, since the solver wants weights other than 0.
    benefit.data = 1 + benefit.data + TIE_WEIGHT * benefit.data**2
    alone = sparse.eye_array(n_predictions)
    prediction, column = csgraph.min_weight_full_bipartite_matching(
        sparse.csr_array(sparse.hstack([benefit, alone])), maximize=True
    )
    paired = column < n_truths
    chosen = sparse.coo_array(
        (np.ones(np.count_nonzero(paired)), (prediction[paired], column[paired])), shape=iou.shape
    )
    pairs = iou.multiply(chosen).tocoo()
    return Match(
        predictions=pairs.row,
        truths=pairs.col,
        ious=pairs.data,
        n_predictions=n_predictions,
        n_truths=n_truths,
    )


def pool_matches(matches):
    """
    All images' matches as one, so that every instance weighs alike.

    Args:
        matches (list[Match]): one an image.

    Returns:
        Match: indices continue from image to image.
    """
    n_predictions = [match.n_predictions for match in matches]
    n_truths = [match.n_truths for match in matches]
    return Match(
        predictions=_concatenate([match.predictions for match in matches], n_predictions),
        truths=_concatenate([match.truths for match in matches], n_truths),
        ious=np.concatenate([match.ious for match in matches]),
        n_predictions=sum(n_predictions),
        n_truths=sum(n_truths),
    )


def _concatenate(indices, counts):
    offsets = np.cumsum([0, *counts[:-1]])
    return np.concatenate([part + offset for part, offset in zip(indices, offsets, strict=True)])


def _pairs_of_meeting_boxes(predictions, truths):
    """Indices (prediction, truth) of the pairs whose boxes meet, in order of the prediction."""
    if not predictions or not truths:
        return np.empty(0, int), np.empty(0, int)
    prediction, truth = shapely.STRtree(_boxes(truths)).query(_boxes(predictions))
    order = np.lexsort([truth, prediction])
    return prediction[order], truth[order]


def _boxes(rles):
    left, top, width, height = coco_mask.toBbox(rles).T
    return shapely.box(left, top, left + width, top + height)
