"""From a data set's record of an image to what the network takes."""

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from steatosis_d2.data.augmentation import build_train_augmentations
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.errors import InputError


class InstanceMapper:
    """
    Detectron2's ``DatasetMapper`` for images with hundreds of small instances.

    It differs in three things: images of any kind are read right (16 bit, grey, RGBA), only
    masks that reach into the crop are decoded, and boxes are those of the cropped masks.
    """

    @configurable
    def __init__(self, *, is_train, augmentations, image_format):
        """
        Args:
            is_train (bool): whether to augment, and to keep the instances.
            augmentations (list[Augmentation]): applied in this order.
            image_format (str): ``RGB`` or ``BGR``, the channel order that the network takes.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format

    @classmethod
    def from_config(cls, cfg, *, is_train):
        return {
            "is_train": is_train,
            "augmentations": build_train_augmentations(cfg) if is_train else [],
            "image_format": cfg.INPUT.FORMAT,
        }

    def __call__(self, record):
        """
        Args:
            record (dict): one image, in Detectron2's data set form; left as it is.

        Returns:
            dict: the record with ``image``, a tensor of shape (3, H, W), and in training with
            ``instances`` in place of ``annotations``.

        Raises:
            InputError: the image cannot be read, or its size is not the one in the record.
        """
        record = dict(record)
        annotations = record.pop("annotations", [])
        image = read_image_rgb(record["file_name"])
        _check_size(record, image)
        # Detectron2's door: inside the network the channels are in its own order.
        augmented = T.AugInput(image if self.image_format == "RGB" else image[:, :, ::-1])
        transforms = self.augmentations(augmented)
        channels_first = np.ascontiguousarray(augmented.image.transpose(2, 0, 1))
        record["image"] = torch.from_numpy(channels_first)
        if self.is_train:
            size = augmented.image.shape[:2]
            record["instances"] = transform_instances(annotations, transforms, size)
        return record


def _check_size(record, image):
    height, width = image.shape[:2]
    if (height, width) != (record["height"], record["width"]):
        raise InputError(
            f"image '{record['file_name']}' is {width} x {height} px, its annotations are for "
            f"{record['width']} x {record['height']} px; prepare the data set again."
        )


def transform_instances(annotations, transforms, size):
    """
    Instances of an augmented image.

    Args:
        annotations (list[dict]): in Detectron2's form, with masks as RLE or polygons; crowd
            regions are left out.
        transforms (TransformList): what the image went through.
        size (tuple[int, int]): height and width of the augmented image, in px.

    Returns:
        Instances: ``gt_boxes`` (tight, XYXY in px), ``gt_classes`` and ``gt_masks`` (bitmasks)
        of those with a pixel in the augmented image.
    """
    visible = [
        detection_utils.transform_instance_annotations(dict(annotation), transforms, size)
        for annotation in annotations
        if not annotation.get("iscrowd", 0) and _is_visible(annotation, transforms, size)
    ]
    instances = detection_utils.annotations_to_instances(visible, size, mask_format="bitmask")
    if not instances.has("gt_masks"):
        return instances
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    return detection_utils.filter_empty_instances(instances)


def _is_visible(annotation, transforms, size):
    """Whether the box reaches into the augmented image: far cheaper than to decode the mask."""
    box_xyxy = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    left, top, right, bottom = transforms.apply_box(np.array([box_xyxy]))[0]
    return right > 0 and bottom > 0 and left < size[1] and top < size[0]
