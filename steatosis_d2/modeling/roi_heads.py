"""Heads for images with hundreds of small instances."""

import numpy as np
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference

from steatosis_d2.modeling.limits import scale_with_area


@ROI_HEADS_REGISTRY.register()
class SteatosisROIHeads(StandardROIHeads):
    """
    Detectron2's ``StandardROIHeads``, whose cap on detections grows with the image.

    ``TEST.DETECTIONS_PER_IMAGE`` holds for inputs of up to 1024 x 1024 px.
    """

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        parts = super()._init_box_head(cfg, input_shape)
        return {**parts, "box_predictor": OutputLayers(cfg, parts["box_head"].output_shape)}

    def detect_boxes(self, features, proposals, *, score_threshold):
        """
        Detections without masks, as ``forward`` makes them at test.

        Args:
            features (dict[str, Tensor]): of the backbone.
            proposals (list[Instances]): one for each image.
            score_threshold (float): lowest score that is kept, in place of the config's.

        Returns:
            list[Instances]: one for each image, with ``pred_boxes``, ``scores``, ``pred_classes``.
        """
        boxes = [one.proposal_boxes for one in proposals]
        pooled = self.box_pooler([features[name] for name in self.box_in_features], boxes)
        predictions = self.box_predictor(self.box_head(pooled))
        detections, _ = self.box_predictor.inference(
            predictions, proposals, score_threshold=score_threshold
        )
        return detections


class OutputLayers(FastRCNNOutputLayers):
    """Detectron2's ``FastRCNNOutputLayers`` with that cap, and scores equal to the threshold."""

    def inference(self, predictions, proposals, *, score_threshold=None):
        """As ``FastRCNNOutputLayers.inference``; a threshold takes the place of the config's."""
        if score_threshold is None:
            score_threshold = self.test_score_thresh
        image_sizes = [one.image_size for one in proposals]
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            image_sizes,
            # Detectron2 keeps what is greater than this
            np.nextafter(np.float32(score_threshold), np.float32(-1)),
            self.test_nms_thresh,
            scale_with_area(self.test_topk_per_image, image_sizes),
        )
