"""The pixel size of an image that does not state it, estimated from its nuclei when asked for."""

import logging

import cv2
import numpy as np

from steatosis_d2.data.brightness import level_of, normalise_brightness
from steatosis_d2.errors import InputError
from steatosis_d2.labeling.contour import trace_regions
from steatosis_d2.slides.slide import open_slide
from steatosis_d2.slides.tissue import find_tissue

logger = logging.getLogger(__name__)

ESTIMATE = "estimate"  # in place of a pixel size
# What most scanners have at 40x and 20x; taken where the nuclei fit it within a factor of 1.3.
_USUAL_MPP = (0.25, 0.5)
_USUAL_FACTOR = 1.3

# Of hepatocyte nuclei as they appear in sections, measured on the Torino tiles (20x) and on those
# of Guo et al. 2019 (40x), whose medians are 6.6 and 6.4 um.
_NUCLEUS_DIAMETER_UM = 6.5
_NUCLEUS_LEVEL = -0.25
_MIN_NUCLEI = 5
_MIN_AREA_PX = 40
_MIN_SOLIDITY = 0.9
_MIN_AXIS_RATIO = 0.65

# Windows of a slide that are looked at, and the thumbnail on which the darkest are chosen.
_WINDOW_PX = 1024
_MAX_WINDOWS = 9
_THUMBNAIL_PX = 1024


def open_with_pixel_size(path, *, mpp, page=None):
    """
    Open a slide or an image whose pixel size may have to be estimated.

    Args:
        path (str or Path): the file.
        mpp (float, "estimate" or None): as for :func:`~steatosis_d2.slides.slide.open_slide`;
            ``"estimate"`` takes the size from the nuclei if the file does not state it, and says
            so in the log.
        page (int or None): as for ``open_slide``.

    Returns:
        Slide: open; its ``mpp_source`` tells where the pixel size comes from. Glass without tissue
        has nothing to measure: its size stays unknown, and that is no error.

    Raises:
        InputError: as ``open_slide``; or there is tissue with too few nuclei to tell.
    """
    if mpp != ESTIMATE:
        return open_slide(path, mpp=mpp, page=page)
    slide = open_slide(path, page=page)
    if slide.mpp is not None:
        return slide
    slide.mpp, n_nuclei = estimate_slide_mpp(slide)
    if slide.mpp is None and not find_tissue(slide).mask.any():
        return slide
    if slide.mpp is None:
        slide.close()
        raise InputError(
            f"'{path}' states no pixel size, and with {n_nuclei} nuclei it cannot be estimated; "
            f"expected {_MIN_NUCLEI} or more. Pass it, e.g. --mpp 0.25."
        )
    slide.mpp_source = "nuclei"
    logger.warning(
        "'%s': %g um/px are an estimate, from the size of %d nuclei, good to a fifth or so. Pass "
        "--mpp if you know better.",
        path,
        slide.mpp,
        n_nuclei,
    )
    return slide


def estimate_slide_mpp(slide):
    """
    Estimate a slide's pixel size from windows of its darkest parts.

    Args:
        slide (Slide): open.

    Returns:
        tuple[float or None, int]: um/px, as :func:`estimate_mpp`; the number of nuclei.
    """
    diameters = [measure_nuclei(slide.read_region(*window)) for window in _choose_windows(slide)]
    return estimate_mpp(np.concatenate(diameters))


def estimate_mpp(diameter_px):
    """
    The pixel size at which nuclei have the size that hepatocytes' nuclei have.

    Args:
        diameter_px (ndarray): of nuclei, from :func:`measure_nuclei`.

    Returns:
        tuple[float or None, int]: um/px, None where there are too few; the number of nuclei.

    Examples:
        >>> estimate_mpp(np.full(20, 12.0))
        (0.5, 20)
        >>> estimate_mpp(np.full(20, 18.0))
        (0.36, 20)
    """
    if len(diameter_px) < _MIN_NUCLEI:
        return None, len(diameter_px)
    # Large round ones count most: fragments and lymphocytes are smaller than hepatocyte nuclei.
    typical_px = np.sqrt(np.sum(diameter_px**4) / np.sum(diameter_px**2))
    mpp = _NUCLEUS_DIAMETER_UM / typical_px
    nearest = min(_USUAL_MPP, key=lambda usual: disagreement(mpp, usual))
    if disagreement(mpp, nearest) <= _USUAL_FACTOR:
        mpp = nearest
    return float(f"{mpp:.2g}"), len(diameter_px)


def disagreement(mpp, other):
    """Factor, at least 1, between two pixel sizes."""
    return max(mpp / other, other / mpp)


def _choose_windows(slide):
    """Left, top, width, height of the windows that hold most tissue, in px of level 0."""
    thumbnail = slide.thumbnail(_THUMBNAIL_PX).mean(axis=2)
    n_rows, n_columns = (-(-side // _WINDOW_PX) for side in (slide.height, slide.width))
    cells = cv2.resize(thumbnail, (n_columns, n_rows), interpolation=cv2.INTER_AREA)
    for cell in np.argsort(cells, axis=None, kind="stable")[:_MAX_WINDOWS].tolist():
        top, left = (_WINDOW_PX * number for number in divmod(cell, n_columns))
        yield left, top, min(_WINDOW_PX, slide.width - left), min(_WINDOW_PX, slide.height - top)


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
