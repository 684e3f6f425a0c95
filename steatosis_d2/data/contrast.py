"""The one rule by which an image's grey levels are spread, in training and at test."""

import torch

# A narrower range of grey levels is not spread to the full: it would be noise on an empty image.
SMALLEST_RANGE = 16


def stretch_contrast(image, percentiles):
    """
    Spread the grey levels between two percentiles of an image over all 256 levels.

    Fluorescence is often stored in a small part of them, which part depending on the microscope.
    All channels are spread alike.

    Args:
        image (Tensor): of any shape but an empty one, values from 0 to 255, on any device.
        percentiles (tuple[float, float]): of the image's values; they become 0 and 255, and what
            lies beyond is clipped. Empty: the image is returned as it is.

    Returns:
        Tensor: uint8, of the same shape and device.
    """
    if not percentiles:
        return image
    # From the histogram: torch.quantile refuses more than 16 million values.
    levels = image.round().clamp(0, 255).to(torch.uint8)
    cumulated = torch.bincount(levels.flatten(), minlength=256).cumsum(0).double()
    ranks = torch.tensor(percentiles, device=image.device).double() / 100 * image.numel()
    low, high = torch.searchsorted(cumulated, ranks.clamp(min=1)).tolist()
    low = min(low, 255 - SMALLEST_RANGE)
    high = max(high, low + SMALLEST_RANGE)
    return ((levels.float() - low) * (255 / (high - low))).clamp(0, 255).round().to(torch.uint8)
