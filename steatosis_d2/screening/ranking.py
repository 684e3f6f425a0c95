"""Which images an expert should look at first."""

from dataclasses import dataclass

import numpy as np

from steatosis_d2.evaluation.figures import MATCH_IOU, leave_out_ignored
from steatosis_d2.evaluation.matching import match_instances, sparse_iou


@dataclass(frozen=True)
class Disagreement:
    """
    How far labels and predictions of one image differ.

    Attributes:
        file_name (str): of the image.
        objects_in_doubt (float): how many objects are probably wrong, in one or the other.
        share (float): of all objects, in 0..1.
        labels (int): number of labels.
        predictions (int): number of predictions.
        unmatched_labels (int): labels that no prediction meets.
        unmatched_predictions (int): predictions that meet no label.
    """

    file_name: str
    objects_in_doubt: float
    share: float
    labels: int
    predictions: int
    unmatched_labels: int
    unmatched_predictions: int


def rank_images(pairs):
    """
    Order images by the number of objects on which the model and the labels disagree.

    A label is confirmed by the score times the IoU of the prediction that it is matched with one
    to one (at IoU 0.5 or more), and in doubt by what is left of 1. A prediction without a label
    is in doubt by its score: one that the model itself does not believe is no reason to look.
    The sum over an image, not its share of the objects, decides: an expert's time goes by
    objects, and opening an image with one doubtful object costs as much as one with thirty.

    Args:
        pairs (list[ImagePair]): labels as truths, from
            :func:`~steatosis_d2.evaluation.image_pairs.pair_images`; predictions that lie mostly in
            an area to ignore count for nothing.

    Returns:
        list[Disagreement]: the image with the most objects in doubt first.
    """
    measured = map(measure_disagreement, pairs)
    return sorted(measured, key=lambda image: (-image.objects_in_doubt, image.file_name))


def measure_disagreement(pair):
    """
    Compare one image's labels and predictions, as :func:`rank_images` defines it.

    Args:
        pair (ImagePair): labels as truths.

    Returns:
        Disagreement: of the image.
    """
    pair = leave_out_ignored(pair)
    scores = np.clip(pair.scores, 0, 1)
    match = match_instances(sparse_iou(pair.predictions, pair.truths))
    hits = match.hits(MATCH_IOU)
    matched = match.predictions[hits]
    confirmed = float(scores[matched] @ match.ious[hits])
    unmatched_scores = float(np.delete(scores, matched).sum())
    in_doubt = len(pair.truths) - confirmed + unmatched_scores
    objects = len(pair.truths) + unmatched_scores
    return Disagreement(
        file_name=pair.file_name,
        objects_in_doubt=in_doubt,
        share=in_doubt / objects if objects else 0.0,
        labels=len(pair.truths),
        predictions=len(pair.predictions),
        unmatched_labels=len(pair.truths) - len(matched),
        unmatched_predictions=len(pair.predictions) - len(matched),
    )
