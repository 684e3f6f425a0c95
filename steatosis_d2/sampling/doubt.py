"""How sure a network is of what it shows in a region, and how much fat that is."""

from dataclasses import dataclass

import numpy as np

from steatosis_d2.data.colours import describe_colours
from steatosis_d2.evaluation.image_pairs import ImagePair
from steatosis_d2.screening.ranking import measure_disagreement

# So near to the threshold, the network itself hardly knows.
NEAR_THRESHOLD = 0.15


@dataclass(frozen=True)
class Findings:
    """
    What was found in a region, and what there is to doubt.

    Attributes:
        instances (list[Instance]): the network's, from its threshold on.
        fat_share (float): of the region's tissue that they cover, in 0..1.
        near_threshold (float): instances whose score is near the threshold, in a mm2.
        disagreement (float): objects on which network and classical method differ, in a mm2.
        strangeness (float): how unlike the tissue of the training tiles its colours are, in
            standard deviations (Mahalanobis distance).
    """

    instances: list
    fat_share: float
    near_threshold: float
    disagreement: float
    strangeness: float


def measure_region(image_rgb, found, classical, *, threshold, region, mpp, colours):
    """
    Look at one region.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        found (list[Instance]): by the network, from well below its threshold on.
        classical (list[Instance]): by the classical method.
        threshold (float): of the network's scores.
        region (Region): where it is.
        mpp (float): um/px of the image.
        colours (ColourStatistics): of the training tiles.

    Returns:
        Findings: of the region.
    """
    shape = image_rgb.shape
    scores = np.array([one.score for one in found])
    kept = [one for one in found if one.score >= threshold]
    area_mm2 = image_rgb.shape[0] * image_rgb.shape[1] * (mpp / 1000) ** 2
    fat_px = sum(np.count_nonzero(one.crop) for one in kept)
    ranked = sorted(classical, key=lambda one: -one.score)
    pair = ImagePair(
        file_name=region.file_name,
        height=shape[0],
        width=shape[1],
        truths=[one.encode(shape) for one in kept],
        ignored=[],
        predictions=[one.encode(shape) for one in ranked],
        scores=np.array([one.score for one in ranked], float),
    )
    return Findings(
        instances=kept,
        fat_share=fat_px / (region.tissue_share * shape[0] * shape[1]),
        near_threshold=np.count_nonzero(np.abs(scores - threshold) < NEAR_THRESHOLD) / area_mm2,
        disagreement=measure_disagreement(pair)[0].objects_in_doubt / area_mm2,
        strangeness=colours.distance_to(describe_colours(image_rgb)),
    )
