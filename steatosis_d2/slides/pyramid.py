"""What every slide can do: give any window of itself at any scale, from a pyramid of levels."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from PIL import Image

WHITE = 255
# Side of what is held at once while a large window is shrunk: 16 MB a block.
_BLOCK_PX = 2048


@dataclass(frozen=True)
class Level:
    """
    One resolution of a slide's pyramid.

    Attributes:
        width (int): in px of this level.
        height (int): in px of this level.
        downsample (float): px of level 0 for each px of this level.
    """

    width: int
    height: int
    downsample: float


class Slide(ABC):
    """
    A picture of any size, read window by window; windows may be read from several threads.

    A slide is a context manager, and pickles. Coordinates are px of level 0, x to the right and y
    down from the top left. Where the scanner states the rectangle that it scanned, that rectangle
    is the slide, as in QuPath.

    Attributes:
        path (Path): of the file.
        mpp (float or None): um/px of level 0; None where it is unknown.
        mpp_source (str or None): where that comes from: ``given``, ``file``, ``nuclei``.
        levels (tuple[Level]): from the finest, which is level 0, to the coarsest.
    """

    def __init__(self, path, *, sizes, mpp):
        """
        Args:
            path (Path): of the file.
            sizes (list): (width, height) of each level in px, the finest first.
            mpp (float or None): um/px of level 0.
        """
        self.path = path
        self.mpp = mpp
        self.mpp_source = None if mpp is None else "given"
        self.width, self.height = sizes[0]
        self.levels = tuple(
            Level(width, height, (self.width / width + self.height / height) / 2)
            for width, height in sizes
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):  # noqa: B027  not every slide holds a file
        """Let go of the file; nothing can be read afterwards."""

    @abstractmethod
    def _read_level(self, level, left, top, width, height):
        """Pixels of a window that lies within level number ``level``, in px of that level."""

    def read_region(self, left, top, width, height, *, scale=1.0):
        """
        Pixels of a window, from the coarsest level that is fine enough for the scale.

        Args:
            left (int): column of the window's first px, any sign.
            top (int): row of the window's first px, any sign.
            width (int): in px of level 0, at least 1.
            height (int): in px of level 0, at least 1.
            scale (float): px of the result for each px of level 0; below 1 shrinks by averaging.

        Returns:
            ndarray: uint8, shape (round(height * scale), round(width * scale), 3), at least
            1 x 1, RGB; white outside the slide.

        Raises:
            InputError: the file is damaged in that window.
        """
        if width < 1 or height < 1 or scale <= 0:
            raise ValueError(
                f"window of {width} x {height} px at scale {scale}; expected at least 1 x 1 px "
                "and a scale above 0."
            )
        if scale == 1:
            return self._read_padded(0, left, top, width, height)
        shape = max(1, round(height * scale)), max(1, round(width * scale))
        return self._read_scaled(left, top, width, height, shape=shape)

    def choose_level(self, downsample):
        """
        The level that a shrunk window is read from.

        Args:
            downsample (float): px of level 0 for each px of the window.

        Returns:
            int: number of the coarsest level that need not be enlarged; 1% allows for rounded
            sizes.
        """
        fine_enough = [
            number
            for number, level in enumerate(self.levels)
            if level.downsample <= 1.01 * downsample
        ]
        return max(fine_enough, default=0)

    def thumbnail(self, max_side_px):
        """
        The whole slide, shrunk so that its longer side has at most ``max_side_px``.

        Args:
            max_side_px (int): at least 1; a smaller slide is not enlarged.

        Returns:
            ndarray: uint8, shape (h, w, 3), RGB.
        """
        scale = min(1.0, max_side_px / max(self.width, self.height))
        return self.read_region(0, 0, self.width, self.height, scale=scale)

    def _read_padded(self, level, left, top, width, height):
        """Pixels of a window in px of a level, white outside of it."""
        size = self.levels[level]
        x0, x1 = (min(max(x, 0), size.width) for x in (left, left + width))
        y0, y1 = (min(max(y, 0), size.height) for y in (top, top + height))
        if (x1 - x0, y1 - y0) == (width, height):
            return self._read_level(level, left, top, width, height)
        region = np.full((height, width, 3), WHITE, np.uint8)
        if x1 > x0 and y1 > y0:
            inside = self._read_level(level, x0, y0, x1 - x0, y1 - y0)
            region[y0 - top : y1 - top, x0 - left : x1 - left] = inside
        return region

    def _read_scaled(self, left, top, width, height, *, shape):
        """A window resized to a shape, block by block, so that memory does not grow with it."""
        level = self.choose_level(width / shape[1])
        columns = _Axis(left, width, shape[1], self.width, self.levels[level].width)
        rows = _Axis(top, height, shape[0], self.height, self.levels[level].height)
        scaled = np.empty((*shape, 3), np.uint8)
        for y0, y1 in rows.blocks():
            for x0, x1 in columns.blocks():
                first_x, last_x, box_left, box_right = columns.source(x0, x1)
                first_y, last_y, box_top, box_bottom = rows.source(y0, y1)
                patch = self._read_padded(
                    level, first_x, first_y, last_x - first_x, last_y - first_y
                )
                # BOX is the mean of the area that each px covers; Pillow, unlike OpenCV, takes
                # windows that begin between two px, as they do on coarse levels.
                shrinks = box_right - box_left >= x1 - x0
                scaled[y0:y1, x0:x1] = Image.fromarray(patch).resize(
                    (x1 - x0, y1 - y0),
                    Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR,
                    box=(box_left, box_top, box_right, box_bottom),
                )
        return scaled


@dataclass(frozen=True)
class _Axis:
    """One axis of a window that is resized: from level-0 px over level px to px of the result."""

    start: int
    length: int
    result_length: int
    slide_length: int
    level_length: int

    @property
    def level_px(self):
        """Px of the level for each px of the result."""
        return self.length / self.result_length * self.level_length / self.slide_length

    def blocks(self):
        """Ranges of the result whose sources fit the block."""
        step = max(1, int(_BLOCK_PX / self.level_px))
        for first in range(0, self.result_length, step):
            yield first, min(first + step, self.result_length)

    def source(self, first, last):
        """Px of the level to read for a range of the result, and the range's place in them."""
        offset = self.start * self.level_length / self.slide_length
        begin, end = offset + first * self.level_px, offset + last * self.level_px
        read_first, read_last = math.floor(begin), math.ceil(end)
        # One px more for the interpolation, but nothing of the white around the slide.
        read_first -= read_first > 0
        read_last += read_last < self.level_length
        end = min(end, read_last)  # rounding
        return read_first, read_last, begin - read_first, end - read_first
