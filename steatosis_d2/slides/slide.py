"""Opening whole slides and plain images, and what their files say of the pixel size."""

import functools
import logging
import math
import sys
import threading
from abc import abstractmethod
from pathlib import Path

import numpy as np
import openslide
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from steatosis_d2.data.images import (
    IMAGE_SUFFIXES,
    read_image_rgb,
    unreadable_as_input_error,
)
from steatosis_d2.data.ome_zarr import (
    OME_ZARR_SUFFIXES,
    count_missing_chunks,
    is_ome_zarr_folder,
    is_zip,
    list_zarr_pictures,
    open_ome_zarr,
)
from steatosis_d2.data.pictures import choose_picture
from steatosis_d2.data.pixel_size import check_mpp, decide_mpp, read_decimal, read_tiff_mpp_xy
from steatosis_d2.data.pixels import UnknownPixels, as_rgb8, count_bits
from steatosis_d2.data.tiff import (
    check_header,
    count_colour_bits,
    decode_pixels,
    is_left_to_pillow,
    is_tiff,
    list_pictures,
    read_pages,
)
from steatosis_d2.errors import InputError
from steatosis_d2.slides.pyramid import WHITE, Slide

logger = logging.getLogger(__name__)

# What a folder is searched for. A DICOM slide is a folder of files: name one of them instead.
SLIDE_SUFFIXES = (
    IMAGE_SUFFIXES
    | OME_ZARR_SUFFIXES
    | {".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".vmu", ".svslide"}
)
# Larger images are read tile by tile where their format allows it: 2^26 px are 200 MB.
_WHOLE_IMAGE_PX = 2**26
_LARGEST_SEGMENT_PX = 2**27
_CACHE_BYTES = 2**27
# 512 MB as OpenSlide decodes it. No scanner writes tiles of more than 4096 x 4096 px.
_MAX_TILE_PX = 2**27
# Of a large picture of 16 bits, so many pieces tell how many bits it uses.
_SAMPLED_SEGMENTS = 24
_DTYPES = (np.dtype(bool), np.dtype(np.uint8), np.dtype(np.uint16))
_OPENSLIDES_COLOURS = {PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR, PHOTOMETRIC.MINISBLACK}
_OPENSLIDES_CODECS = {
    COMPRESSION.JPEG,
    COMPRESSION.LZW,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
}
_EXPECTED = "SVS, NDPI, SCN, MRXS, DICOM, TIFF, OME-TIFF, OME-Zarr, PNG, JPEG, WebP or BMP"


def open_slide(path, *, mpp=None, page=None):
    """
    Open a whole slide or a plain image.

    OpenSlide reads SVS, NDPI, SCN, MRXS, DICOM and plain tiled TIFF; OME-TIFF, OME-Zarr, and large
    TIFF that OpenSlide does not know, are read piece by piece; other images are read whole, as
    :func:`steatosis_d2.data.images.read_image_rgb` says.

    The pixel size is the one that is given, else the one in the file: a scanner's, OME's, ImageJ's,
    or a TIFF resolution tag, if it lies in 0.05 to 5 um/px. A tag of 72 or 300 dots per inch is
    about printing and is not used. The pixel size is never guessed.

    Args:
        path (str or Path): the file; of an OME-Zarr the folder, or a zip of it.
        mpp (float or None): um/px of level 0, which wins over the one in the file.
        page (int or None): of a TIFF or an OME-Zarr that holds several pictures of like size,
            from 1.

    Returns:
        Slide: open for reading.

    Raises:
        InputError: the file is missing, damaged, no slide or image, holds several pictures of like
            size, or its px are not square; or the given pixel size is none.

    Examples:
        >>> with open_slide("CMU-1-Small-Region.svs") as slide:
        ...     print(slide.width, slide.height, slide.mpp)
        2220 2967 0.499
    """
    path = Path(path)
    if path.is_dir() and not is_ome_zarr_folder(path):
        raise InputError(f"slide '{path}' is a folder; expected a file, or an OME-Zarr.")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"slide '{path}' does not exist; check the path.")
    if mpp is not None:
        check_mpp(mpp, where=f"slide '{path}', as it is given,")
    slide = _open_file(path, page=page, is_mpp_given=mpp is not None)
    if isinstance(slide, _ZarrSlide):
        slide.warn_of_missing_chunks()
    slide.mpp = decide_mpp(path, slide.stated_mpp_xy, given=mpp)
    if slide.mpp is not None:
        slide.mpp_source = "file" if mpp is None else "given"
    return slide


