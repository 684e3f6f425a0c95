"""Writing a slide as a tiled, pyramidal TIFF that OpenSlide and QuPath read."""

import math

import cv2
import numpy as np
import tifffile

from steatosis_d2.files import replace_when_done
from steatosis_d2.slides.pyramid import WHITE

PYRAMID_STEP = 4
_COARSEST_SIDE_PX = 1024


def write_pyramid(path, slide, *, tile_px=256, jpeg_quality=None):
    """
    Write a slide, whole or not at all, in memory of one row of its tiles.

    Args:
        path (str or Path): the TIFF to write.
        slide (Slide): what to write; each level is read from it, a quarter of the side of the
            one before.
        tile_px (int): side of the file's tiles; a multiple of 16.
        jpeg_quality (int or None): 1 to 100; None keeps every px as it is.
    """
    n_levels = 1
    while max(slide.width, slide.height) / PYRAMID_STEP**n_levels >= _COARSEST_SIDE_PX / 2:
        n_levels += 1
    resolution = None if slide.mpp is None else (1e4 / slide.mpp, 1e4 / slide.mpp)
    with (
        replace_when_done(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=True) as writer,
    ):
        for level in range(n_levels):
            downsample = PYRAMID_STEP**level
            height, width = (math.ceil(side / downsample) for side in (slide.height, slide.width))
            tiles = _read_tiles(slide, width, height, tile_px=tile_px, downsample=downsample)
            writer.write(
                tiles if jpeg_quality is None else _as_jpeg(tiles, jpeg_quality),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(tile_px, tile_px),
                subfiletype=int(level > 0),  # 1: a reduced version of another page
                resolution=resolution and tuple(value / downsample for value in resolution),
                resolutionunit=tifffile.RESUNIT.CENTIMETER,
                metadata=None,
                **(_LOSSLESS if jpeg_quality is None else _JPEG),
            )


_LOSSLESS = {
    "compression": "zlib",
    "compressionargs": {"level": 1},
    "photometric": "rgb",
    "maxworkers": 1,
}
_JPEG = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}


def _read_tiles(slide, width, height, *, tile_px, downsample):
    """Tiles of a level, row by row, those at its end filled up with white."""
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            region = slide.read_region(
                left * downsample,
                top * downsample,
                tile_px * downsample,
                tile_px * downsample,
                scale=1 / downsample,
            )
            region[height - top :] = WHITE
            region[:, width - left :] = WHITE
            yield region


def _as_jpeg(tiles_rgb, quality):
    for tile_rgb in tiles_rgb:
        bgr = cv2.cvtColor(tile_rgb, cv2.COLOR_RGB2BGR)
        yield cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
