"""From a data set's record of an image to what the network takes."""

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances

from steatosis_d2.data.augmentation import (
    MirrorAffineTransform,
    ScaledInput,
    build_train_augmentations,
)
from steatosis_d2.data.class_names import list_categories
from steatosis_d2.data.contrast import stretch_contrast
from steatosis_d2.data.dense_labels import find_openings, label_pixels
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.data.input_scale import input_scale
from steatosis_d2.data.label_layers import paint_layers, split_layers
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import decode_mask

# Of an area of which nobody said what it holds; Detectron2's heads do not train on it, either.
IGNORED_CLASS = -1


class InstanceMapper:
    """
    Detectron2's ``DatasetMapper`` for images with hundreds of small instances.

    It differs in six things: images of any kind are read right (16 bit, grey, RGBA), images of
    known pixel size are brought to the network's, masks are transformed all at once, boxes are
    those of the cropped masks, areas to ignore (``iscrowd``) reach the network, and so does what
    its dense branch learns from, where it has one.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train,
        augmentations,
        image_format,
        scale,
        network_mpp,
        stretch=(),
        ignore_areas=True,
        labels_pixels=False,
        fat_class=0,
    ):
        """
        Args:
            is_train (bool): whether to augment, and to keep the instances.
            augmentations (list[Augmentation]): applied in this order, to RGB images.
            image_format (str): ``RGB`` or ``BGR``, the channel order that the network takes.
            scale, network_mpp (float): as for :func:`steatosis_d2.data.input_scale.input_scale`.
            stretch (tuple[float, float]): as for
                :func:`steatosis_d2.data.contrast.stretch_contrast`.
            ignore_areas (bool): whether crowd regions become truths of class -1; else they are
                background, as Detectron2 has it.
            labels_pixels (bool): whether to add ``sem_seg`` in training.
            fat_class (int): whose masks are fat in it.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.scale = scale
        self.network_mpp = network_mpp
        self.stretch = stretch
        self.ignore_areas = ignore_areas
        self.labels_pixels = labels_pixels
        self.fat_class = fat_class

    @classmethod
    def from_config(cls, cfg, *, is_train):
        return {
            "is_train": is_train,
            "augmentations": build_train_augmentations(cfg) if is_train else [],
            "image_format": cfg.INPUT.FORMAT,
            "scale": cfg.INPUT.SCALE,
            "network_mpp": cfg.INPUT.MPP,
            "stretch": cfg.INPUT.STRETCH,
            "ignore_areas": cfg.INPUT.IGNORE_AREAS,
            "labels_pixels": cfg.MODEL.DENSE_BRANCH.ENABLED,
            "fat_class": list_categories(cfg).index(cfg.MODEL.CATEGORY),
        }

    def __call__(self, record):
        """
        Args:
            record (dict): one image, in Detectron2's data set form; left as it is.

        Returns:
            dict: the record with ``image``, a tensor of shape (3, H, W), and in training with
            ``instances`` in place of ``annotations``: ``gt_boxes`` (tight, XYXY in px),
            ``gt_classes`` and ``gt_masks`` (bitmasks) of those with a pixel in the image; an area
            to ignore has class -1. With ``labels_pixels`` also ``sem_seg``, int64, shape (H, W),
            of the values in :mod:`steatosis_d2.data.dense_labels`.

        Raises:
            InputError: the image cannot be read, its size is not the one in the record, or a mask
                is not sound.
        """
        record = dict(record)
        annotations = record.pop("annotations", [])
        image = read_image_rgb(record["file_name"]).copy()  # torch wants to be able to write
        _check_size(record, image)
        if self.is_train:
            # At test the model does it, as it does the scaling.
            image = stretch_contrast(torch.tensor(image), self.stretch).numpy()
            if not self.ignore_areas:
                annotations = [one for one in annotations if not one.get("iscrowd")]
            layers = _paint_layers(record, annotations)
            pixels = None
            if self.labels_pixels:
                pixels = _label_pixels(record, image, layers, annotations, self.fat_class)
            image, truths = self._augment(image, layers, annotations, record.get("mpp"), pixels)
            record.update(truths)
        # Detectron2's door: inside the network the channels are in its own order.
        image = image if self.image_format == "RGB" else image[:, :, ::-1]
        record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return record

    def _augment(self, image, layers, annotations, mpp, pixels):
        """The augmented image, and what is to be learnt from it, as the record's entries."""
        augmented = ScaledInput(
            image,
            scale=input_scale(mpp, scale=self.scale, network_mpp=self.network_mpp),
            boxes=_boxes_xyxy([one for one in annotations if not one.get("iscrowd")]),
            openings=() if pixels is None else find_openings(image, pixels, mpp=mpp),
        )
        transforms = self.augmentations(augmented)
        classes = np.array(
            [IGNORED_CLASS if one.get("iscrowd") else one["category_id"] for one in annotations],
            np.int64,
        )
        instances = _transform_instances(
            layers, classes, transforms, size=augmented.image.shape[:2]
        )
        truths = {"instances": instances}
        if pixels is not None:
            # OpenCV's warps and PIL know float32
            moved = transforms.apply_segmentation(pixels.astype(np.float32))
            truths["sem_seg"] = torch.from_numpy(np.array(moved)).long()
        return augmented.image, truths


