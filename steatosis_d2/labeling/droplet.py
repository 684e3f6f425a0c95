"""One label: a mask in its bounding box, with a confidence."""

from dataclasses import dataclass

import cv2
import numpy as np

from steatosis_d2 import masks


@dataclass(frozen=True)
class Droplet:
    """
    One label.

    Attributes:
        crop (ndarray): bool, shape (h, w), the mask in its bounding box.
        top, left (int): row and column of the crop in the image, in px.
        score (float): confidence in 0..1.
    """

    crop: np.ndarray
    top: int
    left: int
    score: float

    def encode(self, image_shape):
        """COCO RLE of the mask in an image of shape (H, W, ...)."""
        height, width = image_shape[:2]
        return masks.encode_crop(
            self.crop, top=self.top, left=self.left, height=height, width=width
        )


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
        droplet (Droplet): its pixels are marked in ``taken``.
        growth_px (int): width of the rim, in px.
        taken (ndarray): bool, shape (H, W), pixels that have an owner; the rim is added to them.

    Returns:
        Droplet: the larger one.
    """
    height, width = taken.shape
    bottom, right = droplet.top + droplet.crop.shape[0], droplet.left + droplet.crop.shape[1]
    above, before = min(growth_px, droplet.top), min(growth_px, droplet.left)
    below, after = min(growth_px, height - bottom), min(growth_px, width - right)
    crop = np.pad(droplet.crop, ((above, below), (before, after)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * growth_px + 1, 2 * growth_px + 1))
    top, left = droplet.top - above, droplet.left - before
    window = taken[top : top + crop.shape[0], left : left + crop.shape[1]]
    grown = crop | ((cv2.dilate(crop.view(np.uint8), disk) > 0) & ~window)
    window |= grown
    return Droplet(grown, top, left, droplet.score)
