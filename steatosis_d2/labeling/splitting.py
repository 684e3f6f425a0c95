"""
Clumps of touching droplets, cut apart where they touch.

Source: Guo et al. 2019, section 2.1: clumps are the regions with low solidity; high-curvature
points are paired by ellipse fit, distance, convexity and curvature; dividing curves follow the
local intensity within a sector-shaped search space.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage import graph, segmentation

from steatosis_d2.labeling.contour import (
    Outlines,
    measure_ellipse_misfit,
    measure_shapes,
    outline_solidity,
    pick_notches,
    vote_for_notches,
)

# Guo et al. 2019, section 2.1: what is more solid is one droplet.
SINGLE_SOLIDITY = 0.95

# Less solid regions are networks of sinusoids or of foamy cytoplasm; a ring or a bent chain of
# droplets is more solid than this.
_LEAST_SOLIDITY = 0.6

# Arms of the curvature vote, relative to the radius of the largest disk that fits into the clump.
_ARMS = (0.2, 0.35, 0.5)
_MIN_NOTCH_ANGLE = np.deg2rad(25)
_MAX_NOTCHES = 24
# A cut is no wider than this times the smaller of the two droplets that it parts.
_MAX_RELATIVE_CUT = 0.8
_SECTOR_HALF_ANGLE = np.deg2rad(35)
# Darkness against straightness of a dividing curve: a pixel of white costs this many dark ones.
_WHITE_COST = 20.0


def is_clump(solidity):
    """Whether a region of this solidity, holes filled, may be several droplets that touch."""
    return _LEAST_SOLIDITY <= solidity <= SINGLE_SOLIDITY


@dataclass(frozen=True)
class Cut:
    """Two border pixels of a region, (x, y) in px of the region's crop, to be joined by a cut."""

    start_xy: np.ndarray
    end_xy: np.ndarray


def split_clump(region, brightness, *, min_area_px):
    """
    Part a clump of droplets into its droplets; chains and rings take one cut after another.

    Args:
        region (ndarray): bool, shape (h, w), one connected region in a crop of the image.
        brightness (ndarray): uint8, shape (h, w), of the same crop.
        min_area_px (float): no droplet is smaller.

    Returns:
        list[ndarray]: bool, shape (h, w), disjoint; together they are the region, holes smaller
        than ``min_area_px`` filled. A region that cannot be parted comes back alone.
    """
    # A margin keeps outlines off the crop's border, and cuts away from its edge pixels.
    region = np.pad(_fill_small_holes(region, min_area_px), 1)
    brightness = np.pad(brightness, 1, mode="edge")
    waiting, droplets = [region], []
    while waiting:
        part = waiting.pop()
        pieces = _cut_once(part, brightness, min_area_px)
        if pieces:
            waiting.extend(pieces)
        else:
            droplets.append(part)
    return [droplet[1:-1, 1:-1] for droplet in _return_cut_pixels(region, droplets)]


def find_cut(region, *, min_area_px):
    """
    The best pair of notches to cut between.

    Args:
        region (ndarray): bool, shape (h, w), with a margin of one pixel.
        min_area_px (float): no droplet is smaller.

    Returns:
        Cut or None: None if the region is a single droplet, or no pair makes two droplets of it.
    """
    contours, hierarchy = cv2.findContours(
        region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    is_hole = hierarchy[0, :, 3] >= 0
    outer = next(c[:, 0] for c, hole in zip(contours, is_hole, strict=True) if not hole)
    holes = [c[:, 0] for c, hole in zip(contours, is_hole, strict=True) if hole]
    if not holes and outline_solidity(outer) > SINGLE_SOLIDITY:
        return None
    radius_px = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5).max()
    notches, votes = _find_notches(outer, radius_px)
    if holes:
        return _find_ring_cut(outer, notches, holes, radius_px)
    pairs = _list_pairs(outer, notches, max_width_px=2 * radius_px)
    return _pick_pair(outer, pairs, votes, min_area_px)


