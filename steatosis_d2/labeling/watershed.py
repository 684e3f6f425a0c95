"""The plain comparison: one threshold, and a watershed on the distance from the edge."""

import cv2
import numpy as np
from scipy import ndimage
from skimage.measure import regionprops
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from steatosis_d2.labeling.droplet import Droplet
from steatosis_d2.labeling.foreground import level_of, normalise_brightness, open_bright

# Nearer to white than to tissue: a plain threshold has no rim to go by. The best of 0.5 to 0.9.
_LEVEL = 0.75
# Two maxima of the distance are two droplets if the way between them is shallower by this.
_MIN_DEPTH_PX = 2.0
# Less solid regions are sinusoids, tears and the like.
_MIN_SOLIDITY = 0.8


def label_by_watershed(image_rgb, *, mpp, parameters):
    """
    Bright regions of one threshold, split by a watershed; solidity is the score.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float): pixel size in um/px.
        parameters (LabelParameters): of these, smoothing, opening and the limits of size.

    Returns:
        list[Droplet]: their masks do not overlap.
    """
    brightness = normalise_brightness(image_rgb, smoothing_px=parameters.smoothing_um / mpp)
    opened = open_bright(brightness, radius_px=round(parameters.opening_um / mpp))
    bright = opened > level_of(_LEVEL)
    depth = cv2.distanceTransform(bright.astype(np.uint8), cv2.DIST_L2, 5)
    seeds, _ = ndimage.label(h_maxima(depth, _MIN_DEPTH_PX))
    labels = watershed(-depth, seeds, mask=bright)
    droplets = []
    for region in regionprops(labels):
        diameter_um = region.equivalent_diameter_area * mpp
        if not parameters.min_diameter_um <= diameter_um <= parameters.max_diameter_um:
            continue
        if region.solidity >= _MIN_SOLIDITY:
            top, left = region.bbox[:2]
            droplets.append(Droplet(region.image, top, left, float(min(region.solidity, 1))))
    return droplets
