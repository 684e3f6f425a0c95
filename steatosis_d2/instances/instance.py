"""One segmented object: what models, labels, merging and reports hand to one another."""

from dataclasses import dataclass

import numpy as np

from steatosis_d2.instances import rle


@dataclass(frozen=True, eq=False)
class Instance:
    """
    A mask in its bounding box: its memory is that of the object, not of the image.

    Attributes:
        crop (ndarray): bool, shape (h, w), the mask in its bounding box.
        top, left (int): row and column of the crop in the image, in px.
        score (float): confidence in 0..1.
        truncated (bool): whether a border of what was segmented cuts the object.
        class_index (int): its class, among those of the model that found it.
    """

    crop: np.ndarray
    top: int
    left: int
    score: float
    truncated: bool = False
    class_index: int = 0

    @property
    def bottom(self):
        """Row below the last one, in px of the image."""
        return self.top + self.crop.shape[0]

    @property
    def right(self):
        """Column after the last one, in px of the image."""
        return self.left + self.crop.shape[1]

    def encode(self, image_shape):
        """COCO RLE of the mask in an image of shape (H, W, ...)."""
        height, width = image_shape[:2]
        return rle.encode_crop(self.crop, top=self.top, left=self.left, height=height, width=width)
