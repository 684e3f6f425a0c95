"""Reading images of any common kind as 8-bit RGB."""

import contextlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError
from skimage import color

from steatosis_d2.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


def list_images(folder, *, suffixes=IMAGE_SUFFIXES):
    """
    Image files directly in a folder, by suffix, in alphabetical order; hidden files left out.

    Args:
        folder (str, Path or ZipPath): an existing folder.
        suffixes (collection[str]): suffixes of the files to list, in lower case.

    Returns:
        list[Path or ZipPath]: one path an image.
    """
    files = (
        path
        for path in _as_path(folder).iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    return sorted(files, key=lambda path: path.name)


def list_inputs(paths, *, suffixes=IMAGE_SUFFIXES):
    """
    The image files behind a list of files and folders, and what COCO calls each.

    A file's name is that within its folder. Only if two files then share one are all named by
    their path below the folder that holds all of them.

    Args:
        paths (list[str or Path]): image files, and folders whose image files are meant.
        suffixes (collection[str]): suffixes of the files to take from folders, in lower case.

    Returns:
        tuple: dict of ``file_name`` (str) -> absolute Path, in the given order, folders in
        alphabetical order, each file once; list of faults (str), one a path that holds no image.
    """
    files, faults = [], []
    for path in map(Path, paths):
        if path.is_dir():
            found = list_images(path, suffixes=suffixes)
            if not found:
                faults.append(f"folder '{path}' has no images ({', '.join(sorted(suffixes))}).")
            files += found
        else:
            files.append(path)
    files = list(dict.fromkeys(file.absolute() for file in files))
    if max(Counter(file.name for file in files).values(), default=0) <= 1:
        return {file.name: file for file in files}, faults
    root = os.path.commonpath([file.parent for file in files])
    return {file.relative_to(root).as_posix(): file for file in files}, faults


def read_image_rgb(path):
    """
    Read an image file as 8-bit RGB, whatever its mode.

    Grey, palette, CMYK and RGBA images are converted (alpha is dropped), EXIF rotation is
    applied, and 16-bit images are scaled by :func:`convert_to_rgb8` from the bits that they use.

    Args:
        path (str, Path or ZipPath): PNG, JPEG, WebP, BMP or TIFF.

    Returns:
        ndarray: uint8, shape (H, W, 3), RGB.

    Raises:
        InputError: the file is missing, truncated, no image, or has neither 8 nor 16 bits.
    """
    with unreadable_as_input_error(path, kind="image", expected="PNG, JPEG, WebP, BMP or TIFF"):
        pixels = _read_pixels(_as_path(path))
    return _as_rgb(pixels, path)


def read_with_tifffile(path):
    """
    Pixels of a TIFF of a kind that Pillow does not know, such as 16-bit RGB or 32-bit labels.

    Args:
        path (Path or ZipPath): the file that Pillow did not recognise.

    Returns:
        ndarray: as stored, of any type and number of dimensions.

    Raises:
        ValueError: it is not a TIFF file at all, or has no pixels. What else tifffile raises on
            a damaged file depends on the damage.
    """
    if path.suffix.lower() not in {".tif", ".tiff"}:
        raise ValueError("not an image file")
    with path.open("rb") as file:
        pixels = tifffile.imread(file)
    if pixels.size == 0:
        raise ValueError("it holds no pixels")
    return pixels


@contextlib.contextmanager
def unreadable_as_input_error(path, *, kind, expected):
    """
    Name the file, and the cure, where Pillow or tifffile fails to read it.

    Args:
        path (str, Path or ZipPath): the file that the block reads.
        kind (str): what the file is to the user, ``image`` or ``mask``.
        expected (str): the formats it may have.

    Raises:
        InputError: the file is missing, truncated or no image.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{kind} '{path}' does not exist; check the path.") from None
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{kind} '{path}' is too large to be read whole ({error}). Convert it to a tiled TIFF, "
            "which is read piece by piece."
        ) from None
    except Exception as error:  # struct.error, ZeroDivisionError, ...: damage has many names
        raise InputError(
            f"{kind} '{path}' cannot be read ({error}); expected a whole {expected} file. "
            "Export or copy it again."
        ) from None


def _as_path(path):
    return Path(path) if isinstance(path, str) else path


def _read_pixels(path):
    """Pixels as stored: (H, W) or (H, W, C)."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode[0] in "IF":  # 16 and 32-bit grey, which convert("RGB") would clip
                return _as_uint16_if_it_fits(np.asarray(image))
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except UnidentifiedImageError:
        return read_with_tifffile(path)


def _as_uint16_if_it_fits(pixels):
    """Some releases of Pillow read 16-bit PNG as 32-bit integers."""
    if pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= 65535:
        return pixels.astype(np.uint16)
    return pixels


def _as_rgb(pixels, path):
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"image '{path}' holds {pixels.dtype} values from {pixels.min()} to {pixels.max()}; "
            "expected 8 or 16 bits a channel. Convert it to one of them."
        )
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"image '{path}' has shape {pixels.shape}; expected (H, W), (H, W, 3) or (H, W, 4). "
            "Export one plane of the stack."
        )
    return convert_to_rgb8(pixels, n_bits=count_bits(pixels))


def count_bits(pixels):
    """
    How many bits an image uses: microscope cameras of 12 bits store their values in files of 16.

    Args:
        pixels (ndarray): uint8 or uint16, of any shape, grey or with colours (and alpha) last.

    Returns:
        int: 8, 12 or 16.
    """
    if pixels.dtype == np.uint8:
        return 8
    has_alpha = pixels.ndim == 3 and pixels.shape[2] == 4
    colours = pixels[..., :3] if has_alpha else pixels
    return 12 if colours.max() < 2**12 else 16


def convert_to_rgb8(pixels, *, n_bits):
    """
    Grey, RGB or RGBA pixels as 8-bit RGB.

    Args:
        pixels (ndarray): uint8 or uint16, shape (H, W), (H, W, 3) or (H, W, 4); alpha is dropped.
        n_bits (int): that the image uses, from :func:`count_bits`; their largest value, and what
            lies beyond, becomes 255.

    Returns:
        ndarray: uint8, shape (H, W, 3).
    """
    rgb = color.gray2rgb(pixels) if pixels.ndim == 2 else pixels[..., :3]
    if n_bits == 8:
        return rgb
    return (np.minimum(rgb, 2**n_bits - 1) >> (n_bits - 8)).astype(np.uint8)
