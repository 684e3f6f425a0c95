"""
Where a slide is tissue, seen in a thumbnail.

Fat is as white as glass. What tells them apart here is width: white that a disk of
``LUMEN_UM`` fits into is glass, and narrower white with tissue around it is fat, a sinusoid, a
small vessel or a tear, and counts as tissue. So do the nooks of the tissue's outline.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import shapely
from skimage import morphology

from steatosis_d2.data.microscopy import is_dark_field
from steatosis_d2.errors import InputError
from steatosis_d2.slides.artefacts import (
    BUBBLES,
    FOLDS,
    INK,
    OUT_OF_FOCUS,
    find_blur,
    find_bubbles,
    find_folds,
    find_ink,
)

# The widest droplets outlined by an expert on 345 tiles are 65 um wide; central veins are up to
# 150 um. The lumina of larger vessels are no tissue.
LUMEN_UM = 150.0
CELL_UM = 4.0
MAX_CELLS = 2048
SMALLEST_PIECE_UM = 40.0
MARK_UM = 40.0
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
        artefacts (dict): name of a kind, from :mod:`~.artefacts` -> its cells (ndarray, as the
            mask); a cell is of one kind at most. They are in the mask, too, unless left out.
    """

    mask: np.ndarray
    cell_px: int
    width: int
    height: int
    artefacts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def area_px(self):
        """Area of the tissue, in px of level 0."""
        return self._measure(self.mask)

    @property
    def with_artefacts(self):
        """Tissue and artefacts (ndarray), as the mask."""
        return np.any([self.mask, *self.artefacts.values()], axis=0)

    def artefact_percents(self):
        """Kind of artefact -> its share of tissue and artefacts in percent; None without any."""
        whole_px = self._measure(self.with_artefacts)
        return {
            kind: 100 * self._measure(cells) / whole_px if whole_px else None
            for kind, cells in self.artefacts.items()
        }

    def measures(self, kind):
        """Whether tissue with a kind of artefact counts all the same."""
        return bool((self.mask & self.artefacts[kind]).any())

    def _measure(self, cells):
        rows = np.minimum(self.cell_px, self.height - self.cell_px * np.arange(cells.shape[0]))
        columns = np.minimum(self.cell_px, self.width - self.cell_px * np.arange(cells.shape[1]))
        return int(rows @ cells.astype(np.int64) @ columns)

    def leaves_out(self, x, y):
        """Whether an artefact that is not measured lies at a point, in px of level 0."""
        row = min(max(int(y) // self.cell_px, 0), self.mask.shape[0] - 1)
        column = min(max(int(x) // self.cell_px, 0), self.mask.shape[1] - 1)
        is_artefact = any(cells[row, column] for cells in self.artefacts.values())
        return is_artefact and not self.mask[row, column]

    def keep(self, cells):
        """The tissue (TissueMask) and its artefacts within some cells (ndarray, as the mask)."""
        artefacts = {kind: found & cells for kind, found in self.artefacts.items()}
        return dataclasses.replace(self, mask=self.mask & cells, artefacts=artefacts)

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
        rows, columns = np.nonzero(self.with_artefacts)
        inside = shapely.contains_xy(
            geometry, (columns + 0.5) * self.cell_px, (rows + 0.5) * self.cell_px
        )
        within = np.zeros_like(self.mask)
        within[rows[inside], columns[inside]] = True
        return self.keep(within)


def find_tissue(slide, *, leave_out_artefacts=True):
    """
    Tissue of a slide, without glass.

    Args:
        slide (Slide): of any size, a tile too.
        leave_out_artefacts (bool): folds, bubbles and what is out of focus are no tissue. Ink is
            none in any case: what lies under it cannot be seen.

    Returns:
        TissueMask: cells of about 4 um, or of 1/2048 of the longer side if that is more. All of
        a picture of fluorescence counts as tissue.
    """
    um_per_px = slide.mpp or UM_PER_PX_OF_UNKNOWN
    longer_side = max(slide.width, slide.height)
    cell_px = max(1, round(CELL_UM / um_per_px), math.ceil(longer_side / MAX_CELLS))
    cells_rgb = _read_cells(slide, cell_px)
    if is_dark_field(cells_rgb):  # has neither glass nor ink
        return TissueMask(np.ones(cells_rgb.shape[:2], bool), cell_px, slide.width, slide.height)
    density = _optical_density(cells_rgb)
    stained = density.max(axis=-1) > GLASS_OD
    tissue, artefacts = _classify(density, stained, cell_um=cell_px * um_per_px)
    blurred = find_blur(slide, tissue & stained, cell_px=cell_px, um_per_px=um_per_px)
    artefacts[OUT_OF_FOCUS] = blurred & tissue
    if leave_out_artefacts:
        tissue &= ~artefacts[OUT_OF_FOCUS]
    else:
        tissue |= artefacts[FOLDS] | artefacts[BUBBLES]
    return TissueMask(tissue, cell_px, slide.width, slide.height, artefacts)


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


def _classify(density, stained, *, cell_um):
    """Tissue, and kind of artefact -> its cells on tissue that are not of an earlier kind."""
    seen = {
        INK: find_ink(density),
        FOLDS: find_folds(density, stained, cell_um=cell_um),
        BUBBLES: find_bubbles(density, cell_um=cell_um),
    }
    lumen = {"radius": LUMEN_UM / 2 / cell_um}
    white = _open(~stained, **lumen)
    artefacts = {}
    unwanted = np.zeros_like(stained)
    for kind, cells in seen.items():
        cells = _open(cells, radius=MARK_UM / 2 / cell_um)
        cells = morphology.dilation(cells, morphology.disk(2))  # the frayed, blurred border
        artefacts[kind] = cells & ~unwanted & ~white
        unwanted |= cells
    glass = _open(~stained | unwanted, **lumen) if unwanted.any() else white
    tissue = _drop_small_pieces(~glass & ~unwanted, diameter=SMALLEST_PIECE_UM / cell_um)
    return tissue, artefacts


def _optical_density(cells_rgb):
    """Density of each channel against that of the slide's own glass, float32, (h, w, 3)."""
    darkest, brightest = cells_rgb.min(axis=-1), cells_rgb.max(axis=-1)
    glass = cells_rgb[(darkest >= 190) & (brightest - darkest <= 30)]
    white_rgb = np.median(glass, axis=0) if len(glass) else np.full(3, 240.0)
    density = np.log10(white_rgb.astype(np.float32) / np.maximum(cells_rgb, 1))
    return density.clip(0, out=density)


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
