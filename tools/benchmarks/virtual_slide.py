"""
Slides that are computed, not stored, and whose droplets are known exactly.

They are for tests, simulations and benchmarks: a slide of 10^10 px needs no disk space, and any
window of it can be made on its own. :class:`DiskSlide` is cheap, and :class:`ColorModel` finds its
disks without error; :class:`VirtualSlide` looks like liver.
"""

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from skimage import measure

from steatosis_d2.data.coco import DROPLET
from steatosis_d2.data.synthetic import DRAWABLE_MPP
from steatosis_d2.data.synthetic.droplets import MAX_OUTLINE, MAX_RADIUS_UM
from steatosis_d2.data.synthetic.noise import place_ids, uniform
from steatosis_d2.instances.instance import Instance
from steatosis_d2.slides.pyramid import WHITE, Slide

TISSUE_RGB = (200, 120, 170)
# A cell of the grid is one square, or four, each of which is one square or four, and so on.
CELL_PX = 416
SPLIT_CHANCES = (0.8, 0.75, 0.6, 0.4, 0.0)
# The first cells begin outside the slide, so that its left and upper border cut disks, too.
GRID_START_PX = -150
FULL_CHANCE, EMPTY_CHANCE = 0.5, 0.4
SMALLEST_SHARE = 0.4
# Colours of disks: three digits, near enough to white for a tissue mask.
DIGITS, DARKEST = 12, 232
_PYRAMID_STEP = 4
_COARSEST_SIDE_PX = 4096


