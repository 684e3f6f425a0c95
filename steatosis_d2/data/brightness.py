"""Bright against tissue, and tissue against glass."""

import cv2
import numpy as np

# The normalised brightness of the median tissue and of empty glass. Nuclei and rims are darker
# than the median tissue and need room below it, so tissue is not at 0.
TISSUE = 80
GLASS = 240
# Both are measured on every so many-th row and column.
EVERY_PX = 4

# Scanners render glass at 220 to 245; a tile without anything white must not be stretched.
_DARKEST_WHITE = 200
# A tile that is nearly all glass has no median tissue; its few grey pixels are dust and edges.
_PALEST_TISSUE = 0.7
_BACKGROUND_PIXEL_UM = 4.0


def normalise_brightness(image_rgb, *, smoothing_px=0.0, levels=None):
    """
    Brightness on a scale that does not depend on stain and scanner.

    Green is the channel that haematoxylin and eosin both absorb; it is stretched so that the
    median tissue of the image becomes ``TISSUE`` and its glass (or whitest fat) ``GLASS``.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        smoothing_px (float): sigma of the Gaussian that is applied first; 0 for none.
        levels (tuple[float, float] or None): green of median tissue and of white, from
            :func:`measure_levels`, where the image is part of a larger one; None measures them.

    Returns:
        ndarray: uint8, shape (H, W).
    """
    green = np.ascontiguousarray(image_rgb[..., 1])
    if smoothing_px:
        green = cv2.GaussianBlur(green, (0, 0), smoothing_px)
    tissue_level, white_level = levels or measure_levels(green[::EVERY_PX, ::EVERY_PX])
    gain = (GLASS - TISSUE) / (white_level - tissue_level)
    table = TISSUE + gain * (np.arange(256) - tissue_level)
    return cv2.LUT(green, np.rint(table).clip(0, 255).astype(np.uint8))


def measure_levels(green):
    """
    What median tissue and white look like.

    Args:
        green (ndarray): uint8, a sample of an image's green channel, of any shape.

    Returns:
        tuple[float, float]: green of the median tissue, and of glass or the whitest fat.
    """
    white_level = max(float(np.percentile(green, 99.8)), _DARKEST_WHITE)
    tissue = green[green < 0.85 * white_level]
    tissue_level = float(np.median(tissue)) if tissue.size else 0.0
    if tissue.size < 0.02 * green.size:
        tissue_level = _PALEST_TISSUE * white_level
    return min(tissue_level, _PALEST_TISSUE * white_level), white_level


def level_of(fraction):
    """The brightness (int) at a fraction of the way from median tissue (0) to white (1)."""
    return round(TISSUE + fraction * (GLASS - TISSUE))


def open_bright(brightness, *, radius_px):
    """
    Remove bright spurs and bridges that a disk does not fit into.

    The opening is done on grey values, since the regions above any level are then what an
    opening of the regions above that level would give.

    Args:
        brightness (ndarray): uint8, shape (H, W).
        radius_px (int): of the disk.

    Returns:
        ndarray: uint8, shape (H, W).
    """
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
    return cv2.morphologyEx(brightness, cv2.MORPH_OPEN, disk)


def measure_saturation(image_rgb):
    """
    Distance of each pixel from grey: the largest minus the smallest of red, green and blue.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).

    Returns:
        ndarray: uint8, shape (H, W); 0 is grey, white or black.
    """
    red, green, blue = cv2.split(image_rgb)
    return cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)


def find_background(brightness, *, min_width_um, mpp):
    """
    Glass, tears and large vessels: white regions too wide to be a droplet, with all their arms.

    Args:
        brightness (ndarray): uint8, shape (H, W), from :func:`normalise_brightness`.
        min_width_um (float): a disk of this diameter must fit into background.
        mpp (float): pixel size in um/px.

    Returns:
        ndarray: bool, shape (h, w), on a grid of about 4 um a pixel that covers the image.
    """
    height, width = brightness.shape
    step_px = max(1.0, _BACKGROUND_PIXEL_UM / mpp)
    size = max(1, round(width / step_px)), max(1, round(height / step_px))
    coarse = cv2.resize(brightness, size, interpolation=cv2.INTER_AREA)
    white = (coarse > (TISSUE + 3 * GLASS) // 4).astype(np.uint8)
    # Beyond the border the glass goes on; a droplet cut by the border must not look wide there.
    depth = cv2.distanceTransform(
        cv2.copyMakeBorder(white, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 5
    )[1:-1, 1:-1]
    core = depth > min_width_um / (2 * step_px * mpp)
    _, regions = cv2.connectedComponents(white, connectivity=4)
    wide = np.unique(regions[core])
    return np.isin(regions, wide[wide != 0])
