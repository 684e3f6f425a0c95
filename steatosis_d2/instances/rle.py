"""Instance masks as COCO run-length codes (RLE), made from crops, never from full-size stacks."""

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from steatosis_d2.instances.coco_counts import decode_counts, encode_counts

# No corner of a polygon is farther away; pycocotools walks along every px between two.
_FARTHEST_PX = 1e7


def encode_mask(mask):
    """
    Run-length code of one full-size mask.

    Args:
        mask (ndarray): bool, shape (H, W).

    Returns:
        dict: COCO RLE, ``{"size": [H, W], "counts": str}``.
    """
    height, width = mask.shape
    # Its crop is encoded many times faster: COCO's own encoder walks down all columns.
    left, top, crop_width, crop_height = cv2.boundingRect(np.ascontiguousarray(mask, np.uint8))
    crop = mask[top : top + crop_height, left : left + crop_width]
    return encode_crop(crop, top=top, left=left, height=height, width=width)


def encode_crop(crop, *, top, left, height, width):
    """
    Run-length code of a mask given as the crop that holds it, in time and memory of the crop.

    Args:
        crop (ndarray): bool, shape (h, w); must lie within the image.
        top (int): row of the crop's first row, in px of the image.
        left (int): column of the crop's first column, in px of the image.
        height (int): height of the image, in px.
        width (int): width of the image, in px.

    Returns:
        dict: COCO RLE of the full-size mask, ``{"size": [height, width], "counts": str}``.

    Raises:
        ValueError: if the crop reaches outside the image.
    """
    crop_height, crop_width = crop.shape
    if top < 0 or left < 0 or top + crop_height > height or left + crop_width > width:
        raise ValueError(
            f"crop of {crop_height} x {crop_width} px at row {top}, column {left} reaches "
            f"outside its image of {height} x {width} px; clip it first."
        )
    # COCO counts runs down the columns. A zero above and below each column separates them,
    # so that every change of value is the start or the end (exclusive) of a run.
    columns = np.zeros((crop_width, crop_height + 2), np.int8)
    columns[:, 1:-1] = crop.T
    column, row = np.nonzero(np.diff(columns, axis=1))
    positions = (left + column).astype(np.int64) * height + top + row
    # A run that ends where the next begins (a full-height column) is one run.
    joined = np.flatnonzero(positions[1:-1:2] == positions[2::2])
    positions = np.delete(positions, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    counts = np.diff(positions, prepend=0, append=height * width)
    if counts[-1] == 0:  # the image's last pixel is inside: COCO writes no empty last run
        counts = counts[:-1]
    return _as_json(
        coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    )


def encode_strip(strip, *, height, width):
    """
    Run-length codes of many masks at once, some three times faster than one by one.

    Images may have any number of pixels; :func:`encode_crop`, by pycocotools, stops at 2^32.

    Args:
        strip (Strip): masks within the image.
        height (int): height of the image, in px.
        width (int): width of the image, in px.

    Returns:
        list[dict]: COCO RLE of each full-size mask.
    """
    counts, n_counts = _count_runs(strip, height=height, width=width)
    size = [int(height), int(width)]
    return [{"size": size, "counts": text} for text in encode_counts(counts, n_counts)]


def _count_runs(strip, *, height, width):
    """
    Lengths of the runs outside, inside, outside, ... down the columns of the image.

    Returns:
        tuple[ndarray, ndarray]: int64, the counts of all masks, one mask after another; shape
        (n,), how many each mask has.
    """
    n_masks = len(strip.starts)
    # The strip has zeros round each mask, so that every change of value down a column is the
    # start or the end (exclusive) of a run.
    column, row = np.nonzero((strip.pixels[1:] != strip.pixels[:-1]).T)
    owner = strip.find_owners(row)
    order = np.argsort(owner, kind="stable")
    column, row, owner = column[order], row[order], owner[order]
    positions = (strip.lefts[owner] + column - 1) * height
    positions += strip.tops[owner] + row - strip.starts[owner]
    # A run that ends where the next begins (a column as high as the image) is one run.
    joined = np.flatnonzero((positions[1:-1:2] == positions[2::2]) & (owner[1:-1:2] == owner[2::2]))
    positions, owner = (
        np.delete(values, np.concatenate([2 * joined + 1, 2 * joined + 2]))
        for values in (positions, owner)
    )
    n_counts = np.bincount(owner, minlength=n_masks) + 1
    # 0, the positions and the image's size, of one mask after another
    limits = np.zeros(len(positions) + 2 * n_masks, np.int64)
    limits[np.arange(len(positions)) + 2 * owner + 1] = positions
    last = np.cumsum(n_counts + 1) - 1
    limits[last] = height * width
    counts = np.delete(np.diff(limits), last[:-1])
    # Where the image's last pixel is inside, COCO writes no empty last run.
    final = np.cumsum(n_counts) - 1
    is_empty = counts[final] == 0
    return np.delete(counts, final[is_empty]), n_counts - is_empty


def encode_label_image(labels):
    """
    Run-length codes of all instances of a label image.

    Args:
        labels (ndarray): integer, shape (H, W); 0 is background, each other value one instance.

    Returns:
        dict: instance label (int) -> COCO RLE, in ascending order of the labels.
    """
    height, width = labels.shape
    present = np.unique(labels)
    # Labels may be sparse (16-bit label images with values in the tens of thousands).
    compact = np.searchsorted(present, labels) + (0 if 0 in present[:1] else 1)
    codes = {}
    for label, (rows, columns) in zip(
        present[present != 0], ndimage.find_objects(compact), strict=True
    ):
        codes[int(label)] = encode_crop(
            labels[rows, columns] == label,
            top=rows.start,
            left=columns.start,
            height=height,
            width=width,
        )
    return codes


def decode_mask(rle):
    """
    Full-size mask of a run-length code.

    Args:
        rle (dict): COCO RLE, compressed (``counts`` str or bytes) or not (list of int).

    Returns:
        ndarray: bool, shape (H, W).
    """
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, *rle["size"])
    return coco_mask.decode(rle).astype(bool)


