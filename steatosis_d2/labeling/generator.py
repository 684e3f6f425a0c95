"""From an image to droplet labels: propose bright regions, weigh the evidence, keep the best."""

from dataclasses import replace

import cv2
import numpy as np

from steatosis_d2.labeling import splitting
from steatosis_d2.labeling.contour import Outlines, measure_shapes, measure_solidity, trace_regions
from steatosis_d2.labeling.droplet import Droplet, fill_outline, grow_droplet
from steatosis_d2.labeling.evidence import Scene, measure_evidence
from steatosis_d2.labeling.foreground import (
    find_background,
    level_of,
    measure_saturation,
    normalise_brightness,
    open_bright,
)

# Smaller polygons have no measurable form.
_MIN_POLYGON_AREA_PX = 4


def label_by_clump_split(image_rgb, *, mpp, parameters):
    """
    Outline the fat droplets of a bright-field H&E image.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): sizes, levels and thresholds.

    Returns:
        list[Droplet]: most confident first; their masks do not overlap.

    Source: the steps are those of Guo et al. 2019, section 2.1. That regions are proposed at
    several brightness levels and weighed by measured evidence is ours.
    """
    scene = prepare_scene(image_rgb, mpp=mpp, parameters=parameters)
    outlines = propose_outlines(scene.brightness, mpp=mpp, parameters=parameters)
    if not len(outlines):
        return []
    scores = parameters.scorecard.weigh(measure_evidence(outlines, scene))
    droplets = select_droplets(
        outlines,
        scores,
        image_shape=scene.brightness.shape,
        growth_px=round(parameters.growth_um / mpp),
        parameters=parameters,
    )
    return doubt_where_sparse(droplets, mpp=mpp, tissue_mm2=scene.tissue_mm2, parameters=parameters)


def prepare_scene(image_rgb, *, mpp, parameters):
    """
    The maps of an image that regions are cut from and evidence is read from.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): smoothing and the width of background.

    Returns:
        Scene: maps of the image's size.
    """
    brightness = normalise_brightness(image_rgb, smoothing_px=parameters.smoothing_um / mpp)
    return Scene(
        brightness=brightness,
        saturation=measure_saturation(image_rgb),
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

    Returns:
        Outlines: many overlap, for regions are nested from level to level.
    """
    opened = open_bright(brightness, radius_px=round(parameters.opening_um / mpp))
    # The outline of a disk has at least twice as many pixels as its diameter.
    min_points = int(2 * parameters.min_diameter_um / mpp)
    contours, levels = [], []
    for fraction in parameters.levels:
        regions = trace_regions(opened, level_of(fraction), min_points=min_points)
        contours += regions
        levels += [level_of(fraction)] * len(regions)
    clump_level = level_of(parameters.clump_level)
    regions = trace_regions(opened, clump_level, min_points=min_points)
    parts = split_clumps(regions, brightness, opened > clump_level, mpp=mpp, parameters=parameters)
    outlines = Outlines.join(contours + parts, levels + [clump_level] * len(parts))
    if not len(outlines):
        return outlines
    shapes = measure_shapes(outlines)
    diameter_um = shapes.diameter_px * mpp
    return outlines.keep(
        (diameter_um >= parameters.min_diameter_um)
        & (diameter_um <= parameters.max_diameter_um)
        & (np.abs(shapes.signed_area_px) >= _MIN_POLYGON_AREA_PX)
    )


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
        if not splitting.is_clump(measure_solidity(contour_xy)):
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


def select_droplets(outlines, scores, *, image_shape, growth_px, parameters):
    """
    The most confident outlines that do not overlap, as masks.

    Args:
        outlines (Outlines): M proposals.
        scores (ndarray): shape (M,), confidence in 0..1.
        image_shape (tuple[int, int]): height and width, in px.
        growth_px (int): width of the rim that is added to each mask, in px.
        parameters (LabelParameters): least confidence and largest overlap.

    Returns:
        list[Droplet]: most confident first.
    """
    taken = np.zeros(image_shape, bool)
    chosen = []
    for index in np.argsort(-scores, kind="stable"):
        if scores[index] < parameters.min_score:
            break
        crop, top, left = fill_outline(outlines[index])
        window = taken[top : top + crop.shape[0], left : left + crop.shape[1]]
        if (window & crop).sum() <= parameters.max_overlap * crop.sum():
            chosen.append(Droplet(crop & ~window, top, left, float(scores[index])))
            window |= crop
    return [grow_droplet(droplet, growth_px=growth_px, taken=taken) for droplet in chosen]


def doubt_where_sparse(droplets, *, mpp, tissue_mm2, parameters):
    """
    Lower the confidence where droplets are few, and drop those that fall below the least.

    In healthy liver, cuts through sinusoids and vessels look like droplets now and then, large
    ones above all; in a fatty one a droplet seldom comes alone. So the fewer there are on the
    tissue, the better each must be.

    Args:
        droplets (list[Droplet]): of one image.
        mpp (float): pixel size in um/px.
        tissue_mm2 (float): area of the image's tissue.
        parameters (LabelParameters): where doubt sets in, its strength, the least confidence.

    Returns:
        list[Droplet]: most confident first.
    """
    if not droplets:
        return []
    scores = np.array([droplet.score for droplet in droplets])
    diameter_um = 2 * mpp * np.sqrt([droplet.crop.sum() / np.pi for droplet in droplets])
    density = scores.sum() / max(tissue_mm2, 1e-9)
    doublings = np.log2(diameter_um / parameters.large_um).clip(0)
    doubt = parameters.sparse_doubt * max(0, np.log2(parameters.sparse_per_mm2 / density))
    doubt = doubt + doublings * parameters.few_doubt * max(
        0, np.log2(parameters.few_per_mm2 / density)
    )
    odds = scores / np.maximum(1 - scores, 1e-9) * np.exp(-doubt)
    doubted = [
        replace(droplet, score=float(score))
        for droplet, score in zip(droplets, odds / (1 + odds), strict=True)
        if score >= parameters.min_score
    ]
    return sorted(doubted, key=lambda droplet: -droplet.score)


def _disk_area(diameter):
    return np.pi / 4 * diameter**2
