"""Fitting a scorecard to outlined images: ridge-penalised logistic regression on hat functions."""

import numpy as np
from pycocotools import mask as coco_mask

from steatosis_d2.instances.instance import Instance
from steatosis_d2.labeling.droplet_masks import fill_outline, grow_droplet
from steatosis_d2.labeling.evidence import measure_evidence
from steatosis_d2.labeling.generator import prepare_scene, propose_outlines
from steatosis_d2.labeling.scorecards import Scorecard

# Where the curve of each part may bend. Lengths in um, brightness from median tissue (0) to
# white (1), saturation in grey values.
KNOTS = {
    "diameter_um": (2.2, 3, 4, 5, 6, 7, 9, 14, 25, 45),
    "solidity": (0.6, 0.75, 0.85, 0.92, 1),
    "axis_ratio": (0.2, 0.4, 0.6, 0.8),
    "circularity": (0.2, 0.4, 0.6, 0.8, 0.95),
    "inner_brightness": (0.4, 0.6, 0.75, 0.85, 0.95),
    "contrast": (0.3, 0.5, 0.7, 0.9, 1.1),
    "level_height": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
    "weak_edge_share": (0, 0.1, 0.2, 0.4),
    "open_edge_share": (0, 0.1, 0.25, 0.5),
    "edge_slope": (0.1, 0.25, 0.4, 0.6),
    "edge_slope_spread": (0.05, 0.1, 0.2, 0.3),
    "outer_brightness": (-0.1, 0.1, 0.3, 0.5, 0.7),
    "outer_spread": (0.05, 0.15, 0.25, 0.35),
    "inner_saturation": (5, 15, 30, 50),
    "rim_saturation": (30, 60, 90, 120),
    "border_share": (0, 0.1, 0.3),
    # Of openings
    "log_odds": (0, 0.7, 1.5, 2.5, 4),
    "roundness": (0.5, 0.65, 0.75, 0.82, 0.88),
    "border_um": (0, 20, 50),
    "darkest_inside": (0.3, 0.6, 0.8, 0.95),
    "nuclei_share": (0, 0.15, 0.4, 0.8),
    "wide_um": (15, 20, 28, 40),
    "fat_near_share": (0, 0.005, 0.02, 0.05, 0.1, 0.2),
}
_MAX_STEPS = 30
_TOLERANCE = 1e-4


def measure_proposals(image_rgb, truths, *, mpp, parameters):
    """
    Evidence and quality of every proposal in an outlined image.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        truths (list[dict]): COCO RLE of the true droplets.
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): how regions are proposed; the scorecard is not used.

    Yields:
        tuple: dict of part (str) -> ndarray (M,); highest IoU with a truth, ndarray (M,); for
        some proposals at a time.
    """
    scene = prepare_scene(image_rgb, mpp=mpp, parameters=parameters)
    growth_px = round(parameters.growth_um / mpp)
    for outlines in propose_outlines(scene.brightness, mpp=mpp, parameters=parameters):
        masks = [_draw(contour, growth_px, image_rgb.shape) for contour in outlines.split()]
        iou = np.zeros(len(masks))
        if truths:
            iou = np.reshape(coco_mask.iou(masks, truths, [0] * len(truths)), (len(masks), -1))
            iou = iou.max(axis=1)
        yield measure_evidence(outlines, scene), iou


def fit_scorecard(parts, iou, *, names, iou_range, ridge, break_even):
    """
    The scorecard that tells good proposals from bad ones best.

    A proposal counts as good in part: 0 up to the lower IoU, 1 from the upper one on, linear
    between, so that of nested proposals the best outlined gets the highest confidence.

    Args:
        parts (dict): part (str) -> ndarray (M,), of all images together.
        iou (ndarray): shape (M,), highest IoU of each proposal with a truth.
        names (sequence of str): the parts to use, of ``KNOTS``.
        iou_range (tuple[float, float]): lower and upper IoU.
        ridge (float): penalty on squared log-odds, against curves that follow noise.
        break_even (float): fitted probability that becomes a confidence of 0.5. Most proposals
            are nested in better ones, so that the best of a droplet is rarely more likely than
            not; it is worth keeping well below one half.

    Returns:
        Scorecard: each curve has mean 0 over its knots; the rest is in ``base``.
    """
    knots = {name: _used_knots(parts[name], np.array(KNOTS[name], float)) for name in names}
    hats = [_evaluate_hats(parts[name], knots[name]) for name in names]
    lower, upper = iou_range
    goodness = np.clip((iou - lower) / (upper - lower), 0, 1)
    weights = _fit_logistic(np.hstack([*hats, np.ones((len(iou), 1))]), goodness, ridge)
    weights[-1] -= np.log(break_even / (1 - break_even))
    votes = np.split(weights[:-1], np.cumsum([len(knots[name]) for name in names])[:-1])
    return Scorecard(
        curves={
            name: (tuple(knots[name].tolist()), tuple((vote - vote.mean()).round(2).tolist()))
            for name, vote in zip(names, votes, strict=True)
        },
        base=round(float(weights[-1] + sum(vote.mean() for vote in votes)), 2),
    )


def format_scorecard(card):
    """
    A scorecard as Python source, one line a list, for ``scorecards.py``.

    Args:
        card (Scorecard): the card.

    Returns:
        str: a call of ``Scorecard``.
    """
    curves = "".join(
        f"        {name!r}: (\n            {values!r},\n            {votes!r},\n        ),\n"
        for name, (values, votes) in card.curves.items()
    )
    return f"Scorecard(\n    curves={{\n{curves}    }},\n    base={card.base!r},\n)"


def _draw(contour_xy, growth_px, shape):
    crop, top, left = fill_outline(contour_xy)
    droplet = Instance(crop, top, left, score=1.0)
    nothing_taken = np.zeros(shape[:2], bool)
    return grow_droplet(droplet, growth_px=growth_px, taken=nothing_taken).encode(shape)


def _used_knots(values, knots):
    """Without the knots that no value comes near, whose log-odds nothing would determine."""
    return knots[_evaluate_hats(values, knots).any(axis=0)]


def _evaluate_hats(values, knots):
    """Weight of each knot in the linear interpolation at each value, (M, number of knots)."""
    return np.stack([np.interp(values, knots, unit) for unit in np.eye(len(knots))], axis=1)


def _fit_logistic(features, goodness, ridge):
    """Newton's method on the penalised likelihood; the last feature is the free intercept."""
    penalty = ridge * np.eye(features.shape[1])
    penalty[-1, -1] = 0
    weights = np.zeros(features.shape[1])
    for _ in range(_MAX_STEPS):
        probability = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (goodness - probability) - penalty @ weights
        certainty = np.maximum(probability * (1 - probability), 1e-6)
        curvature = (features * certainty[:, np.newaxis]).T @ features + penalty
        step = np.linalg.solve(curvature, gradient)
        weights += step
        if np.abs(step).max() < _TOLERANCE:
            break
    return weights
