"""
What cannot be measured on a slide: ink, folds, bubbles, and tissue that is out of focus.

Ink, folds and bubbles are seen in a thumbnail, by their colour. Focus needs more detail.
"""

import cv2
import numpy as np
from scipy import ndimage
from skimage import measure, morphology

INK, FOLDS, BUBBLES, OUT_OF_FOCUS = ARTEFACTS = ("ink", "folds", "bubbles", "out of focus")

# Focus is judged at this pixel size: finer, and noise hides the blur of thick edges.
FOCUS_MPP = 1.0
FOCUS_BLOCK_UM = 100.0
# Under a Gaussian blur of 1.5 um the starter finds 83% of the fat area that it finds in focus, at 2
# um 64%, at 3 um 38% (tools/benchmark.py --only focus). Of Torino's tiles no block is above 1.2.
MAX_BLUR_UM = 1.6
# Grey levels per um. The steepest twentieth of a block in focus has 20 or more, if it is tissue.
_FAINT = 3.0
# Less is one colour, without the noise of a camera, as in a drawing.
_FLAT = 0.1
_STEEP_SHARE, _STEEPEST_SHARE = 0.05, 0.02
_MIN_STAINED_SHARE = 0.25
_BLOCKS_PER_WINDOW = 8
_REBLUR_PX = 1.0
_SCHARR_GAIN = 32.0

_FOLD_SMOOTHING_UM = 4.0
# Of bubbles: chosen on drawn ones, and so that none is found on Torino's and Guo's tiles.
_MIN_BUBBLE_UM = 40.0
_MIN_SOLIDITY = 0.85
# Of a bubble's area; a blot of dark ink has no inside.
_MIN_INSIDE_SHARE = 0.3


def find_ink(density):
    """
    Cells whose colour is not that of hematoxylin and eosin.

    Both dyes absorb green the most (Ruifrok and Johnston, Anal Quant Cytol Histol 2001, table of
    stain vectors), blood included. Blue and green ink absorb red more, red ink blue as much, and
    black ink all three alike.

    Args:
        density (ndarray): optical density of red, green and blue, shape (h, w, 3).

    Returns:
        ndarray: bool, shape (h, w).
    """
    red, green, blue = np.moveaxis(density, -1, 0)
    blue_or_green = (red > 0.2) & (red > 1.2 * green)
    red_ink = (green > 0.4) & (blue > 0.9 * green) & (red < 0.5 * green)
    black = (density.min(axis=-1) > 0.6) & (np.ptp(density, axis=-1) < 0.25)
    return blue_or_green | red_ink | black


def find_folds(density, stained, *, cell_um):
    """
    Cells about twice as dense as the tissue usually is, in all channels: two layers.

    Args:
        density (ndarray): optical density of red, green and blue, shape (h, w, 3).
        stained (ndarray): bool, shape (h, w), what is no glass.
        cell_um (float): side of a cell, in um.

    Returns:
        ndarray: bool, shape (h, w).
    """
    if not stained.any():
        return stained
    usual = np.median(density[stained], axis=0)
    # Layers have sinusoids and droplets, whose gaps are none of the fold.
    density = cv2.GaussianBlur(density, (0, 0), _FOLD_SMOOTHING_UM / cell_um)
    return (density > 1.8 * usual).all(axis=-1) & (density.max(axis=-1) > 0.3)


def find_bubbles(density, *, cell_um):
    """
    Bubbles of air under the cover slip: round, with a rim that is grey, as no dye is.

    Args:
        density (ndarray): optical density of red, green and blue, shape (h, w, 3).
        cell_um (float): side of a cell, in um.

    Returns:
        ndarray: bool, shape (h, w), rims and what they enclose.
    """
    densest = density.max(axis=-1)
    rim = (density.min(axis=-1) > 0.2) & (np.ptp(density, axis=-1) < 0.2 * densest)
    bubbles = np.zeros_like(rim)
    if not rim.any():
        return bubbles
    closed = ndimage.binary_closing(np.pad(rim, 2), morphology.disk(2))[2:-2, 2:-2]
    for piece in measure.regionprops(measure.label(closed)):
        if (
            piece.equivalent_diameter_area * cell_um >= _MIN_BUBBLE_UM / 2
            and piece.area_filled * cell_um**2 >= np.pi / 4 * _MIN_BUBBLE_UM**2
            and 1 - piece.area / piece.area_filled >= _MIN_INSIDE_SHARE
            and piece.area_filled / piece.area_convex >= _MIN_SOLIDITY
        ):
            bubbles[piece.slice] |= piece.image_filled
    return bubbles


