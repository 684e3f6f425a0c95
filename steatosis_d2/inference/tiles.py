"""Cutting a slide into overlapping windows that a model can take."""

import math
from dataclasses import dataclass

import numpy as np

# Two tiles must see the same strip of a droplet to tell that it is one.
MIN_OVERLAP_PX = 16
# Glass is not looked at, but for this much around the tissue; and sizes of windows are rounded, so
# that few different ones occur.
GLASS_MARGIN_PX, ROUNDING_PX = 32, 64


@dataclass(frozen=True)
class Tile:
    """
    A window of a slide, in px of level 0, from the first row and column to below the last ones.

    Attributes:
        index (int): place in its plan.
        left, top, right, bottom (int): the window.
    """

    index: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self):
        """In px of level 0."""
        return self.right - self.left

    @property
    def height(self):
        """In px of level 0."""
        return self.bottom - self.top

    @property
    def box_xyxy(self):
        """Left, top, right and bottom."""
        return self.left, self.top, self.right, self.bottom


def plan_tiles(width, height, *, tile_px, overlap_px, tissue=None):
    """
    Windows that cover a slide, row by row.

    They are of one size, no larger than it takes that many to cover it, and spread evenly: none is
    a sliver at the slide's end, and nothing is looked at more often than the overlap asks for.
    Then each is narrowed to the tissue in it, which halves the work on a needle biopsy.

    Args:
        width, height (int): of the slide, in px of level 0.
        tile_px (int): longest side of a window; a slide that is smaller is one window.
        overlap_px (int): least that neighbours share, in px.
        tissue (TissueMask or None): windows without tissue are left out.

    Returns:
        list[Tile]: in the order of reading: from the left to the right, then the next row.

    Raises:
        ValueError: the overlap is less than 16 px or more than half a tile.

    Examples:
        >>> [tile.left for tile in plan_tiles(2000, 512, tile_px=1024, overlap_px=128)]
        [0, 624, 1248]
    """
    if not MIN_OVERLAP_PX <= overlap_px <= tile_px // 2:
        raise ValueError(
            f"tiles of {tile_px} px overlap by {overlap_px} px; expected {MIN_OVERLAP_PX} px to "
            "half a tile."
        )
    columns = _divide(width, tile_px, overlap_px)
    windows = [
        (left, top, right, bottom)
        for top, bottom in _divide(height, tile_px, overlap_px)
        for left, right in columns
    ]
    if tissue is not None:
        # What is one window stays whole: it is what Detectron2's DefaultPredictor sees, too.
        is_whole = len(windows) == 1
        bounds = ((window, tissue.bounds_in(*window)) for window in windows)
        windows = [
            window if is_whole else _narrow(window, box)
            for window, box in bounds
            if box is not None
        ]
    return [Tile(index, *window) for index, window in enumerate(windows)]


def _narrow(window, tissue_box):
    """The part of a window that holds a box and some glass around it."""
    left, top, right, bottom = tissue_box
    lower = (
        max(edge, (side - GLASS_MARGIN_PX) // ROUNDING_PX * ROUNDING_PX)
        for edge, side in zip(window[:2], (left, top), strict=True)
    )
    upper = (
        min(edge, -(-(side + GLASS_MARGIN_PX) // ROUNDING_PX) * ROUNDING_PX)
        for edge, side in zip(window[2:], (right, bottom), strict=True)
    )
    return (*lower, *upper)


def _divide(length, tile_px, overlap_px):
    """First px of each window along one axis, and the px after its last."""
    if length <= tile_px:
        return [(0, length)]
    count = math.ceil((length - overlap_px) / (tile_px - overlap_px))
    side = math.ceil((length - overlap_px) / count) + overlap_px
    starts = np.linspace(0, length - side, count).round().astype(int).tolist()
    return [(start, start + side) for start in starts]
