"""Opening whole slides and plain images, and what their files say of the pixel size."""

import functools
import logging
import math
import threading
from pathlib import Path

import numpy as np
import openslide
import tifffile

from steatosis_d2.data.images import (
    IMAGE_SUFFIXES,
    convert_to_rgb8,
    count_bits,
    read_image_rgb,
    unreadable_as_input_error,
)
from steatosis_d2.errors import InputError
from steatosis_d2.slides.pyramid import WHITE, Slide

logger = logging.getLogger(__name__)

# What a folder is searched for. A DICOM slide is a folder of files: name one of them instead.
SLIDE_SUFFIXES = IMAGE_SUFFIXES | {
    ".svs",
    ".ndpi",
    ".scn",
    ".mrxs",
    ".bif",
    ".vms",
    ".vmu",
    ".svslide",
}
# What a microscope gives, from an oil immersion lens to a 2x overview. Printing resolutions lie
# far outside: 72 dots per inch are 353 um/px, 2400 are 11.
MPP_RANGE = (0.05, 5.0)
SQUARE_TOLERANCE = 0.02
MPP_DISAGREEMENT = 0.1
# Larger images are read tile by tile where their format allows it: 2^26 px are 200 MB.
_WHOLE_IMAGE_PX = 2**26
_CACHE_BYTES = 2**27
_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16))
_EXPECTED = "SVS, NDPI, SCN, MRXS, DICOM, TIFF, OME-TIFF, PNG, JPEG, WebP or BMP"


