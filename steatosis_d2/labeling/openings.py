"""
A second look at large white regions: veins, bile ducts, wide sinusoids and glass are no fat.

What fills an outline says little of what it is. Around it are the nuclei of a duct's wall, the
other fat of a fatty liver, the border that cuts a strip of glass.
"""

from dataclasses import replace

import cv2
import numpy as np

from steatosis_d2.data.brightness import GLASS, TISSUE, level_of

# From here on a droplet is looked at again, and other fat counts as long as it is below the second.
LARGE_UM, LARGEST_FAT_UM = 15.0, 45.0
# Other fat is near within this distance of an outline.
_NEAR_UM = 120.0
# Nuclei of a wall lie so far outside of the outline, and are looked for in so many directions.
_WALL_UM = (0.8, 6.0)
_DIRECTIONS = 24
# Haematoxylin takes so many grey levels of red that eosin leaves.
_NUCLEUS_DARKER = 35
_NUCLEUS_SMOOTHING_UM = 0.5
# What is whiter than this, from median tissue (0) to white (1), is not counted as tissue.
_PALE = 0.6
# The inside begins so far within the outline; its darkest twentieth is what counts.
_INSIDE_UM, _DARKEST_PERCENT = 1.5, 5
_LEAST_CONFIDENCE = 1e-3


def doubt_openings(droplets, scene, *, parameters):
    """
    Judge large droplets anew, and drop those that are openings rather.

    Args:
        droplets (list[Instance]): of one image.
        scene (Scene): the image they lie in.
        parameters (LabelParameters): the card, and the least confidence.

    Returns:
        list[Instance]: most confident first; small ones are as they were.
    """
    large, parts = measure_openings(droplets, scene)
    if not large:
        return droplets
    judged = list(droplets)
    for index, score in zip(large, parameters.opening_card.weigh(parts), strict=True):
        judged[index] = replace(droplets[index], score=float(score))
    kept = [droplet for droplet in judged if droplet.score >= parameters.min_score]
    return sorted(kept, key=lambda droplet: -droplet.score)


def measure_openings(droplets, scene):
    """
    What tells a large droplet from an opening.

    Args:
        droplets (list[Instance]): all of one image.
        scene (Scene): the image they lie in.

    Returns:
        tuple: indices of the large ones, list[int]; dict name (str) -> ndarray float64, shape (M,),
        a value for each of them, empty where there are none.
    """
    areas_px = np.array([np.count_nonzero(droplet.crop) for droplet in droplets])
    diameters_um = 2 * scene.mpp * np.sqrt(areas_px / np.pi)
    large = np.flatnonzero(diameters_um >= LARGE_UM).tolist()
    if not large:
        return [], {}
    red_of_tissue = _median_red(scene)
    rows = [_measure_one(droplets[index], scene, red_of_tissue) for index in large]
    return large, {
        **{name: np.array([row[name] for row in rows]) for name in rows[0]},
        "wide_um": diameters_um[large],
        "fat_near_share": _share_of_fat_near(droplets, diameters_um, large, scene),
    }


def _measure_one(droplet, scene, red_of_tissue):
    """Form, inside and wall of one droplet."""
    reach_px = round(_WALL_UM[1] / scene.mpp) + 1
    height, width = scene.brightness.shape
    top, left = max(droplet.top - reach_px, 0), max(droplet.left - reach_px, 0)
    window = np.s_[
        top : min(droplet.bottom + reach_px, height), left : min(droplet.right + reach_px, width)
    ]
    mask = np.zeros_like(scene.brightness[window])
    mask[droplet.top - top : droplet.bottom - top, droplet.left - left : droplet.right - left] = (
        droplet.crop
    )
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour_xy = max(contours, key=len)[:, 0]
    perimeter_px = max(cv2.arcLength(contour_xy, True), 1)
    return {
        "log_odds": _log_odds(droplet.score),
        "roundness": 4 * np.pi * cv2.contourArea(contour_xy) / perimeter_px**2,
        "border_um": _count_on_border(np.add(contour_xy, (left, top)), width, height) * scene.mpp,
        "darkest_inside": _darkest_inside(mask, scene.brightness[window], scene.mpp),
        "nuclei_share": _share_with_nuclei(mask, scene.red[window], red_of_tissue, scene.mpp),
    }


def _log_odds(confidence):
    confidence = min(max(confidence, _LEAST_CONFIDENCE), 1 - _LEAST_CONFIDENCE)
    return np.log(confidence / (1 - confidence))


def _count_on_border(contour_xy, width, height):
    x, y = contour_xy.T
    return np.count_nonzero((x == 0) | (y == 0) | (x == width - 1) | (y == height - 1))


def _darkest_inside(mask, brightness, mpp):
    """From median tissue (0) to white (1): fat is clean, blood and plasma are not."""
    depth_um = cv2.distanceTransform(mask, cv2.DIST_L2, 5) * mpp
    inside = brightness[depth_um > min(_INSIDE_UM, depth_um.max() / 2)]
    return (np.percentile(inside, _DARKEST_PERCENT) - TISSUE) / (GLASS - TISSUE)


def _share_with_nuclei(mask, red, red_of_tissue, mpp):
    """Of the directions as seen from the middle, those in which the wall holds a nucleus."""
    red = cv2.GaussianBlur(red, (0, 0), max(_NUCLEUS_SMOOTHING_UM / mpp, 0.5))
    distance_um = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5) * mpp
    nearest_um, farthest_um = _WALL_UM
    is_wall = (distance_um > nearest_um) & (distance_um <= farthest_um)
    rows, columns = np.nonzero(is_wall & (red < red_of_tissue - _NUCLEUS_DARKER))
    middle = cv2.moments(mask, binaryImage=True)
    angle = np.arctan2(
        rows - middle["m01"] / middle["m00"], columns - middle["m10"] / middle["m00"]
    )
    directions = np.floor((angle / (2 * np.pi) + 0.5) * _DIRECTIONS) % _DIRECTIONS
    return len(np.unique(directions)) / _DIRECTIONS


def _median_red(scene):
    sample = np.s_[::4, ::4]
    red = scene.red[sample][scene.brightness[sample] < level_of(_PALE)]
    return float(np.median(red)) if red.size else 0.0


def _share_of_fat_near(droplets, diameters_um, large, scene):
    """Of the surroundings, the share that other droplets cover, weighted by their confidence."""
    mpp = scene.mpp
    height_um, width_um = np.array(scene.brightness.shape) * mpp
    x_um = mpp / 2 * np.array([droplet.left + droplet.right for droplet in droplets])
    y_um = mpp / 2 * np.array([droplet.top + droplet.bottom for droplet in droplets])
    scores = np.array([droplet.score for droplet in droplets])
    areas_um2 = scores * np.pi / 4 * diameters_um**2
    is_fat = diameters_um < LARGEST_FAT_UM
    shares = []
    for index in large:
        reach_um = _NEAR_UM + diameters_um[index] / 2
        near = is_fat & (np.hypot(x_um - x_um[index], y_um - y_um[index]) < reach_um)
        near[index] = False
        seen_um2 = _span(x_um[index], reach_um, width_um) * _span(y_um[index], reach_um, height_um)
        shares.append(areas_um2[near].sum() / seen_um2)
    return np.array(shares)


def _span(middle, reach, end):
    """How much of what is within reach lies between 0 and the end."""
    return min(middle + reach, end) - max(middle - reach, 0)
