"""TIFF: which of its pictures is meant, and how its pixels become 8-bit RGB."""

import functools
import math
import struct
from dataclasses import dataclass, field

import numpy as np
import tifffile
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG

from steatosis_d2.data.pictures import RIVAL_SHARE
from steatosis_d2.data.pixels import (
    UnknownPixels,
    as_rgb8,
    blend_on_white,
    count_bits,
    turn_upright,
)

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CLASSIC = 42  # the version of TIFF that is not BigTIFF
_SIZES = ("imagewidth", "imagelength", "tilewidth", "tilelength", "rowsperstrip", "samplesperpixel")
_RED_GREEN_BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
# Colours that tifffile gives as they are stored, and Pillow as RGB.
_LEFT_TO_PILLOW = {PHOTOMETRIC.SEPARATED, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB}
# These hold RGB once they are decoded, whatever they are stored as.
_DECODED_TO_RGB = {
    COMPRESSION.JPEG,
    COMPRESSION.OJPEG,
    COMPRESSION.JPEG2000,
    COMPRESSION.JPEG_2000_LOSSY,
    COMPRESSION.WEBP,
    COMPRESSION.JPEGXL,
    COMPRESSION.JPEGXR,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """
    One picture of a TIFF.

    Attributes:
        number (int): of the page that it begins with, from 1.
        width, height (int): in px.
        pages (tuple[TiffPage]): one, or three that hold red, green and blue.
        levels (tuple[tuple[TiffPage]]): the same at each resolution, from the finest on; empty
            where it is part of a stack that is stored as one page.
        has_rgb_pages (bool): red, green and blue lie in pages of their own.
        read (callable): () -> ndarray, shape (H, W) or (H, W, samples), as stored.
    """

    number: int
    width: int
    height: int
    pages: tuple
    levels: tuple
    has_rgb_pages: bool
    read: object = field(repr=False)

    @property
    def page(self):
        """The page (TiffPage) that tells how pixels are stored."""
        return self.pages[0].keyframe

    @property
    def is_coloured(self):
        """Whether it has more than grey."""
        return self.has_rgb_pages or self.page.samplesperpixel >= 3

    @property
    def n_colours(self):
        """Samples of a pixel that are colour (int), without alpha and what else there is."""
        n_extra = len(self.page.extrasamples or ())
        return 3 if self.has_rgb_pages else max(1, self.page.samplesperpixel - n_extra)

    def check_whole(self):
        """
        Refuse what has fewer strips or tiles than its size needs: black would be in their place.

        Raises:
            UnknownPixels: says how many there are.
        """
        for page in {*self.pages, *(page for pages in self.levels for page in pages)}:
            stated, stored = math.prod(page.keyframe.chunked), len(page.dataoffsets)
            if stored < stated and not page.keyframe.is_contiguous:
                raise UnknownPixels(
                    f"has {stored} of the {stated} pieces that its size needs: its header is "
                    "damaged. Export or copy it again."
                )

    @property
    def orientation(self):
        """Of the TIFF tag (int): 1 is upright."""
        tag = self.page.tags.get("Orientation")
        return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def is_tiff(path):
    """
    Whether a file begins as a TIFF does.

    Args:
        path (Path or ZipPath): an existing file.

    Returns:
        bool: whatever its name.
    """
    with path.open("rb") as file:
        return file.read(4) in MAGIC


def read_picture_rgb(picture):
    """
    Read a picture whole as 8-bit RGB, upright, on white where it is transparent.

    Args:
        picture (Picture): of a TIFF that is open.

    Returns:
        ndarray: uint8, shape (H, W, 3).

    Raises:
        UnknownPixels: the kind of its pixels is not known. What else tifffile raises depends on
            the damage.
    """
    picture.check_whole()
    stored, page = picture.read(), picture.page
    rgb = decode_pixels(
        stored,
        page,
        n_bits=count_colour_bits(stored, page, n_colours=picture.n_colours),
        n_colours=picture.n_colours,
        # No program means that all is transparent: then the colours are taken as they are.
        is_alpha_used=stored.ndim == 3 and bool(stored[..., picture.n_colours :].any()),
    )
    return turn_upright(rgb, picture.orientation)


def read_tiff_values(path):
    """
    The pages of a TIFF as they are stored, whatever they are meant to look like.

    Args:
        path (Path or ZipPath): the file.

    Returns:
        list[tuple[ndarray, ndarray or None]]: of each page, upright, the values, shape (H, W) or
        (H, W, samples), and its palette, uint8, shape (n, 3), or None. Smaller pages, which are
        lower resolutions and thumbnails, are left out.

    Raises:
        UnknownPixels: it holds no picture.
    """
    with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
        pictures = list_pictures(tiff)
        most = max(picture.width * picture.height for picture in pictures)
        for picture in pictures:
            picture.check_whole()
        return [
            (turn_upright(picture.read(), picture.orientation), _palette(picture.page))
            for picture in pictures
            if picture.width * picture.height > RIVAL_SHARE * most
        ]


def list_pictures(tiff):
    """
    All pictures of a TIFF.

    Args:
        tiff (tifffile.TiffFile): open.

    Returns:
        list[Picture]: by the number of their first page.

    Raises:
        UnknownPixels: there is none.
    """
    check_header(tiff)
    pictures = [picture for series in tiff.series for picture in _split_series(series, tiff)]
    if not pictures:
        raise UnknownPixels("holds no picture; expected one. Export it again.")
    return sorted(pictures, key=lambda picture: picture.number)


def check_header(tiff):
    """
    Refuse damage that tifffile would take hours or all memory for.

    Args:
        tiff (tifffile.TiffFile): open.

    Raises:
        UnknownPixels: its pages run in a circle, or a size is no number.
    """
    _check_chain(tiff)
    for page in tiff.pages:
        for name in _SIZES:
            size = getattr(page.keyframe, name)
            if not isinstance(size, int):  # a tuple, which can be multiplied, too
                raise UnknownPixels(
                    f"is damaged: its {name} is {str(size)[:40]}; expected a number. Copy it again."
                )


def _check_chain(tiff):
    """Each page says where the next one is; tifffile would follow a circle for ever."""
    form, file = tiff.tiff, tiff.filehandle
    file.seek(4 if form.version == _CLASSIC else 8)
    seen: set[int] = set()
    while len(data := file.read(form.offsetsize)) == form.offsetsize:
        (offset,) = struct.unpack(form.offsetformat, data)
        if offset == 0:
            return
        if offset in seen:
            raise UnknownPixels("is damaged: its list of pages runs in a circle. Copy it again.")
        seen.add(offset)
        file.seek(offset)
        count = file.read(form.tagnosize)
        if len(count) < form.tagnosize:
            return
        (n_tags,) = struct.unpack(form.tagnoformat, count)
        file.seek(offset + form.tagnosize + n_tags * form.tagsize)


def _split_series(series, tiff):
    """The pictures of one of tifffile's series, which groups pages of one size."""
    axes, sizes = series.axes, dict(zip(series.axes, series.shape, strict=True))
    if not {"Y", "X"} <= sizes.keys() or min(series.shape, default=0) == 0:
        return
    has_rgb_pages = axes.endswith("CYX") and sizes["C"] == 3 and _is_red_green_blue(tiff)
    inner = {"Y", "X", "S"} | ({"C"} if has_rgb_pages else set())
    n_pictures = math.prod(size for axis, size in sizes.items() if axis not in inner)
    step = 3 if has_rgb_pages else 1
    pages = [page for page in series.pages if page is not None]
    are_all_there = len(pages) == n_pictures * step
    for index in range(n_pictures):
        own = tuple(pages[index * step : (index + 1) * step]) if are_all_there else (pages[0],)
        levels: tuple = (own,) if are_all_there else ()
        if n_pictures == 1 and are_all_there:
            levels = tuple(tuple(level.pages) for level in series.levels)
        yield Picture(
            number=own[0].index + 1 if are_all_there else index + 1,
            width=sizes["X"],
            height=sizes["Y"],
            pages=own,
            levels=levels,
            has_rgb_pages=has_rgb_pages,
            read=functools.partial(read_pages, own)
            if are_all_there
            else functools.partial(_read_of_stack, series, index, n_pictures, has_rgb_pages),
        )


def _read_of_stack(series, index, n_pictures, has_rgb_pages):
    """One picture out of a stack that is stored as one page."""
    stack = series.asarray()
    n_inner = 3 if "S" in series.axes or has_rgb_pages else 2
    picture = stack.reshape(n_pictures, *stack.shape[stack.ndim - n_inner :])[index]
    is_first = has_rgb_pages or series.axes.endswith("SYX")
    return np.moveaxis(picture, 0, -1) if is_first else picture


def read_pages(pages):
    """
    Pixels of one resolution of a picture, as stored.

    Args:
        pages (tuple[TiffPage]): as a :class:`Picture` has them.

    Returns:
        ndarray: shape (H, W) or (H, W, samples).
    """
    planes = [_samples_last(page.asarray(), page.keyframe) for page in pages]
    return planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)


