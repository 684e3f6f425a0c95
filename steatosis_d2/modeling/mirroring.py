"""One set of detections from an image and its mirror images: test-time augmentation by flips."""

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances, pairwise_iou

# Whether left and right, top and bottom change places; the image as it is comes first.
VIEWS = ((False, False), (True, False), (False, True), (True, True))
# IoU from which boxes of two views are of one object.
MIN_IOU = 0.5
# Boxes that are compared with all of a view's together: for the memory of large tiles.
BOXES_AT_A_TIME = 1024


def mirror_image(image, view):
    """
    An image as a view shows it.

    Args:
        image (Tensor): shape (C, H, W).
        view (tuple[bool, bool]): whether left and right, top and bottom change places.

    Returns:
        Tensor: of the same shape.
    """
    return image.flip([axis for axis, is_flipped in zip((2, 1), view, strict=True) if is_flipped])


def mirror_boxes(boxes_xyxy, view, *, image_size):
    """
    Boxes from the frame of a view to that of the image, or back.

    Args:
        boxes_xyxy (Tensor): shape (N, 4), in px.
        view (tuple[bool, bool]): as for :func:`mirror_image`.
        image_size (tuple[int, int]): (height, width), in px.

    Returns:
        Tensor: shape (N, 4).
    """
    (left, top, right, bottom), (height, width) = boxes_xyxy.unbind(1), image_size
    if view[0]:
        left, right = width - right, width - left
    if view[1]:
        top, bottom = height - bottom, height - top
    return torch.stack([left, top, right, bottom], dim=1)


def average_views(detections, *, score_threshold, nms_threshold, at_most):
    """
    One set of detections from those of several views.

    Suppression among all of them leaves one box for each object. Its score is the mean of what
    each view gives it, 0 where one does not show it, and its place the mean of their boxes,
    weighted by score, as in weighted boxes fusion (Solovyev et al. 2021, arXiv:1910.13302).
    Detectron2's ``GeneralizedRCNNWithTTA`` keeps the highest score instead.

    Args:
        detections (list[Instances]): of one image, one for each view, in the frame of the image,
            down to scores much lower than the threshold; with ``pred_boxes``, ``scores`` and
            ``pred_classes``.
        score_threshold (float): lowest mean that is kept.
        nms_threshold (float): IoU from which a box suppresses others.
        at_most (int): the number that is kept, the most confident.

    Returns:
        Instances: with the same fields, the most confident first.
    """
    together = Instances.cat(detections)
    kept = batched_nms(
        together.pred_boxes.tensor, together.scores, together.pred_classes, nms_threshold
    )
    averaged = Instances.cat(
        [average_of(together[chunk], detections) for chunk in kept.split(BOXES_AT_A_TIME)]
    )
    order = averaged.scores.argsort(descending=True, stable=True)[:at_most]
    return averaged[order[averaged.scores[order] >= score_threshold]]


def average_of(chosen, views):
    """
    Boxes with the means over some views in place of their own score and place.

    Args:
        chosen (Instances): boxes, each also one of a view's.
        views (list[Instances]): as for :func:`average_views`.

    Returns:
        Instances: in the same order, without boxes of no area, which no view shows.
    """
    total = torch.zeros_like(chosen.scores)
    weighted_boxes = torch.zeros_like(chosen.pred_boxes.tensor)
    for view in views:
        if not len(view):
            continue
        iou = pairwise_iou(chosen.pred_boxes, view.pred_boxes)
        iou[chosen.pred_classes[:, None] != view.pred_classes] = 0
        best_iou, index = iou.max(dim=1)
        score = view.scores[index] * (best_iou >= MIN_IOU)
        total += score
        weighted_boxes += score[:, None] * view.pred_boxes.tensor[index]
    averaged = Instances(chosen.image_size)
    averaged.pred_boxes = Boxes(weighted_boxes / total[:, None])
    averaged.scores = total / len(views)
    averaged.pred_classes = chosen.pred_classes
    return averaged[total > 0]
