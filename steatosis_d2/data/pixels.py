"""Pixels as files store them, as upright 8-bit RGB on white."""

import numpy as np
from skimage import color

# Microscope cameras of so many bits store their values in files of 16.
_CAMERA_BITS = (10, 12, 14)
# The median of a bright-field picture is above this share of the range, that of a dark field below.
_BRIGHT_SHARE = 0.25


class UnknownPixels(ValueError):
    """What a file holds is not understood; the message goes on after the file's name."""


def count_bits(colours):
    """
    How many bits an image uses.

    Values of a camera of 10 bits are told from dim ones of 12 by their being bright: a bright
    field's median lies high in the range.

    Args:
        colours (ndarray): uint8 or uint16, of any shape, without alpha.

    Returns:
        int: 8, 10, 12, 14 or 16.
    """
    if colours.dtype != np.uint16:
        return 8
    highest = int(colours.max(initial=0))
    fitting = next((bits for bits in _CAMERA_BITS if highest < 2**bits), 16)
    if fitting == 10 and np.median(colours) < _BRIGHT_SHARE * 2**10:
        return 12
    return fitting


def as_rgb8(pixels, *, n_bits):
    """
    Grey or RGB pixels as 8-bit RGB.

    Args:
        pixels (ndarray): bool, uint8 or uint16, shape (H, W), (H, W, 1) or (H, W, 3).
        n_bits (int): that they use, from :func:`count_bits`; their largest value, and what lies
            beyond, becomes 255.

    Returns:
        ndarray: uint8, shape (H, W, 3).

    Raises:
        UnknownPixels: they are of another type or shape.
    """
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnknownPixels(
            f"holds {pixels.dtype} values from {pixels.min()} to {pixels.max()}; expected 8 or 16 "
            "bits a channel. Convert it to one of them."
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] != 3):
        raise UnknownPixels(
            f"has shape {pixels.shape}; expected (H, W), (H, W, 3) or these with alpha. Export it "
            "as grey or RGB."
        )
    rgb = color.gray2rgb(pixels) if pixels.ndim == 2 else pixels
    if n_bits == 8:
        return rgb.astype(np.uint8)
    return (np.minimum(rgb, 2**n_bits - 1) >> (n_bits - 8)).astype(np.uint8)


def blend_on_white(rgb, alpha, *, n_bits=8, is_premultiplied=False):
    """
    A picture with transparency as it looks on white: what is not there is not tissue.

    Args:
        rgb (ndarray): uint8, shape (H, W, 3).
        alpha (ndarray): uint8 or uint16, shape (H, W); 0 is transparent.
        n_bits (int): that colours use in 16 bits; alpha may use as many, or all.
        is_premultiplied (bool): colours are multiplied by alpha already.

    Returns:
        ndarray: uint8, shape (H, W, 3).
    """
    opaque = 255
    if alpha.dtype == np.uint16:
        opaque = 2**n_bits - 1 if alpha.max(initial=0) < 2**n_bits else 2**16 - 1
    if alpha.min(initial=opaque) >= opaque:
        return rgb
    share = np.minimum(alpha[..., None] / np.float32(opaque), 1)
    colours = rgb.astype(np.float32) if is_premultiplied else rgb * share
    return np.rint(np.minimum(colours + 255 * (1 - share), 255)).astype(np.uint8)


def turn_upright(pixels, orientation):
    """
    An image as it is meant to be looked at.

    Args:
        pixels (ndarray): shape (H, W) or (H, W, C).
        orientation (int): of the TIFF or EXIF tag 274, 1 to 8.

    Returns:
        ndarray: shape (H, W, ...), or (W, H, ...) for 5 to 8.
    """
    if orientation in (5, 6, 7, 8):  # rows are columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
