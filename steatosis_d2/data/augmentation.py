"""What training images go through, as Detectron2 augmentations."""

import numpy as np
from detectron2.data import transforms as T

from steatosis_d2.errors import InputError


class RandomScaledCrop(T.Augmentation):
    """
    Resize by a random factor, then crop a random window, in that order but at the window's cost.

    The window is cut from the given image first and only then resized, so that an image and its
    masks are never enlarged as a whole: four times the pixels for each of several hundred masks
    where a tile is upsampled by two.
    """

    def __init__(self, scale_range, crop_px):
        """
        Args:
            scale_range (tuple[float, float]): smallest and largest factor from px of the given
                image to px of the result; drawn evenly on a logarithmic axis, so that twice and
                half the size are equally likely.
            crop_px (tuple[int, int]): (height, width) of the window after resizing. An image
                that is smaller than the window then is kept whole.
        """
        super().__init__()
        self.scale_range = scale_range
        self.crop_px = crop_px

    def get_transform(self, image):
        scale = np.exp(self._rand_range(*np.log(self.scale_range)))
        top, window_height, height = _random_window(image.shape[0], scale, self.crop_px[0])
        left, window_width, width = _random_window(image.shape[1], scale, self.crop_px[1])
        return T.TransformList(
            [
                T.CropTransform(left, top, window_width, window_height),
                T.ResizeTransform(window_height, window_width, height, width),
            ]
        )


def _random_window(side, scale, crop):
    """First px and size of a window along one axis, and its size after resizing in between."""
    window = min(side, max(1, round(crop / scale)))
    # Where the window is a whole crop, rounding must not make it a pixel more or less.
    resized = crop if window < side else min(crop, max(1, round(side * scale)))
    # Detectron2 seeds numpy's global generator in every worker; its own augmentations draw from it.
    first = np.random.randint(side - window + 1)  # noqa: NPY002
    return first, window, resized


def build_train_augmentations(cfg):
    """
    Augmentations of ``cfg.INPUT``, in the order in which they are applied.

    Args:
        cfg (CfgNode): ``INPUT.SCALE_TRAIN``, ``INPUT.CROP``, ``INPUT.RANDOM_ORIENTATION`` and
            ``INPUT.BRIGHTNESS`` are read.

    Returns:
        list[Augmentation]: Detectron2 augmentations, for RGB or BGR images.

    Raises:
        InputError: ``INPUT.CROP`` or a range is not of a kind that is understood.
    """
    _check_range("INPUT.SCALE_TRAIN", cfg.INPUT.SCALE_TRAIN)
    _check_range("INPUT.BRIGHTNESS", cfg.INPUT.BRIGHTNESS)
    augmentations = [RandomScaledCrop(cfg.INPUT.SCALE_TRAIN, _crop_px(cfg))]
    if cfg.INPUT.RANDOM_ORIENTATION:
        augmentations += [
            T.RandomFlip(horizontal=True, vertical=False),
            T.RandomFlip(horizontal=False, vertical=True),
            T.RandomRotation([0, 90], sample_style="choice"),
        ]
    if tuple(cfg.INPUT.BRIGHTNESS) != (1.0, 1.0):
        augmentations.append(T.RandomBrightness(*cfg.INPUT.BRIGHTNESS))
    return augmentations


def _crop_px(cfg):
    if not cfg.INPUT.CROP.ENABLED:
        return (np.iinfo(np.int32).max,) * 2
    if cfg.INPUT.CROP.TYPE != "absolute":
        raise InputError(
            f"INPUT.CROP.TYPE is '{cfg.INPUT.CROP.TYPE}'; crops are given in px after resizing. "
            "Set it to 'absolute' and INPUT.CROP.SIZE to [height, width]."
        )
    return tuple(cfg.INPUT.CROP.SIZE)


def _check_range(key, limits):
    if len(limits) != 2 or not 0 < limits[0] <= limits[1]:
        raise InputError(f"{key} is {tuple(limits)}; expected (min, max) with 0 < min <= max.")
