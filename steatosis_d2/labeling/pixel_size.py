"""Which magnification an image without a pixel size was scanned at, from its nuclei."""

import logging

import cv2
import numpy as np

from steatosis_d2.labeling.contour import trace_regions
from steatosis_d2.labeling.foreground import level_of, normalise_brightness

logger = logging.getLogger(__name__)

MPP_20X = 0.5
MPP_40X = 0.25

# Of hepatocyte nuclei as they appear in sections, measured on the Torino tiles (20x) and on those
# of Guo et al. 2019 (40x), whose medians are 6.6 and 6.4 um.
_NUCLEUS_DIAMETER_UM = 6.5
_NUCLEUS_LEVEL = -0.25
_MIN_NUCLEI = 5
_MIN_AREA_PX = 40
_MIN_SOLIDITY = 0.9
_MIN_AXIS_RATIO = 0.65


def guess_magnification(image_rgb):
    """
    20x or 40x, whichever makes the nuclei of an image more nearly as large as nuclei are.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).

    Returns:
        float: 0.5 or 0.25 um/px; 0.5 where there are too few nuclei to tell.
    """
    diameter_px = measure_nuclei(image_rgb)
    if len(diameter_px) < _MIN_NUCLEI:
        return MPP_20X
    # Large round ones count most: fragments and lymphocytes are smaller than hepatocyte nuclei.
    typical_px = np.sqrt(np.sum(diameter_px**4) / np.sum(diameter_px**2))
    return min((MPP_20X, MPP_40X), key=lambda mpp: _mismatch(typical_px * mpp))


def measure_nuclei(image_rgb):
    """
    Diameters of the dark, round, solid spots of an image.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).

    Returns:
        ndarray: float64, shape (n,), of the disks with the same areas, in px.
    """
    brightness = normalise_brightness(image_rgb, smoothing_px=1.0)
    dark = cv2.bitwise_not(brightness)
    contours = trace_regions(dark, 255 - level_of(_NUCLEUS_LEVEL) - 1, min_points=16)
    areas = [cv2.contourArea(contour) + len(contour) / 2 + 1 for contour in contours]
    return np.array(
        [
            2 * np.sqrt(area / np.pi)
            for contour, area in zip(contours, areas, strict=True)
            if area >= _MIN_AREA_PX and _is_round(contour)
        ]
    )


def _is_round(contour_xy):
    _, sides, _ = cv2.minAreaRect(contour_xy)
    hull_area = cv2.contourArea(cv2.convexHull(contour_xy))
    return (
        min(sides) >= _MIN_AXIS_RATIO * max(sides)
        and cv2.contourArea(contour_xy) >= _MIN_SOLIDITY * hull_area
    )


def _mismatch(diameter_um):
    return abs(np.log(diameter_um / _NUCLEUS_DIAMETER_UM))
