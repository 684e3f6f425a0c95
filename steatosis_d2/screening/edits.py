"""Edits of outlines: merged, split along a line, drawn anew."""

import cv2
import numpy as np
import shapely
from pycocotools import mask as coco_mask
from scipy import ndimage

from steatosis_d2.instances.outlines import fill_geometry
from steatosis_d2.instances.rle import decode_crop, encode_crop

# A line across a ragged outline cuts off single pixels as well; nobody means these as objects.
_LEAST_SHARE = 0.02
# OpenCV draws lines between points given in 1/16 px.
_SHIFT = 4


def merge_masks(rles):
    """
    Union of masks of one image.

    Args:
        rles (list[dict]): COCO RLE, at least one.

    Returns:
        dict: COCO RLE with ``counts`` as str.
    """
    union = coco_mask.merge(rles)
    return {"size": list(union["size"]), "counts": union["counts"].decode("ascii")}


def split_mask(rle, line_xy):
    """
    Split a mask along a drawn line; each of its pixels goes into exactly one part.

    Args:
        rle (dict): COCO RLE.
        line_xy (list[tuple[float, float]]): at least two points (x, y), in px of the image.

    Returns:
        list[dict]: COCO RLE of two parts or more, the largest first. Slivers of less than 2% of
        the mask, such as a line along a ragged outline cuts off, stay with the nearest part.

    Raises:
        ValueError: the line does not cut the mask in two.

    Examples:
        >>> square = encode_crop(np.ones((8, 8), bool), top=0, left=0, height=8, width=8)
        >>> [int(coco_mask.area(part)) for part in split_mask(square, [(3, -1), (3, 9)])]
        [40, 24]
    """
    crop, top, left = decode_crop(rle)
    parts, n_parts = ndimage.label(crop & ~_draw_line(crop.shape, line_xy, top=top, left=left))
    sizes = np.bincount(parts.ravel(), minlength=n_parts + 1)[1:]
    kept = 1 + np.argsort(-sizes, kind="stable")
    kept = kept[sizes[kept - 1] >= _LEAST_SHARE * np.count_nonzero(crop)]
    if len(kept) < 2:
        raise ValueError("The line does not cut the label in two: draw it right across.")
    nearest = ndimage.distance_transform_edt(
        ~np.isin(parts, kept), return_distances=False, return_indices=True
    )
    parts = parts[tuple(nearest)]
    height, width = rle["size"]
    return [
        encode_crop(crop & (parts == part), top=top, left=left, height=height, width=width)
        for part in kept
    ]


def close_outline(points_xy):
    """
    What a line drawn by hand encloses, however often it crosses itself.

    Who draws round an object overshoots where the line began; by the even-odd rule, which
    ``shapely.make_valid`` follows, that would leave a hole.

    Args:
        points_xy (list[tuple[float, float]]): (x, y); the last one is joined to the first.

    Returns:
        shapely.Geometry: valid; empty for fewer than three points, or points on one line.

    Examples:
        >>> close_outline([(0, 0), (4, 4), (4, 0), (0, 4)]).area
        8.0
    """
    if len(points_xy) < 3:
        return shapely.Polygon()
    lines = shapely.node(shapely.LinearRing(points_xy))
    return shapely.union_all(shapely.polygonize([lines]))


def encode_geometry(geometry, *, height, width):
    """
    The pixels of an image whose centres an outline encloses.

    Args:
        geometry (shapely.Geometry): in px of the image; one that crosses itself is mended, what
            is outside the image is cut off, and points and lines are left out.
        height (int): of the image, in px.
        width (int): of the image, in px.

    Returns:
        dict or None: COCO RLE with ``counts`` as str; None where no pixel is enclosed.
    """
    image = shapely.box(0, 0, width, height)
    geometry = shapely.make_valid(geometry)
    # Before it is filled: an outline far outside would take memory for all that lies between.
    inside = geometry if image.covers(geometry) else geometry.intersection(image)
    parts = shapely.get_parts(shapely.get_parts(inside))  # of a collection, then of these
    areas = shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
    crop, top, left = fill_geometry(areas)
    if not crop.any():
        return None
    return encode_crop(crop, top=top, left=left, height=height, width=width)


def _draw_line(shape, line_xy, *, top, left):
    """The pixels of a crop that a line passes, connected by sides or corners: bool (h, w)."""
    drawn = np.zeros(shape, np.uint8)
    # The centre of the first pixel is OpenCV's origin.
    points = np.asarray(line_xy, float) - (left + 0.5, top + 0.5)
    points = np.round(points * 2**_SHIFT).astype(np.int32)
    cv2.polylines(drawn, [points], False, 1, 1, cv2.LINE_8, _SHIFT)
    return drawn.astype(bool)
