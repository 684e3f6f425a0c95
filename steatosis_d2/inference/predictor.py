"""Mask R-CNN as a model that takes tiles and gives instances."""

import hashlib
import logging
from pathlib import Path

import detectron2
import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess

from steatosis_d2 import __version__
from steatosis_d2.data.coco import DROPLET, NUCLEUS
from steatosis_d2.engine.checkpoint import SafeCheckpointer
from steatosis_d2.errors import InputError
from steatosis_d2.inference.acceleration import accelerate, choose_precision
from steatosis_d2.instance import Instance
from steatosis_d2.modeling.mask_crops import paste_crops

logger = logging.getLogger(__name__)


class MaskRCNNPredictor:
    """
    A trained network, set up for speed, that segments tiles.

    Attributes:
        batch_size (int): number of tiles that one call does best with.
        category (str): what it finds, ``droplet`` or ``nucleus``.
    """

    def __init__(self, cfg, *, score_threshold=None, batch_size=1):
        """
        Args:
            cfg (CfgNode): with ``MODEL.WEIGHTS``; left as it is.
            score_threshold (float or None): lowest score that is kept; None means
                ``cfg.TEST.SCORE_THRESHOLD``.
            batch_size (int): number of tiles that go through the network together.

        Raises:
            InputError: there are no weights, or they do not fit the network.
        """
        if not cfg.MODEL.WEIGHTS:
            raise InputError(
                "the config names no weights; give a checkpoint of this network, e.g. "
                "MODEL.WEIGHTS output/liver_starter/model_best.pth."
            )
        if score_threshold is None:
            score_threshold = cfg.TEST.SCORE_THRESHOLD
        self.score_threshold = score_threshold
        self.batch_size = batch_size
        self.category = find_category(cfg)
        self._weights = cfg.MODEL.WEIGHTS
        self._image_format = cfg.INPUT.FORMAT
        model = load_model(cfg, score_threshold=score_threshold)
        self._precision = choose_precision(model.device)
        self._model = accelerate(model, precision=self._precision)
        logger.info("The network runs on %s in %s.", model.device, self._precision)

    @torch.inference_mode()
    def __call__(self, images_rgb, *, mpp):
        """
        Segment some tiles.

        Args:
            images_rgb (list[ndarray]): each uint8, shape (H, W, 3), RGB; sizes may differ.
            mpp (float or None): um/px of the tiles.

        Returns:
            list[list[Instance]]: for each tile its instances in px of the tile, the most
            confident first.
        """
        instances = []
        for start in range(0, len(images_rgb), self.batch_size):
            batch = images_rgb[start : start + self.batch_size]
            inputs = [self._as_input(image_rgb, mpp) for image_rgb in batch]
            outputs = self._model.inference(inputs, do_postprocess=False)
            instances += [
                to_instances(output, height=image_rgb.shape[0], width=image_rgb.shape[1])
                for output, image_rgb in zip(outputs, batch, strict=True)
            ]
        return instances

    def describe(self):
        """
        What makes the results what they are.

        Returns:
            dict: JSON values, without paths, dates or names of machines.
        """
        return {
            "kind": "Mask R-CNN",
            "weights": Path(self._weights).name,
            "weights_sha256": sha256_of(self._weights),
            "precision": str(self._precision).removeprefix("torch."),
            "score_threshold": self.score_threshold,
            "versions": {
                "steatosis_d2": __version__,
                "detectron2": detectron2.__version__,
                "torch": torch.__version__,
            },
        }

    def _as_input(self, image_rgb, mpp):
        image = image_rgb if self._image_format == "RGB" else image_rgb[:, :, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": pixels} if mpp is None else {"image": pixels, "mpp": mpp}


def find_category(cfg):
    """What a network finds, by the data that it was trained on: ``droplet`` or ``nucleus``."""
    is_nucleus = any(name.startswith(NUCLEUS) for name in cfg.DATASETS.TRAIN)
    return NUCLEUS if is_nucleus else DROPLET


def load_model(cfg, *, score_threshold):
    """The network with its weights, in evaluation mode, giving scores above the threshold."""
    model = build_model(cfg).eval()
    checkpointer = SafeCheckpointer(model, allow_pickle=cfg.MODEL.ALLOW_PICKLE, strict=True)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    # Before suppression: what scores less cannot suppress what scores more. The greatest number
    # below the threshold, since Detectron2 keeps what is greater.
    model.roi_heads.box_predictor.test_score_thresh = np.nextafter(score_threshold, -1)
    return model


def to_instances(output, *, height, width):
    """
    The network's raw output for one image as instances.

    Args:
        output (detectron2.structures.Instances): boxes and masks in the frame of the network's
            input, as ``inference(..., do_postprocess=False)`` gives them; changed in place.
        height, width (int): of the image, in px.

    Returns:
        list[Instance]: in px of the image; those without a pixel are left out.
    """
    # Detectron2 pastes what is called pred_masks, each into an image of its own.
    output.mask_probabilities = output.pred_masks[:, 0].float()
    output.remove("pred_masks")
    output = detector_postprocess(output, height, width)
    crops = paste_crops(
        output.mask_probabilities, output.pred_boxes.tensor, height=height, width=width
    )
    return [
        Instance(*crop, score, truncated=touches_border(*crop, height=height, width=width))
        for crop, score in zip(crops, output.scores.tolist(), strict=True)
        if crop is not None
    ]


def touches_border(crop, top, left, *, height, width):
    """Whether a mask has a pixel at the image's border, so that it may go on beyond it."""
    return top == 0 or left == 0 or top + len(crop) == height or left + crop.shape[1] == width


def sha256_of(path):
    """Fingerprint of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
