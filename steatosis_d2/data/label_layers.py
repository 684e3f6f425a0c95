"""
Instances of an image as few label images, which augmentations transform all at once.

Hundreds of masks would each be decoded, cropped, resized and turned on their own; droplets
hardly overlap, so that one label image holds them all, and seldom a second is needed.
"""

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage
from skimage.measure import label as label_regions

from steatosis_d2.masks import run_lengths


def paint_layers(segmentations, *, height, width):
    """
    Draw instances into label images, each into the first in which it overlaps no other.

    Args:
        segmentations (list): of each instance, COCO RLE or polygons ([[x, y, x, y, ...], ...]).
        height (int): of the image, in px.
        width (int): of the image, in px.

    Returns:
        list[ndarray]: float32, since OpenCV's warps know no wide integers, shape (H, W);
        instance i has the value i + 1, in one of the layers.
    """
    layers = []
    for value, segmentation in enumerate(segmentations, 1):
        pixels = _pixels_down_columns(segmentation, height=height, width=width)
        layer = next((layer for layer in layers if not layer[pixels].any()), None)
        if layer is None:
            layer = np.zeros(height * width, np.float32)
            layers.append(layer)
        layer[pixels] = value
    return [layer.reshape(width, height).T for layer in layers]


def _pixels_down_columns(segmentation, *, height, width):
    """Indices of an instance's pixels where columns lie one after another, as COCO counts."""
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    runs = run_lengths(segmentation)
    ends = np.cumsum(runs)
    lengths, ends = runs[1::2], ends[1::2]
    # Each run counts up to its end: one arange, shifted run by run.
    last_before = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(ends - last_before, lengths)


def split_layers(layers, *, size, by_region=False):
    """
    The instances of transformed layers.

    Args:
        layers (list[ndarray]): whole numbers, shape (H, W), as :func:`paint_layers` numbers them.
        size (tuple[int, int]): height and width of the layers, in px.
        by_region (bool): whether connected regions of one value are instances of their own, as
            after mirroring, which shows an instance twice.

    Returns:
        tuple: indices of the instances, int64, shape (N,), counted from 0; masks, bool,
        shape (N, H, W); boxes, float32, shape (N, 4), tight, XYXY in px.
    """
    indices, crops = [], []
    for layer in layers:
        values = layer.astype(np.int32)
        regions = label_regions(values, connectivity=2) if by_region else values
        for number, window in enumerate(ndimage.find_objects(regions), 1):
            if window is not None:
                crop = regions[window] == number
                indices.append(int(values[window][crop][0]) - 1)
                crops.append((window, crop))
    masks = np.zeros((len(crops), *size), bool)
    boxes = np.zeros((len(crops), 4), np.float32)
    for mask, box, ((rows, columns), crop) in zip(masks, boxes, crops, strict=True):
        mask[rows, columns] = crop
        box[:] = columns.start, rows.start, columns.stop, rows.stop
    return np.array(indices, np.int64), masks, boxes
