"""Opening whole slides and plain images, and what their files say of the pixel size."""

import logging
from pathlib import Path

import numpy as np
import openslide
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from steatosis_d2.data.images import IMAGE_SUFFIXES
from steatosis_d2.data.ome_zarr import OME_ZARR_SUFFIXES, is_ome_zarr_folder, is_zip
from steatosis_d2.data.pictures import choose_picture
from steatosis_d2.data.pixel_size import check_mpp, decide_mpp, read_tiff_mpp_xy
from steatosis_d2.data.pixels import UnknownPixels
from steatosis_d2.data.tiff import is_left_to_pillow, is_tiff, list_pictures
from steatosis_d2.errors import InputError
from steatosis_d2.slides.file_slide import ImageSlide, unreadable_slide_as_input_error
from steatosis_d2.slides.piece_slides import (
    WHOLE_IMAGE_PX,
    TiffSlide,
    ZarrSlide,
    check_dtype,
    check_is_not_cut,
    check_pieces,
    segment_shape,
)
from steatosis_d2.slides.pyramid import Slide
from steatosis_d2.slides.scanner_slide import ScannerSlide

logger = logging.getLogger(__name__)

# What a folder is searched for. A DICOM slide is a folder of files: name one of them instead.
SLIDE_SUFFIXES = (
    IMAGE_SUFFIXES
    | OME_ZARR_SUFFIXES
    | {".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".vmu", ".svslide"}
)
_OPENSLIDES_COLOURS = {PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR, PHOTOMETRIC.MINISBLACK}
_OPENSLIDES_CODECS = {
    COMPRESSION.JPEG,
    COMPRESSION.LZW,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
}


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
    if isinstance(slide, ZarrSlide):
        slide.warn_of_missing_chunks()
    slide.mpp = decide_mpp(path, slide.stated_mpp_xy, given=mpp)
    if slide.mpp is not None:
        slide.mpp_source = "file" if mpp is None else "given"
    return slide


def _open_file(path, *, page=None, is_mpp_given=False):
    with unreadable_slide_as_input_error(path):
        if path.is_dir() or is_zip(path):
            return ZarrSlide(path, page=page)
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor not in {None, "generic-tiff"}:
            if page is not None:
                raise UnknownPixels("is a slide of one picture. Leave --page out.")
            return ScannerSlide(path)
        if not is_tiff(path):
            return ImageSlide(path, page=page)
        with tifffile.TiffFile(path) as tiff:
            picture = choose_picture(list_pictures(tiff), page=page)
            check_is_not_cut(tiff)
            reader = _choose_reader(picture, is_openslides=vendor is not None and not tiff.is_ome)
            stated_mpp_xy = _read_stated_mpp(tiff, path, is_mpp_given=is_mpp_given)
        if reader is ScannerSlide:
            slide = ScannerSlide(path)
            slide.stated_mpp_xy = stated_mpp_xy  # in more units than OpenSlide knows
            return slide
        return reader(path, page=page, stated_mpp_xy=stated_mpp_xy)


def _choose_reader(picture, *, is_openslides):
    """
    The class that reads a picture of a TIFF.

    OpenSlide is fast, and knows plain 8-bit pictures; what must be turned or converted whole is.
    """
    n_pixels, page = picture.width * picture.height, picture.page
    check_dtype(page.dtype)
    check_pieces(*segment_shape(page))
    must_be_whole = picture.orientation != 1 or is_left_to_pillow(page) or not picture.levels
    is_small = len(picture.levels) == 1 and not page.is_tiled and n_pixels <= WHOLE_IMAGE_PX
    if must_be_whole and n_pixels > WHOLE_IMAGE_PX:
        raise UnknownPixels(
            f"of {picture.width} x {picture.height} px would have to be read whole, since it is "
            "turned, in a stack, or neither grey nor RGB. Convert it to a tiled RGB TIFF."
        )
    if must_be_whole or is_small:
        return ImageSlide
    is_plain = (
        picture.number == 1
        and page.dtype == np.uint8
        and page.bitspersample == 8
        and page.photometric in _OPENSLIDES_COLOURS
        and page.compression in _OPENSLIDES_CODECS
        and not page.extrasamples
    )
    return ScannerSlide if is_openslides and is_plain else TiffSlide


def _read_stated_mpp(tiff, path, *, is_mpp_given):
    """What the file says of its pixel size; a broken header matters if nobody else says it."""
    try:
        return read_tiff_mpp_xy(tiff, path)
    except ValueError:
        if not is_mpp_given:
            raise
        logger.warning("'%s' has a damaged header; the given pixel size is used.", path)
        return None


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
