"""Heads for images with hundreds of small instances."""

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


class OutputLayers(FastRCNNOutputLayers):
    """Detectron2's ``FastRCNNOutputLayers`` with that cap."""

    def inference(self, predictions, proposals):
        """As ``FastRCNNOutputLayers.inference``."""
        image_sizes = [one.image_size for one in proposals]
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            image_sizes,
            self.test_score_thresh,
            self.test_nms_thresh,
            scale_with_area(self.test_topk_per_image, image_sizes),
        )
