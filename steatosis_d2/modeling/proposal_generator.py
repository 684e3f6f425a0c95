"""Region proposals, with what training on droplets needs beyond Detectron2's."""

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes
from torch.nn import functional

from steatosis_d2.data.coco import IGNORED_SHARE
from steatosis_d2.data.mapper import IGNORED_CLASS
from steatosis_d2.modeling.limits import scale_with_area


@PROPOSAL_GENERATOR_REGISTRY.register()
class SteatosisRPN(RPN):
    """
    Detectron2's ``RPN`` for images with hundreds of small instances.

    In training, non-maximum suppression has a threshold of its own, as the 2019 authors have it:
    more overlapping proposals reach the heads, so that a small droplet has several. Where nobody
    said what is in an area (a truth of class -1), neither anchors nor proposals in it count as
    background; Detectron2's heads leave out proposals that match such a truth by themselves.

    At test, ``PRE_NMS_TOPK_TEST`` and ``POST_NMS_TOPK_TEST`` hold for images of up to 1024 x 1024
    px and grow with the area beyond: what is found does not depend on how a slide is tiled.
    """

    @configurable
    def __init__(self, *, nms_thresh, nms_thresh_train, **kwargs):
        """
        Args:
            nms_thresh (float): IoU above which the lower-scored proposal is dropped, at test.
            nms_thresh_train (float): the same in training.
            kwargs (dict): as for ``RPN``.
        """
        super().__init__(nms_thresh=nms_thresh, **kwargs)
        self.nms_thresh_train = nms_thresh_train
        self.nms_thresh_test = nms_thresh

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {
            **super().from_config(cfg, input_shape),
            "nms_thresh_train": cfg.MODEL.RPN.NMS_THRESH_TRAIN,
        }

    def forward(self, images, features, gt_instances=None):
        """As ``RPN.forward``; in training, without the proposals in ignored areas."""
        proposals, losses = super().forward(images, features, gt_instances)
        if self.training:
            areas = [ignored_area(truths) for truths in gt_instances]
            proposals = [
                found if area is None else found[~lies_in(found.proposal_boxes, area)]
                for found, area in zip(proposals, areas, strict=True)
            ]
        return proposals, losses

    @torch.no_grad()
    def label_and_sample_anchors(self, anchors, gt_instances):
        """As ``RPN.label_and_sample_anchors``; background in ignored areas is not sampled."""
        known = [truths[truths.gt_classes != IGNORED_CLASS] for truths in gt_instances]
        labels, boxes = super().label_and_sample_anchors(anchors, known)
        all_anchors = Boxes.cat(anchors)
        for image_labels, truths in zip(labels, gt_instances, strict=True):
            area = ignored_area(truths)
            if area is not None:
                image_labels[(image_labels == 0) & lies_in(all_anchors, area)] = -1
        return labels, boxes

    @torch.no_grad()
    def predict_proposals(self, anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes):
        """As ``RPN.predict_proposals``, decoding only boxes that can become proposals."""
        n_decoded, n_kept = self._limits(image_sizes)
        logits, proposals = [], []
        for level_anchors, level_logits, level_deltas in zip(
            anchors, pred_objectness_logits, pred_anchor_deltas, strict=True
        ):
            top_logits, top = level_logits.topk(min(n_decoded, level_logits.shape[1]), dim=1)
            top_deltas = torch.take_along_dim(level_deltas, top[:, :, None], dim=1)
            top_boxes = self.box2box_transform.apply_deltas(
                top_deltas.flatten(0, 1), level_anchors.tensor[top.flatten()]
            )
            logits.append(top_logits)
            proposals.append(top_boxes.view(*top.shape, -1))
        return find_top_rpn_proposals(
            proposals,
            logits,
            image_sizes,
            self.nms_thresh_train if self.training else self.nms_thresh_test,
            n_decoded,
            n_kept,
            self.min_box_size,
            self.training,
        )

    def _limits(self, image_sizes):
        """Most proposals before (a level) and after non-maximum suppression."""
        caps = [topk[self.training] for topk in (self.pre_nms_topk, self.post_nms_topk)]
        return caps if self.training else [scale_with_area(cap, image_sizes) for cap in caps]


def ignored_area(truths):
    """
    Where in an image nobody said what there is.

    Args:
        truths (detectron2.structures.Instances): with ``gt_classes`` and ``gt_masks`` as bitmasks.

    Returns:
        Tensor or None: bool, shape (H, W); None where there is no such area.
    """
    is_ignored = truths.gt_classes == IGNORED_CLASS
    return truths.gt_masks.tensor[is_ignored].any(dim=0) if is_ignored.any() else None


def lies_in(boxes, area):
    """
    Whether boxes lie mostly in an area.

    Args:
        boxes (Boxes): N boxes in px of the image; what reaches beyond it does not count.
        area (Tensor): bool, shape (H, W), with a pixel at least.

    Returns:
        Tensor: bool, shape (N,).
    """
    height, width = area.shape
    # Sums over all pixels above and left of a corner: four of them give the sum in a box.
    sums = functional.pad(area.int().cumsum(0).cumsum(1), (1, 0, 1, 0))
    left, top, right, bottom = boxes.tensor.round().long().T
    left, right = left.clamp(0, width), right.clamp(0, width)
    top, bottom = top.clamp(0, height), bottom.clamp(0, height)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside > IGNORED_SHARE * (right - left) * (bottom - top)