def decode_crop(rle):
    """
    Mask of a run-length code in its bounding box, in time and memory of the box.

    Args:
        rle (dict): COCO RLE with ``counts`` as str or bytes.

    Returns:
        tuple: the mask, bool (h, w); row and column of its first pixel in the image, in px. An
        empty mask has shape (0, 0).

    Examples:
        >>> crop, top, left = decode_crop(encode_mask(np.eye(3, dtype=bool) & [False, True, True]))
        >>> crop.tolist(), top, left
        ([[True, False], [False, True]], 1, 1)
    """
    image_height = rle["size"][0]
    ends = np.cumsum(run_lengths(rle))
    begins, ends = ends[:-1:2], ends[1::2]
    begins, ends = begins[begins < ends], ends[begins < ends]
    if not len(begins):
        return np.zeros((0, 0), bool), 0, 0
    columns, tops = np.divmod(begins, image_height)
    last_columns, bottoms = np.divmod(ends - 1, image_height)
    left, width = columns[0], last_columns[-1] - columns[0] + 1
    if (columns == last_columns).all():
        top, height = tops.min(), bottoms.max() - tops.min() + 1
    else:  # a run that goes on at the head of the next column
        top, height = 0, image_height
    # Where runs begin and end, counted in the box from its first column on, down the columns.
    marks = np.zeros(width * height + 1, np.int8)
    np.add.at(marks, (columns - left) * height + tops - top, 1)
    np.add.at(marks, (last_columns - left) * height + bottoms - top + 1, -1)
    crop = np.cumsum(marks[:-1], dtype=np.int8).astype(bool).reshape(width, height).T
    rows = np.flatnonzero(crop.any(axis=1))
    crop = crop[rows[0] : rows[-1] + 1]
    return crop, int(top + rows[0]), int(left)


def find_boxes(rles):
    """
    Bounding boxes of many masks of one image, of any size.

    Args:
        rles (list[dict]): COCO RLE with ``counts`` as str or bytes.

    Returns:
        ndarray: int64, shape (N, 4): x, y, width and height in px; zeros for empty masks.

    Examples:
        >>> find_boxes([encode_mask(np.eye(3, dtype=bool) & [False, True, True])]).tolist()
        [[1, 1, 2, 2]]
    """
    boxes = np.zeros((len(rles), 4), np.int64)
    if not rles:
        return boxes
    height = rles[0]["size"][0]
    runs, n_runs = concatenate_runs(rles)
    owner = np.repeat(np.arange(len(rles)), n_runs)
    first = np.cumsum(n_runs) - n_runs
    before = np.cumsum(runs) - runs
    begins = before - before[first][owner]
    is_inside = ((np.arange(len(runs)) - first[owner]) % 2 == 1) & (runs > 0)
    owner, begins, lasts = (values[is_inside] for values in (owner, begins, begins + runs - 1))
    columns, rows = np.divmod(np.stack([begins, lasts]), height)
    goes_on = columns[0] < columns[1]
    rows[0, goes_on], rows[1, goes_on] = 0, height - 1
    found, starts = np.unique(owner, return_index=True)
    if len(found):
        left, top = (np.minimum.reduceat(values[0], starts) for values in (columns, rows))
        right, bottom = (np.maximum.reduceat(values[1], starts) for values in (columns, rows))
        boxes[found] = np.stack([left, top, right - left + 1, bottom - top + 1], axis=1)
    return boxes


