"""Which images, or which regions of slides, an expert should look at first."""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from steatosis_d2.evaluation.figures import MATCH_IOU, leave_out_ignored
from steatosis_d2.evaluation.matching import match_instances, sparse_iou
from steatosis_d2.screening.labels import ACCEPTED


@dataclass(frozen=True)
class Disagreement:
    """
    How far labels and predictions differ in an image, or in a region of one.

    Attributes:
        file_name (str): of the image.
        left_px, top_px, width_px, height_px (int): the region, in px of the image.
        objects_in_doubt (float): how many objects are probably wrong, in one or the other.
        share (float): of all objects, in 0..1.
        labels (int): number of labels.
        predictions (int): number of predictions.
        agreed (int): labels that a prediction meets.
        unmatched_labels (int): labels that no prediction meets.
        unmatched_predictions (int): predictions that meet no label.
    """

    file_name: str
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    objects_in_doubt: float
    share: float
    labels: int
    predictions: int
    agreed: int
    unmatched_labels: int
    unmatched_predictions: int


def skip_accepted(content):
    """
    Leave out what an expert has accepted, and what a model finds there.

    Args:
        content (dict): of a COCO file of labels, screened or not.

    Returns:
        dict: the same, with accepted labels as areas to ignore.
    """
    annotations = [
        one | {"iscrowd": 1} if one.get("screening") == ACCEPTED else one
        for one in content["annotations"]
    ]
    return content | {"annotations": annotations}


def rank_images(pairs, *, region_um=None):
    """
    Order images, or regions of them, by the number of objects on which model and labels disagree.

    A label is confirmed by the score times the IoU of the prediction that it is matched with one
    to one (at IoU 0.5 or more), and in doubt by what is left of 1. A prediction without a label
    is in doubt by its score: one that the model itself does not believe is no reason to look.
    The sum over an image, not its share of the objects, decides: an expert's time goes by
    objects, and opening an image with one doubtful object costs as much as one with thirty.

    Args:
        pairs (list[ImagePair]): labels as truths, from
            :func:`~steatosis_d2.evaluation.image_pairs.pair_images`; predictions that lie mostly in
            an area to ignore count for nothing.
        region_um (float or None): side of the squares that images of known pixel size are divided
            into; an object is in that which its middle is in. None, or no pixel size: whole images.

    Returns:
        list[Disagreement]: the one with the most objects in doubt first; regions without any object
        are left out, images are not.
    """
    measured = [one for pair in pairs for one in measure_disagreement(pair, region_um=region_um)]
    return sorted(
        measured,
        key=lambda one: (-one.objects_in_doubt, one.file_name, one.top_px, one.left_px),
    )


def measure_disagreement(pair, *, region_um=None):
    """
    Compare one image's labels and predictions, as :func:`rank_images` defines it.

    Args:
        pair (ImagePair): labels as truths.
        region_um (float or None): as for :func:`rank_images`.

    Returns:
        list[Disagreement]: of the image's regions, or one of the whole image.
    """
    pair = leave_out_ignored(pair)
    scores = np.clip(pair.scores, 0, 1)
    match = match_instances(sparse_iou(pair.predictions, pair.truths))
    hits = match.hits(MATCH_IOU)
    met = np.zeros(len(pair.truths), bool)
    met[match.truths[hits]] = True
    doubt = np.ones(len(pair.truths))
    doubt[match.truths[hits]] -= scores[match.predictions[hits]] * match.ious[hits]
    lonely = np.ones(len(pair.predictions), bool)
    lonely[match.predictions[hits]] = False

    side_px = region_um / pair.mpp if region_um and pair.mpp else max(pair.width, pair.height)
    of_label, of_prediction = (_cells(rles, side_px) for rles in (pair.truths, pair.predictions))
    cells = {(0, 0)} if side_px >= max(pair.width, pair.height) else {*of_label, *of_prediction}
    regions = []
    for row, column in sorted(cells):
        labels, predictions = (
            np.array([cell == (row, column) for cell in of], bool)
            for of in (of_label, of_prediction)
        )
        in_doubt = float(doubt[labels].sum() + scores[predictions & lonely].sum())
        objects = float(labels.sum() + scores[predictions & lonely].sum())
        left, top = round(column * side_px), round(row * side_px)
        regions.append(
            Disagreement(
                file_name=pair.file_name,
                left_px=left,
                top_px=top,
                width_px=min(round((column + 1) * side_px), pair.width) - left,
                height_px=min(round((row + 1) * side_px), pair.height) - top,
                objects_in_doubt=in_doubt,
                share=in_doubt / objects if objects else 0.0,
                labels=int(labels.sum()),
                predictions=int(predictions.sum()),
                agreed=int((labels & met).sum()),
                unmatched_labels=int((labels & ~met).sum()),
                unmatched_predictions=int((predictions & lonely).sum()),
            )
        )
    return regions


def _cells(rles, side_px):
    """Row and column (tuple) of the square that the middle of each object is in."""
    if not rles:
        return []
    boxes = coco_mask.toBbox(rles)
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    return [tuple(cell) for cell in (middles[:, ::-1] // side_px).astype(int).tolist()]