def _open_file(path, *, page=None, is_mpp_given=False):
    with unreadable_as_input_error(path, kind="slide", expected=_EXPECTED):
        if path.is_dir() or is_zip(path):
            return _ZarrSlide(path, page=page)
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor not in {None, "generic-tiff"}:
            if page is not None:
                raise UnknownPixels("is a slide of one picture. Leave --page out.")
            return _ScannerSlide(path)
        if not is_tiff(path):
            return _ImageSlide(path, page=page, stated_mpp_xy=None)
        with tifffile.TiffFile(path) as tiff:
            picture = choose_picture(list_pictures(tiff), page=page)
            _check_is_not_cut(tiff)
            reader = _choose_reader(picture, is_openslides=vendor is not None and not tiff.is_ome)
            stated_mpp_xy = _read_stated_mpp(tiff, path, is_mpp_given=is_mpp_given)
        if reader is _ScannerSlide:
            slide = _ScannerSlide(path)
            slide.stated_mpp_xy = stated_mpp_xy  # in more units than OpenSlide knows
            return slide
        return reader(path, page=page, stated_mpp_xy=stated_mpp_xy)


def _choose_reader(picture, *, is_openslides):
    """
    The class that reads a picture of a TIFF.

    OpenSlide is fast, and knows plain 8-bit pictures; what must be turned or converted whole is.
    """
    n_pixels, page = picture.width * picture.height, picture.page
    _check_dtype(page.dtype)
    _check_pieces(*_segment_shape(page))
    must_be_whole = picture.orientation != 1 or is_left_to_pillow(page) or not picture.levels
    is_small = len(picture.levels) == 1 and not page.is_tiled and n_pixels <= _WHOLE_IMAGE_PX
    if must_be_whole and n_pixels > _WHOLE_IMAGE_PX:
        raise UnknownPixels(
            f"of {picture.width} x {picture.height} px would have to be read whole, since it is "
            "turned, in a stack, or neither grey nor RGB. Convert it to a tiled RGB TIFF."
        )
    if must_be_whole or is_small:
        return _ImageSlide
    is_plain = (
        picture.number == 1
        and page.dtype == np.uint8
        and page.bitspersample == 8
        and page.photometric in _OPENSLIDES_COLOURS
        and page.compression in _OPENSLIDES_CODECS
        and not page.extrasamples
    )
    return _ScannerSlide if is_openslides and is_plain else _TiffSlide


def _check_dtype(dtype):
    if dtype not in _DTYPES:
        raise UnknownPixels(
            f"holds {dtype} values; expected 8 or 16 bits a channel. Convert it to one of them."
        )


def _check_pieces(height, width):
    if height * width > _LARGEST_SEGMENT_PX:
        raise UnknownPixels(
            f"is stored in pieces of {width} x {height} px, each of which would have to be read "
            "whole. Convert it to a tiled TIFF, or copy it again if it is damaged."
        )


def _read_stated_mpp(tiff, path, *, is_mpp_given):
    """What the file says of its pixel size; a broken header matters if nobody else says it."""
    try:
        return read_tiff_mpp_xy(tiff, path)
    except ValueError:
        if not is_mpp_given:
            raise
        logger.warning("'%s' has a damaged header; the given pixel size is used.", path)
        return None


def _check_is_not_cut(tiff):
    """The directories of a TIFF are chained; those at the end are missing where it was cut."""
    if len(tiff.pages) == 0:
        raise ValueError("it ends before its list of images")
    if tiff.is_svs:  # and yet OpenSlide did not take it for one
        raise ValueError("it is an Aperio slide whose end is missing")


def _reopen(path, page, mpp):
    """The slide of a pickle; its pixel size was decided on when it was opened first."""
    slide = _open_file(path, page=page, is_mpp_given=True)
    slide.mpp = mpp
    return slide


class _FileSlide(Slide):
    """
    A slide in a file.

    ``stated_mpp_xy`` is what the file says of the pixel size, ``page`` which page was asked for.
    """

    def __init__(self, path, *, sizes, stated_mpp_xy, page=None):
        super().__init__(path, sizes=sizes, mpp=None)
        self.stated_mpp_xy = stated_mpp_xy
        self.page = page

    def __reduce__(self):
        return _reopen, (self.path, self.page, self.mpp)


class _ScannerSlide(_FileSlide):
    """What OpenSlide reads."""

    def __init__(self, path):
        with unreadable_as_input_error(path, kind="slide", expected=_EXPECTED):
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
        stated = [
            read_decimal(properties.get(name))
            for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
        ]
        super().__init__(path, sizes=sizes, stated_mpp_xy=tuple(stated))

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
            raise _damaged(self.path, error, level, left, top, width, height) from None
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


