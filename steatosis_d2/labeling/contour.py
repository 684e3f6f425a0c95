"""Outlines of bright regions: tracing, shape, and points of high curvature."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Outlines:
    """
    Closed outlines of many regions, end to end in one array, so that all are measured at once.

    Attributes:
        points_xy (ndarray): int32, shape (N, 2), pixels on the border of the regions, in px.
        counts (ndarray): int64, shape (M,), points of each outline.
        levels (ndarray): uint8, shape (M,), brightness above which each region was cut out.
    """

    points_xy: np.ndarray
    counts: np.ndarray
    levels: np.ndarray

    def __len__(self):
        return len(self.counts)

    @property
    def starts(self):
        """ndarray: int64, shape (M,), index of the first point of each outline."""
        return np.cumsum(self.counts) - self.counts

    @property
    def owner(self):
        """ndarray: int64, shape (N,), index of the outline that each point belongs to."""
        return np.repeat(np.arange(len(self)), self.counts)

    def split(self):
        """list[ndarray]: the outlines one by one, each int32, shape (n, 2)."""
        return np.split(self.points_xy, self.starts[1:]) if len(self) else []

    def sums(self, values):
        """Sum of one value a point over each outline, float64, shape (M,)."""
        return np.add.reduceat(values, self.starts, dtype=np.float64)

    def means(self, values):
        """Mean of one value a point over each outline, float64, shape (M,)."""
        return self.sums(values) / self.counts

    def neighbours(self, offset):
        """Point ``offset`` steps further along each outline (N, 2), round the end."""
        owner = self.owner
        start, count = self.starts[owner], self.counts[owner]
        return self.points_xy[start + (np.arange(len(owner)) - start + offset) % count]

    @classmethod
    def join(cls, contours, levels):
        """Outlines of a list of (n, 2) arrays and the level of each."""
        return cls(
            np.concatenate([np.empty((0, 2), np.int32), *contours]),
            np.array([len(contour) for contour in contours], np.int64),
            np.array(levels, np.uint8),
        )

    def keep(self, which):
        """Outlines for which the bool array ``which``, shape (M,), is true."""
        return Outlines(
            self.points_xy[np.repeat(which, self.counts)], self.counts[which], self.levels[which]
        )


def trace_regions(brightness, level, *, min_points=1):
    """
    Outlines of the regions brighter than a level; holes in them are ignored.

    Args:
        brightness (ndarray): uint8, shape (H, W).
        level (int): regions are brighter than this.
        min_points (int): shorter outlines are dropped as noise.

    Returns:
        list[ndarray]: int32, shape (n, 2), the border pixels of one region each, (x, y) in px.
    """
    _, bright = cv2.threshold(brightness, level, 1, cv2.THRESH_BINARY)
    contours, hierarchy = cv2.findContours(bright, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    is_outer = hierarchy[0, :, 3] < 0
    return [
        contour[:, 0]
        for contour, outer in zip(contours, is_outer, strict=True)
        if outer and len(contour) >= min_points
    ]


@dataclass(frozen=True)
class Shapes:
    """
    Shape of many outlines, from exact area moments of their polygons.

    Attributes:
        centre_xy (ndarray): shape (M, 2), in px.
        area_px (ndarray): shape (M,), pixels inside and on the outline.
        signed_area_px (ndarray): shape (M,), of the polygon; the sign is the sense of rotation.
        covariance (ndarray): shape (M, 3): xx, xy, yy of the filled polygon, in px squared.
    """

    centre_xy: np.ndarray
    area_px: np.ndarray
    signed_area_px: np.ndarray
    covariance: np.ndarray

    @property
    def diameter_px(self):
        """ndarray: shape (M,), of the disk with the same area."""
        return 2 * np.sqrt(self.area_px / np.pi)

    @property
    def axis_ratio(self):
        """ndarray: shape (M,), minor over major axis of the ellipse with the same moments."""
        xx, xy, yy = self.covariance.T
        middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        return np.sqrt(np.maximum(middle - spread, 0) / np.maximum(middle + spread, 1e-9))


def measure_shapes(outlines):
    """
    Area, centre and moments of every outline at once (Green's theorem along the polygon).

    Args:
        outlines (Outlines): M outlines.

    Returns:
        Shapes: of M outlines.
    """
    first = outlines.points_xy[outlines.starts]
    origin = first[outlines.owner]
    x0, y0 = (outlines.points_xy - origin).T.astype(np.float64)
    x1, y1 = (outlines.neighbours(1) - origin).T.astype(np.float64)
    cross = x0 * y1 - x1 * y0
    signed_area = outlines.sums(cross) / 2
    # A line of pixels has no area; its moments then are those of the pixel line's centre.
    divisor = np.where(np.abs(signed_area) < 0.5, 0.5, signed_area)
    centre_x = outlines.sums((x0 + x1) * cross) / (6 * divisor)
    centre_y = outlines.sums((y0 + y1) * cross) / (6 * divisor)
    xx = outlines.sums((x0 * x0 + x0 * x1 + x1 * x1) * cross) / (12 * divisor) - centre_x**2
    yy = outlines.sums((y0 * y0 + y0 * y1 + y1 * y1) * cross) / (12 * divisor) - centre_y**2
    xy = (
        outlines.sums((2 * x0 * y0 + x0 * y1 + x1 * y0 + 2 * x1 * y1) * cross) / (24 * divisor)
        - centre_x * centre_y
    )
    return Shapes(
        centre_xy=first + np.stack([centre_x, centre_y], axis=1),
        # Pick's theorem: lattice points inside and on a lattice polygon
        area_px=np.abs(signed_area) + outlines.counts / 2 + 1,
        signed_area_px=signed_area,
        covariance=np.stack([xx, xy, yy], axis=1),
    )


def measure_ellipse_misfit(outlines, shapes):
    """
    How far the points of each outline lie off the ellipse with the same moments.

    Args:
        outlines (Outlines): M outlines.
        shapes (Shapes): of the same outlines.

    Returns:
        ndarray: shape (M,), spread of the points' distances relative to the ellipse; 0 is perfect.
    """
    owner = outlines.owner
    x, y = (outlines.points_xy - shapes.centre_xy[owner]).T
    xx, xy, yy = shapes.covariance.T
    # A tenth of a pixel squared keeps a line of pixels from having no width at all.
    xx, yy = xx + 0.1, yy + 0.1
    determinant = np.maximum(xx * yy - xy**2, 1e-3)
    form = (yy[owner] * x * x - 2 * xy[owner] * x * y + xx[owner] * y * y) / determinant[owner]
    radius = np.sqrt(np.maximum(form, 0)) / 2
    mean = outlines.means(radius)
    return np.sqrt(np.maximum(outlines.means(radius**2) - mean**2, 0)) / np.maximum(mean, 1e-9)


def outline_solidity(contour_xy):
    """
    Area of a region over the area of its convex hull, both counted in pixels.

    Args:
        contour_xy (ndarray): int32, shape (n, 2), every border pixel of the region.

    Returns:
        float: in 0..1; 1 is convex.
    """
    hull = cv2.convexHull(contour_xy)
    area = cv2.contourArea(contour_xy) + len(contour_xy) / 2 + 1
    # Pick's theorem again; of a hull's edges only one in gcd(dx, dy) points is on the lattice.
    edges = np.abs(np.diff(hull[:, 0], axis=0, append=hull[:1, 0]))
    hull_area = cv2.contourArea(hull) + np.gcd(*edges.T).sum() / 2 + 1
    return min(1.0, float(area / hull_area))


def vote_for_notches(contour_xy, *, arms_px, region_is_inside=True):
    """
    Votes of several arm lengths on how sharply an outline turns into its region.

    Where two droplets touch, their common outline has a notch. At each point, two arms reach
    the same number of points back and forth along the outline; each arm length votes with the
    angle by which the arms fold into the region. Noise sways short arms only and wide bends
    long arms only, so that a notch of droplet size collects the most.

    Source: high-curvature point voting, Guo et al. 2019, section 2.1.

    Args:
        contour_xy (ndarray): shape (n, 2), consecutive border pixels.
        arms_px (sequence of int): arm lengths, in points of the outline.
        region_is_inside (bool): False for the outline of a hole in the region.

    Returns:
        ndarray: float64, shape (n,), mean angle in radians; 0 where the region is convex.
    """
    points = contour_xy.astype(np.float64)
    polygon_sign = np.sign(cv2.contourArea(contour_xy.astype(np.float32), oriented=True))
    inward = -polygon_sign if region_is_inside else polygon_sign
    votes = np.zeros(len(points))
    for arm in arms_px:
        back, forth = points - np.roll(points, arm, axis=0), np.roll(points, -arm, axis=0) - points
        cross = back[:, 0] * forth[:, 1] - back[:, 1] * forth[:, 0]
        angle = inward * np.arctan2(cross, (back * forth).sum(axis=1))
        votes += np.maximum(angle, 0)
    return votes / len(arms_px)


def pick_notches(votes, *, min_angle, min_gap):
    """
    The points that won the vote: local maxima, strongest first.

    Args:
        votes (ndarray): shape (n,), from :func:`vote_for_notches`.
        min_angle (float): weakest vote that counts, in radians.
        min_gap (int): points between two notches, along the outline, at least.

    Returns:
        ndarray: int, shape (k,), indices into the outline.
    """
    chosen: list[int] = []
    for index in np.argsort(-votes, kind="stable"):
        if votes[index] < min_angle:
            break
        gaps = np.abs(np.array(chosen, np.int64) - index)
        if np.all(np.minimum(gaps, len(votes) - gaps) >= min_gap):
            chosen.append(int(index))
    return np.array(chosen, np.int64)
