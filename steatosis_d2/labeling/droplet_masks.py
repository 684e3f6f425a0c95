"""Masks of outlines, in their bounding boxes."""

import cv2
import numpy as np

from steatosis_d2.instances.instance import Instance


def fill_outline(contour_xy):
    """
    The pixels on and inside an outline.

    Args:
        contour_xy (ndarray): int32, shape (n, 2), (x, y) in px.

    Returns:
        tuple: mask in its bounding box, bool (h, w); the box's first row; its first column.
    """
    left, top, width, height = cv2.boundingRect(contour_xy)
    crop = np.zeros((height, width), np.uint8)
    cv2.drawContours(crop, [contour_xy - (left, top)], -1, 1, cv2.FILLED)
    return crop.astype(bool), top, left


def grow_droplet(droplet, *, growth_px, taken):
    """
    Add a rim to a droplet, within the image and off the pixels of others.

    Args:
        droplet (Instance): its pixels are marked in ``taken``.
        growth_px (int): width of the rim, in px.
        taken (ndarray): bool, shape (H, W), pixels that have an owner; the rim is added to them.

    Returns:
        Instance: the larger one.
    """
    height, width = taken.shape
    above, before = min(growth_px, droplet.top), min(growth_px, droplet.left)
    below, after = min(growth_px, height - droplet.bottom), min(growth_px, width - droplet.right)
    crop = np.pad(droplet.crop, ((above, below), (before, after)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * growth_px + 1, 2 * growth_px + 1))
    top, left = droplet.top - above, droplet.left - before
    window = taken[top : top + crop.shape[0], left : left + crop.shape[1]]
    grown = crop | ((cv2.dilate(crop.view(np.uint8), disk) > 0) & ~window)
    window |= grown
    return Instance(grown, top, left, droplet.score)