def _check_size(record, image):
    height, width = image.shape[:2]
    if (height, width) != (record["height"], record["width"]):
        raise InputError(
            f"image '{record['file_name']}' is {width} x {height} px, its annotations are for "
            f"{record['width']} x {record['height']} px; prepare the data set again."
        )


def _paint_layers(record, annotations):
    masks = [annotation.get("segmentation") for annotation in annotations]
    try:
        return paint_layers(masks, height=record["height"], width=record["width"])
    except ValueError as error:
        raise InputError(
            f"image '{record['file_name']}': {error} Prepare the data set again, with masks as "
            "run-length codes or polygons."
        ) from None


def _label_pixels(record, image_rgb, layers, annotations, fat_class):
    """What the dense branch learns, in the frame of the image as it is in its file."""
    is_ignored = np.array([False] + [bool(one.get("iscrowd")) for one in annotations])
    is_fat = np.array([False] + [one["category_id"] == fat_class for one in annotations])
    fat, ignored = np.zeros((2, *image_rgb.shape[:2]), bool)
    for layer in layers:
        numbers = layer.astype(np.int64)
        ignored |= is_ignored[numbers]
        fat |= is_fat[numbers] & ~is_ignored[numbers]
    white = record.pop("other_white", None)
    return label_pixels(
        image_rgb,
        fat=fat,
        ignored=ignored,
        other_white=None if white is None else decode_mask(white),
        is_incomplete=bool(record.get("incomplete")),
        mpp=record.get("mpp"),
    )


def _boxes_xyxy(annotations):
    boxes = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
    modes = np.array([annotation["bbox_mode"] for annotation in annotations])
    for mode in set(modes):
        boxes[modes == mode] = BoxMode.convert(boxes[modes == mode], mode, BoxMode.XYXY_ABS)
    return boxes


def _transform_instances(layers, classes, transforms, *, size):
    """Detectron2's ``Instances`` of an augmented image; its size is (H, W) in px."""
    indices, masks, boxes = split_layers(
        [transforms.apply_segmentation(layer) for layer in layers],
        size=size,
        by_region=_is_mirrored(transforms),
    )
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes))
    instances.gt_classes = torch.from_numpy(classes[indices])
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    return instances


def _is_mirrored(transforms):
    return any(
        isinstance(transform, MirrorAffineTransform)
        or (isinstance(transform, T.TransformList) and _is_mirrored(transform))
        for transform in transforms.transforms
    )
