"""What training images go through, as Detectron2 augmentations of RGB images."""

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform
from PIL import Image
from skimage.color import hed_from_rgb, rgb_from_hed

from steatosis_d2.errors import InputError


class ScaledInput(T.AugInput):
    """An image on its way through the augmentations, with what a crop is chosen by."""

    def __init__(self, image, *, scale, boxes, openings=()):
        """
        Args:
            image (ndarray): uint8, shape (H, W, 3), RGB.
            scale (float): factor from px of the image to px of the network's input.
            boxes (ndarray): float, shape (N, 4), XYXY in px of the image.
            openings (ndarray): float, shape (M, 4), of white places that are no instances.
        """
        super().__init__(image, boxes=boxes)
        self.scale = scale
        self.openings = openings


class RandomScaledCrop(T.Augmentation):
    """
    Resize by a random factor, then crop a random window, in that order but at the window's cost.

    The window is cut from the given image first and only then resized, so that an image and its
    masks are never enlarged as a whole: four times the pixels where a tile is upsampled by two.
    """

    def __init__(self, jitter, crop_px, *, on_instance=0.0, on_opening=0.0):
        """
        Args:
            jitter (tuple[float, float]): the input's scale is multiplied by a factor between
                these, drawn evenly on a logarithmic axis, so that twice and half the size are
                equally likely.
            crop_px (tuple[int, int]): (height, width) of the window after resizing. An image
                that is smaller than the window then is kept whole.
            on_instance (float): probability that the window is drawn among those that hold the
                centre of one instance, each as likely as any other: a small droplet as often as
                a large one, and fewer empty windows in lean tissue.
            on_opening (float): probability that it is drawn among those that hold the centre of
                an opening, where the image has one; what is left goes to ``on_instance``.
        """
        super().__init__()
        self.jitter = jitter
        self.crop_px = crop_px
        self.on_instance = on_instance
        self.on_opening = on_opening

    def get_transform(self, image, scale, boxes, openings):
        scale *= float(np.exp(self._rand_range(*np.log(self.jitter))))
        center_rc = self._draw_center(boxes, openings)
        top, window_height, height = self._draw_window(0, image.shape[0], scale, center_rc[0])
        left, window_width, width = self._draw_window(1, image.shape[1], scale, center_rc[1])
        return T.TransformList(
            [
                T.CropTransform(left, top, window_width, window_height),
                LabelResize(window_height, window_width, height, width),
            ]
        )

    def _draw_center(self, boxes, openings):
        """Row and column that the window must hold, or None for each."""
        if self.on_opening and len(openings) and self._rand_range() < self.on_opening:
            boxes = openings
        elif not (len(boxes) and self._rand_range() < self.on_instance):
            return None, None
        left, top, right, bottom = boxes[int(self._rand_range(len(boxes)))]
        return (top + bottom) / 2, (left + right) / 2

    def _draw_window(self, axis, side, scale, center):
        """First px and size of a window along one axis, and its size after resizing."""
        crop = self.crop_px[axis]
        window = min(side, max(1, round(crop / scale)))
        # Where the window is a whole crop, rounding must not make it a pixel more or less.
        resized = crop if window < side else min(crop, max(1, round(side * scale)))
        first, last = 0, side - window
        if center is not None:
            # A user's box may reach outside the image.
            center = min(max(int(center), 0), side - 1)
            first, last = max(first, center - window + 1), min(last, center)
        return int(self._rand_range(first, last + 1)), window, resized


class LabelResize(T.ResizeTransform):
    """Detectron2's, for label images of any type: its own shifts those by up to half a pixel."""

    def apply_segmentation(self, segmentation):
        """As ``Transform.apply_segmentation``: the nearest pixel, by its centre."""
        labels = Image.fromarray(np.ascontiguousarray(segmentation))
        return np.asarray(labels.resize((self.new_w, self.new_h), Image.Resampling.NEAREST))


