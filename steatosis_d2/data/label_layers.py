"""
Instances of an image as few label images, which augmentations transform all at once.

Hundreds of masks would each be decoded, cropped, resized and turned on their own; droplets
hardly overlap, so that one label image holds them all, and seldom a second is needed.
"""

import numpy as np
from scipy import ndimage
from skimage.measure import label as label_regions

from steatosis_d2.instances.rle import as_rle, concatenate_runs


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

    Raises:
        ValueError: a mask is of no known form, of another size, or no sound run-length code.
    """
    if not segmentations:
        return []
    pixels, values = _find_pixels(segmentations, height=height, width=width)
    first = np.zeros(height * width, np.float32)
    first[pixels] = values
    hidden = first[pixels] != values
    overlapping = np.union1d(values[hidden], first[pixels[hidden]])
    first[pixels[np.isin(values, overlapping)]] = 0
    layers = [first]
    for value in overlapping:
        start, end = np.searchsorted(values, [value, value + 1])
        own = pixels[start:end]
        layer = next((layer for layer in layers if not layer[own].any()), None)
        if layer is None:
            layer = np.zeros_like(first)
            layers.append(layer)
        layer[own] = value
    return [layer.reshape(width, height).T for layer in layers]


def _find_pixels(segmentations, *, height, width):
    """
    Indices of all instances' pixels, instance after instance, and the value of each pixel.

    The indices count down the columns, one column after another, as COCO does.
    """
    rles = [as_rle(segmentation, height=height, width=width) for segmentation in segmentations]
    runs, n_runs = concatenate_runs(rles)
    owners = np.repeat(np.arange(len(rles)), n_runs)
    sizes = np.bincount(owners, weights=runs)
    if runs.min() < 0 or (sizes != height * width).any():
        raise ValueError(f"a mask's runs do not add up to {height} x {width} px.")
    ends = np.cumsum(runs) - owners * height * width
    first_runs = np.cumsum(n_runs) - n_runs
    inside = (np.arange(len(runs)) - first_runs[owners]) % 2 == 1
    lengths, ends, owners = runs[inside], ends[inside], owners[inside]
    # Each run counts up to its end: one arange, shifted run by run.
    pixels = np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)
    return pixels, np.repeat(owners + 1, lengths)


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
