"""Doubt where droplets are few: what looks like one there is a cut through a sinusoid, often."""

from dataclasses import replace

import cv2
import numpy as np

# Droplets are few or many within a square of this side: that of the tiles of Guo et al. 2019 at
# 0.25 um/px, so that a tile is judged as a whole, and a place on a slide by what is around it.
NEIGHBOURHOOD_UM = 256.0


def doubt_where_sparse(droplets, scene, *, parameters):
    """
    Lower the confidence where droplets are few, and drop those that fall below the least.

    In healthy liver, cuts through sinusoids and vessels look like droplets now and then, large
    ones above all; in a fatty one a droplet seldom comes alone. So the fewer there are on the
    tissue around it, the better each must be.

    Args:
        droplets (list[Instance]): of one image.
        scene (Scene): the image they lie in.
        parameters (LabelParameters): where doubt sets in, its strength, the least confidence.

    Returns:
        list[Instance]: most confident first.
    """
    if not droplets:
        return []
    scores = np.array([droplet.score for droplet in droplets])
    areas_px = np.array([np.count_nonzero(droplet.crop) for droplet in droplets])
    doublings = np.log2(2 * scene.mpp * np.sqrt(areas_px / np.pi) / parameters.large_um).clip(0)
    density = measure_density(droplets, scene)
    doubt = parameters.sparse_doubt * np.log2(parameters.sparse_per_mm2 / density).clip(0)
    doubt += doublings * parameters.few_doubt * np.log2(parameters.few_per_mm2 / density).clip(0)
    odds = scores / np.maximum(1 - scores, 1e-9) * np.exp(-doubt)
    doubted = [
        replace(droplet, score=float(score))
        for droplet, score in zip(droplets, odds / (1 + odds), strict=True)
        if score >= parameters.min_score
    ]
    return sorted(doubted, key=lambda droplet: -droplet.score)


def measure_density(droplets, scene):
    """
    How many droplets there are around each, counted by their confidence.

    Args:
        droplets (list[Instance]): of one image, one or more.
        scene (Scene): the image they lie in.

    Returns:
        ndarray: shape (N,), of each droplet the number in a mm2 of the tissue in a square of
        ``NEIGHBOURHOOD_UM`` around it, which is moved into the image.
    """
    scores = np.array([droplet.score for droplet in droplets])
    middles_px = 0.5 * np.array(
        [(droplet.left + droplet.right, droplet.top + droplet.bottom) for droplet in droplets]
    )
    size_px = np.array(scene.brightness.shape[::-1])
    side_px = np.minimum(NEIGHBOURHOOD_UM / scene.mpp, size_px)
    low_px = np.clip(middles_px - side_px / 2, 0, size_px - side_px)
    high_px = low_px + side_px
    found = np.array(
        [
            scores[((middles_px >= low) & (middles_px <= high)).all(axis=1)].sum()
            for low, high in zip(low_px, high_px, strict=True)
        ]
    )
    tissue_mm2 = _share_of_tissue(scene, low_px, high_px) * side_px.prod() * (scene.mpp / 1000) ** 2
    return found / np.maximum(tissue_mm2, 1e-9)


def _share_of_tissue(scene, low_px, high_px):
    """Of each window, the share that is no background."""
    sums = cv2.integral((~scene.background).astype(np.uint8))
    scale = np.array(scene.background.shape[::-1]) / scene.brightness.shape[::-1]
    (left, top), (right, bottom) = (
        np.rint(edges_px * scale).astype(int).T for edges_px in (low_px, high_px)
    )
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside / np.maximum((right - left) * (bottom - top), 1)