class MirrorAffineTransform(Transform):
    """An affine map within the image; what it uncovers is filled with the mirrored image."""

    def __init__(self, matrix):
        """
        Args:
            matrix (ndarray): float, shape (2, 3), from old to new (x, y), in px with the image's
                corner at (0, 0).
        """
        super().__init__()
        self.matrix = matrix

    def apply_image(self, img, interp=cv2.INTER_LINEAR):
        """As ``Transform.apply_image``; ``interp`` is one of OpenCV's."""
        # OpenCV's coordinates have the centre of the first px at (0, 0).
        to_centers = self.matrix.copy()
        to_centers[:, 2] += self.matrix[:, :2].sum(axis=1) / 2 - 0.5
        height, width = img.shape[:2]
        return cv2.warpAffine(
            img, to_centers, (width, height), flags=interp, borderMode=cv2.BORDER_REFLECT
        )

    def apply_coords(self, coords):
        """As ``Transform.apply_coords``; mirror images have no coordinates here."""
        return coords @ self.matrix[:, :2].T + self.matrix[:, 2]

    def apply_segmentation(self, segmentation):
        """As ``Transform.apply_segmentation``; labels are mirrored with the image."""
        return self.apply_image(segmentation, interp=cv2.INTER_NEAREST)


class RandomAffine(T.Augmentation):
    """Turn, scale and shear about the image's centre; the border is filled by mirroring."""

    def __init__(self, *, rotation_deg, scale, shear_deg):
        """
        Args:
            rotation_deg (float): largest angle either way.
            scale (tuple[float, float]): smallest and largest factor.
            shear_deg (float): largest angle either way, along x.
        """
        super().__init__()
        self.rotation_deg = rotation_deg
        self.scale = scale
        self.shear_deg = shear_deg

    def get_transform(self, image):
        angle = np.deg2rad(self._rand_range(-self.rotation_deg, self.rotation_deg))
        shear = np.tan(np.deg2rad(self._rand_range(-self.shear_deg, self.shear_deg)))
        scale = self._rand_range(*self.scale)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = scale * turn @ np.array([[1, shear], [0, 1]])
        center = np.array(image.shape[1::-1]) / 2
        return MirrorAffineTransform(np.column_stack([linear, center - linear @ center]))


class RandomBlur(T.Augmentation):
    """Gaussian blur: a scan out of focus."""

    def __init__(self, sigma_px):
        """
        Args:
            sigma_px (tuple[float, float]): smallest and largest standard deviation, in px of the
                network's input.
        """
        super().__init__()
        self.sigma_px = sigma_px

    def get_transform(self, image):
        sigma = float(self._rand_range(*self.sigma_px))
        return T.ColorTransform(lambda rgb: cv2.GaussianBlur(rgb, (0, 0), max(sigma, 1e-3)))


class RandomStain(T.Augmentation):
    """
    Another laboratory's stain: more or less haematoxylin, eosin and residue.

    Optical densities are separated into stains (Ruifrok and Johnston 2001, by the matrices of
    ``skimage.color``), each is multiplied and shifted, and they are joined again. Unlike
    ``skimage.color.rgb2hed``, negative amounts are kept, so that without a change every colour
    comes back as it was.
    """

    def __init__(self, strength):
        """
        Args:
            strength (float): each stain is multiplied by a factor in 1 +- strength, and shifted
                by as much of 0.1, the density of a pale stain.
        """
        super().__init__()
        self.strength = strength

    def get_transform(self, image):
        factors = 1 + self.strength * self._rand_range(-1, 1, 3)
        shifts = 0.1 * self.strength * self._rand_range(-1, 1, 3)
        return T.ColorTransform(lambda rgb: change_stains(rgb, factors, shifts))


def change_stains(image_rgb, factors, shifts):
    """
    Multiply and shift the amounts of haematoxylin, eosin and residue.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        factors (ndarray): float, shape (3,).
        shifts (ndarray): float, shape (3,), in optical density (natural logarithm).

    Returns:
        ndarray: uint8, shape (H, W, 3).
    """
    density = -np.log(np.maximum(image_rgb, 1).astype(np.float32) / 255)
    change = (hed_from_rgb * factors) @ rgb_from_hed
    # Glass has no stain to shift, so that white stays white.
    stained = density @ change.astype(np.float32) + (
        np.minimum(density.mean(axis=2, keepdims=True) / 0.1, 1)
        * (shifts @ rgb_from_hed).astype(np.float32)
    )
    return np.clip(255 * np.exp(-stained) + 0.5, 0, 255).astype(np.uint8)