def _samples_last(pixels, page):
    pixels = pixels.squeeze() if pixels.ndim > 3 else pixels
    is_planar = page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
    return np.moveaxis(pixels, 0, -1) if is_planar and pixels.ndim == 3 else pixels


def _is_red_green_blue(tiff):
    """Whether three channels are those of a colour picture, as far as ImageJ or OME say so."""
    if tiff.is_imagej:
        tables = (tiff.imagej_metadata or {}).get("LUTs") or []
        colours = [tuple(int(value) for value in np.asarray(table)[:, -1]) for table in tables]
        return not colours or tuple(colours[:3]) == _RED_GREEN_BLUE
    if tiff.is_ome:
        return _ome_colours(tiff.ome_metadata) in ((), _RED_GREEN_BLUE)
    return False


def _ome_colours(xml):
    """RGB of the channels of an OME-XML's first image; empty where it does not say."""
    try:
        image = tifffile.xml2dict(xml)["OME"]["Image"]
        channels = (image[0] if isinstance(image, list) else image)["Pixels"]["Channel"]
        stated = [channel["Color"] for channel in channels]
    except (SyntaxError, LookupError, TypeError):
        return ()
    return tuple(
        tuple(int(value).to_bytes(4, "big", signed=int(value) < 0)[:3]) for value in stated
    )


