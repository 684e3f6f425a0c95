"""What kind of microscopy an image comes from, by its colours."""

import numpy as np

# BBBC038's grey images have equal channels; its stained ones differ by more than 20 on average.
_MAX_GREY_CHROMA = 5
# Fluorescence has a black background (median below 60 there), bright field a light one (above 140),
# and so have slides with their stains (150 in the darkest seen).
_MAX_DARK_MEDIAN = 100

FLUORESCENCE = "fluorescence"
BRIGHT_FIELD = "bright-field"
HISTOLOGY = "histology"


def tell_microscopy(image_rgb):
    """
    Fluorescence, bright field or stained histology.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).

    Returns:
        str: ``histology`` where the image has colour; else ``fluorescence`` where its background
        is dark, ``bright-field`` where it is light.

    Examples:
        >>> tell_microscopy(np.zeros((8, 8, 3), np.uint8))
        'fluorescence'
    """
    chroma = image_rgb.max(axis=2).astype(int) - image_rgb.min(axis=2)
    if chroma.mean() > _MAX_GREY_CHROMA:
        return HISTOLOGY
    return FLUORESCENCE if is_dark_field(image_rgb) else BRIGHT_FIELD


def is_dark_field(image_rgb):
    """
    Whether most of an image is dark, as in fluorescence.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).

    Returns:
        bool: True for light on dark, whatever its colour.
    """
    return bool(np.median(image_rgb.max(axis=2)) < _MAX_DARK_MEDIAN)
