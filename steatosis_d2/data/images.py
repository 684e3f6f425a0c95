"""Reading images of any common kind as 8-bit RGB."""

import contextlib
import os
import re
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from steatosis_d2.data import tiff
from steatosis_d2.data.ome_zarr import is_ome_zarr_folder, is_spatialdata_store
from steatosis_d2.data.pictures import choose_picture
from steatosis_d2.data.pixels import (
    UnknownPixels,
    as_rgb8,
    blend_on_white,
    count_bits,
    turn_upright,
)
from steatosis_d2.errors import InputError
from steatosis_d2.files import printable

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24


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
        if path.name.lower().endswith(tuple(suffixes))
        and not path.name.startswith(".")
        and not is_spatialdata_store(path)
    )
    return sorted(files, key=lambda path: path.name)


def list_inputs(paths, *, suffixes=IMAGE_SUFFIXES):
    """
    The image files behind a list of files and folders, and what COCO calls each. The folder of an
    OME-Zarr counts as a file.

    A file's name is that within its folder. Only if two files then share one are all named by
    their path below the folder that holds all of them.

    Args:
        paths (list[str or Path]): image files, and folders whose image files are meant.
        suffixes (collection[str]): suffixes of the files to take from folders, in lower case.

    Returns:
        tuple: dict of ``file_name`` (str, printable) -> absolute Path, in the given order, folders
        in alphabetical order, each file once; list of faults (str), one a path that holds no image.
    """
    files, faults = [], []
    for path in map(Path, paths):
        if path.is_dir() and not is_ome_zarr_folder(path):
            found = list_images(path, suffixes=suffixes)
            if not found:
                faults.append(f"folder '{path}' has no images ({', '.join(sorted(suffixes))}).")
            files += found
        else:
            files.append(path)
    files = list(dict.fromkeys(file.absolute() for file in files))
    names = [file.name for file in files]
    if max(Counter(names).values(), default=0) > 1:
        root = os.path.commonpath([file.parent for file in files])
        names = [file.relative_to(root).as_posix() for file in files]
    named = dict(zip(map(printable, names), files, strict=True))
    faults += [
        f"'{printable(str(file))}' is called as '{name}' is, once it can be printed; rename one."
        for name, file in zip(map(printable, names), files, strict=True)
        if named[name] != file
    ]
    return named, faults


def read_image_rgb(path, *, page=None):
    """
    Read an image file as 8-bit RGB, whatever its mode.

    Grey, palette, CMYK and Lab images are converted; what is transparent is white, since it is no
    tissue; rotation tags are applied; 16-bit images are scaled from the bits that they use, see
    :func:`steatosis_d2.data.pixels.count_bits`. Of several pages, the one picture is taken that is
    no thumbnail and no lower resolution.

    Args:
        path (str, Path or ZipPath): PNG, JPEG, WebP, BMP or TIFF.
        page (int or None): number of a TIFF's page, from 1, where several have a claim.

    Returns:
        ndarray: uint8, shape (H, W, 3), RGB.

    Raises:
        InputError: the file is missing, truncated, no image, has neither 8 nor 16 bits, or holds
            several pictures of like size.
    """
    path = _as_path(path)
    with unreadable_as_input_error(path, kind="image", expected="PNG, JPEG, WebP, BMP or TIFF"):
        if tiff.is_tiff(path):
            return _read_tiff(path, page)
        if page not in (None, 1):
            raise UnknownPixels(f"has no page {page}: only TIFF has several. Leave --page out.")
        return _read_16_bit_png(path) if is_16_bit_png(path) else _read_with_pillow(path)


def _read_tiff(path, page):
    with path.open("rb") as file, tifffile.TiffFile(file) as opened:
        picture = choose_picture(tiff.list_pictures(opened), page=page)
        if not tiff.is_left_to_pillow(picture.page):
            return tiff.read_picture_rgb(picture)
    return _read_with_pillow(path, frame=picture.number - 1)


def is_16_bit_png(path):
    """
    Whether a file is a PNG of 16 bits a channel, of whose colours Pillow keeps 8.

    Args:
        path (Path or ZipPath): an existing file.

    Returns:
        bool: as its header says.
    """
    with path.open("rb") as file:
        header = file.read(_PNG_DEPTH_AT + 1)
    return header.startswith(_PNG_MAGIC) and header[_PNG_DEPTH_AT:] == b"\x10"


def _read_16_bit_png(path):
    with path.open("rb") as file, Image.open(file) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    with path.open("rb") as file:
        pixels = imagecodecs.png_decode(file.read())
    has_alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    colours = pixels[..., :-1] if has_alpha else pixels
    n_bits = count_bits(colours)
    rgb = as_rgb8(colours, n_bits=n_bits)
    if has_alpha and pixels[..., -1].any():
        rgb = blend_on_white(rgb, pixels[..., -1], n_bits=n_bits)
    return turn_upright(rgb, orientation)


def _read_with_pillow(path, *, frame=0):
    with path.open("rb") as file, Image.open(file) as image:
        if frame:
            image.seek(frame)
        elif getattr(image, "is_animated", False) and image.format in ("PNG", "WEBP"):
            raise UnknownPixels(
                "is an animation; expected one picture. Export the one that is meant."
            )
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # 16 and 32-bit grey, which convert("RGB") would clip
            grey = np.asarray(image)
            return as_rgb8(grey, n_bits=count_bits(grey))
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"))
            rgb, alpha = rgba[..., :3], rgba[..., 3]
            # No program means that all is transparent: then the colours are taken as they are.
            return blend_on_white(rgb, alpha) if alpha.any() else rgb.copy()
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


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
    except InputError:
        raise
    except UnknownPixels as error:
        raise InputError(f"{kind} '{path}' {error}") from None
    except Exception as error:  # struct.error, ZeroDivisionError, ...: damage has many names
        if isinstance(error, UnidentifiedImageError):  # it would tell Python's name of the file
            error = ValueError("not an image file")
        raise InputError(
            f"{kind} '{path}' cannot be read ({error}); expected a whole {expected} file. "
            f"{_cure(error)}"
        ) from None


def _cure(error):
    """What helps, as far as the error tells."""
    codec = re.search(r"COMPRESSION\.(\w+)", str(error))
    if codec:
        return f"Save it with another compression than {codec[1]}, LZW for instance."
    return "Export or copy it again."


def _as_path(path):
    return Path(path) if isinstance(path, str) else path
