"""
Where a slide is tissue, seen in a thumbnail.

Fat is as white as glass. What tells them apart here is width: white that a disk of
``LUMEN_UM`` fits into is glass, and narrower white with tissue around it is fat, a sinusoid, a
small vessel or a tear, and counts as tissue. So do the nooks of the tissue's outline.
"""

import dataclasses
import math
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from skimage import morphology

from steatosis_d2.data.microscopy import is_dark_field
from steatosis_d2.errors import InputError

# The widest droplets outlined by an expert on 345 tiles are 65 um wide; central veins are up to
# 150 um. The lumina of larger vessels are no tissue.
LUMEN_UM = 150.0
CELL_UM = 4.0
MAX_CELLS = 2048
SMALLEST_PIECE_UM = 40.0
INK_UM = 40.0
# The mean optical density of 12 um cells of expert-annotated tiles has two peaks, glass at 0.02
# and tissue at 0.3, and few cells between 0.06 and 0.12.
GLASS_OD = 0.08
# Between 20x and 40x. It decides only how coarse the mask of a slide without pixel size is.
UM_PER_PX_OF_UNKNOWN = 1 / 3


@dataclass(frozen=True, eq=False)
class TissueMask:
    """
    Cells of a slide that hold tissue.

    Attributes:
        mask (ndarray): bool, shape (h, w), a cell each.
        cell_px (int): side of a cell in px of level 0; those of the last row and column reach
            beyond the slide.
        width (int): of the slide, in px of level 0.
        height (int): of the slide, in px of level 0.
    """

    mask: np.ndarray
    cell_px: int
    width: int
    height: int

    @property
    def area_px(self):
        """Area of the tissue, in px of level 0."""
        rows = np.minimum(self.cell_px, self.height - self.cell_px * np.arange(self.mask.shape[0]))
        columns = np.minimum(
            self.cell_px, self.width - self.cell_px * np.arange(self.mask.shape[1])
        )
        return int(rows @ self.mask.astype(np.int64) @ columns)

    def overlaps(self, left, top, right, bottom):
        """
        Whether a window holds any tissue.

        Args:
            left, top (int): first column and row, in px of level 0, any sign.
            right, bottom (int): the column and row after the last.

        Returns:
            bool: True if any cell of tissue shares a px with it.
        """
        return self.bounds_in(left, top, right, bottom) is not None

    def bounds_in(self, left, top, right, bottom):
        """
        The box of the cells of tissue that share a px with a window.

        Args:
            left, top, right, bottom (int): the window, as for :meth:`overlaps`.

        Returns:
            tuple[int, int, int, int] or None: left, top, right, bottom in px of level 0; it may
            reach out of the window by a part of a cell. None without tissue.
        """
        cell = self.cell_px
        first_row, first_column = max(top, 0) // cell, max(left, 0) // cell
        cells = self.mask[
            first_row : max(0, -(-bottom // cell)), first_column : max(0, -(-right // cell))
        ]
        rows, columns = (np.flatnonzero(cells.any(axis=axis)).tolist() for axis in (1, 0))
        if not rows:
            return None
        return (
            cell * (first_column + columns[0]),
            cell * (first_row + rows[0]),
            cell * (first_column + columns[-1] + 1),
            cell * (first_row + rows[-1] + 1),
        )

    def restrict_to(self, geometry):
        """
        The tissue within regions of interest.

        Args:
            geometry (shapely.Geometry): polygons in px of level 0.

        Returns:
            TissueMask: without the cells whose centre lies outside of them.

        Raises:
            InputError: the regions miss the slide.
        """
        left, top, right, bottom = geometry.bounds
        if right <= 0 or bottom <= 0 or left >= self.width or top >= self.height:
            raise InputError(
                f"the regions of interest lie at x {left:g} to {right:g}, y {top:g} to "
                f"{bottom:g} px, outside the slide of {self.width} x {self.height} px; expected "
                "px of the full resolution, as QuPath exports them."
            )
        return self.within(geometry)

    def within(self, geometry):
        """The tissue (TissueMask) in a geometry, which may miss the slide; by cells' centres."""
        shapely.prepare(geometry)
        rows, columns = np.nonzero(self.mask)
        inside = shapely.contains_xy(
            geometry, (columns + 0.5) * self.cell_px, (rows + 0.5) * self.cell_px
        )
        restricted = np.zeros_like(self.mask)
        restricted[rows[inside], columns[inside]] = True
        return dataclasses.replace(self, mask=restricted)


def find_tissue(slide):
    """
    Tissue of a slide, without glass, pen marks and folds.

    Args:
        slide (Slide): of any size, a tile too.

    Returns:
        TissueMask: cells of about 4 um, or of 1/2048 of the longer side if that is more. All of
        a picture of fluorescence counts as tissue.
    """
    um_per_px = slide.mpp or UM_PER_PX_OF_UNKNOWN
    longer_side = max(slide.width, slide.height)
    cell_px = max(1, round(CELL_UM / um_per_px), math.ceil(longer_side / MAX_CELLS))
    mask = _classify(_read_cells(slide, cell_px), cell_um=cell_px * um_per_px)
    return TissueMask(mask=mask, cell_px=cell_px, width=slide.width, height=slide.height)


def _read_cells(slide, cell_px):
    """Mean colour of each cell; those that reach beyond the slide count what lies within it."""
    strips = [
        [
            slide.read_region(left, top, width, height, scale=1 / cell_px)
            for left, width in _whole_and_rest(slide.width, cell_px)
        ]
        for top, height in _whole_and_rest(slide.height, cell_px)
    ]
    return np.concatenate([np.concatenate(strip, axis=1) for strip in strips])


def _whole_and_rest(length, cell_px):
    """(start, length) of the part that cells divide without rest, and of the rest."""
    whole = length // cell_px * cell_px
    return [part for part in ((0, whole), (whole, length - whole)) if part[1]]


def _classify(cells_rgb, *, cell_um):
    """Tissue or not, for each cell; a dark field has neither glass nor ink: all of it counts."""
    if is_dark_field(cells_rgb):
        return np.ones(cells_rgb.shape[:2], bool)
    density = _optical_density(cells_rgb)
    stained = density.max(axis=-1) > GLASS_OD
    unwanted = _find_ink(density) | _find_folds(density, stained)
    unwanted = _open(unwanted, radius=INK_UM / 2 / cell_um)
    unwanted = morphology.dilation(unwanted, morphology.disk(2))  # the frayed, blurred border
    glass = _open(~stained | unwanted, radius=LUMEN_UM / 2 / cell_um)
    return _drop_small_pieces(~glass & ~unwanted, diameter=SMALLEST_PIECE_UM / cell_um)


def _optical_density(cells_rgb):
    """Density of each channel against that of the slide's own glass, float32, (h, w, 3)."""
    darkest, brightest = cells_rgb.min(axis=-1), cells_rgb.max(axis=-1)
    glass = cells_rgb[(darkest >= 190) & (brightest - darkest <= 30)]
    white_rgb = np.median(glass, axis=0) if len(glass) else np.full(3, 240.0)
    density = np.log10(white_rgb.astype(np.float32) / np.maximum(cells_rgb, 1))
    return density.clip(0, out=density)


def _find_ink(density):
    """
    Cells whose colour is not that of hematoxylin and eosin.

    Both dyes absorb green the most (Ruifrok and Johnston, Anal Quant Cytol Histol 2001, table of
    stain vectors), blood included. Blue and green ink absorb red more, red ink blue as much, and
    black ink all three alike.
    """
    red, green, blue = np.moveaxis(density, -1, 0)
    blue_or_green = (red > 0.2) & (red > 1.2 * green)
    red_ink = (green > 0.4) & (blue > 0.9 * green) & (red < 0.5 * green)
    black = (density.min(axis=-1) > 0.6) & (np.ptp(density, axis=-1) < 0.25)
    return blue_or_green | red_ink | black


def _find_folds(density, stained):
    """Cells about twice as dense as the tissue usually is, in all channels: two layers."""
    if not stained.any():
        return stained
    usual = np.median(density[stained], axis=0)
    return (density > 1.8 * usual).all(axis=-1) & (density.max(axis=-1) > 0.3)


def _open(mask, *, radius):
    """Opening with a disk, radius in cells: what is covered by such disks that fit the mask."""
    mirrored, inside = _mirror(mask, 2 * math.ceil(radius) + 1)
    return ~_is_farther(~_is_farther(mirrored, radius), radius)[inside]


def _is_farther(mask, radius):
    """Cells farther than a radius from the nearest cell outside the mask."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance > radius


def _drop_small_pieces(mask, *, diameter):
    """The mask without pieces smaller than a disk, diameter in cells: dust."""
    mirrored, inside = _mirror(mask, math.ceil(diameter))
    area = math.pi / 4 * diameter**2
    # scikit-image's remove_small_objects names this limit in 0.26 as no release before it does.
    _, pieces, figures, _ = cv2.connectedComponentsWithStats(mirrored.astype(np.uint8))
    is_kept = figures[:, cv2.CC_STAT_AREA] > area
    is_kept[0] = False  # the background
    return is_kept[pieces][inside]


def _mirror(mask, margin):
    """
    The mask with its mirror image around it, and where in the result it lies.

    So a droplet that the border cuts looks no wider than it is, and a piece of tissue no smaller.
    """
    return np.pad(mask, margin, mode="symmetric"), (slice(margin, -margin),) * 2
