"""
Synthetic H&E-stained liver whose fat droplets are known exactly.

Tissue is a function of its settings and of the pixel's place on an endless slide: any window
can be rendered on its own and shows the same pixels and the same droplets as the same window cut
from a larger rendering. Memory and time grow with the window.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from steatosis_d2.data.synthetic.droplets import MAX_OUTLINE, find_borders, place_droplets
from steatosis_d2.data.synthetic.layout import Anatomy, Frame
from steatosis_d2.data.synthetic.look import Look, draw_ground, draw_stains, expose
from steatosis_d2.data.synthetic.noise import uniform

PAD_UM = 8.0  # a nucleus (6 um at most) and the blur (2 um) reach no farther
NEIGHBOUR_UM = 75.0  # centres of the droplets that cut a droplet in the window
WHOLE = np.ones((3, 3), bool)  # pixels that touch at a corner belong together, as in COCO


@dataclass(frozen=True)
class RenderedWindow:
    """
    A picture and its truth.

    Attributes:
        image_rgb (ndarray): uint8, shape (H, W, 3).
        labels (ndarray): int32, shape (H, W); 0 is no fat, 1 to N one droplet each. Each droplet
            is one piece (8-connected), and no two share a pixel.
        droplet_ids (ndarray): uint64, shape (N,), identities on the slide: label k is droplet
            ``droplet_ids[k - 1]``, in whichever window it is seen.
        diameters_um (ndarray): float64, shape (N,), of the circle that a droplet would be if
            neither neighbours nor the window cut it.
        white_not_fat (ndarray): bool, shape (H, W): glass, tears, lumens of vessels and open
            sinusoids.
    """

    image_rgb: np.ndarray
    labels: np.ndarray
    droplet_ids: np.ndarray
    diameters_um: np.ndarray
    white_not_fat: np.ndarray


@dataclass(frozen=True)
class SyntheticLiver:
    """
    An endless slide of liver.

    Attributes:
        anatomy (Anatomy): what is where, in um; it does not change with ``mpp``.
        look (Look): how it looks.
        mpp (float): um/px.

    Example:
        >>> liver = SyntheticLiver(Anatomy(seed=1, fat_fraction=0.2))
        >>> window = liver.render(top=0, left=0, height=256, width=256)
        >>> again = liver.render(top=100, left=50, height=8, width=9)
        >>> bool((again.image_rgb == window.image_rgb[100:108, 50:59]).all())
        True
    """

    anatomy: Anatomy
    look: Look = field(default_factory=Look)
    mpp: float = 0.5

    def render(self, *, top, left, height, width):
        """
        Picture and truth of one window of the slide.

        Args:
            top (int): row of the slide where the window begins, any sign.
            left (int): column of the slide where it begins.
            height (int): in px, at least 1.
            width (int): in px, at least 1.

        Returns:
            RenderedWindow: the window.
        """
        if height < 1 or width < 1:
            raise ValueError(f"window of {height} x {width} px; expected 1 x 1 or more.")
        core = Frame(top, left, height, width, self.mpp)
        pad_px = int(np.ceil(PAD_UM / self.mpp))
        frame = core.padded(pad_px)
        fat = _draw_droplets(self.anatomy, frame)
        ground = draw_ground(self.anatomy, self.look, frame)
        stains = draw_stains(self.anatomy, self.look, frame, ground, fat.labels > 0, fat.clear)
        image_rgb = expose(self.anatomy, self.look, frame, stains)
        inside = (slice(pad_px, -pad_px), slice(pad_px, -pad_px))
        labels, seen = _relabel(fat.labels[inside])
        return RenderedWindow(
            image_rgb=image_rgb[inside],
            labels=labels,
            droplet_ids=fat.ids[seen],
            diameters_um=fat.diameters_um[seen],
            white_not_fat=(ground.open & (fat.labels == 0))[inside],
        )


@dataclass(frozen=True)
class _Fat:
    labels: np.ndarray  # int32 (H, W), index into the columns below, plus 1
    clear: np.ndarray  # float32 (H, W), 0 for tissue, 1 for a fully clear droplet
    ids: np.ndarray
    diameters_um: np.ndarray


def _draw_droplets(anatomy, frame):
    """Masks of all droplets in a frame."""
    droplets = place_droplets(anatomy, frame.window)
    window = frame.window.padded(NEIGHBOUR_UM)
    near = (
        (droplets.y_um > window.top_um)
        & (droplets.y_um < window.bottom_um)
        & (droplets.x_um > window.left_um)
        & (droplets.x_um < window.right_um)
    )
    droplets = droplets[near]
    borders = find_borders(droplets)
    labels = np.zeros((frame.height, frame.width), np.int32)
    clear = np.zeros(labels.shape, np.float32)
    for k in range(len(droplets)):
        droplet = droplets[k : k + 1]
        patch = frame.around(droplet.y_um[0], droplet.x_um[0], MAX_OUTLINE * droplet.radius_um[0])
        here, there = frame.overlap(patch)
        if labels[here].size == 0:
            continue
        mask, clearness = _draw_droplet(droplet, patch, borders.get(k, ()))
        if ndimage.label(mask, WHOLE)[1] != 1:  # under a pixel, or all but cut away
            continue
        mask = mask[there]
        labels[here][mask] = k + 1
        clear[here][mask] = clearness[there][mask]
    return _Fat(labels, clear, droplets.ids, 2 * droplets.radius_um)


def _draw_droplet(droplet, patch, borders):
    """Mask and clearness of one droplet in the patch around it."""
    dy = (patch.y_um - droplet.y_um[0])[:, None]
    dx = (patch.x_um - droplet.x_um[0])[None, :]
    distance_um = np.sqrt(dy * dy + dx * dx)
    sine, cosine = dy / (distance_um + 1e-9), dx / (distance_um + 1e-9)
    outline_um = droplet.radius_um[0] * _outline(droplet, sine, cosine)
    mask = distance_um <= outline_um
    for normal_y, normal_x, offset_um in borders:
        mask &= normal_y * dy + normal_x * dx <= offset_um
    # Part of many droplets lies above or below the section's focus: tissue veils their edge,
    # more on one side, and all of a small one.
    attribute = {
        name: uniform(droplet.ids, name)[0] for name in ("veil", "veil y", "veil x", "opacity")
    }
    towards = (attribute["veil y"] - 0.5) * sine + (attribute["veil x"] - 0.5) * cosine
    veil_um = 0.3 + 0.9 * droplet.radius_um[0] * attribute["veil"] ** 3 * np.maximum(towards, 0)
    depth = np.clip((outline_um - distance_um) / veil_um, 0, 1)
    smallness = 1 / (1 + (droplet.radius_um[0] / 3.0) ** 2)
    clearness = 1 - 0.6 * attribute["opacity"] * smallness
    return mask, (clearness * (0.55 + 0.45 * depth)).astype(np.float32)


def _outline(droplet, sine, cosine):
    """
    Outline of a droplet over its radius, at each direction.

    1 + a cos(2 t + p) + b cos(3 t + q) with 5 a + 10 b < 1, which makes it convex
    (r^2 + 2 r'^2 - r r'' > 0 at every direction).
    """
    second, third = 0.11 * uniform(droplet.ids, "oval")[0], 0.02 * uniform(droplet.ids, "pear")[0]
    turn2 = 2 * np.pi * uniform(droplet.ids, "oval turn")[0]
    turn3 = 2 * np.pi * uniform(droplet.ids, "pear turn")[0]
    cosine2, sine2 = cosine * cosine - sine * sine, 2 * sine * cosine
    cosine3, sine3 = cosine2 * cosine - sine2 * sine, sine2 * cosine + cosine2 * sine
    return (
        1
        + second * (np.cos(turn2) * cosine2 - np.sin(turn2) * sine2)
        + third * (np.cos(turn3) * cosine3 - np.sin(turn3) * sine3)
    )


def _relabel(labels):
    """Labels 1 to N without gaps, in order, and the indices (from 0) that they had."""
    present = np.unique(labels)
    present = present[present > 0]
    compact = np.zeros(int(present.max(initial=0)) + 1, np.int32)
    compact[present] = np.arange(1, len(present) + 1)
    return compact[labels], present - 1
