"""Masks to polygons and back, without losing a pixel."""

import numpy as np
import shapely

from steatosis_d2.instances.strip import split_in_batches, stack_instances


def trace_outlines(instances):
    """
    Outlines of masks along the sides of their pixels: filled again, they give the same masks.

    A mask in two parts, which may share a corner but no side, becomes two polygons. All are valid
    by the rules of OGC (shapely, JTS, QuPath): rings are simple and touch one another in points
    at most.

    Args:
        instances (iterable[Instance]): any number.

    Yields:
        list[list[ndarray]]: polygons of one instance; each is its outer ring and those of its
        holes; int64, shape (n, 2), (x, y) in px of the image, the first point repeated at the
        end. Positive area in (x, y) is an outer ring, as GeoJSON wants it.

    Examples:
        >>> [[[ring]]] = trace_outlines([Instance(np.ones((1, 2), bool), 5, 3, 1.0)])
        >>> ring.tolist()
        [[3, 5], [5, 5], [5, 6], [3, 6], [3, 5]]
    """
    for batch in split_in_batches(instances):
        yield from _trace_batch(batch)


def build_geometries(outlines):
    """
    Shapely's geometries of outlines, many at once.

    Args:
        outlines (list[list[list[ndarray]]]): from :func:`trace_outlines`, at least one.

    Returns:
        ndarray: object, shape (n,): a Polygon each, or a MultiPolygon for what is in several parts.

    Examples:
        >>> square = Instance(np.ones((2, 2), bool), 5, 3, 1.0)
        >>> [geometry] = build_geometries(list(trace_outlines([square])))
        >>> geometry.bounds, geometry.area
        ((3.0, 5.0, 5.0, 7.0), 4.0)
    """
    polygons = [polygon for polygons in outlines for polygon in polygons]
    rings = [ring for polygon in polygons for ring in polygon]
    closed = shapely.linearrings(np.concatenate(rings), indices=_number_groups(rings))
    parts = shapely.polygons(closed, indices=_number_groups(polygons))
    groups = _number_groups(outlines)
    is_single = np.bincount(groups) == 1
    first = np.searchsorted(groups, np.arange(len(outlines)))
    return np.where(is_single, parts[first], shapely.multipolygons(parts, indices=groups))


def _number_groups(groups):
    """For each member of each of some lists, the number of its list."""
    return np.repeat(np.arange(len(groups)), [len(group) for group in groups])


def fill_geometry(geometry):
    """
    The pixels whose centres a polygon covers.

    Args:
        geometry (shapely.Geometry): Polygon or MultiPolygon, in px of the image.

    Returns:
        tuple: mask in the polygon's bounding box, bool (h, w); the box's first row; its first
        column. An empty or very small polygon may hold no pixel.
    """
    if geometry.is_empty:
        return np.zeros((0, 0), bool), 0, 0
    x_min, y_min, x_max, y_max = geometry.bounds
    left, top = int(np.floor(x_min)), int(np.floor(y_min))
    x, y = np.meshgrid(np.arange(left, np.ceil(x_max)) + 0.5, np.arange(top, np.ceil(y_max)) + 0.5)
    shapely.prepare(geometry)
    return shapely.contains_xy(geometry, x, y), top, left


def _trace_batch(instances):
    strip = stack_instances(instances)
    corners = _find_corners(strip.pixels)
    rows, columns, is_saddle = corners
    owner = strip.find_owners(rows)
    points_xy = np.stack(
        [columns + strip.lefts[owner], rows - strip.starts[owner] + strip.tops[owner]], axis=1
    )
    rings: list[list[np.ndarray]] = [[] for _ in instances]
    for ring in _follow_rings(strip.pixels, corners):
        rings[owner[ring[0]]].append(points_xy[[*ring, ring[0]]])
    with_saddle = set(owner[is_saddle].tolist())
    for index, outlines in enumerate(rings):
        if index in with_saddle:
            outlines = [loop for outline in outlines for loop in _split_at_touching_points(outline)]
        yield _sort_in_polygons(outlines) if len(outlines) > 1 else [outlines]


def _find_corners(pixels):
    """
    Corners of outlines, row by row; those where two outlines or turns meet (saddles) come twice.

    Returns:
        tuple: row and column of the pixel up and left of each corner; whether it is a saddle.
    """
    upper_left, upper_right = pixels[:-1, :-1], pixels[:-1, 1:]
    lower_left, lower_right = pixels[1:, :-1], pixels[1:, 1:]
    saddle = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    rows, columns = np.nonzero((upper_left ^ upper_right ^ lower_left ^ lower_right) | saddle)
    is_saddle = saddle[rows, columns]
    copies = 1 + is_saddle
    return np.repeat(rows, copies), np.repeat(columns, copies), np.repeat(is_saddle, copies)


def _follow_rings(pixels, corners):
    """
    Walk along the outlines, with the mask on the right-hand side (y points down).

    Horizontal sides join corners 0 and 1, 2 and 3, ... of the row-wise order; vertical sides the
    same of the column-wise order; a walk takes one of each in turn.

    Yields:
        list[int]: indices of the corners of one ring.
    """
    rows, columns, is_saddle = corners
    # Of a saddle's two corners the left one is first. Where the set pixels are upper right and
    # lower left, it has the side that goes down, so it is second in its column.
    order = np.arange(len(rows))
    left_goes_down = np.flatnonzero(is_saddle & pixels[rows, columns + 1])
    order[left_goes_down] = left_goes_down.reshape(-1, 2)[:, ::-1].ravel()
    order = order[np.argsort(columns[order], kind="stable")]
    above_or_below = np.empty_like(order)
    above_or_below[order[0::2]] = order[1::2]
    above_or_below[order[1::2]] = order[0::2]
    vertical = above_or_below.tolist()
    # The first corner met of a ring is its upper left one. The mask is below its side to the
    # right if the ring is an outer one; that of a hole is walked the other way.
    is_outer = pixels[rows + 1, columns + 1].tolist()
    seen = bytearray(len(vertical))
    for first in range(len(vertical)):
        if seen[first]:
            continue
        ring: list[int] = []
        corner = first
        while not seen[corner]:
            partner = corner ^ 1
            ring += corner, partner
            seen[corner] = seen[partner] = 1
            corner = vertical[partner]
        yield ring if is_outer[first] else ring[::-1]


def _split_at_touching_points(ring_xy):
    """Loops of a closed ring that passes through a point more than once."""
    loops = []
    path: dict[tuple[int, int], None] = {}  # in order, and quick to look up
    for point in map(tuple, ring_xy.tolist()):
        if point in path:
            loop = [point, path.popitem()[0]]
            while loop[-1] != point:
                loop.append(path.popitem()[0])
            loops.append(np.array(loop[::-1]))
        path[point] = None
    return loops


def _sort_in_polygons(rings):
    """Give each hole to the outer ring that it lies in."""
    is_outer = [shapely.LinearRing(ring).is_ccw for ring in rings]
    polygons = [[ring] for ring, outer in zip(rings, is_outer, strict=True) if outer]
    filled = [shapely.Polygon(outer) for [outer] in polygons]
    for ring, outer in zip(rings, is_outer, strict=True):
        if not outer:
            hole = shapely.Polygon(ring)
            around = [i for i, polygon in enumerate(filled) if polygon.covers(hole)]
            polygons[min(around, key=lambda i: filled[i].area)].append(ring)
    return polygons
