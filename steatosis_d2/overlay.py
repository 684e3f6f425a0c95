"""Instances drawn onto their image."""

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from steatosis_d2.masks import decode_mask

# Both stand out from pink tissue, violet nuclei and white droplets.
PREDICTED_RGB = (0, 140, 60)
TRUE_RGB = (255, 200, 0)


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
        crop = decode_mask(rle)[top : top + height, left : left + width].astype(np.uint8)
        contours, _ = cv2.findContours(
            crop, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(int(left), int(top))
        )
        cv2.drawContours(drawn, contours, -1, color_rgb, thickness_px)
    return drawn