def open_slide(path, *, mpp=None):
    """
    Open a whole slide or a plain image.

    OpenSlide reads SVS, NDPI, SCN, MRXS, DICOM and tiled TIFF of 8 bits; OME-TIFF, TIFF of 16
    bits, and large TIFF that OpenSlide does not know, are read tile by tile; other images are read
    whole. Where 16 bits hold only 12, as from most cameras, those 12 are scaled to 8.

    The pixel size is the one that is given, else the one in the file: a scanner's, OME's
    PhysicalSize, ImageJ's, or a TIFF resolution tag, if it lies in 0.05 to 5 um/px. A tag of 72
    or 300 dots per inch is about printing and is not used. The pixel size is never guessed.

    Args:
        path (str or Path): the file.
        mpp (float or None): um/px of level 0, which wins over the one in the file.

    Returns:
        Slide: open for reading.

    Raises:
        InputError: the file is missing, damaged, no slide or image, or its px are not square.

    Examples:
        >>> with open_slide("CMU-1-Small-Region.svs") as slide:
        ...     print(slide.width, slide.height, slide.mpp)
        2220 2967 0.499
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"slide '{path}' is a folder; expected a file.")
    if not path.is_file():
        raise InputError(f"slide '{path}' does not exist; check the path.")
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise InputError(f"slide '{path}': the given mpp is {mpp}; expected um/px above 0.")
    slide = _open_file(path)
    slide.mpp = _decide_mpp(path, slide.stated_mpp_xy, given=mpp)
    if slide.mpp is not None:
        slide.mpp_source = "file" if mpp is None else "given"
    return slide


def _open_file(path):
    with unreadable_as_input_error(path, kind="slide", expected=_EXPECTED):
        vendor = openslide.OpenSlide.detect_format(path)
    if vendor not in {None, "generic-tiff"}:
        return _ScannerSlide(path)
    if not _is_tiff(path):
        return _ImageSlide(path, stated_mpp_xy=None)
    with (
        unreadable_as_input_error(path, kind="slide", expected=_EXPECTED),
        tifffile.TiffFile(path) as tiff,
    ):
        _check_is_not_cut(tiff)
        page = tiff.pages.first
        n_pixels, has_8_bits = page.imagewidth * page.imagelength, page.dtype == np.uint8
        is_ome, stated_mpp_xy = tiff.is_ome, _tiff_mpp_xy(tiff)
    # OpenSlide takes an OME-TIFF for a plain one, without its pyramid and its pixel size, and
    # the 12 bits of a camera for the first of 16.
    if vendor is not None and not is_ome and has_8_bits:
        return _ScannerSlide(path)
    if vendor is not None or is_ome or n_pixels > _WHOLE_IMAGE_PX:
        return _TiffSlide(path, stated_mpp_xy=stated_mpp_xy)
    return _ImageSlide(path, stated_mpp_xy=stated_mpp_xy)


def _check_is_not_cut(tiff):
    """The directories of a TIFF are chained; those at the end are missing where it was cut."""
    if len(tiff.pages) == 0:
        raise ValueError("it ends before its list of images")
    if tiff.is_svs:  # and yet OpenSlide did not take it for one
        raise ValueError("it is an Aperio slide whose end is missing")


def _reopen(path, mpp):
    """The slide of a pickle; its pixel size was decided on when it was opened first."""
    slide = _open_file(path)
    slide.mpp = mpp
    return slide


def _is_tiff(path):
    with path.open("rb") as file:
        magic = file.read(4)
    return magic in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


class _FileSlide(Slide):
    """A slide in a file; ``stated_mpp_xy`` is what the file says of the pixel size, if anything."""

    def __init__(self, path, *, sizes, stated_mpp_xy):
        super().__init__(path, sizes=sizes, mpp=None)
        self.stated_mpp_xy = stated_mpp_xy

    def __reduce__(self):
        return _reopen, (self.path, self.mpp)


class _ScannerSlide(_FileSlide):
    """What OpenSlide reads."""

    def __init__(self, path):
        with unreadable_as_input_error(path, kind="slide", expected=_EXPECTED):
            self._slide = openslide.OpenSlide(path)
        properties = self._slide.properties
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
            float(properties.get(name, "nan"))
            for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
        ]
        super().__init__(path, sizes=sizes, stated_mpp_xy=tuple(stated))

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


class _TiffSlide(_FileSlide):
    """TIFF of tiles or strips that OpenSlide does not know, OME-TIFF above all."""

    def __init__(self, path, *, stated_mpp_xy):
        with unreadable_as_input_error(path, kind="slide", expected=_EXPECTED):
            self._tiff = tifffile.TiffFile(path)
            levels = self._tiff.series[0].levels
        for level in levels:
            _check_is_one_rgb_plane(path, level)
        with unreadable_as_input_error(path, kind="slide", expected=_EXPECTED):
            self._n_bits = _count_bits_of_level(levels[-1])
        self._pages = [level.keyframe for level in levels]
        self._file_lock = threading.Lock()
        largest = max(3 * math.prod(_segment_shape(page)) for page in self._pages)
        self._read_segment = functools.lru_cache(maxsize=max(1, _CACHE_BYTES // largest))(
            self._decode_segment
        )
        sizes = [(page.imagewidth, page.imagelength) for page in self._pages]
        super().__init__(path, sizes=sizes, stated_mpp_xy=stated_mpp_xy)

    def close(self):
        self._tiff.close()

    def _read_level(self, level, left, top, width, height):
        page = self._pages[level]
        segment_height, segment_width = _segment_shape(page)
        in_a_row = math.ceil(page.imagewidth / segment_width)
        region = np.empty((height, width, 3), np.uint8)
        for row in range(top // segment_height, (top + height - 1) // segment_height + 1):
            for column in range(left // segment_width, (left + width - 1) // segment_width + 1):
                try:
                    segment = self._read_segment(level, row * in_a_row + column)
                except Exception as error:  # zlib.error, struct.error, ...: codecs differ
                    raise _damaged(self.path, error, level, left, top, width, height) from None
                y, x = row * segment_height - top, column * segment_width - left
                here = region[max(y, 0) : y + segment_height, max(x, 0) : x + segment_width]
                skip_y, skip_x = max(-y, 0), max(-x, 0)
                here[:] = segment[skip_y : skip_y + here.shape[0], skip_x : skip_x + here.shape[1]]
        return region

    def _decode_segment(self, level, number):
        """One tile or strip of a level as 8-bit RGB; of planes kept apart, all three."""
        page = self._pages[level]
        planes = page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
        step = len(page.dataoffsets) // planes
        decoded = []
        for index in range(number, planes * step, step):
            with self._file_lock:
                self._tiff.filehandle.seek(page.dataoffsets[index])
                data = self._tiff.filehandle.read(page.databytecounts[index])
            if len(data) < page.databytecounts[index]:
                raise ValueError("the file ends within it")
            pixels, _, shape = page.decode(
                data or None, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
            )
            if pixels is None:  # nothing was scanned there
                return np.full((*shape[1:3], 3), WHITE, np.uint8)
            decoded.append(pixels[0])
        pixels = np.concatenate(decoded, axis=-1)
        if pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        rgb = convert_to_rgb8(pixels, n_bits=self._n_bits)
        return ~rgb if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE else rgb


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
        if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
            raise InputError(f"the image's mpp is {mpp}; expected um/px above 0.")
        height, width = image_rgb.shape[:2]
        super().__init__(path, sizes=[(width, height)], mpp=mpp)
        self._image_rgb = image_rgb

    def _read_level(self, level, left, top, width, height):
        return self._image_rgb[top : top + height, left : left + width].copy()


class _ImageSlide(_FileSlide):
    """A picture that is read whole."""

    def __init__(self, path, *, stated_mpp_xy):
        try:
            self._image_rgb = read_image_rgb(path)
        except InputError as error:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                raise
            raise InputError(f"'{path}' is no slide that OpenSlide knows; {error}") from None
        height, width = self._image_rgb.shape[:2]
        super().__init__(path, sizes=[(width, height)], stated_mpp_xy=stated_mpp_xy)

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


def _check_is_one_rgb_plane(path, level):
    is_read = (
        level.axes in {"YX", "YXS", "SYX"}
        and len(level.pages) == 1
        and level.keyframe.samplesperpixel in {1, 3, 4}
        and level.keyframe.photometric.name in {"RGB", "YCBCR", "MINISBLACK", "MINISWHITE"}
        and level.dtype in _DTYPES
    )
    if not is_read:
        raise InputError(
            f"slide '{path}' has axes {level.axes}, shape {level.shape}, "
            f"{level.keyframe.photometric.name} colour and type {level.dtype}; expected one plane "
            "of bright-field RGB or grey with 8 or 16 bits. Export that plane."
        )


def _count_bits_of_level(level):
    """As the smallest level tells; an image of one large level is taken for what its type says."""
    n_bits = 8 * level.dtype.itemsize
    is_small = math.prod(level.shape) <= 3 * _WHOLE_IMAGE_PX
    return count_bits(level.asarray()) if n_bits == 16 and is_small else n_bits


def _damaged(path, error, level, left, top, width, height):
    return InputError(
        f"slide '{path}' cannot be read at x {left}, y {top} ({width} x {height} px of level "
        f"{level}): {error}. The file is damaged or cut short; copy it again."
    )


def _tiff_mpp_xy(tiff):
    """Pixel size in x and y in um, as a TIFF's metadata or tags state it, or None."""
    if tiff.is_ome:
        return _ome_mpp_xy(tiff.ome_metadata)
    page = tiff.pages.first
    if tiff.is_imagej:
        unit = (tiff.imagej_metadata or {}).get("unit", "")
        is_micron = unit.replace("\\u00B5", "u").replace("µ", "u") in {"um", "micron", "microns"}
        px_per_um = page.get_resolution() if is_micron else (0, 0)
    elif page.resolutionunit == tifffile.RESUNIT.NONE:  # then the tags give no more than a ratio
        px_per_um = (0, 0)
    else:
        px_per_um = page.get_resolution(tifffile.RESUNIT.MICROMETER)
    return tuple(1 / resolution for resolution in px_per_um) if all(px_per_um) else None


