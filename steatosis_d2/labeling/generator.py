"""From an image to droplet labels: propose bright regions, weigh the evidence, keep the best."""

import cv2
import numpy as np

from steatosis_d2.data.brightness import (
    find_background,
    level_of,
    measure_saturation,
    normalise_brightness,
    open_bright,
)
from steatosis_d2.instances.instance import Instance
from steatosis_d2.labeling import splitting
from steatosis_d2.labeling.contour import Outlines, outline_solidity, trace_regions
from steatosis_d2.labeling.doubt import doubt_where_sparse
from steatosis_d2.labeling.droplet_masks import fill_outline, grow_droplet
from steatosis_d2.labeling.evidence import Scene, measure_evidence
from steatosis_d2.labeling.openings import doubt_openings

# Smaller polygons have no measurable form.
_MIN_POLYGON_AREA_PX = 4
# A quarter of a disk, in a corner of the image, has 0.56 of its outline on the border; of what has
# more, too little is seen to tell.
_BORDER_SHARE = 0.6
# Evidence takes some 250 bytes for each point of an outline; that is 2 MB at a time.
_POINTS_AT_ONCE = 8192


def label_by_clump_split(image_rgb, *, mpp, parameters, levels=None):
    """
    Outline the fat droplets of a bright-field H&E image.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): sizes, levels and thresholds.
        levels (tuple[float, float] or None): as for
            :func:`~steatosis_d2.data.brightness.normalise_brightness`.

    Returns:
        list[Instance]: most confident first; their masks do not overlap.

    Source: the steps are those of Guo et al. 2019, section 2.1. That regions are proposed at
    several brightness levels and weighed by measured evidence is ours.
    """
    scene = prepare_scene(image_rgb, mpp=mpp, parameters=parameters, levels=levels)
    contours, scores = [], []
    for outlines in propose_outlines(scene.brightness, mpp=mpp, parameters=parameters):
        evidence = measure_evidence(outlines, scene)
        confidence = parameters.scorecard.weigh(evidence)
        keep = (
            (confidence >= parameters.min_score)
            & (evidence["axis_ratio"] >= parameters.min_axis_ratio)
            & (evidence["border_share"] < _BORDER_SHARE)
        )
        contours += outlines.keep(keep).split()
        scores += confidence[keep].tolist()
    droplets = select_droplets(
        contours,
        scores,
        image_shape=scene.brightness.shape,
        growth_px=round(parameters.growth_um / mpp),
        max_overlap=parameters.max_overlap,
    )
    droplets = doubt_where_sparse(droplets, scene, parameters=parameters)
    return doubt_openings(droplets, scene, parameters=parameters)


def prepare_scene(image_rgb, *, mpp, parameters, levels=None):
    """
    The maps of an image that regions are cut from and evidence is read from.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): smoothing and the width of background.
        levels (tuple[float, float] or None): as for :func:`label_by_clump_split`.

    Returns:
        Scene: maps of the image's size.
    """
    brightness = normalise_brightness(
        image_rgb, smoothing_px=parameters.smoothing_um / mpp, levels=levels
    )
    return Scene(
        brightness=brightness,
        saturation=measure_saturation(image_rgb),
        red=image_rgb[..., 0],
        background=find_background(
            brightness, min_width_um=parameters.background_width_um, mpp=mpp
        ),
        mpp=mpp,
    )