def is_left_to_pillow(page):
    """
    Whether a page's colours are such as tifffile does not turn to RGB.

    Args:
        page (TiffPage): of the picture.

    Returns:
        bool: True for CMYK, Lab, and YCbCr that is not in a format of its own, such as JPEG.
    """
    is_plain_ycbcr = (
        page.photometric == PHOTOMETRIC.YCBCR and page.compression not in _DECODED_TO_RGB
    )
    return page.photometric in _LEFT_TO_PILLOW or is_plain_ycbcr


def count_colour_bits(pixels, page, *, n_colours):
    """
    How many bits the colours of some pixels use.

    Args:
        pixels (ndarray): as stored, shape (H, W) or (H, W, samples).
        page (TiffPage): that they are of.
        n_colours (int): of its samples, from :class:`Picture`.

    Returns:
        int: as :func:`steatosis_d2.data.pixels.count_bits`.
    """
    if 8 < page.bitspersample < 16:
        return page.bitspersample
    return count_bits(pixels[..., :n_colours] if pixels.ndim == 3 else pixels)


def decode_pixels(pixels, page, *, n_bits, n_colours, is_alpha_used=True):
    """
    Pixels of a TIFF as 8-bit RGB, on white where they are transparent.

    Args:
        pixels (ndarray): as stored, shape (H, W) or (H, W, samples), in whole or in part.
        page (TiffPage): that they are of.
        n_bits (int): that its colours use, from :func:`count_colour_bits`.
        n_colours (int): of its samples, from :class:`Picture`.
        is_alpha_used (bool): False where alpha, if there is any, says nothing.

    Returns:
        ndarray: uint8, shape (H, W, 3).

    Raises:
        UnknownPixels: they have another type than 8 or 16 bits, or a number of channels that
            makes no picture.
    """
    palette = _palette(page)
    if palette is not None:
        return palette[pixels if pixels.ndim == 2 else pixels[..., 0]]
    if page.bitspersample < 8 and pixels.dtype == np.uint8:
        pixels = pixels * np.uint8(255 // (2**page.bitspersample - 1))
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        most = 2**n_bits - 1 if pixels.dtype == np.uint16 else 255
        pixels = ~pixels if pixels.dtype == bool else most - np.minimum(pixels, most)
    if pixels.ndim == 2:
        return as_rgb8(pixels, n_bits=n_bits)
    if len(page.extrasamples or ()) > 1:
        raise UnknownPixels(
            f"has {pixels.shape[-1]} channels; expected grey or RGB, with alpha or without. Export "
            "it as one of these."
        )
    alpha = _alpha_kind(page)
    rgb = as_rgb8(pixels[..., :n_colours], n_bits=n_bits)
    if alpha is None or not is_alpha_used or pixels.shape[-1] <= n_colours:
        return rgb
    return blend_on_white(
        rgb, pixels[..., n_colours], n_bits=n_bits, is_premultiplied=alpha == EXTRASAMPLE.ASSOCALPHA
    )


def _alpha_kind(page):
    """What the first sample beyond the colours is, if it is alpha."""
    kinds = tuple(page.extrasamples or ())
    return kinds[0] if kinds and kinds[0] != EXTRASAMPLE.UNSPECIFIED else None


def _palette(page):
    """Colours of a page's values, uint8, shape (n, 3), or None."""
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    colours = np.asarray(page.colormap).T
    # By the standard they have 16 bits; some programs write 8.
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)