def find_dividing_curve(region, brightness, cut):
    """
    The darkest way between the two ends of a cut, inside the sectors in which they see each other.

    Args:
        region (ndarray): bool, shape (h, w).
        brightness (ndarray): uint8, shape (h, w).
        cut (Cut): the ends, in the region.

    Returns:
        ndarray: int, shape (n, 2), (row, column) of connected pixels from end to end.
    """
    low = np.minimum(cut.start_xy, cut.end_xy)
    span = np.abs(cut.end_xy - cut.start_xy)
    margin = int(np.ceil(np.tan(_SECTOR_HALF_ANGLE) * np.hypot(*span) / 2)) + 1
    left, top = np.maximum(low - margin, 0)
    right, bottom = low + span + margin + 1
    window = np.s_[top:bottom, left:right]
    start, end = cut.start_xy - (left, top), cut.end_xy - (left, top)
    light = brightness[window].astype(np.float64)
    inside = region[window] & _see_each_other(light.shape, start, end)
    darkest, lightest = light[inside].min(initial=255), light[inside].max(initial=0)
    cost = 1 + _WHITE_COST * (light - darkest).clip(0) / max(lightest - darkest, 1)
    # Outside the region or the sectors a pixel is passable, for two notches may lie round a
    # corner, but dearer than any way within.
    cost[~inside] = (1 + _WHITE_COST) * 5
    path, _ = graph.route_through_array(cost, start[::-1], end[::-1], fully_connected=True)
    return np.add(path, (top, left))


def _fill_small_holes(region, min_area_px):
    count, holes, stats, _ = cv2.connectedComponentsWithStats(
        np.pad(~region, 1, constant_values=True).astype(np.uint8), connectivity=4
    )
    small = np.flatnonzero(stats[:count, cv2.CC_STAT_AREA] < min_area_px)
    return region | np.isin(holes[1:-1, 1:-1], small[small != 0])


def _cut_once(region, brightness, min_area_px):
    """The parts of a region after its best cut: two, one for an opened ring, none if uncut."""
    cut = find_cut(region, min_area_px=min_area_px)
    if cut is None:
        return []
    curve = find_dividing_curve(region, brightness, cut)
    line = np.zeros(region.shape, np.uint8)
    line[tuple(curve.T)] = 1
    # Two pixels wide, so that no diagonal step joins what it parts.
    line = cv2.dilate(line, np.ones((2, 2), np.uint8))
    remaining = (region & (line == 0)).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(remaining, connectivity=4)
    large = [i for i in range(1, len(stats)) if stats[i, cv2.CC_STAT_AREA] >= min_area_px / 2]
    if len(large) < 2 and _count_holes(parts == large[0] if large else region) >= _count_holes(
        region
    ):
        return []
    return [parts == i for i in large]


def _count_holes(region):
    count, _ = cv2.connectedComponents((~region).astype(np.uint8), connectivity=8)
    return count - 2


def _return_cut_pixels(region, droplets):
    if len(droplets) == 1:
        return [region]
    labels = np.zeros(region.shape, np.int32)
    for label, droplet in enumerate(droplets, start=1):
        labels[droplet] = label
    labels = segmentation.expand_labels(labels, distance=max(region.shape)) * region
    return [labels == label for label in range(1, len(droplets) + 1)]


def _find_notches(contour_xy, radius_px, *, region_is_inside=True):
    arms_px = sorted({max(2, round(arm * radius_px)) for arm in _ARMS})
    votes = vote_for_notches(contour_xy, arms_px=arms_px, region_is_inside=region_is_inside)
    notches = pick_notches(votes, min_angle=_MIN_NOTCH_ANGLE, min_gap=arms_px[0] * 2)
    return notches[:_MAX_NOTCHES], votes


def _find_ring_cut(outer, notches, holes, radius_px):
    """The shortest cut between a notch outside and any point of a hole: it opens the ring."""
    inner = np.concatenate(holes)
    ends = outer[notches] if len(notches) else outer
    distance = np.hypot(*(ends[:, np.newaxis] - inner).transpose(2, 0, 1))
    first, second = np.unravel_index(distance.argmin(), distance.shape)
    if distance[first, second] > 2 * radius_px * _MAX_RELATIVE_CUT:
        return None
    return Cut(ends[first], inner[second])