def as_rle(mask, *, height, width):
    """
    One instance in any of COCO's forms as a run-length code.

    Args:
        mask (dict or list): COCO RLE, compressed or not, or polygons ``[x1, y1, x2, y2, ...]`` in
            px that together are the instance.
        height (int): of the image, in px.
        width (int): of the image, in px.

    Returns:
        dict: COCO RLE, ``{"size": [height, width], "counts": bytes or str}``.

    Raises:
        ValueError: the mask is of another form or size.
    """
    if isinstance(mask, dict) and {"size", "counts"} <= mask.keys():
        if list(mask["size"]) != [height, width]:
            raise ValueError(
                f"mask has size {list(mask['size'])}; expected [{height}, {width}] as its image."
            )
        if isinstance(mask["counts"], list):
            return coco_mask.frPyObjects(mask, height, width)
        return mask
    # Fewer than three corners: pycocotools would take two for a box.
    if isinstance(mask, list) and mask and all(_is_polygon(part) for part in mask):
        return coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    raise ValueError(
        "mask is neither a COCO run-length code nor a list of polygons of three or more points."
    )


def as_sound_rle(mask, *, height, width):
    """
    One instance from a user's file as a run-length code that pycocotools can be trusted with.

    Args:
        mask (dict or list): as in :func:`as_rle`.
        height (int): of the image, in px.
        width (int): of the image, in px.

    Returns:
        dict: COCO RLE, ``{"size": [height, width], "counts": str}``.

    Raises:
        ValueError: the mask is of another form or size, or its runs do not fill its image.
    """
    return as_sound_rles([mask], height=height, width=width)[0]


def as_sound_rles(masks, *, height, width):
    """
    The :func:`as_sound_rle` of many masks of one image, which takes hardly longer than one.

    Args:
        masks (list[dict or list]): at least one, each as in :func:`as_rle`.
        height (int): of the image, in px.
        width (int): of the image, in px.

    Returns:
        list[dict]: COCO RLE, ``{"size": [height, width], "counts": str}``.

    Raises:
        UnsoundMask: one of them is not sound; it has its ``index``.
    """
    try:
        return _check_masks(masks, height=height, width=width)
    except ValueError as error:
        for index, mask in enumerate(masks if len(masks) > 1 else ()):
            try:
                _check_masks([mask], height=height, width=width)
            except ValueError as of_one:
                raise UnsoundMask(of_one, index) from None
        raise UnsoundMask(error, 0) from None


class UnsoundMask(ValueError):
    """A mask that no run-length code can be made of; ``index`` is its place among those given."""

    def __init__(self, reason, index):
        super().__init__(str(reason))
        self.index = index


def _check_masks(masks, *, height, width):
    try:
        rles = [as_rle(mask, height=height, width=width) for mask in masks]
        runs, n_runs = concatenate_runs(rles)
    except (TypeError, OverflowError) as error:  # from pycocotools and numpy
        raise ValueError(str(error)) from None
    totals = np.add.reduceat(runs, np.cumsum(n_runs) - n_runs)
    wrong = totals[totals != height * width]
    if runs.min() < 0 or len(wrong):
        raise ValueError(
            f"mask's runs add up to {wrong[0] if len(wrong) else totals[0]} px; expected "
            f"{height} x {width} = {height * width} px."
        )
    size = [height, width]
    return [{"size": size, "counts": _as_text(rle["counts"])} for rle in rles]


def _as_text(counts):
    return counts if isinstance(counts, str) else counts.decode("ascii")


def _is_polygon(part):
    """Three points or more that pycocotools can draw: it crashes on what is no number."""
    if not (isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0):
        return False
    try:
        return bool((np.abs(np.array(part, float)) < _FARTHEST_PX).all())
    except (TypeError, ValueError, OverflowError):
        return False


def run_lengths(rle):
    """
    Lengths of the runs of a compressed code: outside, inside, outside, ... down the columns.

    A sound code has no negative run, and its runs add up to H x W. pycocotools does not check
    that, and never returns from comparing two codes of different total length.

    Args:
        rle (dict): COCO RLE with ``counts`` as str or bytes.

    Returns:
        ndarray: int64, shape (number of runs,).

    Raises:
        ValueError: the text is no run-length code.

    Examples:
        >>> run_lengths(encode_mask(np.array([[False, False, True], [True, False, False]])))
        array([1, 1, 2, 1, 1])
    """
    return concatenate_runs([rle])[0]


def concatenate_runs(rles):
    """
    The :func:`run_lengths` of many codes, which takes hardly longer than those of one.

    Args:
        rles (list[dict]): COCO RLE with ``counts`` as str or bytes; at least one.

    Returns:
        tuple[ndarray, ndarray]: int64, the runs of all codes, one code after another; shape
        (len(rles),), how many each code has.

    Raises:
        ValueError: a text is no run-length code.
    """
    texts = [
        rle["counts"].encode() if isinstance(rle["counts"], str) else rle["counts"] for rle in rles
    ]
    return decode_counts(texts)


def _as_json(rle):
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
