"""Parts of a slide that get a row of their own: named regions, and pieces of tissue."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from scipy import ndimage

from steatosis_d2.slides.artefacts import INK
from steatosis_d2.slides.tissue import UM_PER_PX_OF_UNKNOWN, TissueMask

# Tissue on both sides of a crack of this width is one piece.
GAP_UM = 50.0
# Smaller shares of all tissue are crumbs.
SMALLEST_SHARE = 0.02


@dataclass(frozen=True, eq=False)
class SlidePart:
    """
    A part of a slide.

    Attributes:
        name (str): in tables and pictures.
        tissue (TissueMask): the part's.
        contains (callable): (x, y) in px of level 0, shape (n,) -> bool, shape (n,).
        place_xy (tuple[float, float]): where its name is written, in px of level 0.
    """

    name: str
    tissue: TissueMask
    contains: Callable
    place_xy: tuple[float, float]


def split_by_region(tissue, named_regions):
    """
    Parts that were drawn, which may overlap.

    Args:
        tissue (TissueMask): of all regions.
        named_regions (tuple[tuple[str, shapely.Geometry]]): in px of level 0.

    Returns:
        list[SlidePart]: in the same order.
    """
    return [
        SlidePart(
            name,
            tissue.within(geometry),
            _is_inside(geometry),
            (geometry.representative_point().x, geometry.representative_point().y),
        )
        for name, geometry in named_regions
    ]


def split_by_piece(tissue, *, mpp):
    """
    Pieces of tissue, numbered from left to right, or from top to bottom where they lie like that.

    Args:
        tissue (TissueMask): of the slide.
        mpp (float or None): um/px.

    Returns:
        list[SlidePart]: ``piece 1`` and so on; crumbs of less than 2% of all tissue are in none.
    """
    cell_um = tissue.cell_px * (mpp or UM_PER_PX_OF_UNKNOWN)
    reach = max(1, round(GAP_UM / 2 / cell_um))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    # A core is one piece, though its middle may be out of focus; a pen's line may join two.
    whole = tissue.with_artefacts & ~tissue.artefacts.get(INK, np.False_)
    joined = cv2.dilate(whole.astype(np.uint8), disk)
    _, pieces = cv2.connectedComponents(joined)
    pieces = np.where(whole, pieces, 0)
    areas = np.bincount(pieces.ravel())[1:]
    numbers = 1 + np.flatnonzero(areas >= SMALLEST_SHARE * areas.sum())
    if not len(numbers):
        return []
    # A droplet at the tissue's border may have its middle on glass: the nearest piece has it.
    nearest = ndimage.distance_transform_edt(
        pieces == 0, return_distances=False, return_indices=True
    )
    owners = pieces[tuple(nearest)]
    middles = np.array(ndimage.center_of_mass(pieces > 0, pieces, numbers))
    spread_y, spread_x = np.ptp(middles, axis=0)
    order = np.argsort(middles[:, 0 if spread_y > spread_x else 1], kind="stable")
    return [
        SlidePart(
            f"piece {place}",
            tissue.keep(owners == number),
            _is_owned(owners, number, tissue.cell_px),
            tuple((middles[index][::-1] + 0.5) * tissue.cell_px),
        )
        for place, (index, number) in enumerate(((i, numbers[i]) for i in order), 1)
    ]


def _is_inside(geometry):
    def contains(x_px, y_px):
        return shapely.contains_xy(geometry, x_px, y_px)

    return contains


def _is_owned(owners, number, cell_px):
    def contains(x_px, y_px):
        rows = np.clip(y_px // cell_px, 0, owners.shape[0] - 1).astype(int)
        columns = np.clip(x_px // cell_px, 0, owners.shape[1] - 1).astype(int)
        return owners[rows, columns] == number

    return contains