class _PieceSlide(_FileSlide):
    """What is stored in pieces, each of which is decoded as a whole, and kept for a while."""

    def __init__(self, path, *, piece_shapes, **settings):
        """
        Args:
            path (Path): of the file.
            piece_shapes (list): (height, width) of each level's pieces in px; those of the last
                row and column may reach beyond it.
            settings: as for :class:`_FileSlide`.
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
                    raise _damaged(self.path, error, level, left, top, width, height) from None
                y, x = row * piece_height - top, column * piece_width - left
                here = region[max(y, 0) : y + piece_height, max(x, 0) : x + piece_width]
                skip_y, skip_x = max(-y, 0), max(-x, 0)
                here[:] = piece[skip_y : skip_y + here.shape[0], skip_x : skip_x + here.shape[1]]
        return region


class _TiffSlide(_PieceSlide):
    """TIFF of tiles or strips that OpenSlide does not know, OME-TIFF above all."""

    def __init__(self, path, *, page, stated_mpp_xy):
        self._tiff = tifffile.TiffFile(path)
        picture = choose_picture(list_pictures(self._tiff), page=page)
        picture.check_whole()
        self._levels, self._n_colours = picture.levels, picture.n_colours
        self._n_bits = self._count_bits()
        self._file_lock = threading.Lock()
        keys = [pages[0].keyframe for pages in self._levels]
        super().__init__(
            path,
            sizes=[(key.imagewidth, key.imagelength) for key in keys],
            piece_shapes=[_segment_shape(key) for key in keys],
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
        if key.imagewidth * key.imagelength <= _WHOLE_IMAGE_PX:
            return count_colour_bits(read_pages(pages), key, n_colours=self._n_colours)
        numbers = np.linspace(0, len(key.dataoffsets) - 1, _SAMPLED_SEGMENTS).astype(int)
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
        number = row * math.ceil(key.imagewidth / _segment_shape(key)[1]) + column
        is_planar = key.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        step = len(key.dataoffsets) // (key.samplesperpixel if is_planar else 1)
        planes = [
            self._decode_stored(page, index)
            for page in pages
            for index in range(number, len(key.dataoffsets), step if is_planar else sys.maxsize)
        ]
        if any(plane is None for plane in planes):  # nothing was scanned there
            return np.full((*_segment_shape(key), 3), WHITE, np.uint8)
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


class _ZarrSlide(_PieceSlide):
    """OME-Zarr, in a folder or a zip file."""

    def __init__(self, path, *, page):
        self._group = open_ome_zarr(path)
        self._picture = choose_picture(list_zarr_pictures(self._group, path), page=page)
        levels = range(len(self._picture.levels))
        _check_dtype(self._picture.dtype)
        for level in levels:
            _check_pieces(*self._picture.chunk_shape(level))
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
        n_pieces = max(1, min(_SAMPLED_SEGMENTS, _WHOLE_IMAGE_PX // (height * width)))
        numbers = np.unique(np.linspace(0, n_rows * n_columns - 1, n_pieces).astype(int)).tolist()
        pieces = [self._read_stored(level, *divmod(number, n_columns)) for number in numbers]
        return count_bits(np.concatenate([piece.ravel() for piece in pieces]))

    def _read_stored(self, level, row, column):
        height, width = self._piece_shapes[level]
        rows = slice(row * height, (row + 1) * height)
        return self._picture.read(level, rows, slice(column * width, (column + 1) * width))

    def _decode_piece(self, level, row, column):
        return as_rgb8(self._read_stored(level, row, column), n_bits=self._n_bits)


class ArraySlide(Slide):
    """An image in memory, as a slide."""

    def __init__(self, image_rgb, *, mpp=None):
        """
        Args:
            image_rgb (ndarray): uint8, shape (H, W, 3), RGB.
            mpp (float or None): um/px.

        Raises:
            InputError: the array is of another shape or type, or the pixel size makes no sense.
        """
        path = Path("image array")
        if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
            raise InputError(
                f"the image is an array of shape {image_rgb.shape} and type {image_rgb.dtype}; "
                "expected (H, W, 3), uint8, in the order red, green, blue."
            )
        if mpp is not None:
            check_mpp(mpp, where="the image")
        height, width = image_rgb.shape[:2]
        super().__init__(path, sizes=[(width, height)], mpp=mpp)
        self._image_rgb = image_rgb

    def _read_level(self, level, left, top, width, height):
        return self._image_rgb[top : top + height, left : left + width].copy()


class _ImageSlide(_FileSlide):
    """A picture that is read whole."""

    def __init__(self, path, *, page, stated_mpp_xy):
        try:
            self._image_rgb = read_image_rgb(path, page=page)
        except InputError as error:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                raise
            raise InputError(f"'{path}' is no slide that OpenSlide knows; {error}") from None
        height, width = self._image_rgb.shape[:2]
        super().__init__(path, sizes=[(width, height)], stated_mpp_xy=stated_mpp_xy, page=page)

    def _read_level(self, level, left, top, width, height):
        return self._image_rgb[top : top + height, left : left + width].copy()


def _segment_shape(page):
    """Height and width in px of a TIFF's tiles, or else of its strips."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


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


def _damaged(path, error, level, left, top, width, height):
    return InputError(
        f"slide '{path}' cannot be read at x {left}, y {top} ({width} x {height} px of level "
        f"{level}): {error}. The file is damaged or cut short; copy it again."
    )
