"""Heads for images with hundreds of small instances."""

import numpy as np
from detectron2.config import configurable
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from detectron2.structures import Boxes, Instances

from steatosis_d2.data.class_names import list_categories
from steatosis_d2.modeling.dense_branch import DENSE, enlarge_boxes, temper_scores
from steatosis_d2.modeling.limits import scale_with_area
from steatosis_d2.modeling.roi_pooler import pool_channels_last


@ROI_HEADS_REGISTRY.register()
class SteatosisROIHeads(StandardROIHeads):
    """
    Detectron2's ``StandardROIHeads``, whose cap on detections grows with the image.

    ``TEST.DETECTIONS_PER_IMAGE`` holds for inputs of up to 1024 x 1024 px. Where the network has
    a dense branch, it tempers the scores before non-maximum suppression. The mask head sees
    boxes enlarged by ``MODEL.ROI_MASK_HEAD.BOX_SCALE``; these are the boxes of the results.
    """

    @configurable
    def __init__(self, *, mask_box_scale, **kwargs):
        """
        Args:
            mask_box_scale (float): factor to a box's sides before the mask head sees it.
            kwargs (dict): as for ``StandardROIHeads``.
        """
        super().__init__(**kwargs)
        self.mask_box_scale = mask_box_scale
        pool_channels_last(self)

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {
            **super().from_config(cfg, input_shape),
            "mask_box_scale": cfg.MODEL.ROI_MASK_HEAD.BOX_SCALE,
        }

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        parts = super()._init_box_head(cfg, input_shape)
        layers = OutputLayers(cfg, parts["box_head"].output_shape)
        branch = cfg.MODEL.DENSE_BRANCH
        if branch.ENABLED:
            layers.branch_weight = branch.SCORE_WEIGHT
            layers.branch_stride = input_shape[branch.IN_FEATURES[0]].stride
            layers.fat_class = list_categories(cfg).index(cfg.MODEL.CATEGORY)
        return {**parts, "box_predictor": layers}

    def _forward_box(self, features, proposals):
        if self.training:
            return super()._forward_box(features, proposals)
        return self.detect_boxes(features, proposals)

    def detect_boxes(self, features, proposals, *, score_threshold=None):
        """
        Detections without masks, as ``forward`` makes them at test.

        Args:
            features (dict[str, Tensor]): of the backbone, and of the dense branch if there is one.
            proposals (list[Instances]): one for each image.
            score_threshold (float or None): lowest score that is kept; None is the config's.

        Returns:
            list[Instances]: one for each image, with ``pred_boxes``, ``scores``, ``pred_classes``.
        """
        boxes = [one.proposal_boxes for one in proposals]
        pooled = self.box_pooler([features[name] for name in self.box_in_features], boxes)
        predictions = self.box_predictor(self.box_head(pooled))
        detections, _ = self.box_predictor.inference(
            predictions, proposals, score_threshold=score_threshold, dense=features.get(DENSE)
        )
        return detections

    def _forward_mask(self, features, instances):
        if self.mask_box_scale != 1:
            instances = [with_larger_boxes(one, self.mask_box_scale) for one in instances]
        return super()._forward_mask(features, instances)


def with_larger_boxes(instances, factor):
    """
    Instances whose boxes have longer sides, as far as the image reaches.

    Args:
        instances (Instances): with ``proposal_boxes`` or ``pred_boxes``; left as they are.
        factor (float): of the sides.

    Returns:
        Instances: with the same fields otherwise.
    """
    larger = Instances(instances.image_size, **instances.get_fields())
    for name in ("proposal_boxes", "pred_boxes"):
        if larger.has(name):
            boxes = Boxes(enlarge_boxes(larger.get(name).tensor, factor))
            boxes.clip(larger.image_size)  # Detectron2 clips them before it pastes masks into them
            larger.set(name, boxes)
    return larger


class OutputLayers(FastRCNNOutputLayers):
    """
    Detectron2's ``FastRCNNOutputLayers`` with that cap, and scores equal to the threshold.

    Attributes:
        branch_weight (float): of the dense branch in the scores, as for
            :func:`~.dense_branch.temper_scores`.
        branch_stride (int): px of the network's input in one of the dense branch.
        fat_class (int): the class that the dense branch knows of.
    """

    branch_weight, branch_stride, fat_class = 0.0, 1, 0

    def inference(self, predictions, proposals, *, score_threshold=None, dense=None):
        """
        As ``FastRCNNOutputLayers.inference``.

        Args:
            predictions, proposals: as there.
            score_threshold (float or None): takes the place of the config's.
            dense (Tensor or None): shape (N, 3, h, w), the dense branch's probabilities.
        """
        if score_threshold is None:
            score_threshold = self.test_score_thresh
        image_sizes = [one.image_size for one in proposals]
        boxes = self.predict_boxes(predictions, proposals)
        scores = self.predict_probs(predictions, proposals)
        if dense is not None and self.branch_weight:
            scores = [
                self._temper(*of_image, score_threshold)
                for of_image in zip(scores, boxes, dense, strict=True)
            ]
        return fast_rcnn_inference(
            boxes,
            scores,
            image_sizes,
            # Detectron2 keeps what is greater than this
            np.nextafter(np.float32(score_threshold), np.float32(-1)),
            self.test_nms_thresh,
            scale_with_area(self.test_topk_per_image, image_sizes),
        )

    def _temper(self, scores, boxes, probabilities, score_threshold):
        """Scores (N, K + 1) of one image, tempered where they can stay above the threshold."""
        number = self.fat_class
        boxes = boxes.view(len(boxes), boxes.shape[1] // 4, 4).expand(-1, self.num_classes, 4)
        tempered = scores.clone()
        # The branch gives 1 at most
        chosen = scores[:, number] ** (1 - self.branch_weight) >= score_threshold
        tempered[~chosen, number] = 0
        tempered[chosen, number] = temper_scores(
            scores[chosen, number],
            boxes[chosen, number],
            probabilities,
            weight=self.branch_weight,
            stride=self.branch_stride,
        )
        return tempered
