"""Region proposals that are thinned less in training than at test, as the 2019 authors do."""

from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN


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

    def predict_proposals(self, *args, **kwargs):
        self.nms_thresh = self.nms_thresh_train if self.training else self.nms_thresh_test
        return super().predict_proposals(*args, **kwargs)
