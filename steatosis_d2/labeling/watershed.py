"""The plain comparison: one threshold, and a watershed on the distance from the edge."""

import cv2
import numpy as np
from scipy import ndimage
from skimage.measure import regionprops
from skimage.morphology import h_maxima
from skimage.segmentation import expand_labels, watershed

from steatosis_d2.data.brightness import level_of, normalise_brightness, open_bright
from steatosis_d2.instances.instance import Instance

# Nearer to white than to tissue, for a plain threshold sees no rim: the best of 0.5 to 0.9 on the
# tiles of Guo et al. 2019, as are the next two.
_LEVEL = 0.75
# Two maxima of the distance are two droplets if the way between them is shallower by this.
_MIN_DEPTH_UM = 1.0
# Less solid regions are sinusoids, tears and the like.
_MIN_SOLIDITY = 0.7


def label_by_watershed(image_rgb, *, mpp, parameters, levels=None):
    """
    Bright regions of one threshold, split by a watershed; solidity is the score.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): of these, smoothing, opening, growth and limits of size.
        levels (tuple[float, float] or None): as for
            :func:`~steatosis_d2.data.brightness.normalise_brightness`.

    Returns:
        list[Instance]: their masks do not overlap.
    """
    brightness = normalise_brightness(
        image_rgb, smoothing_px=parameters.smoothing_um / mpp, levels=levels
    )
    opened = open_bright(brightness, radius_px=round(parameters.opening_um / mpp))
    bright = opened > level_of(_LEVEL)
    depth = cv2.distanceTransform(bright.astype(np.uint8), cv2.DIST_L2, 5)
    seeds, _ = ndimage.label(h_maxima(depth, _MIN_DEPTH_UM / mpp))
    labels = watershed(-depth, seeds, mask=bright)
    sized = [region for region in regionprops(labels) if _is_droplet(region, mpp, parameters)]
    kept = np.isin(labels, [region.label for region in sized]) * labels
    score_of = {region.label: min(1.0, float(region.solidity)) for region in sized}
    grown = expand_labels(kept, round(parameters.growth_um / mpp))
    return [
        Instance(region.image, region.bbox[0], region.bbox[1], score_of[region.label])
        for region in regionprops(grown)
    ]


def _is_droplet(region, mpp, parameters):
    diameter_um = region.equivalent_diameter_area * mpp
    return (
        parameters.min_diameter_um <= diameter_um <= parameters.max_diameter_um
        and region.solidity >= _MIN_SOLIDITY
    )
