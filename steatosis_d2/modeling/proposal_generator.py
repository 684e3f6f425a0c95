"""Region proposals that are thinned less in training than at test, as the 2019 authors do."""

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals


@PROPOSAL_GENERATOR_REGISTRY.register()
class TwoThresholdRPN(RPN):
    """
    Detectron2's ``RPN`` with a threshold of its own for non-maximum suppression in training.

    More overlapping proposals then reach the heads, so that a small droplet has several.
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

    @torch.no_grad()
    def predict_proposals(self, anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes):
        """As ``RPN.predict_proposals``, decoding only boxes that can become proposals."""
        n_decoded = self.pre_nms_topk[self.training]
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
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )
