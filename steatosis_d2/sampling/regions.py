"""Squares of tissue on slides, from which regions are chosen."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from steatosis_d2.errors import InputError

# Of a region, the share that must be tissue. Glass and torn edges teach little.
MIN_TISSUE = 0.5


@dataclass(frozen=True)
class Region:
    """
    A square of a slide.

    Attributes:
        file_name (str): of the slide.
        case (str): that the slide is of.
        left, top (int): first column and row, in px of level 0.
        side_px (int): in px of level 0.
        tissue_share (float): in 0..1.
    """

    file_name: str
    case: str
    left: int
    top: int
    side_px: int
    tissue_share: float


def list_regions(slide, tissue, *, size_um, file_name, case):
    """
    The squares of a grid that are mostly tissue.

    Args:
        slide (Slide): open.
        tissue (TissueMask): of the slide.
        size_um (float): side of a square.
        file_name, case (str): as :class:`Region` has them.

    Returns:
        list[Region]: from the top left on, row by row; they do not overlap. A slide that is
        smaller than a square has none.

    Raises:
        InputError: the pixel size is not known.
    """
    if slide.mpp is None:
        raise InputError(
            f"'{slide.path}' states no pixel size, and regions are so many um wide. Pass it, e.g. "
            "--mpp 0.25."
        )
    side_px = round(size_um / slide.mpp)
    columns, rows = slide.width // side_px, slide.height // side_px
    # The grid lies in the middle: what is left over is shared by both ends.
    first_x, first_y = (slide.width - columns * side_px) // 2, (slide.height - rows * side_px) // 2
    sums = cv2.integral(tissue.mask.astype(np.uint8))
    regions = []
    for row in range(rows):
        for column in range(columns):
            left, top = first_x + column * side_px, first_y + row * side_px
            share = _share_of_tissue(sums, tissue.cell_px, left, top, side_px)
            if share >= MIN_TISSUE:
                regions.append(Region(file_name, case, left, top, side_px, round(share, 4)))
    return regions


def spread_over_cases(regions, number, rng):
    """
    Some regions by chance, as many of each case as there are to be had.

    Args:
        regions (list[Region]): of all slides.
        number (int): how many are wanted.
        rng (numpy.random.Generator): what chance is.

    Returns:
        list[Region]: ``number``, or all if there are fewer.
    """
    of_case: dict[str, list[Region]] = {}
    for region in regions:
        of_case.setdefault(region.case, []).append(region)
    shuffled = [
        [of_case[case][i] for i in rng.permutation(len(of_case[case]))] for case in sorted(of_case)
    ]
    rounds = max(map(len, shuffled), default=0)
    dealt = [own[i] for i in range(rounds) for own in shuffled if i < len(own)]
    return dealt[:number]


def _share_of_tissue(sums, cell_px, left, top, side_px):
    """Share of the cells that a square meets; ``sums`` is the integral of their mask."""
    x0, y0 = left // cell_px, top // cell_px
    x1, y1 = math.ceil((left + side_px) / cell_px), math.ceil((top + side_px) / cell_px)
    inside = int(sums[y1, x1]) - int(sums[y0, x1]) - int(sums[y1, x0]) + int(sums[y0, x0])
    return inside / ((x1 - x0) * (y1 - y0))
