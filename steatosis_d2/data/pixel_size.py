"""What can be a pixel size, and the many ways in which files state one."""

import html
import logging
import math
import re

import tifffile

from steatosis_d2.errors import InputError

logger = logging.getLogger(__name__)

# What a microscope gives, from an oil immersion lens to a 2x overview. Printing resolutions lie
# far outside: 72 dots per inch are 353 um/px, 2400 are 11.
MPP_RANGE = (0.05, 5.0)
_SQUARE_TOLERANCE = 0.02
_DISAGREEMENT = 0.1
# Of a scanner's lens: 40x gives about 0.25 um/px, 20x about 0.5.
_UM_AT_1X = 10
# In um. OME's names and what Fiji and users write; "pixel" and "reference frame" are no lengths.
_UM_IN = {
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometre", "micrometers"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters"), 1e4),
    **dict.fromkeys(("m", "meter", "metre", "meters"), 1e6),
    **dict.fromkeys(("in", "inch", "inches", '"'), 25_400.0),
    "dm": 1e5,
    "pm": 1e-6,
    "pt": 25_400 / 72,
    "thou": 25.4,
    "mil": 25.4,
    "å": 1e-4,
    "angstrom": 1e-4,
}
# Unicode has two, and Fiji writes them as text.
_MICRO_SIGNS = ("µ", "μ", "\\u00b5", "\\u03bc")
# Of OME-XML. Parsers that turn attributes into numbers take "0,05" for a pair.
_PIXELS_TAG = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_ATTRIBUTE = re.compile(r"""(\w+)\s*=\s*["']([^"']*)["']""")


def is_possible(mpp):
    """
    Whether a number can be the pixel size of a microscope's image.

    Args:
        mpp (object): um/px.

    Returns:
        bool: True for a number from 0.05 to 5.
    """
    lowest, highest = MPP_RANGE
    return isinstance(mpp, int | float) and lowest <= mpp <= highest


def check_mpp(mpp, *, where):
    """
    Refuse what cannot be the pixel size of a microscope's image, a magnification above all.

    Args:
        mpp (object): um/px.
        where (str): what states it, as the beginning of a message.

    Raises:
        InputError: it is no number from 0.05 to 5.
    """
    if not is_possible(mpp):
        raise InputError(f"{where} has the pixel size {mpp!r}; {describe_expected(mpp)}")


def describe_expected(mpp):
    """
    What a pixel size may be, for a message, and what a magnification would be.

    Args:
        mpp (object): what was given.

    Returns:
        str: the end of a sentence, and perhaps another one.
    """
    expected = "expected um/px, a number from {:g} to {:g}.".format(*MPP_RANGE)
    if isinstance(mpp, int | float) and MPP_RANGE[1] < mpp <= 100:
        expected += f" A magnification of {mpp:g}x is about {_UM_AT_1X / mpp:.2g} um/px."
    return expected


def decide_mpp(path, stated_mpp_xy, *, given):
    """
    The pixel size of a slide, from what its file states and what the user gives.

    Args:
        path (Path): of the slide, for messages.
        stated_mpp_xy (tuple[float, float] or None): in x and in y, in um; NaN where not stated.
        given (float or None): um/px, which wins.

    Returns:
        float or None: um/px; None where there is none that can be one, as the log says.

    Raises:
        InputError: the px are not square, and none is given.
    """
    stated = None if stated_mpp_xy is None else _trusted_mpp(path, *stated_mpp_xy, given=given)
    if given is None:
        return stated
    if stated is not None and abs(given - stated) > _DISAGREEMENT * stated:
        logger.warning(
            "'%s': the given %g um/px are used, although the file states %g.", path, given, stated
        )
    return given