class DiskSlide(Slide):
    """
    White disks of 10 to 416 px on pink, about 200 a megapixel.

    Each square of a hashed quadtree holds one disk or none. Disks that fill their squares touch
    their neighbours, in clumps of every size; none overlap. Each differs from all near it in
    colour, so that :class:`ColorModel` can tell those that touch apart.

    Examples:
        >>> slide = DiskSlide(100_000, 100_000, seed=1)
        >>> disks = slide.instances(left=50_000, top=50_000, right=51_000, bottom=51_000)
    """

    def __init__(self, width, height, *, seed=0, mpp=0.25, glass_px=0):
        """
        Args:
            width, height (int): in px.
            seed (int): which disks.
            mpp (float or None): um/px.
            glass_px (int): width of the margin of glass around the tissue.
        """
        self.seed = seed
        self.glass_px = glass_px
        super().__init__(
            Path(f"disks_{width}x{height}.virtual"), sizes=_level_sizes(width, height), mpp=mpp
        )

    def instances(self, left, top, right, bottom):
        """
        All disks with a px in a window, whole unless the slide's border cuts them.

        Args:
            left, top, right, bottom (int): the window, in px.

        Returns:
            list[Instance]: by row and column of their first px; the score is that of
            :class:`ColorModel`.
        """
        codes, y, x, radii = self._place_disks(left, top, right, bottom)
        found = []
        for k in range(len(codes)):
            rows, columns = (
                np.arange(max(0, math.floor(c - radii[k])), min(side, math.ceil(c + radii[k])))
                for c, side in ((y[k], self.height), (x[k], self.width))
            )
            disk = _draw_disk(rows + 0.5 - y[k], columns + 0.5 - x[k], radii[k])
            in_window = np.ix_(
                (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
            )
            if disk[in_window].any():
                found.append(_cut_out(disk, rows[0], columns[0], code=codes[k]))
        return sorted(found, key=lambda instance: (instance.top, instance.left))

    def _read_level(self, level, left, top, width, height):
        step = round(self.levels[level].downsample)
        region = np.full((height, width, 3), WHITE, np.uint8)
        rows, columns = (
            slice(
                max(0, self.glass_px // step - first),
                max(0, (side - self.glass_px) // step - first),
            )
            for first, side in ((top, self.height), (left, self.width))
        )
        region[rows, columns] = TISSUE_RGB
        codes, y, x, radii = self._place_disks(
            left * step, top * step, (left + width) * step, (top + height) * step
        )
        colors = _as_colors(codes)
        # px of the level, counted from the window's corner
        y, x, radii = y / step - top, x / step - left, radii / step
        first_row, first_column = (np.floor(c - radii).clip(0).astype(int) for c in (y, x))
        last_row, last_column = (np.ceil(c + radii).astype(int) for c in (y, x))
        for k in range(len(codes)):
            patch = region[first_row[k] : last_row[k], first_column[k] : last_column[k]]
            rows = first_row[k] + 0.5 - y[k] + np.arange(patch.shape[0])
            columns = first_column[k] + 0.5 - x[k] + np.arange(patch.shape[1])
            patch[_draw_disk(rows, columns, radii[k])] = colors[k]
        return region

    def _place_disks(self, left, top, right, bottom):
        """Code, y and x of the centre, and radius of the disks of all cells in a window."""
        first_row, first_column = ((c - GRID_START_PX) // CELL_PX for c in (top, left))
        last_row, last_column = ((c - 1 - GRID_START_PX) // CELL_PX for c in (bottom, right))
        row, column = (
            grid.ravel()
            for grid in np.mgrid[first_row : last_row + 1, first_column : last_column + 1]
        )
        if self.glass_px:
            is_tissue = [
                (GRID_START_PX + CELL_PX * cell >= self.glass_px)
                & (GRID_START_PX + CELL_PX * (cell + 1) <= side - self.glass_px)
                for cell, side in ((row, self.height), (column, self.width))
            ]
            row, column = (cell[is_tissue[0] & is_tissue[1]] for cell in (row, column))
        disks = []
        for depth, split_chance in enumerate(SPLIT_CHANCES):
            ids = place_ids(self.seed, f"square {depth}", row, column)
            is_split = uniform(ids, "split") < split_chance
            is_leaf = ~is_split & (uniform(ids, "empty") >= EMPTY_CHANCE)
            disks.append(_fill_squares(ids[is_leaf], row[is_leaf], column[is_leaf], depth))
            row = (2 * row[is_split, None] + [0, 0, 1, 1]).ravel()
            column = (2 * column[is_split, None] + [0, 1, 0, 1]).ravel()
        codes, y, x, radii = (np.concatenate(parts) for parts in zip(*disks, strict=True))
        is_visible = (
            (y + radii > top) & (y - radii < bottom) & (x + radii > left) & (x - radii < right)
        )
        return codes[is_visible], y[is_visible], x[is_visible], radii[is_visible]


class ColorModel:
    """
    Finds the disks of a :class:`DiskSlide` by their colours: the model of a perfect network.

    It sees no more than the picture, and gives the same score for whatever part of a disk it
    sees, so that any engine must give the same disks for any tiles.
    """

    batch_size = 1
    category = DROPLET

    def __call__(self, images_rgb, *, mpp):
        """
        Args:
            images_rgb (list[ndarray]): uint8, shape (H, W, 3).
            mpp (float or None): not used.

        Returns:
            list[list[Instance]]: of each image, the most confident first.
        """
        return [self._find_disks(image_rgb) for image_rgb in images_rgb]

    def describe(self):
        """What it is, for reports."""
        return {"kind": "color stand-in", "category": self.category}

    def _find_disks(self, image_rgb):
        is_disk = cv2.inRange(image_rgb, (DARKEST,) * 3, (DARKEST + DIGITS - 1,) * 3)
        _, clumps, boxes, _ = cv2.connectedComponentsWithStats(is_disk)
        found = []
        for clump, (left, top, width, height, _) in enumerate(boxes[1:], 1):
            window = np.s_[top : top + height, left : left + width]
            digits = image_rgb[window].astype(np.int64) - DARKEST
            codes = np.where(clumps[window] == clump, digits @ [DIGITS**2, DIGITS, 1], -1)
            labels = measure.label(codes, background=-1, connectivity=2)
            for label, box in enumerate(ndimage.find_objects(labels), 1):
                crop = labels[box] == label
                code = codes[box][crop][0]
                found.append(_cut_out(crop, top + box[0].start, left + box[1].start, code=code))
        return sorted(found, key=lambda instance: -instance.score)


class VirtualSlide(Slide):
    """A rectangle of an endless synthetic liver, its upper left corner at the liver's origin."""

    def __init__(self, liver, width, height):
        """
        Args:
            liver (SyntheticLiver): the tissue.
            width, height (int): in px.
        """
        self.liver = liver
        coarsest = DRAWABLE_MPP[1] / liver.mpp
        super().__init__(
            Path(f"liver_{width}x{height}.virtual"),
            sizes=[
                size
                for depth, size in enumerate(_level_sizes(width, height))
                if _PYRAMID_STEP**depth <= coarsest
            ],
            mpp=liver.mpp,
        )

    def instances(self, left, top, right, bottom):
        """
        All droplets with a px in a window, whole unless the slide's border cuts them.

        Args:
            left, top, right, bottom (int): the window, in px.

        Returns:
            list[Instance]: by row and column of their first px; the score is 1.
        """
        margin = math.ceil(2 * MAX_OUTLINE * MAX_RADIUS_UM / self.mpp)
        first_row, first_column = max(0, top - margin), max(0, left - margin)
        labels = self.liver.render(
            top=first_row,
            left=first_column,
            height=min(self.height, bottom + margin) - first_row,
            width=min(self.width, right + margin) - first_column,
        ).labels
        in_window = np.unique(
            labels[top - first_row : bottom - first_row, left - first_column : right - first_column]
        )
        boxes = ndimage.find_objects(labels)
        found = [
            Instance(
                labels[boxes[label - 1]] == label,
                top=first_row + boxes[label - 1][0].start,
                left=first_column + boxes[label - 1][1].start,
                score=1.0,
            )
            for label in in_window[in_window > 0]
        ]
        return sorted(found, key=lambda instance: (instance.top, instance.left))

    def _read_level(self, level, left, top, width, height):
        step = _PYRAMID_STEP**level
        liver = dataclasses.replace(self.liver, mpp=self.liver.mpp * step)
        return liver.render(top=top, left=left, height=height, width=width).image_rgb


def _level_sizes(width, height):
    sizes = [(width, height)]
    while max(sizes[-1]) > _COARSEST_SIDE_PX:
        sizes.append(tuple(math.ceil(side / _PYRAMID_STEP) for side in sizes[-1]))
    return sizes


def _fill_squares(ids, row, column, depth):
    """Code, y and x of the centre, and radius of one disk in each square of a depth."""
    in_a_cell = 2**depth
    side = CELL_PX / in_a_cell
    is_full = uniform(ids, "full") < FULL_CHANCE
    share = SMALLEST_SHARE + (1 - SMALLEST_SHARE) * uniform(ids, "share")
    radii = side / 2 * np.where(is_full, 1, share)
    free = side - 2 * radii
    y = GRID_START_PX + side * row + radii + free * uniform(ids, "y")
    x = GRID_START_PX + side * column + radii + free * uniform(ids, "x")
    # No two squares of a cell, and no two cells that touch, have the same number.
    earlier = (4**depth - 1) // 3
    square = earlier + (row % in_a_cell) * in_a_cell + column % in_a_cell
    cell = 2 * (row // in_a_cell % 2) + column // in_a_cell % 2
    squares_in_a_cell = (4 ** len(SPLIT_CHANCES) - 1) // 3
    return squares_in_a_cell * cell + square, y, x, radii


def _as_colors(codes):
    digits = codes[:, None] // [DIGITS**2, DIGITS, 1] % DIGITS
    return (DARKEST + digits).astype(np.uint8)


def _draw_disk(rows, columns, radius):
    """Px whose centre lies in a disk; their rows and columns count from its centre."""
    return (rows * rows)[:, None] + columns * columns <= radius * radius


def _cut_out(mask, top, left, *, code):
    """An instance of a mask, without its empty rows and columns; its score tells its code."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    score = 0.5 + 0.5 * float(code) / DIGITS**3
    return Instance(crop, top=int(top + rows[0]), left=int(left + columns[0]), score=score)