class RandomSubset(T.Augmentation):
    """Some of a list of augmentations, in the list's order."""

    def __init__(self, augmentations, at_most):
        """
        Args:
            augmentations (list[Augmentation]): to choose from.
            at_most (int): each image gets 0, 1, ... or this many of them, equally likely.
        """
        super().__init__()
        self.augmentations = augmentations
        self.at_most = min(at_most, len(augmentations))

    def __call__(self, aug_input):
        """Apply a random choice: a ``TransformList`` of what was done."""
        number = int(self._rand_range(self.at_most + 1))
        # Detectron2's augmentations draw from numpy's global generator, and so must this.
        order = np.random.permutation(len(self.augmentations))  # noqa: NPY002
        chosen = [self.augmentations[index] for index in sorted(order[:number])]
        return T.AugmentationList(chosen)(aug_input)


def build_train_augmentations(cfg):
    """
    Augmentations of ``cfg.INPUT``, in the order in which they are applied.

    Args:
        cfg (CfgNode): of ``INPUT``, the keys that :func:`steatosis_d2.config.add_steatosis_config`
            adds, and ``CROP``, are read.

    Returns:
        list[Augmentation]: for a :class:`ScaledInput`.

    Raises:
        InputError: a crop, range or probability is not of a kind that is understood.
    """
    settings = cfg.INPUT
    crop = RandomScaledCrop(
        _positive_range(cfg, "SCALE_JITTER"),
        _crop_px(cfg),
        on_instance=_within(cfg, "CROP_ON_INSTANCE", 1),
        on_opening=_within(cfg, "CROP_ON_OPENING", 1),
    )
    others = []
    if settings.RANDOM_ORIENTATION:
        others += [
            T.RandomFlip(horizontal=True, vertical=False),
            T.RandomFlip(horizontal=False, vertical=True),
            T.RandomRotation([0, 90], sample_style="choice"),
        ]
    affine = RandomAffine(
        rotation_deg=_within(cfg, "AFFINE_ROTATION_DEG", 180),
        scale=_positive_range(cfg, "AFFINE_SCALE"),
        shear_deg=_within(cfg, "AFFINE_SHEAR_DEG", 45),
    )
    stain = RandomStain(_within(cfg, "STAIN_STRENGTH", 1))
    brightness = T.RandomBrightness(*_positive_range(cfg, "BRIGHTNESS"))
    contrast = T.RandomContrast(*_positive_range(cfg, "CONTRAST"))
    blur = RandomBlur(_range(cfg, "BLUR_SIGMA_PX"))
    others += [
        T.RandomApply(augmentation, probability)
        for augmentation, probability in [
            (affine, _within(cfg, "AFFINE_PROBABILITY", 1)),
            (stain, _within(cfg, "STAIN_PROBABILITY", 1)),
            (brightness, float(settings.BRIGHTNESS[0] < settings.BRIGHTNESS[1])),
            (contrast, float(settings.CONTRAST[0] < settings.CONTRAST[1])),
            (blur, _within(cfg, "BLUR_PROBABILITY", 1)),
        ]
        if probability > 0
    ]
    if settings.AUGMENTATIONS_AT_MOST >= 0:
        others = [RandomSubset(others, settings.AUGMENTATIONS_AT_MOST)]
    return [crop, *others]


def _crop_px(cfg):
    if not cfg.INPUT.CROP.ENABLED:
        return (np.iinfo(np.int32).max,) * 2
    if cfg.INPUT.CROP.TYPE != "absolute":
        raise InputError(
            f"INPUT.CROP.TYPE is '{cfg.INPUT.CROP.TYPE}'; crops are given in px after resizing. "
            "Set it to 'absolute' and INPUT.CROP.SIZE to [height, width]."
        )
    size = tuple(cfg.INPUT.CROP.SIZE)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise InputError(
            f"INPUT.CROP.SIZE is {size}; expected [height, width] in whole px, at least 1."
        )
    return size


def _positive_range(cfg, key):
    limits = _range(cfg, key)
    if limits[0] <= 0:
        raise InputError(f"INPUT.{key} is {limits}; expected (min, max) with min above 0.")
    return limits


def _range(cfg, key):
    limits = tuple(cfg.INPUT[key])
    if len(limits) != 2 or not 0 <= limits[0] <= limits[1]:
        raise InputError(f"INPUT.{key} is {limits}; expected (min, max) with 0 <= min <= max.")
    return limits


def _within(cfg, key, highest):
    if not 0 <= cfg.INPUT[key] <= highest:
        raise InputError(f"INPUT.{key} is {cfg.INPUT[key]}; expected a number from 0 to {highest}.")
    return cfg.INPUT[key]
