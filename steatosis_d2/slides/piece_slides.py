"""Slides that are stored in pieces, read without OpenSlide: OME-TIFF, other TIFF, OME-Zarr."""

import functools
import logging
import math
import sys
import threading
from abc import abstractmethod

import numpy as np
import tifffile

from steatosis_d2.data.ome_zarr import count_missing_chunks, list_zarr_pictures, open_ome_zarr
from steatosis_d2.data.pictures import choose_picture
from steatosis_d2.data.pixels import UnknownPixels, as_rgb8, count_bits
from steatosis_d2.data.tiff import count_colour_bits, decode_pixels, list_pictures, read_pages
from steatosis_d2.slides.file_slide import FileSlide, damaged_error
from steatosis_d2.slides.pyramid import WHITE

logger = logging.getLogger(__name__)

# Larger images are read tile by tile where their format allows it: 2^26 px are 200 MB.
WHOLE_IMAGE_PX = 2**26
_LARGEST_PIECE_PX = 2**27
_CACHE_BYTES = 2**27
# Of a large picture of 16 bits, so many pieces tell how many bits it uses.
_SAMPLED_PIECES = 24
_DTYPES = (np.dtype(bool), np.dtype(np.uint8), np.dtype(np.uint16))


class PieceSlide(FileSlide):
    """What is stored in pieces, each of which is decoded as a whole, and kept for a while."""

    def __init__(self, path, *, piece_shapes, **settings):
        """
        Args:
            path (Path): of the file.
            piece_shapes (list): (height, width) of each level's pieces in px; those of the last
                row and column may reach beyond it.
            settings: as for :class:`FileSlide`.
        """
        super().__init__(path, **settings)
        self._piece_shapes = piece_shapes
        largest = max(3 * math.prod(shape) for shape in piece_shapes)
        self._read_piece = functools.lru_cache(maxsize=max(1, _CACHE_BYTES // largest))(
            self._decode_piece
        )

    @abstractmethod
    def _decode_piece(self, level, row, column):
        """A piece as uint8, RGB, shape (h, w, 3); what is raised depends on the damage."""

    def _read_level(self, level, left, top, width, height):
        piece_height, piece_width = self._piece_shapes[level]
        region = np.empty((height, width, 3), np.uint8)
        for row in range(top // piece_height, (top + height - 1) // piece_height + 1):
            for column in range(left // piece_width, (left + width - 1) // piece_width + 1):
                try:
                    piece = self._read_piece(level, row, column)
                except Exception as error:  # zlib.error, struct.error, ...: codecs differ
                    raise damaged_error(self.path, error, level, left, top, width, height) from None
                y, x = row * piece_height - top, column * piece_width - left
                here = region[max(y, 0) : y + piece_height, max(x, 0) : x + piece_width]
                skip_y, skip_x = max(-y, 0), max(-x, 0)
                here[:] = piece[skip_y : skip_y + here.shape[0], skip_x : skip_x + here.shape[1]]
        return region


class TiffSlide(PieceSlide):
    """TIFF of tiles or strips that OpenSlide does not know, OME-TIFF above all."""

    def __init__(self, path, *, page=None, stated_mpp_xy=None):
        self._tiff = tifffile.TiffFile(path)
        check_is_not_cut(self._tiff)
        picture = choose_picture(list_pictures(self._tiff), page=page)
        picture.check_whole()
        self._levels, self._n_colours = picture.levels, picture.n_colours
        self._n_bits = self._count_bits()
        self._file_lock = threading.Lock()
        keys = [pages[0].keyframe for pages in self._levels]
        super().__init__(
            path,
            sizes=[(key.imagewidth, key.imagelength) for key in keys],
            piece_shapes=[segment_shape(key) for key in keys],
            stated_mpp_xy=stated_mpp_xy,
            page=page,
        )

    def close(self):
        self._tiff.close()

    def _count_bits(self):
        """As the smallest level tells, or parts of it from everywhere if that is large, too."""
        pages = self._levels[-1]
        key = pages[0].keyframe
        if key.dtype != np.uint16:
            return 8
        if key.imagewidth * key.imagelength <= WHOLE_IMAGE_PX:
            return count_colour_bits(read_pages(pages), key, n_colours=self._n_colours)
        numbers = np.linspace(0, len(key.dataoffsets) - 1, _SAMPLED_PIECES).astype(int)
        return max(
            count_colour_bits(pixels, key, n_colours=self._n_colours)
            for page in pages
            for number in np.unique(numbers).tolist()
            if (pixels := self._decode_stored(page, number)) is not None
        )

    def _decode_piece(self, level, row, column):
        """One tile or strip; of planes kept apart, all three."""
        pages = self._levels[level]
        key = pages[0].keyframe
        number = row * math.ceil(key.imagewidth / segment_shape(key)[1]) + column
        is_planar = key.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        step = len(key.dataoffsets) // (key.samplesperpixel if is_planar else 1)
        planes = [
            self._decode_stored(page, index)
            for page in pages
            for index in range(number, len(key.dataoffsets), step if is_planar else sys.maxsize)
        ]
        if any(plane is None for plane in planes):  # nothing was scanned there
            return np.full((*segment_shape(key), 3), WHITE, np.uint8)
        pixels = np.concatenate(planes, axis=-1)
        return decode_pixels(pixels, key, n_bits=self._n_bits, n_colours=self._n_colours)

    def _decode_stored(self, page, index):
        """One tile or strip as stored, shape (h, w, samples); None where the file has none."""
        key = page.keyframe
        with self._file_lock:
            self._tiff.filehandle.seek(page.dataoffsets[index])
            data = self._tiff.filehandle.read(page.databytecounts[index])
        if len(data) < page.databytecounts[index]:
            raise ValueError("the file ends within it")
        pixels, _, _ = key.decode(
            data or None, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
        )
        return None if pixels is None else pixels[0]


class ZarrSlide(PieceSlide):
    """OME-Zarr, in a folder or a zip file."""

    def __init__(self, path, *, page=None):
        self._group = open_ome_zarr(path)
        self._picture = choose_picture(list_zarr_pictures(self._group, path), page=page)
        levels = range(len(self._picture.levels))
        check_dtype(self._picture.dtype)
        for level in levels:
            check_pieces(*self._picture.chunk_shape(level))
        super().__init__(
            path,
            sizes=[self._picture.shape(level)[::-1] for level in levels],
            piece_shapes=[self._picture.piece_shape(level) for level in levels],
            stated_mpp_xy=self._picture.stated_mpp_xy,
            page=page,
        )
        self._n_bits = self._count_bits()

    def close(self):
        self._group.store.close()

    def warn_of_missing_chunks(self):
        """Say how many there are: they may be empty and left out, or lost when it was copied."""
        n_missing, n_chunks = count_missing_chunks(self._picture, self.path)
        if n_missing:
            logger.warning(
                "'%s': %d of %d chunks are not there and are taken as %s, as the format says. If "
                "it was copied, copy it again.",
                self.path,
                n_missing,
                n_chunks,
                self._picture.levels[0].fill_value,
            )

    def _count_bits(self):
        """As the smallest level tells, or pieces of it from everywhere if that is large."""
        if self._picture.dtype != np.uint16:
            return 8
        level = len(self._picture.levels) - 1
        shape = self._picture.shape(level)
        height, width = self._piece_shapes[level]
        n_rows, n_columns = -(-shape[0] // height), -(-shape[1] // width)
        n_pieces = max(1, min(_SAMPLED_PIECES, WHOLE_IMAGE_PX // (height * width)))
        numbers = np.unique(np.linspace(0, n_rows * n_columns - 1, n_pieces).astype(int)).tolist()
        pieces = [self._read_stored(level, *divmod(number, n_columns)) for number in numbers]
        return count_bits(np.concatenate([piece.ravel() for piece in pieces]))

    def _read_stored(self, level, row, column):
        height, width = self._piece_shapes[level]
        rows = slice(row * height, (row + 1) * height)
        return self._picture.read(level, rows, slice(column * width, (column + 1) * width))

    def _decode_piece(self, level, row, column):
        return as_rgb8(self._read_stored(level, row, column), n_bits=self._n_bits)


def segment_shape(page):
    """Height and width in px of a TIFF's tiles, or else of its strips."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def check_dtype(dtype):
    """Refuse values (numpy.dtype) of other kinds than 8 or 16 bits: UnknownPixels."""
    if dtype not in _DTYPES:
        raise UnknownPixels(
            f"holds {dtype} values; expected 8 or 16 bits a channel. Convert it to one of them."
        )


def check_pieces(height, width):
    """Refuse pieces, in px, that are too large to be decoded as a whole: UnknownPixels."""
    if height * width > _LARGEST_PIECE_PX:
        raise UnknownPixels(
            f"is stored in pieces of {width} x {height} px, each of which would have to be read "
            "whole. Convert it to a tiled TIFF, or copy it again if it is damaged."
        )


def check_is_not_cut(tiff):
    """The directories of a TIFF are chained; those at the end are missing where it was cut."""
    if len(tiff.pages) == 0:
        raise ValueError("it ends before its list of images")
    if tiff.is_svs:  # and yet OpenSlide did not take it for one
        raise ValueError("it is an Aperio slide whose end is missing")
