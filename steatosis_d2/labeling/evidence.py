"""What speaks for a bright region being a droplet: measured parts, each with a name."""

from dataclasses import dataclass

import cv2
import numpy as np

from steatosis_d2.labeling.contour import (
    measure_ellipse_misfit,
    measure_shapes,
    measure_solidity,
)
from steatosis_d2.labeling.foreground import TISSUE, WHITE

# Where the brightness is read along the outward normal of the outline, in um.
_INSIDE_UM = (-1.5, -1.0, -0.5)
_OUTSIDE_UM = (1.0, 1.5, 2.0, 2.5)
_ALONG_UM = (*_INSIDE_UM, 0.0, 0.5, *_OUTSIDE_UM)
_CONTEXT_PIXEL_UM = 2.0


@dataclass(frozen=True)
class Scene:
    """
    The maps of one image that evidence is read from.

    Attributes:
        brightness (ndarray): uint8, shape (H, W), normalised.
        saturation (ndarray): uint8, shape (H, W).
        background (ndarray): bool, shape (h, w), coarser than the image.
        mpp (float): pixel size in um/px.
    """

    brightness: np.ndarray
    saturation: np.ndarray
    background: np.ndarray
    mpp: float

    @property
    def tissue_mm2(self):
        """float: area of all that is not background."""
        pixels = (1 - self.background.mean()) * self.brightness.size
        return pixels * (self.mpp / 1000) ** 2


def measure_evidence(outlines, scene):
    """
    Measure every part of the evidence for each outline.

    Brightness is in units of the way from median tissue (0) to white (1).

    Args:
        outlines (Outlines): M outlines.
        scene (Scene): the image they lie in.

    Returns:
        dict: name (str) -> ndarray float64, shape (M,).
    """
    shapes = measure_shapes(outlines)
    return {
        **_measure_form(outlines, shapes, scene.mpp),
        **_measure_edge(outlines, shapes, scene),
        **_measure_surroundings(shapes, scene),
    }


def _measure_form(outlines, shapes, mpp):
    turn_xy = outlines.points_xy - outlines.neighbours(1)
    perimeter = outlines.sums(np.hypot(*turn_xy.T))
    return {
        "diameter_um": shapes.diameter_px * mpp,
        "solidity": np.array([measure_solidity(contour_xy) for contour_xy in outlines.split()]),
        "axis_ratio": shapes.axis_ratio,
        "ellipse_misfit": measure_ellipse_misfit(outlines, shapes),
        "circularity": 4 * np.pi * np.abs(shapes.signed_area_px) / np.maximum(perimeter, 1) ** 2,
    }


def _measure_edge(outlines, shapes, scene):
    brightness, saturation, in_image = _read_along_normals(outlines, shapes, scene)
    inside, outside = brightness[: len(_INSIDE_UM)], brightness[-len(_OUTSIDE_UM) :]
    inner, rim = inside.mean(axis=0), outside.min(axis=0)
    contrast = inner - rim
    mean_contrast = outlines.means(contrast)
    slope = (brightness[:-2] - brightness[2:]).max(axis=0)
    level = (outlines.levels - float(TISSUE)) / (WHITE - TISSUE)
    beyond = outside.mean(axis=0)
    return {
        "inner_brightness": outlines.means(inner),
        "rim_brightness": outlines.means(rim),
        "contrast": mean_contrast,
        "contrast_spread": _spread(outlines, contrast),
        "weak_edge_share": outlines.means(contrast < 0.5 * mean_contrast[outlines.owner]),
        "open_edge_share": outlines.means(rim > level[outlines.owner] - 0.05),
        "edge_slope": outlines.means(slope),
        "edge_slope_spread": _spread(outlines, slope),
        "level_height": (level - outlines.means(rim)) / np.maximum(mean_contrast, 0.05),
        "inner_saturation": outlines.means(saturation[: len(_INSIDE_UM)].mean(axis=0)),
        "rim_saturation": outlines.means(saturation[-len(_OUTSIDE_UM) :].mean(axis=0)),
        "outer_brightness": outlines.means(beyond),
        "outer_spread": _spread(outlines, beyond),
        "border_share": 1 - outlines.means(in_image),
        "level": level,
    }


