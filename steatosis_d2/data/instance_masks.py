"""Instances of one image, from the three ways people store their masks, as run-length codes."""

import logging

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage
from skimage import measure

from steatosis_d2.data.images import list_images, read_with_tifffile, unreadable_as_input_error
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import encode_label_image, encode_mask

logger = logging.getLogger(__name__)

# Lossless formats only: JPEG blurs labels into their neighbours.
MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp"})

# A binary mask as programs write it: 0 and the largest value of 8 or 16 bits.
BINARY_FOREGROUNDS = frozenset({255, 65535})

# True instances are compact; a label cut in two by a neighbour is rare. Classes (1 = droplet,
# 2 = nucleus) and the grey edges of smoothed masks come in many pieces for each value.
MAX_MEAN_PIECES_PER_LABEL = 1.5


def list_mask_files(folder):
    """
    Mask files directly in a folder, by suffix, in alphabetical order; hidden files left out.

    Args:
        folder (Path or ZipPath): an existing folder.

    Returns:
        list[Path or ZipPath]: one path a mask file.
    """
    return list_images(folder, suffixes=MASK_SUFFIXES)


def encode_mask_folder(folder, *, height, width):
    """
    Instances of a folder that holds one mask file for each.

    Overlaps are kept, as COCO allows them. An empty folder, or one whose files are all zero,
    means that the image has no instance.

    Args:
        folder (Path or ZipPath): of mask files; in each, 0 is background, one other value the
            instance.
        height (int): height of the image, in px.
        width (int): width of the image, in px.

    Returns:
        list[dict]: COCO RLEs, in the order of the file names.

    Raises:
        InputError: the folder is missing; a file in it is unreadable, not of the image's size, or
            has more than one value besides 0.
    """
    if not folder.is_dir():
        raise InputError(
            f"mask folder '{folder}' does not exist; expected one with a mask file for each "
            "instance. If the image has none, make the folder and leave it empty."
        )
    paths = list_mask_files(folder)
    masks = (_read_binary_mask(path, height=height, width=width) for path in paths)
    codes = [encode_mask(mask) for mask in masks if mask.any()]
    if not paths:
        logger.warning("mask folder '%s' is empty: its image is taken as having none", folder)
    elif 0 < len(codes) < len(paths):
        logger.warning(
            "%d of %d mask files in '%s' are all zero and were left out",
            len(paths) - len(codes),
            len(paths),
            folder,
        )
    return codes


def encode_label_file(path, *, height, width):
    """
    Instances of a label image: 0 is background, each other value is one instance.

    Args:
        path (Path or ZipPath): the label image, of any integer type.
        height (int): height of the image, in px.
        width (int): width of the image, in px.

    Returns:
        list[dict]: COCO RLEs, in ascending order of the labels.

    Raises:
        InputError: the file is missing, unreadable, no label image or not of the image's size.
    """
    return list(encode_label_image(_read_sized_mask(path, height=height, width=width)).values())


def encode_binary_file(path, *, height, width):
    """
    Instances of a binary image: its connected components.

    Components are 4-connected: outlines drawn by hand that meet at the corner of a pixel belong
    to two instances.

    Args:
        path (Path or ZipPath): image with 0 as background and one other value.
        height (int): height of the image, in px.
        width (int): width of the image, in px.

    Returns:
        list[dict]: COCO RLEs, in the order of their first pixels, row by row.

    Raises:
        InputError: the file is missing, unreadable, not binary or not of the image's size.
    """
    components, _ = ndimage.label(_read_binary_mask(path, height=height, width=width))
    return list(encode_label_image(components).values())


ENCODERS = {
    "folder": encode_mask_folder,
    "labels": encode_label_file,
    "binary": encode_binary_file,
}