def _trusted_mpp(path, mpp_x, mpp_y, *, given):
    """The stated pixel size, or None where it cannot be one."""
    known = [mpp for mpp in (mpp_x, mpp_y) if math.isfinite(mpp)]
    if not known:
        return None
    if len(known) == 1:
        logger.warning("'%s' states its pixel size for one axis alone; px are square.", path)
        mpp_x = mpp_y = known[0]
    if not (is_possible(mpp_x) and is_possible(mpp_y)):
        logger.warning(
            "'%s' states %g um/px, which is no microscope's (%g to %g); it is not used.",
            path,
            mpp_x,
            *MPP_RANGE,
        )
        return None
    if given is None and abs(mpp_x - mpp_y) > _SQUARE_TOLERANCE * min(mpp_x, mpp_y):
        raise InputError(
            f"slide '{path}' has px of {mpp_x:g} x {mpp_y:g} um; expected square ones. Resample "
            "it, or state the pixel size (--mpp) if the file is wrong."
        )
    return (mpp_x + mpp_y) / 2


def read_decimal(text):
    """
    A number as files write it.

    Args:
        text (object): a number, or text with a decimal point or comma.

    Returns:
        float: NaN for what is no number.
    """
    try:
        return float(str(text).strip().replace(",", "."))
    except ValueError:
        return math.nan


def um_in(unit):
    """
    How long a unit is.

    Args:
        unit (object): its name, with either of Unicode's two signs for micro.

    Returns:
        float: in um; NaN for what is no unit of length.
    """
    name = str(unit).strip().casefold()
    for sign in _MICRO_SIGNS:
        name = name.replace(sign, "u")
    return _UM_IN.get(name, math.nan)


def read_tiff_mpp_xy(tiff, path):
    """
    Pixel size as a TIFF's metadata or tags state it: OME's, ImageJ's, or the resolution tags.

    Args:
        tiff (tifffile.TiffFile): open.
        path (Path): of the file, for messages.

    Returns:
        tuple[float, float] or None: in x and in y, in um; NaN where one is missing. None if the
        file states none, or none that can be understood, which the log then says.
    """
    if tiff.is_ome:
        return _read_ome_mpp_xy(tiff.ome_metadata, path)
    page = tiff.pages.first
    per_unit = [_read_resolution(page, name) for name in ("XResolution", "YResolution")]
    if tiff.is_imagej:
        unit = (tiff.imagej_metadata or {}).get("unit", "")
        um = um_in(unit)
        is_stated = unit not in ("", "pixel", "pixels")
        if is_stated and math.isnan(um) and any(map(math.isfinite, per_unit)):
            logger.warning("'%s' states its pixel size in '%s', which is no length.", path, unit)
    else:
        um = _UM_IN_TIFF_UNIT.get(int(page.resolutionunit), math.nan)
    mpp_xy = tuple(um / value if value else math.nan for value in per_unit)
    return mpp_xy if any(map(math.isfinite, mpp_xy)) else None


# Of the ResolutionUnit tag; 1 says that the tags give no more than a ratio.
_UM_IN_TIFF_UNIT: dict[int, float] = {
    tifffile.RESUNIT.INCH: 25_400.0,
    tifffile.RESUNIT.CENTIMETER: 1e4,
    tifffile.RESUNIT.MILLIMETER: 1e3,
    tifffile.RESUNIT.MICROMETER: 1.0,
}


def _read_resolution(page, name):
    """Px per unit (float) of a tag; NaN without it."""
    value = page.tags.get(name)
    if value is None:
        return math.nan
    numerator, denominator = value.value if isinstance(value.value, tuple) else (value.value, 1)
    return numerator / denominator if denominator else math.nan


def _read_ome_mpp_xy(xml, path):
    """Pixel size of the first image of an OME-XML, in um; None where it has none."""
    tag = _PIXELS_TAG.search(xml)
    if tag is None:
        raise ValueError("its OME metadata are damaged: no Pixels in them")
    attributes = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(tag[0])}
    stated = [
        (attributes.get(f"PhysicalSize{axis}"), attributes.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XY"
    ]
    for size, unit in stated:
        if size is not None and not math.isfinite(read_decimal(size) * um_in(unit)):
            logger.warning(
                "'%s' states a pixel size of '%s %s', which is no length; it is not used.",
                path,
                size,
                unit,
            )
    mpp_xy = tuple(read_decimal(size) * um_in(unit) for size, unit in stated)
    return mpp_xy if any(map(math.isfinite, mpp_xy)) else None