def _spread(outlines, values):
    variance = outlines.means(values**2) - outlines.means(values) ** 2
    return np.sqrt(np.maximum(variance, 0))


def _read_along_normals(outlines, shapes, scene):
    """Brightness (K, N), saturation (K, N) along the normals; bool (N,), normal is in the image."""
    height, width = scene.brightness.shape
    tangent = (outlines.neighbours(2) - outlines.neighbours(-2)).astype(np.float32)
    tangent /= np.maximum(np.hypot(*tangent.T), 1e-6)[:, np.newaxis]
    outward = np.sign(shapes.signed_area_px)[outlines.owner, np.newaxis]
    normal_xy = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1) * outward
    steps_px = np.array(_ALONG_UM, np.float32)[:, np.newaxis, np.newaxis] / scene.mpp
    x, y = np.moveaxis(np.rint(outlines.points_xy + steps_px * normal_xy).astype(np.int32), -1, 0)
    just_outside = len(_INSIDE_UM) + 1
    in_image = (
        (x[just_outside] >= 0)
        & (x[just_outside] < width)
        & (y[just_outside] >= 0)
        & (y[just_outside] < height)
    )
    pixel = y.clip(0, height - 1) * width + x.clip(0, width - 1)
    brightness = (scene.brightness.ravel()[pixel].astype(np.float32) - TISSUE) / (WHITE - TISSUE)
    return brightness, scene.saturation.ravel()[pixel].astype(np.float32), in_image


def _measure_surroundings(shapes, scene):
    height, width = scene.brightness.shape
    step_px = max(1.0, _CONTEXT_PIXEL_UM / scene.mpp)
    size = max(1, round(width / step_px)), max(1, round(height / step_px))
    coarse = cv2.resize(scene.brightness, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    coarse = (coarse - TISSUE) / (WHITE - TISSUE)
    column = (shapes.centre_xy[:, 0] * size[0] / width).astype(int).clip(0, size[0] - 1)
    row = (shapes.centre_xy[:, 1] * size[1] / height).astype(int).clip(0, size[1] - 1)

    def average(values, window_um):
        window = 2 * round(window_um / 2 / (step_px * scene.mpp)) + 1
        return cv2.blur(values, (window, window))[row, column].astype(np.float64)

    near, far = average(coarse, 16.0), average(coarse, 48.0)
    return {
        "near_brightness": near,
        "near_spread": np.sqrt(np.maximum(average(coarse**2, 16.0) - near**2, 0)),
        "far_brightness": far,
        "far_spread": np.sqrt(np.maximum(average(coarse**2, 48.0) - far**2, 0)),
        "far_dark_share": average((coarse < -0.35).astype(np.float32), 16.0),
        "far_white_share": average((coarse > 0.5).astype(np.float32), 32.0),
        "background_distance_um": _distance_to_background(shapes, scene),
    }


def _distance_to_background(shapes, scene):
    """From the edge of the disk of equal area, in um, at most 50; negative inside background."""
    if not scene.background.any():
        return np.full(len(shapes.area_px), 50.0)
    height, width = scene.brightness.shape
    rows, columns = scene.background.shape
    depth = cv2.distanceTransform((~scene.background).astype(np.uint8), cv2.DIST_L2, 5)
    column = (shapes.centre_xy[:, 0] * columns / width).astype(int).clip(0, columns - 1)
    row = (shapes.centre_xy[:, 1] * rows / height).astype(int).clip(0, rows - 1)
    pixel_um = scene.mpp * height / rows
    distance_um = depth[row, column] * pixel_um - shapes.diameter_px * scene.mpp / 2
    return np.minimum(distance_um, 50.0)