def _pick_pair(outer, pairs, votes, min_area_px):
    area, width = _measure_pairs(outer, pairs)
    smaller = area.min(axis=1)
    relative_width = width / (2 * np.sqrt(np.maximum(smaller, 1) / np.pi))
    allowed = (smaller >= min_area_px) & (relative_width <= _MAX_RELATIVE_CUT)
    if not allowed.any():
        return None
    pairs, area, relative_width = pairs[allowed], area[allowed], relative_width[allowed]
    sides = [side for first, second in pairs for side in _part_outline(outer, first, second)]
    outlines = Outlines.join(sides, [0] * len(sides))
    share = area / area.sum(axis=1, keepdims=True)
    misfit = measure_ellipse_misfit(outlines, measure_shapes(outlines)).reshape(-1, 2)
    solidity = np.array([_polygon_solidity(side) for side in sides]).reshape(-1, 2)
    concavity = ((1 - solidity) * share).sum(axis=1)
    curvature = votes[pairs].mean(axis=1)
    # All four are about 0..1 and differ most in clear cases, so that none decides alone.
    cost = 4 * (misfit * share).sum(axis=1) + 4 * concavity + relative_width - curvature / np.pi
    first, second = pairs[cost.argmin()]
    return Cut(outer[first], outer[second])


def _measure_pairs(outer, pairs):
    """Pixels on each side of the chord of each pair, (k, 2), and its length, (k,)."""
    x, y = (outer - outer[0]).T.astype(np.float64)
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    up_to = np.concatenate([[0], np.cumsum(cross)])
    first, second = pairs.T
    closing = x[second] * y[first] - x[first] * y[second]
    one = np.abs(up_to[second] - up_to[first] + closing) / 2
    width = np.hypot(x[first] - x[second], y[first] - y[second])
    # Polygons run through pixel centres; half of the border pixels lie outside (Pick's theorem).
    points = second - first
    other = np.abs(up_to[-1]) / 2 - one
    border = np.stack([points, len(outer) - points], axis=1) / 2
    return np.stack([one, other], axis=1) + border, width


def _list_pairs(outer, notches, *, max_width_px):
    """Every two notches, and each notch with the point across its narrowest passage, (k, 2)."""
    pairs = [(a, b) for i, a in enumerate(notches) for b in notches[i + 1 :]]
    for notch in notches:
        gap = np.abs(np.arange(len(outer)) - notch)
        along = np.minimum(gap, len(outer) - gap)
        width = np.hypot(*(outer - outer[notch]).T)
        pairs.append((notch, int(np.where(along > 0, width / along.clip(1), np.inf).argmin())))
    ends = np.sort(np.array(pairs, int).reshape(-1, 2), axis=1)
    gap = ends[:, 1] - ends[:, 0]
    width = np.hypot(*(outer[ends[:, 0]] - outer[ends[:, 1]]).T)
    return ends[(gap > 4) & (len(outer) - gap > 4) & (width <= max_width_px)]


def _part_outline(outer, first, second):
    return outer[first : second + 1], np.concatenate([outer[second:], outer[: first + 1]])


def _polygon_solidity(polygon_xy):
    hull_area = cv2.contourArea(cv2.convexHull(polygon_xy))
    return cv2.contourArea(polygon_xy) / hull_area if hull_area else 0.0


def _see_each_other(shape, start_xy, end_xy):
    """Pixels within the sector of each end that opens towards the other."""
    rows, columns = np.indices(shape)
    pixels = np.stack([columns, rows], axis=-1)
    return _in_sector(pixels, start_xy, end_xy) & _in_sector(pixels, end_xy, start_xy)


def _in_sector(pixels, apex_xy, towards_xy):
    axis = (towards_xy - apex_xy) / max(np.hypot(*(towards_xy - apex_xy)), 1e-9)
    offset = pixels - apex_xy
    along = offset @ axis
    return along >= np.cos(_SECTOR_HALF_ANGLE) * np.hypot(*np.moveaxis(offset, -1, 0)) - 1e-9
