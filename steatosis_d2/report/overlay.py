"""Instances drawn onto their image."""

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from steatosis_d2.data.microscopy import is_dark_field
from steatosis_d2.instances.rle import decode_mask

# Both stand out from pink tissue, violet nuclei and white droplets.
PREDICTED_RGB = (0, 140, 60)
TRUE_RGB = (255, 200, 0)
DROPPED_RGB = (230, 80, 0)
OTHER_RGB = (0, 90, 200)
ARTEFACT_RGB = (130, 40, 200)
IGNORED_RGB = (110, 110, 110)
# Grey levels; fewer are not spread to the full, which would show the noise of an empty field.
_SMALLEST_RANGE = 16


def show_dark_field(picture_rgb):
    """
    A picture to be looked at: fluorescence is often stored too dark for the eye.

    Args:
        picture_rgb (ndarray): uint8, shape (H, W, 3).

    Returns:
        ndarray: of the same kind; in a dark field the grey levels of nearly all pixels are spread
        over the whole range, any other picture is returned as it is.
    """
    sample_rgb = picture_rgb[::4, ::4]
    if not is_dark_field(sample_rgb):
        return picture_rgb
    low, high = np.percentile(sample_rgb, (0.5, 99.8))
    spread = (np.arange(256) - low) * (255 / max(high - low, _SMALLEST_RANGE))
    return cv2.LUT(picture_rgb, np.clip(spread, 0, 255).astype(np.uint8))


def draw_outlines(image_rgb, rles, *, color_rgb, thickness_px=1):
    """
    Outline instances on a copy of their image.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        rles (list[dict]): COCO RLE of full-size masks, one an instance.
        color_rgb (tuple[int, int, int]): 0..255.
        thickness_px (int): width of the lines.

    Returns:
        ndarray: uint8, shape (H, W, 3).
    """
    drawn = np.ascontiguousarray(image_rgb).copy()
    for rle in rles:
        left, top, width, height = coco_mask.toBbox(rle).astype(int)
        crop = decode_mask(rle)[top : top + height, left : left + width]
        draw_outline(drawn, crop, top, left, color_rgb=color_rgb, thickness_px=thickness_px)
    return drawn


def draw_outline(drawn, crop, top, left, *, color_rgb, thickness_px=1, scale=1.0):
    """
    Outline one instance, in place.

    Args:
        drawn (ndarray): uint8, shape (H, W, 3), contiguous; is changed.
        crop (ndarray): bool, shape (h, w), the mask in its bounding box.
        top, left (float): row and column of the crop, in px of the image that ``drawn`` shows.
        color_rgb (tuple[int, int, int]): 0..255.
        thickness_px (int): width of the line, in px of ``drawn``.
        scale (float): px of ``drawn`` for each px of the mask.
    """
    contours, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    # Contours run through the centres of pixels, which have whole coordinates in OpenCV.
    first_centre_xy = np.array([left + 0.5, top + 0.5])
    contours = [
        np.round((contour + first_centre_xy) * scale - 0.5).astype(np.int32) for contour in contours
    ]
    cv2.polylines(drawn, contours, True, color_rgb, thickness_px)