def find_blur(slide, stained, *, cell_px, um_per_px):
    """
    Blocks of about 100 um that are out of focus, of those that show stained tissue.

    The standard deviation of the blur is estimated at the steepest edges of each block: the more
    they lose by another, known blur, the sharper they were (Zhuo and Sim, Defocus map estimation
    from a single image, Pattern Recognition 2011, section 3).

    Args:
        slide (Slide): open.
        stained (ndarray): bool, shape (h, w), a cell each: tissue but for white.
        cell_px (int): side of a cell, in px of level 0.
        um_per_px (float): the slide's pixel size.

    Returns:
        ndarray: bool, shape (h, w), whole blocks. None is where pixels are too large to show blur.
    """
    blurred = np.zeros_like(stained)
    if um_per_px > FOCUS_MPP:
        return blurred
    block = FOCUS_BLOCK_UM / (cell_px * um_per_px)
    row_edges, column_edges = (_split_evenly(length, block) for length in stained.shape)
    for first_row in range(0, len(row_edges) - 1, _BLOCKS_PER_WINDOW):
        for first_column in range(0, len(column_edges) - 1, _BLOCKS_PER_WINDOW):
            rows = row_edges[first_row : first_row + _BLOCKS_PER_WINDOW + 1]
            columns = column_edges[first_column : first_column + _BLOCKS_PER_WINDOW + 1]
            if stained[rows[0] : rows[-1], columns[0] : columns[-1]].any():
                _judge_window(slide, stained, blurred, rows, columns, cell_px, um_per_px)
    return blurred


def _split_evenly(length, part):
    """Edges of parts of a length, each about as long as ``part``: whole numbers from 0 on."""
    n_parts = max(1, round(length / part))
    return np.linspace(0, length, n_parts + 1).round().astype(int)


def _judge_window(slide, stained, blurred, rows, columns, cell_px, um_per_px):
    """Mark the blurred blocks between the given edges, in cells; they are read together."""
    scale = um_per_px / FOCUS_MPP
    left, top = int(columns[0] * cell_px), int(rows[0] * cell_px)
    right = min(slide.width, int(columns[-1] * cell_px))
    bottom = min(slide.height, int(rows[-1] * cell_px))
    window_rgb = slide.read_region(left, top, right - left, bottom - top, scale=scale)
    grey = cv2.cvtColor(window_rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    slopes = _measure_slope(grey)
    slopes_reblurred = _measure_slope(cv2.GaussianBlur(grey, (0, 0), _REBLUR_PX))
    row_px, column_px = (
        np.round((edges - edges[0]) * cell_px * scale).astype(int) for edges in (rows, columns)
    )
    for i in range(len(rows) - 1):
        for j in range(len(columns) - 1):
            cells = slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1])
            pixels = slice(*row_px[i : i + 2]), slice(*column_px[j : j + 2])
            blurred[cells] = stained[cells].mean() >= _MIN_STAINED_SHARE and _is_blurred(
                slopes[pixels], slopes_reblurred[pixels]
            )


def _measure_slope(grey):
    """Steepness of the grey levels, per px."""
    return np.hypot(*(cv2.Scharr(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))) / (
        _SCHARR_GAIN
    )


def _is_blurred(slopes, slopes_reblurred):
    """Whether a block's edges are faint or wide."""
    is_edge = slopes > _FLAT * FOCUS_MPP
    if not is_edge.any() or is_edge.mean() < _STEEP_SHARE:
        return False
    slopes, slopes_reblurred = slopes[is_edge], slopes_reblurred[is_edge]
    steep, steepest = np.quantile(slopes, (1 - _STEEP_SHARE, 1 - _STEEPEST_SHARE))
    if steepest < _FAINT * FOCUS_MPP:
        return True
    is_steep = slopes >= max(steep, _FAINT * FOCUS_MPP)
    loss = np.median(slopes[is_steep] / np.maximum(slopes_reblurred[is_steep], 1e-6))
    blur_px = _REBLUR_PX / np.sqrt(max(loss**2 - 1, 1e-6))
    return blur_px * FOCUS_MPP > MAX_BLUR_UM
