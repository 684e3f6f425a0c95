"""Instances of one image, from the ways in which people store their masks, as run-length codes."""

import logging

import imagecodecs
import numpy as np
from PIL import ExifTags, Image
from scipy import ndimage
from skimage import measure

from steatosis_d2.data.images import is_16_bit_png, list_images, unreadable_as_input_error
from steatosis_d2.data.pixels import UnknownPixels, turn_upright
from steatosis_d2.data.tiff import is_tiff, read_tiff_values
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


def encode_stack_file(path, *, height, width):
    """
    Instances of a TIFF that has one page for each; they may overlap.

    Args:
        path (Path or ZipPath): its pages hold 0 and one other value.
        height (int): height of the image, in px.
        width (int): width of the image, in px.

    Returns:
        list[dict]: COCO RLEs, in the order of the pages; those that are all zero are left out.

    Raises:
        InputError: the file is missing, unreadable, not of the image's size, or a page has more
            than one value besides 0.
    """
    masks = [
        _as_binary(page, f"{path}, page {number}", height=height, width=width)
        for number, page in enumerate(read_mask_pages(path), 1)
    ]
    return [encode_mask(mask) for mask in masks if mask.any()]


ENCODERS = {
    "folder": encode_mask_folder,
    "labels": encode_label_file,
    "binary": encode_binary_file,
    "stack": encode_stack_file,
}


