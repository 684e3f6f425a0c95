"""What each pixel of a training image is known to show, for the network's dense branch."""

import cv2
import numpy as np

from steatosis_d2.data.brightness import find_background, level_of, normalise_brightness

# The dense branch's classes.
TISSUE, FAT, OTHER_WHITE = range(3)
N_CLASSES = 3
# Known to be no fat; whether tissue or white is not said.
NOT_FAT = 3
UNKNOWN = 255

# Brightness from median tissue (0) to white (1), below and above which nobody doubts what it is.
STAINED_BELOW, WHITE_ABOVE = 0.3, 0.85
SMOOTHING_UM = 0.75
# White that a disk of this diameter fits into is glass or a large vessel: droplets are smaller.
GLASS_UM = 90.0
# Veins and ducts that are worth a crop: a disk of the first diameter fits into them, and the
# second is longer than they are.
OPENING_UM = (12.0, 150.0)


def label_pixels(image_rgb, *, fat, ignored, other_white=None, is_incomplete=False, mpp=None):
    """
    The class of each pixel, as far as the labels of its image tell it.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        fat (ndarray): bool, shape (H, W), all labelled droplets.
        ignored (ndarray): bool, shape (H, W), areas of which nobody said what they hold.
        other_white (ndarray or None): bool, shape (H, W), all white that is no fat, where it is
            known; then the rest is known to be tissue.
        is_incomplete (bool): droplets were left out: what is not labelled may be fat.
        mpp (float or None): um/px, where it is known.

    Returns:
        ndarray: uint8, shape (H, W), of the values above.
    """
    if other_white is not None:
        labels = np.where(other_white, OTHER_WHITE, TISSUE).astype(np.uint8)
    else:
        labels = np.full(fat.shape, UNKNOWN if is_incomplete else NOT_FAT, np.uint8)
        _label_by_brightness(labels, image_rgb, mpp=mpp)
    labels[fat] = FAT
    labels[ignored] = UNKNOWN
    return labels


def find_openings(image_rgb, labels, *, mpp):
    """
    White that is known to be no fat, as wide as a droplet: veins and ducts, not slits or glass.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        labels (ndarray): uint8, shape (H, W), from :func:`label_pixels`.
        mpp (float or None): um/px; without it none are looked for.

    Returns:
        ndarray: float64, shape (N, 4), boxes around their middles, XYXY in px.
    """
    if not mpp:
        return np.zeros((0, 4))
    brightness = normalise_brightness(image_rgb, smoothing_px=SMOOTHING_UM / mpp)
    white = (brightness > level_of(WHITE_ABOVE)) & np.isin(labels, (NOT_FAT, OTHER_WHITE))
    depth_px = cv2.distanceTransform(white.astype(np.uint8), cv2.DIST_L2, 3)
    narrowest_px, longest_px = np.array(OPENING_UM) / mpp
    middles = (depth_px > narrowest_px / 2).astype(np.uint8)
    boxes = cv2.connectedComponentsWithStats(middles)[2][1:, :4].astype(float)
    boxes = boxes[boxes[:, 2:].max(axis=1, initial=0) + narrowest_px < longest_px]
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _label_by_brightness(labels, image_rgb, *, mpp):
    """Write what the picture alone tells: stained is tissue, widely white is glass or vessel."""
    sigma_px = SMOOTHING_UM / mpp if mpp else 1.0
    brightness = normalise_brightness(image_rgb, smoothing_px=sigma_px)
    labels[brightness < level_of(STAINED_BELOW)] = TISSUE
    if mpp:
        coarse = find_background(brightness, min_width_um=GLASS_UM, mpp=mpp).astype(np.uint8)
        wide = cv2.resize(coarse, labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
        labels[(wide > 0) & (brightness > level_of(WHITE_ABOVE))] = OTHER_WHITE
