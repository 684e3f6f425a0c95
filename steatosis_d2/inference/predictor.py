"""Mask R-CNN as a model that takes tiles and gives instances."""

import functools
import hashlib
import itertools
import logging
from collections import deque
from pathlib import Path

import detectron2
import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.utils.file_io import PathManager

from steatosis_d2 import __version__
from steatosis_d2.data.class_names import check_class_names, list_categories
from steatosis_d2.data.input_scale import input_scale
from steatosis_d2.engine.checkpoint import VALIDATION_KEY, SafeCheckpointer, read_note
from steatosis_d2.errors import InputError
from steatosis_d2.inference.memory import (
    count_memory_bytes,
    keep_freed_memory,
    release_freed_memory,
)
from steatosis_d2.instances.instance import Instance
from steatosis_d2.modeling.limits import scale_with_area
from steatosis_d2.modeling.mask_crops import paste_crops

logger = logging.getLogger(__name__)

# Results, which stay, settle between the layers' features, which are freed: ever more memory is
# needed for a slide unless all that is free goes back now and then. Once in so many calls it took
# 1.1 s beside 224 s of the network (20,000 x 20,000 px, two cores).
CALLS_BETWEEN_RELEASES = 16
# For a px of the network's input, by the bytes of a number: peaks of the starter and of R-50-FPN on
# inputs of 1024 and 2048 px, over the channels of the first stage.
_BYTES_PER_PX_AND_CHANNEL = {2: 1.6, 4: 2.1}


class MaskRCNNPredictor:
    """
    A trained network, set up for speed, that segments tiles.

    Attributes:
        batch_size (int): number of tiles that one call does best with.
        category (str): what it is for, ``droplet`` or ``nucleus``.
        categories (tuple[str, ...]): names of all its classes; ``category`` is among them.
        score_threshold (float): lowest score that is kept.
        assumed_mpp (float or None): um/px that images of unknown pixel size are taken to have.
        input_scale (callable): um/px of an image, or None -> px of the network's input for one
            of its px.
        weights (str): where its weights are from.
        image_format (str): its order of colours, ``RGB`` or ``BGR``.
        bytes_per_input_px (float): memory for a px of the network's input, roughly.
        memory_bytes (int or None): what its device has.
    """

    def __init__(self, cfg, *, score_threshold=None, batch_size=None):
        """
        Args:
            cfg (CfgNode): with ``MODEL.WEIGHTS``; left as it is.
            score_threshold (float or None): lowest score that is kept; None means
                ``cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST``.
            batch_size (int or None): number of tiles that go through the network together; None
                means what is best on the device.

        Raises:
            InputError: there are no weights, or they do not fit the network, or its classes have
                no names.
        """
        if not cfg.MODEL.WEIGHTS:
            raise InputError(
                "the config names no weights; give a checkpoint of this network, e.g. "
                "MODEL.WEIGHTS output/liver_starter/model_best.pth."
            )
        check_class_names(cfg)
        cfg = cfg.clone()
        cfg.defrost()
        if score_threshold is not None:
            cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = float(score_threshold)
        self.score_threshold = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        self.category = cfg.MODEL.CATEGORY
        self.categories = list_categories(cfg)
        self.assumed_mpp = cfg.TEST.MPP or cfg.INPUT.MPP * cfg.INPUT.SCALE or None
        self.input_scale = functools.partial(
            input_scale, scale=cfg.INPUT.SCALE, network_mpp=cfg.INPUT.MPP
        )
        self._detections_per_tile = cfg.TEST.DETECTIONS_PER_IMAGE
        self._has_warned = False
        self._n_calls = 0
        self.weights = cfg.MODEL.WEIGHTS
        self._n_views = cfg.TEST.VIEWS
        self.image_format = cfg.INPUT.FORMAT
        self.model = build_model(cfg).eval()
        checkpointer = SafeCheckpointer(
            self.model, allow_pickle=cfg.MODEL.ALLOW_PICKLE, strict=True
        )
        checkpointer.load(cfg.MODEL.WEIGHTS)
        self._validation = read_note(cfg.MODEL.WEIGHTS, VALIDATION_KEY)
        self.batch_size = batch_size or choose_batch_size(self.model.device)
        width = 4 if self._precision_name == "float32" else 2
        channels = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
        self.bytes_per_input_px = _BYTES_PER_PX_AND_CHANNEL[width] * channels
        self.memory_bytes = None
        if self.model.device.type == "cpu":
            keep_freed_memory()
            self.memory_bytes = count_memory_bytes()
        elif self.model.device.type == "cuda":
            self.memory_bytes = torch.cuda.get_device_properties(self.model.device).total_memory

    @property
    def network(self):
        """What computes (nn.Module): the model's fast copy, or itself if it makes none."""
        return getattr(self.model, "fast_copy", self.model)

    @property
    def _precision_name(self):
        return getattr(self.network, "precision_name", "float32")

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
        self._n_calls += 1
        if self._n_calls % CALLS_BETWEEN_RELEASES == 0:
            release_freed_memory()
        batches = batch_by_size(images_rgb, batch_size=self.batch_size)
        uploaded = upload_ahead(map(self._to_tensors, batches), self.model.device)
        known = {} if mpp is None else {"mpp": mpp}
        outputs = [
            output
            for batch in uploaded
            for output in self.model.inference(
                [{"image": pixels, **known} for pixels in batch], do_postprocess=False
            )
        ]
        self._warn_of_cap(outputs)
        return [
            to_instances(output, height=image_rgb.shape[0], width=image_rgb.shape[1])
            for output, image_rgb in zip(outputs, images_rgb, strict=True)
        ]

    def describe(self):
        """
        What makes the results what they are.

        Returns:
            dict: JSON values, without paths, dates or names of machines; ``validation`` are the
            figures that its export noted, or None.
        """
        return {
            "kind": "Mask R-CNN",
            "categories": list(self.categories),
            "weights": Path(self.weights).name,
            "weights_sha256": sha256_of(self.weights),
            "precision": self._precision_name,
            "score_threshold": self.score_threshold,
            "views": self._n_views,
            "validation": self._validation,
            "versions": {
                "steatosis_d2": __version__,
                "detectron2": detectron2.__version__,
                "torch": torch.__version__,
            },
        }

    def _warn_of_cap(self, outputs):
        """Say, once, that a tile may hold more than the network may report."""
        caps = (scale_with_area(self._detections_per_tile, [one.image_size]) for one in outputs)
        full = [cap for cap, one in zip(caps, outputs, strict=True) if len(one) >= cap]
        if full and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "A tile reached the cap of %d detections: some of its instances may be missing. "
                "Use smaller tiles (--tile-px), or raise TEST.DETECTIONS_PER_IMAGE.",
                full[0],
            )

    def _to_tensors(self, images_rgb):
        """Images as the network takes them: channels first, in its own order of colours."""
        step = 1 if self.image_format == "RGB" else -1
        return [
            torch.from_numpy(np.ascontiguousarray(image_rgb[:, :, ::step].transpose(2, 0, 1)))
            for image_rgb in images_rgb
        ]