def detect_layout(mask_paths):
    """
    Tell how a data set stores its masks, or refuse where that would be a guess.

    1. Any folder among the paths: ``folder``, one file for each instance. Any file of several
       pages: ``stack``, one page for each.
    2. No value but 0 and 255 (or 0 and 65535, or one bit) in any file: ``binary``.
    3. Several values in a file, nearly each of them in one connected piece: ``labels``. With one
       value a file, labels and components are told apart only where they are the same.

    Args:
        mask_paths (list[Path]): the mask file, or folder of masks, of each image; what is missing
            or unreadable is passed over here, and found again by the encoders.

    Returns:
        str: a key of :data:`ENCODERS`.

    Raises:
        InputError: none of them fits.
    """
    if any(path.is_dir() for path in mask_paths):
        return "folder"
    only_binary, several_values = True, False
    labels_count = pieces_count = 0
    for path in mask_paths:
        try:
            mask, *more = read_mask_pages(path)
        except InputError:
            continue
        if more:
            return "stack"
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
    Read a mask file of one page as labels.

    Args:
        path (Path or ZipPath): PNG, TIFF or BMP.

    Returns:
        ndarray: integer, shape (H, W), 0 and up, as :func:`read_mask_pages`.

    Raises:
        InputError: as :func:`read_mask_pages`; or it has several pages.
    """
    pages = read_mask_pages(path)
    if len(pages) > 1:
        raise InputError(
            f"mask '{path}' holds {len(pages)} pages; expected one, or one an instance in all "
            "masks (--layout stack)."
        )
    return pages[0]


def read_mask_pages(path):
    """
    Read a mask file as labels, whatever it is stored as; black, or what is transparent, is 0.

    Grey values are taken as they are stored, whether 0 is shown black or white. Colours, by
    palette or not, become labels in the order of their values, or 255 if there is but one.
    Rotation tags are applied.

    Args:
        path (Path or ZipPath): PNG, TIFF or BMP; of a TIFF, all pages of like size.

    Returns:
        list[ndarray]: of each page, integer, shape (H, W), 0 and up; the one of a one-bit file
        becomes 255.

    Raises:
        InputError: the file is missing, truncated, no image, holds fractions or negative values,
            or colours that are no labels.
    """
    if not path.is_file():
        raise InputError(f"mask '{path}' does not exist; check its name against its image's.")
    with unreadable_as_input_error(path, kind="mask", expected="PNG, TIFF or BMP"):
        stored = read_tiff_values(path) if is_tiff(path) else [_read_single(path)]
        return [
            _as_labels(plane, palette)
            for values, palette in stored
            for plane in _split_planes(values)
        ]


def _read_single(path):
    """Values and palette of a file of one picture, as read_tiff_values gives them."""
    with path.open("rb") as file, Image.open(file) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        palette = image.getpalette() if image.mode == "P" else None
        values = np.asarray(image)
    if values.ndim == 3 and is_16_bit_png(path):
        with path.open("rb") as file:
            values = imagecodecs.png_decode(file.read())
    colours = None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)
    return turn_upright(values, orientation), colours


def _split_planes(values):
    """
    The four planes of a stack that its writer took for red, green, blue and alpha.

    Each has one instance; of colours with alpha, the colours are black where alpha is 0 and, if
    there is a shape in alpha, something where it is not.
    """
    if values.ndim == 3 and values.shape[2] == 4:
        *colours, alpha = np.moveaxis(values, -1, 0)
        inside = alpha > 0
        is_stack = (
            inside.any()
            and not inside.all()
            and not any(plane[inside].any() for plane in colours)
            and all(plane[~inside].any() for plane in colours)
            and all(len(np.unique(plane)) == 2 for plane in colours)
        )
        if is_stack:
            return [*colours, alpha]
    return [values]


def _as_labels(values, palette):
    if palette is not None:
        return _number_palette(values, palette)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = _apply_alpha(values[..., :-1], values[..., -1])
    if values.ndim == 3 and np.all(values == values[..., :1]):
        values = values[..., 0]
    if values.ndim == 3 and values.shape[2] == 3:
        return _number_colours(values)
    if values.ndim != 2:
        raise UnknownPixels(
            f"has {values.shape[2]} channels; expected grey values or colours. Export it as one of "
            "these."
        )
    if values.dtype == bool:
        return values * np.uint8(255)
    if np.issubdtype(values.dtype, np.unsignedinteger):
        return values
    if np.any(values < 0) or np.any(values % 1 != 0):
        raise UnknownPixels(
            "holds negative or fractional values; expected integer labels from 0. Threshold or "
            "round it first."
        )
    return values.astype(np.int64)  # signed, or labels that ImageJ saved as 32-bit floats


def _apply_alpha(colours, alpha):
    """Colours of a mask, black where it is transparent."""
    levels = np.unique(alpha)
    if len(levels) == 1:  # then it says nothing
        return colours
    if len(levels) > 2 or levels[0] != 0:
        raise UnknownPixels(
            "is half transparent in places; expected each px to be there or not. Export it without "
            "smoothed edges."
        )
    inside = alpha > 0
    visible = colours[inside]
    if np.all(visible == visible[0]):  # the shape is in alpha alone
        return inside * np.uint8(255)
    return np.where(inside[..., None], colours, 0)


def _number_palette(indices, palette):
    """Labels of a picture with a palette, in whatever order its colours are."""
    used = np.unique(indices)
    colours = palette[np.minimum(used, len(palette) - 1)]
    is_black, is_white = ((colours == value).all(axis=1) for value in (0, 255))
    says_nothing = len(np.unique(colours, axis=0)) == 1 or not (is_black | is_white).any()
    if says_nothing or (used[0] == 0 and is_black[0]):
        return indices  # as most programs write labels: 0 is the background, whatever its colour
    is_background = is_black if is_black.any() else is_white
    n_colours = len(np.unique(colours[~is_background], axis=0))
    labels = np.full(len(used), 255) if n_colours == 1 else used.astype(np.int64) + 1
    labels[is_background] = 0
    return labels[np.searchsorted(used, indices)]


def _number_colours(rgb):
    """Labels of a coloured picture: each colour is one, black (or else white) none."""
    codes = np.zeros(rgb.shape[:2], np.int64)
    for channel in range(3):
        codes = (codes << 16) | rgb[..., channel].astype(np.int64)
    colours, labels = np.unique(codes, return_inverse=True)
    labels = labels.reshape(codes.shape) + 1
    white = int(codes.max(initial=0)) if rgb.min(axis=-1).max() == np.iinfo(rgb.dtype).max else None
    background = 0 if colours[0] == 0 else white
    if background is None:
        raise UnknownPixels(
            f"is coloured ({len(colours)} colours) without black or white for the background; "
            "expected one of them. Export it as a label image."
        )
    labels[codes == background] = 0
    n_labels = len(colours) - 1
    if n_labels == 1:
        return (labels > 0) * np.uint8(255)
    if measure.label(labels, connectivity=2).max() > MAX_MEAN_PIECES_PER_LABEL * n_labels:
        raise UnknownPixels(
            f"is coloured, and its {n_labels} colours lie in many more pieces: its edges are "
            "smoothed, or it is a picture. Export it as a label image."
        )
    return labels


def _read_sized_mask(path, *, height, width):
    return _check_size(read_mask(path), path, height=height, width=width)


def _check_size(mask, name, *, height, width):
    if mask.shape != (height, width):
        raise InputError(
            f"mask '{name}' has {mask.shape[0]} x {mask.shape[1]} px (rows x columns), its image "
            f"{height} x {width}; they must be the same. Export the mask at the image's full size."
        )
    return mask


def _read_binary_mask(path, *, height, width):
    return _as_binary(read_mask(path), path, height=height, width=width)


def _as_binary(mask, name, *, height, width):
    foreground = _check_size(mask, name, height=height, width=width) > 0
    if np.any(mask[foreground] != mask.max()):
        raise InputError(
            f"mask '{name}' holds {len(np.unique(mask))} values; a binary mask holds 0 and one "
            "more. Threshold it first, or, if each value is an instance, see --layout labels."
        )
    return foreground
