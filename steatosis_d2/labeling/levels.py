"""What tissue and white look like on a whole slide, so that all its tiles are labelled alike."""

import cv2
import numpy as np

from steatosis_d2.data.brightness import EVERY_PX, measure_levels

# Larger slides are looked at in so many small windows along each side.
_WHOLE_PX = 2048 * 2048
_WINDOWS, _WINDOW_PX = 32, 64


def read_levels(slide, *, smoothing_um):
    """
    Measure the levels of a slide.

    Args:
        slide (Slide): open, its pixel size known.
        smoothing_um (float): sigma of the Gaussian that comes before everything else.

    Returns:
        tuple[float, float]: green of the median tissue and of white, as
        :func:`~steatosis_d2.data.brightness.measure_levels` gives them.
    """
    sigma_px = smoothing_um / slide.mpp
    samples = [
        cv2.GaussianBlur(window_rgb[..., 1], (0, 0), sigma_px)[::EVERY_PX, ::EVERY_PX].ravel()
        for window_rgb in _read_windows(slide)
    ]
    return measure_levels(np.concatenate(samples))


def _read_windows(slide):
    if slide.width * slide.height <= _WHOLE_PX:
        yield slide.read_region(0, 0, slide.width, slide.height)
        return
    rows, columns = (
        np.linspace(0, max(0, side - _WINDOW_PX), _WINDOWS).round().astype(int).tolist()
        for side in (slide.height, slide.width)
    )
    for top in rows:
        for left in columns:
            yield slide.read_region(
                left, top, min(_WINDOW_PX, slide.width), min(_WINDOW_PX, slide.height)
            )
