"""Slides that OpenSlide reads."""

import numpy as np
import openslide
import tifffile

from steatosis_d2.data.pixel_size import read_decimal
from steatosis_d2.data.tiff import check_header
from steatosis_d2.errors import InputError
from steatosis_d2.slides.file_slide import (
    FileSlide,
    damaged_error,
    unreadable_slide_as_input_error,
)
from steatosis_d2.slides.pyramid import WHITE

# 512 MB as OpenSlide decodes it. No scanner writes tiles of more than 4096 x 4096 px.
_MAX_TILE_PX = 2**27


class ScannerSlide(FileSlide):
    """What OpenSlide reads."""

    def __init__(self, path, *, page=None):
        with unreadable_slide_as_input_error(path):
            self._slide = openslide.OpenSlide(path)
        properties = self._slide.properties
        self._refuse_huge_tiles(path)
        self._background_rgb = _parse_rgb(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR))
        # MRXS and SCN declare a canvas of which the scanner saw a part; QuPath shows that part.
        full_width, full_height = self._slide.dimensions
        self._left, self._top, width, height = (
            int(properties.get(f"openslide.bounds-{name}", default))
            for name, default in zip(
                ("x", "y", "width", "height"), (0, 0, full_width, full_height), strict=True
            )
        )
        sizes = [
            (
                max(1, level_width * width // full_width),
                max(1, level_height * height // full_height),
            )
            for level_width, level_height in self._slide.level_dimensions
        ]
        names = openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y
        stated_mpp_xy = tuple(read_decimal(properties.get(name)) for name in names)
        super().__init__(path, sizes=sizes, stated_mpp_xy=stated_mpp_xy, page=page)

    def _refuse_huge_tiles(self, path):
        """OpenSlide ends the process where it gets no memory for a tile."""
        for width, height in [*self._list_tile_sizes(), *_list_tiff_tile_sizes(path)]:
            if width * height > _MAX_TILE_PX:
                raise InputError(
                    f"slide '{path}' states tiles of {width} x {height} px; expected "
                    f"{_MAX_TILE_PX / 1e6:.0f} megapixels at most. Its header is damaged. Export "
                    "or copy it again."
                )

    def _list_tile_sizes(self):
        """Width and height of a level's tiles, where OpenSlide tells it."""
        properties = self._slide.properties
        for level in range(self._slide.level_count):
            width, height = (
                properties.get(f"openslide.level[{level}].tile-{side}")
                for side in ("width", "height")
            )
            if width and height:
                yield int(width), int(height)

    def close(self):
        self._slide.close()

    def _read_level(self, level, left, top, width, height):
        downsample = self._slide.level_downsamples[level]
        corner = (
            self._left + round(left * downsample),
            self._top + round(top * downsample),
        )
        try:
            rgba = np.asarray(self._slide.read_region(corner, level, (width, height)))
        except openslide.OpenSlideError as error:
            raise damaged_error(self.path, error, level, left, top, width, height) from None
        return _fill_transparent(rgba, self._background_rgb)


def _list_tiff_tile_sizes(path):
    """Width and height of a TIFF's tiles, which OpenSlide does not tell of every scanner."""
    try:
        with tifffile.TiffFile(path) as tiff:
            check_header(tiff)
            pages: list = list(tiff.pages)  # or frames, of which the type knows no tiles
            return [(page.tilewidth, page.tilelength) for page in pages]
    except Exception:  # no TIFF, or one that only OpenSlide understands
        return []


def _fill_transparent(rgba, background_rgb):
    """Blend what the scanner did not see with the background."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == WHITE:
        return np.ascontiguousarray(rgb)
    share = alpha.astype(np.float32) / 255
    return np.rint(rgb * share + np.float32(background_rgb) * (1 - share)).astype(np.uint8)


def _parse_rgb(text):
    """Red, green and blue of a colour such as ``FFFFFF``; white without one."""
    return tuple(bytes.fromhex(text or "FFFFFF"))
