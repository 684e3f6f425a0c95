"""The colours of tissue in a few numbers, to tell how unlike the training tiles an image is."""

from dataclasses import dataclass

import numpy as np

COLOURS_KEY = "tissue_colours"  # of a checkpoint

# Grey level of clear glass, about, and the optical density above which a pixel is stained.
_CLEAR, _STAINED_OD = 240, 0.08
_EVERY_PX = 4
# Added to the variances, so that few or equal tiles make no singular matrix.
_RIDGE = 1e-4


def describe_colours(image_rgb):
    """
    The colours of an image's tissue.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).

    Returns:
        ndarray: float64, shape (6,): mean and standard deviation of the optical density in red,
        green and blue, over the stained pixels; zeros where there are none.
    """
    pixels = image_rgb[::_EVERY_PX, ::_EVERY_PX].reshape(-1, 3)
    density = -np.log10(np.maximum(pixels, 1) / _CLEAR).clip(max=0)
    stained = density[density.mean(axis=1) > _STAINED_OD]
    if len(stained) < 2:
        return np.zeros(6)
    return np.concatenate([stained.mean(axis=0), stained.std(axis=0)])


@dataclass(frozen=True, eq=False)
class ColourStatistics:
    """
    What :func:`describe_colours` gives for many images.

    Attributes:
        mean (ndarray): shape (6,).
        covariance (ndarray): shape (6, 6).
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, described):
        """
        Statistics of some images.

        Args:
            described (sequence[ndarray]): of each image, from :func:`describe_colours`; one or
                more.

        Returns:
            ColourStatistics: of all of them.
        """
        described = np.array(described)
        spread = np.cov(described, rowvar=False, bias=True)
        return cls(described.mean(axis=0), spread + _RIDGE * np.eye(described.shape[1]))

    @classmethod
    def from_lists(cls, content):
        """The statistics that :meth:`as_lists` gave."""
        return cls(np.array(content["mean"]), np.array(content["covariance"]))

    def as_lists(self):
        """Plain values (dict), for a file."""
        return {"mean": self.mean.tolist(), "covariance": self.covariance.tolist()}

    def distance_to(self, described):
        """How many standard deviations an image is away (float): the Mahalanobis distance."""
        offset = described - self.mean
        return float(np.sqrt(offset @ np.linalg.solve(self.covariance, offset)))
