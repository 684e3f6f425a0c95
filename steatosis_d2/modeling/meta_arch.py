"""Mask R-CNN that brings images to the scale and contrast it was trained at, and runs fast."""

import copy
import logging
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import BitMasks, ImageList
from torch.nn import functional

from steatosis_d2.data.contrast import stretch_contrast
from steatosis_d2.data.dense_labels import UNKNOWN
from steatosis_d2.data.input_scale import input_scale
from steatosis_d2.modeling.acceleration import accelerate, choose_precision
from steatosis_d2.modeling.borders import mirror_into_padding
from steatosis_d2.modeling.dense_branch import DENSE, build_dense_branch
from steatosis_d2.modeling.limits import scale_with_area
from steatosis_d2.modeling.mirroring import VIEWS, average_views, mirror_boxes, mirror_image
from steatosis_d2.modeling.quantization import cpu_has_int8, read_feature_ranges

logger = logging.getLogger(__name__)

# Lowest score in one view that still counts for the mean over the views: Detectron2's own default
# of SCORE_THRESH_TEST, far below any threshold in use.
MIN_VIEW_SCORE = 0.05
# What users of Detectron2 change on a model at hand, and its fast copy has to follow.
SETTINGS = ("scale", "mpp", "test_mpp", "stretch", "views", "mirror_borders")
BOX_SETTINGS = ("test_score_thresh", "test_nms_thresh", "test_topk_per_image", "branch_weight")