def propose_outlines(brightness, *, mpp, parameters):
    """
    Outlines of everything that may be a droplet: whole bright regions and parts of clumps.

    Args:
        brightness (ndarray): uint8, shape (H, W), normalised.
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): opening, levels and sizes.

    Yields:
        Outlines: some proposals at a time, so that memory stays small; many overlap, for regions
        are nested from level to level.
    """
    opened = open_bright(brightness, radius_px=round(parameters.opening_um / mpp))
    # The outline of a disk has at least twice as many pixels as its diameter.
    min_points = int(2 * parameters.min_diameter_um / mpp)
    for fraction in parameters.levels:
        level = level_of(fraction)
        regions = trace_regions(opened, level, min_points=min_points)
        yield from _join_in_batches(regions, level, mpp=mpp, parameters=parameters)
    level = level_of(parameters.clump_level)
    regions = trace_regions(opened, level, min_points=min_points)
    parts = split_clumps(regions, brightness, opened > level, mpp=mpp, parameters=parameters)
    yield from _join_in_batches(parts, level, mpp=mpp, parameters=parameters)


def split_clumps(regions, brightness, bright, *, mpp, parameters):
    """
    Outlines of the parts of those regions that are clumps.

    Args:
        regions (list[ndarray]): int32, shape (n, 2), outlines (x, y), in px.
        brightness (ndarray): uint8, shape (H, W), normalised.
        bright (ndarray): bool, shape (H, W), the pixels of all regions, holes left out.
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): sizes.

    Returns:
        list[ndarray]: as ``regions``; single droplets and what cannot be split have none.
    """
    min_area_px = _disk_area(parameters.min_clump_part_um / mpp)
    max_area_px = _disk_area(parameters.background_width_um / mpp)
    parts = []
    for contour_xy in regions:
        if not 2 * min_area_px <= cv2.contourArea(contour_xy) <= max_area_px:
            continue
        if not splitting.is_clump(outline_solidity(contour_xy)):
            continue
        crop, top, left = fill_outline(contour_xy)
        window = np.s_[top : top + crop.shape[0], left : left + crop.shape[1]]
        pieces = splitting.split_clump(
            crop & bright[window], brightness[window], min_area_px=min_area_px
        )
        if len(pieces) > 1:
            outlines = (trace_regions(piece.view(np.uint8), 0) for piece in pieces)
            parts += [np.add(outline, (left, top)) for piece in outlines for outline in piece]
    return parts


def select_droplets(contours, scores, *, image_shape, growth_px, max_overlap):
    """
    The most confident outlines that do not overlap, as masks.

    Args:
        contours (list[ndarray]): int32, shape (n, 2), M outlines (x, y), in px.
        scores (list[float]): M confidences in 0..1.
        image_shape (tuple[int, int]): height and width, in px.
        growth_px (int): width of the rim that is added to each mask, in px.
        max_overlap (float): share of an outline that better ones may have taken already.

    Returns:
        list[Instance]: most confident first.
    """
    taken = np.zeros(image_shape, bool)
    chosen = []
    for index in np.argsort(-np.array(scores), kind="stable"):
        crop, top, left = fill_outline(contours[index])
        window = taken[top : top + crop.shape[0], left : left + crop.shape[1]]
        if (window & crop).sum() <= max_overlap * crop.sum():
            chosen.append(Instance(crop & ~window, top, left, scores[index]))
            window |= crop
    return [grow_droplet(droplet, growth_px=growth_px, taken=taken) for droplet in chosen]


def _join_in_batches(contours, level, *, mpp, parameters):
    """Outlines of the contours that are as large as a droplet may be, some at a time."""
    smallest_px = _disk_area(parameters.min_diameter_um / mpp)
    largest_px = _disk_area(parameters.max_diameter_um / mpp)
    batch, points = [], 0
    for contour_xy in contours:
        area_px = cv2.contourArea(contour_xy)
        border_px = len(contour_xy) / 2 + 1
        if area_px < _MIN_POLYGON_AREA_PX or not smallest_px <= area_px + border_px <= largest_px:
            continue
        batch.append(contour_xy)
        points += len(contour_xy)
        if points >= _POINTS_AT_ONCE:
            yield Outlines.join(batch, [level] * len(batch))
            batch, points = [], 0
    if batch:
        yield Outlines.join(batch, [level] * len(batch))


def _disk_area(diameter):
    return np.pi / 4 * diameter**2