def choose_batch_size(device):
    """
    How many tiles to put through a network together.

    Args:
        device (torch.device): where it runs.

    Returns:
        int: enough to fill a GPU; on a CPU one, since the layers of one tile keep all cores busy,
        and each further one takes its share of memory.
    """
    return 8 if device.type == "cuda" else 1


def batch_by_size(images, *, batch_size):
    """
    Batches of images that follow one another and have the same size.

    The network would pad others to the largest, and find something else at their borders.
    """
    for _, same_size in itertools.groupby(images, key=np.shape):
        while batch := list(itertools.islice(same_size, batch_size)):
            yield batch


def upload_ahead(batches, device):
    """
    Batches of images on the network's device.

    To a GPU each batch is copied while the one before it is computed.

    Args:
        batches (iterable[list[Tensor]]): on the CPU.
        device (torch.device): where they are needed.

    Yields:
        list[Tensor]: the same, in the same order.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    copies: deque[tuple[list[torch.Tensor], torch.cuda.Event]] = deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            # Only from pinned memory does a copy run beside the computation.
            copied = [pixels.pin_memory().to(device, non_blocking=True) for pixels in batch]
        copies.append((copied, stream.record_event()))
        if len(copies) == 2:
            yield wait_for_copy(*copies.popleft())
    while copies:
        yield wait_for_copy(*copies.popleft())


def wait_for_copy(tensors, event):
    """Tensors that the computation may use once the copying stream has got to the event."""
    stream = torch.cuda.current_stream()
    stream.wait_event(event)
    for tensor in tensors:
        # Else the copying stream could reuse their memory while they are still read
        tensor.record_stream(stream)
    return tensors


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
        Instance(
            crop,
            top,
            left,
            score,
            truncated=touches_border(crop, top, left, height, width),
            class_index=class_index,
        )
        for (crop, top, left), score, class_index in zip(
            crops, output.scores.tolist(), output.pred_classes.tolist(), strict=True
        )
        if crop.size
    ]


def touches_border(crop, top, left, height, width):
    """Whether a mask has a pixel at the image's border, so that it may go on beyond it."""
    return top == 0 or left == 0 or top + crop.shape[0] == height or left + crop.shape[1] == width


def sha256_of(path):
    """Fingerprint of a file, in hexadecimal digits; of an address, that of what it was read as."""
    return hashlib.sha256(Path(PathManager.get_local_path(path)).read_bytes()).hexdigest()