@META_ARCH_REGISTRY.register()
class ScaledInputRCNN(GeneralizedRCNN):
    """
    Detectron2's ``GeneralizedRCNN``, which at test prepares every image for the network.

    Both papers upsample by two before the network. Detectron2's own test-time resizing knows
    target sizes only, not factors, and each caller does it for itself; here the model does it,
    so that a tile of any size gives the same result through ``DefaultPredictor``, evaluation
    and whole slides. The same holds for an image's contrast, where ``INPUT.STRETCH`` asks for it.
    An input may state its pixel size as ``mpp`` (um/px). Results come back in px of the image
    that was given. With ``TEST.VIEWS`` they are the mean over the image and its mirror images.

    At test, without gradients, a copy of the network that is rebuilt for speed does the work, in
    the precision that ``TEST.PRECISION`` says: so all ways to use it find the same, to the bit.
    """

    @configurable
    def __init__(
        self,
        *,
        scale,
        mpp,
        test_mpp,
        stretch,
        n_views,
        precision,
        weights,
        mirror_borders,
        dense_branch,
        **kwargs,
    ):
        """
        Args:
            scale (float): factor where an input's pixel size is unknown.
            mpp (float): pixel size in um/px to resize the others to; 0 means none.
            test_mpp (float): um/px of inputs at test that state none; 0 means unknown.
            stretch (tuple[float, float]): percentiles, as for
                :func:`steatosis_d2.data.contrast.stretch_contrast`; empty for none.
            n_views (int): how many of the four of :data:`~.mirroring.VIEWS` are averaged.
            precision (str): of the fast copy, ``auto`` or the name of a ``torch.dtype``.
            weights (str): where the weights are loaded from: the ranges of the network's features
                are looked for there.
            mirror_borders (bool): whether padding holds the mirrored image, in place of zeros.
            dense_branch (nn.Module or None): as :class:`~.dense_branch.DenseBranch`, whose
                opinion the heads get beside the features.
            kwargs (dict): as for ``GeneralizedRCNN``.
        """
        super().__init__(**kwargs)
        self.scale = scale
        self.mpp = mpp
        self.test_mpp = test_mpp
        self.stretch = stretch
        self.views = VIEWS[:n_views]
        self.mirror_borders = mirror_borders
        self.dense_branch = dense_branch
        self.precision = precision
        self.precision_name = "float32"
        self._weights = weights
        self._fast_copy: Any = None
        self.register_load_state_dict_pre_hook(lambda *_: self._forget_fast_copy())

    @classmethod
    def from_config(cls, cfg):
        parts = super().from_config(cfg)
        return {
            **parts,
            "scale": cfg.INPUT.SCALE,
            "mpp": cfg.INPUT.MPP,
            "test_mpp": cfg.TEST.MPP,
            "stretch": cfg.INPUT.STRETCH,
            "n_views": cfg.TEST.VIEWS,
            "mirror_borders": cfg.INPUT.MIRROR_BORDERS,
            "dense_branch": build_dense_branch(cfg, parts["backbone"].output_shape()),
            "precision": cfg.TEST.PRECISION,
            "weights": cfg.MODEL.WEIGHTS,
        }

    def preprocess_image(self, batched_inputs):
        """As ``GeneralizedRCNN.preprocess_image``; with mirrored borders where asked for."""
        images = super().preprocess_image(batched_inputs)
        if self.mirror_borders:
            mirror_into_padding(images)
        if self.device.type == "cpu":  # layers keep this order, and are faster in it
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images

    def forward(self, batched_inputs):
        """As ``GeneralizedRCNN.forward``; the dense branch learns from inputs' ``sem_seg``."""
        if not self.training or self.dense_branch is None:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        truths = [one["instances"].to(self.device) for one in batched_inputs]
        proposals, proposal_losses = self.proposal_generator(images, features, truths)
        _, detector_losses = self.roi_heads(images, features, proposals, truths)
        labels = [self._move_to_current_device(one["sem_seg"]) for one in batched_inputs]
        labels = ImageList.from_tensors(
            labels, self.backbone.size_divisibility, UNKNOWN, self.backbone.padding_constraints
        )
        dense_losses = self.dense_branch.losses(self.dense_branch(features), labels.tensor)
        return proposal_losses | detector_losses | dense_losses

    @property
    def fast_copy(self):
        """
        This network rebuilt for speed (ScaledInputRCNN): the same, up to rounding.

        It is made when it is first asked for, and anew whenever the weights may have changed:
        after they were loaded or moved, and after ``train()`` or ``eval()``.
        """
        if self._fast_copy is None:
            # Past nn.Module, which would take the copy for a part of this network.
            object.__setattr__(self, "_fast_copy", self._build_fast_copy())
        fast: ScaledInputRCNN = self._fast_copy
        for name in SETTINGS:
            setattr(fast, name, getattr(self, name))
        for name in BOX_SETTINGS:
            if hasattr(self.roi_heads.box_predictor, name):  # not in a cascade
                value = getattr(self.roi_heads.box_predictor, name)
                setattr(fast.roi_heads.box_predictor, name, value)
        return fast

    def _build_fast_copy(self):
        device, is_auto = self.device, self.precision == "auto"
        precision = choose_precision(device) if is_auto else getattr(torch, self.precision)
        name, ranges = str(precision).removeprefix("torch."), None
        if is_auto and device.type == "cpu" and cpu_has_int8():
            ranges = read_feature_ranges(self._weights, self)
        if ranges is not None:
            name = f"int8 and {name}"
        logger.info("The network runs on %s in %s.", device, name)
        fast = accelerate(copy.deepcopy(self).eval(), precision=precision, ranges=ranges)
        fast.precision_name = name
        object.__setattr__(fast, "_fast_copy", fast)  # it needs none but itself
        return fast

    def _forget_fast_copy(self):
        object.__setattr__(self, "_fast_copy", None)

    def train(self, mode=True):
        """As ``nn.Module.train``; what it changes, the fast copy does not know."""
        self._forget_fast_copy()
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self._forget_fast_copy()
        return super()._apply(*args, **kwargs)

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        """As ``GeneralizedRCNN.inference``; given boxes are in px of the resized image."""
        network = self if torch.is_grad_enabled() else self.fast_copy
        return network._infer(batched_inputs, detected_instances, do_postprocess)

    def _infer(self, batched_inputs, detected_instances, do_postprocess):
        """The work of :meth:`inference`, by this network itself."""
        prepared = [self._prepare_input(image_input) for image_input in batched_inputs]
        if detected_instances is None and len(self.views) > 1:
            images, features, detected_instances = self._detect_in_views(prepared)
        else:
            images, features = self._extract_features(prepared)
        if detected_instances is None:
            proposals, _ = self.proposal_generator(images, features, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            detected_instances = [one.to(self.device) for one in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, detected_instances)
        if not do_postprocess:
            return results
        outputs = self._postprocess(results, prepared, images.image_sizes)
        if getattr(self.roi_heads, "mask_box_scale", 1) != 1:
            tighten_boxes([one["instances"] for one in outputs])
        return outputs

    def _extract_features(self, prepared):
        """Images as a batch, and their features, with the dense branch's probabilities."""
        images = self.preprocess_image(prepared)
        features = self.backbone(images.tensor)
        if self.dense_branch is not None:
            logits = self.dense_branch(features).float()
            features = features | {DENSE: torch.softmax(logits, dim=1)}
        return images, features

    def _detect_in_views(self, prepared):
        """
        Boxes by the mean over the views.

        Masks hardly gain from more than one view, which costs a further run of their head.

        Returns:
            tuple: the images as they are, their features, and the detections in each.
        """
        predictor = self.roi_heads.box_predictor
        by_view = []
        for view in reversed(self.views):  # the image as it is comes last: its features stay
            images, features = self._extract_features(
                [one | {"image": mirror_image(one["image"], view)} for one in prepared]
            )
            proposals, _ = self.proposal_generator(images, features, None)
            detections = self.roi_heads.detect_boxes(
                features,
                proposals,
                score_threshold=min(MIN_VIEW_SCORE, predictor.test_score_thresh),
            )
            for one in detections:
                boxes = one.pred_boxes
                boxes.tensor = mirror_boxes(boxes.tensor, view, image_size=one.image_size)
            by_view.append(detections)
        averaged = [
            average_views(
                list(detections),
                score_threshold=predictor.test_score_thresh,
                nms_threshold=predictor.test_nms_thresh,
                at_most=scale_with_area(predictor.test_topk_per_image, images.image_sizes),
            )
            for detections in zip(*by_view, strict=True)
        ]
        return images, features, averaged

    def _prepare_input(self, image_input):
        image = stretch_contrast(image_input["image"], self.stretch)
        height, width = image.shape[-2:]
        image_mpp = image_input.get("mpp") or self.test_mpp
        scale = input_scale(image_mpp, scale=self.scale, network_mpp=self.mpp)
        size = [max(1, round(side * scale)) for side in (height, width)]
        if size != [height, width]:
            image = functional.interpolate(
                self._move_to_current_device(image)[None].float(),
                size=size,
                mode="bilinear",
                antialias=True,
            )[0]
        # The size to which results are brought back, unless the caller asks for another one
        return {"height": height, "width": width, **image_input, "image": image}


def tighten_boxes(outputs):
    """
    Put the boxes of the masks in place of those that were enlarged for the mask head.

    Args:
        outputs (list[Instances]): of each image, with ``pred_masks``, bool, shape (N, H, W);
            changed in place.
    """
    for one in outputs:
        one.pred_boxes = BitMasks(one.pred_masks).get_bounding_boxes().to(one.pred_masks.device)