def detect_layout(mask_paths):
    """
    Tell how a data set stores its masks, or refuse where that would be a guess.

    1. Any folder among the paths: ``folder``, one file for each instance.
    2. No value but 0 and 255 (or 0 and 65535, or one bit) in any file: ``binary``.
    3. Several values in a file, nearly each of them in one connected piece: ``labels``. With one
       value a file, labels and components are told apart only where they are the same.

    Args:
        mask_paths (list[Path]): the mask file, or folder of masks, of each image; what is missing
            or unreadable is passed over here, and found again by the encoders.

    Returns:
        str: ``folder``, ``labels`` or ``binary``.

    Raises:
        InputError: none of the three fits.
    """
    if any(path.is_dir() for path in mask_paths):
        return "folder"
    only_binary, several_values = True, False
    labels_count = pieces_count = 0
    for path in mask_paths:
        try:
            mask = read_mask(path)
        except InputError:
            continue
        labels = set(np.unique(mask).tolist()) - {0}
        only_binary &= labels <= BINARY_FOREGROUNDS
        several_values |= len(labels) > 1
        labels_count += len(labels)
        pieces_count += measure.label(mask, connectivity=2).max()
    if only_binary:
        return "binary"
    allowed_pieces = MAX_MEAN_PIECES_PER_LABEL if several_values else 1
    if pieces_count <= allowed_pieces * labels_count:
        return "labels"
    raise InputError(
        f"the masks hold {labels_count} values in {pieces_count} connected pieces, so they are "
        "neither plainly label images (each value one instance) nor plainly binary images (0 and "
        "255). State which, with --layout labels or --layout binary."
    )


def read_mask(path):
    """
    Read a mask file as it is stored: no scaling, a palette's indices as labels.

    Args:
        path (Path or ZipPath): PNG, TIFF or BMP of one channel, or of three that are equal.

    Returns:
        ndarray: integer, shape (H, W), 0 and up; the one of a one-bit file becomes 255.

    Raises:
        InputError: the file is missing, truncated, no image, coloured, or holds fractions or
            negative values.
    """
    if not path.is_file():
        raise InputError(f"mask '{path}' does not exist; check its name against its image's.")
    with unreadable_as_input_error(path, kind="mask", expected="PNG, TIFF or BMP"):
        try:
            with path.open("rb") as file, Image.open(file) as image:
                stored = np.asarray(image)
        except UnidentifiedImageError:
            stored = read_with_tifffile(path)
    mask = _single_channel(stored, path)
    if mask.dtype == bool:
        return mask * np.uint8(255)
    if np.issubdtype(mask.dtype, np.unsignedinteger):
        return mask
    if np.any(mask < 0) or np.any(mask % 1 != 0):
        raise InputError(
            f"mask '{path}' holds negative or fractional values; expected integer labels from 0."
        )
    return mask.astype(np.int64)  # signed, or labels that ImageJ saved as 32-bit floats


def _single_channel(stored, path):
    if stored.ndim == 3 and stored.shape[2] in (2, 4):
        stored = stored[..., :-1]  # the last one is alpha
    if stored.ndim == 3 and np.all(stored == stored[..., :1]):
        stored = stored[..., 0]
    if stored.ndim != 2:
        raise InputError(
            f"mask '{path}' is coloured or a stack (shape {stored.shape}); expected one channel, "
            "or three that are equal. Export it as a grey image."
        )
    return stored


def _read_sized_mask(path, *, height, width):
    mask = read_mask(path)
    if mask.shape != (height, width):
        raise InputError(
            f"mask '{path}' has {mask.shape[0]} x {mask.shape[1]} px (rows x columns), its image "
            f"{height} x {width}; they must be the same. Export the mask at the image's full size."
        )
    return mask


def _read_binary_mask(path, *, height, width):
    mask = _read_sized_mask(path, height=height, width=width)
    foreground = mask > 0
    if np.any(mask[foreground] != mask.max()):
        raise InputError(
            f"mask '{path}' holds {len(np.unique(mask))} values; a binary mask holds 0 and one "
            "more. Threshold it first, or, if each value is an instance, see --layout labels."
        )
    return foreground