def _ome_mpp_xy(xml):
    """Pixel size of the first image of an OME-XML, in um; None where it has none."""
    try:
        image = tifffile.xml2dict(xml)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        return tuple(
            pixels.get(f"PhysicalSize{axis}", math.nan)
            * _UM_IN.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"), math.nan)
            for axis in "XY"
        )
    except (SyntaxError, LookupError, TypeError) as error:
        raise ValueError(f"its OME metadata are damaged: {error}") from None


# OME's units of length; "pixel" and "reference frame" are no lengths.
_UM_IN = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "pm": 1e-6}


def _decide_mpp(path, stated_mpp_xy, *, given):
    """Pixel size of a slide in um, or None, from what its file states and what the user gives."""
    stated = None if stated_mpp_xy is None else _trusted_mpp(path, *stated_mpp_xy, given=given)
    if given is None:
        return stated
    if stated is not None and abs(given - stated) > MPP_DISAGREEMENT * stated:
        logger.warning(
            "'%s': the given %g um/px are used, although the file states %g.", path, given, stated
        )
    return given


def _trusted_mpp(path, mpp_x, mpp_y, *, given):
    """The stated pixel size, or None where it cannot be one."""
    if not (math.isfinite(mpp_x) and math.isfinite(mpp_y)):
        return None
    lowest, highest = MPP_RANGE
    if not all(lowest <= mpp <= highest for mpp in (mpp_x, mpp_y)):
        logger.warning(
            "'%s' states %g um/px, which is no microscope's (%g to %g); it is not used.",
            path,
            mpp_x,
            lowest,
            highest,
        )
        return None
    if given is None and abs(mpp_x - mpp_y) > SQUARE_TOLERANCE * min(mpp_x, mpp_y):
        raise InputError(
            f"slide '{path}' has px of {mpp_x:g} x {mpp_y:g} um; expected square ones. Resample "
            "it, or state the pixel size (--mpp) if the file is wrong."
        )
    return (mpp_x + mpp_y) / 2
