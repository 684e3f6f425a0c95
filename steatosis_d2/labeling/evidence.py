"""What speaks for a bright region being a droplet: measured parts, each with a name."""

from dataclasses import dataclass

import numpy as np

from steatosis_d2.data.brightness import GLASS, TISSUE
from steatosis_d2.labeling.contour import measure_shapes, outline_solidity

# Where the brightness is read along the outward normal of the outline, in um.
_INSIDE_UM = (-1.5, -1.0, -0.5)
_OUTSIDE_UM = (1.0, 1.5, 2.0, 2.5)
_ALONG_UM = (*_INSIDE_UM, 0.0, 0.5, *_OUTSIDE_UM)


@dataclass(frozen=True)
class Scene:
    """
    The maps of one image that evidence is read from.

    Attributes:
        brightness (ndarray): uint8, shape (H, W), normalised.
        saturation (ndarray): uint8, shape (H, W).
        red (ndarray): uint8, shape (H, W), in which haematoxylin alone is dark.
        background (ndarray): bool, shape (h, w), coarser than the image.
        mpp (float): pixel size in um/px.
    """

    brightness: np.ndarray
    saturation: np.ndarray
    red: np.ndarray
    background: np.ndarray
    mpp: float


def measure_evidence(outlines, scene):
    """
    Measure every part of the evidence for each outline.

    Brightness is in units of the way from median tissue (0) to white (1). The rim is the darkest
    of what lies 1 to 2.5 um outside the outline.

    Args:
        outlines (Outlines): M outlines.
        scene (Scene): the image they lie in.

    Returns:
        dict: name (str) -> ndarray float64, shape (M,).
    """
    shapes = measure_shapes(outlines)
    return _measure_form(outlines, shapes, scene.mpp) | _measure_edge(outlines, shapes, scene)


def _measure_form(outlines, shapes, mpp):
    step_xy = outlines.points_xy - outlines.neighbours(1)
    perimeter = outlines.sums(np.hypot(*step_xy.T))
    return {
        "diameter_um": shapes.diameter_px * mpp,
        "solidity": np.array([outline_solidity(contour_xy) for contour_xy in outlines.split()]),
        "axis_ratio": shapes.axis_ratio,
        "circularity": 4 * np.pi * np.abs(shapes.signed_area_px) / np.maximum(perimeter, 1) ** 2,
    }


def _measure_edge(outlines, shapes, scene):
    brightness, saturation, in_image = _read_along_normals(outlines, shapes, scene)
    inner = brightness[: len(_INSIDE_UM)].mean(axis=0)
    outer = brightness[-len(_OUTSIDE_UM) :].mean(axis=0)
    rim = brightness[-len(_OUTSIDE_UM) :].min(axis=0)
    contrast = outlines.means(inner - rim)
    slope = (brightness[:-2] - brightness[2:]).max(axis=0)
    level = (outlines.levels - float(TISSUE)) / (GLASS - TISSUE)
    return {
        "inner_brightness": outlines.means(inner),
        "contrast": contrast,
        # Where between its rim (0) and its inside (1) the outline was drawn
        "level_height": (level - outlines.means(rim)) / np.maximum(contrast, 0.05),
        "weak_edge_share": outlines.means(inner - rim < 0.5 * contrast[outlines.owner]),
        "open_edge_share": outlines.means(rim > level[outlines.owner] - 0.05),
        "edge_slope": outlines.means(slope),
        "edge_slope_spread": _spread(outlines, slope),
        "outer_brightness": outlines.means(outer),
        "outer_spread": _spread(outlines, outer),
        "inner_saturation": outlines.means(saturation[: len(_INSIDE_UM)].mean(axis=0)),
        "rim_saturation": outlines.means(saturation[-len(_OUTSIDE_UM) :].mean(axis=0)),
        "border_share": outlines.means(~in_image),
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
    brightness = (scene.brightness.ravel()[pixel].astype(np.float32) - TISSUE) / (GLASS - TISSUE)
    return brightness, scene.saturation.ravel()[pixel].astype(np.float32), in_image
