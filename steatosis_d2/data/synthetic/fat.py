"""The masks of the synthetic liver's droplets, and how clear they look."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from steatosis_d2.data.synthetic.droplets import MAX_OUTLINE, find_borders, place_droplets
from steatosis_d2.data.synthetic.noise import uniform

NEIGHBOUR_UM = 75.0  # centres of all that cut a droplet in the frame lie within this margin
WHOLE = np.ones((3, 3), bool)  # pixels that touch at a corner belong together


@dataclass(frozen=True)
class Fat:
    """
    Droplets of a frame of H x W pixels; N of them, not all of which need to show.

    Attributes:
        labels (ndarray): int32, shape (H, W), 0 or the droplet's index in the columns plus 1.
        clear (ndarray): float32, shape (H, W), 1 where no tissue veils the fat, 0 without fat.
        droplet_ids (ndarray): uint64, shape (N,).
        diameters_um (ndarray): float64, shape (N,), before neighbours cut them.
    """

    labels: np.ndarray
    clear: np.ndarray
    droplet_ids: np.ndarray
    diameters_um: np.ndarray


def draw_droplets(anatomy, frame):
    """
    Masks of all droplets in a frame.

    A digital convex shape that is 8-connected stays so in whatever rectangle it is seen
    through, so each droplet is one piece in every window.

    Args:
        anatomy (Anatomy): of the tissue.
        frame (Frame): which pixels.

    Returns:
        Fat: of the frame.
    """
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
    return Fat(labels, clear, droplets.ids, 2 * droplets.radius_um)


def _draw_droplet(droplet, patch, borders):
    """Mask and clearness of one droplet in the patch around it."""
    dy = (patch.y_um - droplet.y_um[0])[:, None]
    dx = (patch.x_um - droplet.x_um[0])[None, :]
    distance_um = np.sqrt(dy * dy + dx * dx)
    sine, cosine = dy / (distance_um + 1e-9), dx / (distance_um + 1e-9)
    outline_um = droplet.radius_um[0] * _outline(droplet, sine, cosine)
    depth_um = outline_um - distance_um
    for normal_y, normal_x, offset_um in borders:
        depth_um = np.minimum(depth_um, offset_um - (normal_y * dy + normal_x * dx))
    # A droplet's edge leans in or out of focus, so tissue veils it, more so on one side, and
    # above and below a small droplet there is always tissue.
    names = ("soft", "veil", "veil y", "veil x", "opacity")
    soft, veil, veil_y, veil_x, opacity = (uniform(droplet.ids, name)[0] for name in names)
    towards = np.maximum((veil_y - 0.5) * sine + (veil_x - 0.5) * cosine, 0)
    veil_um = 0.3 + 1.2 * soft * soft + 0.8 * droplet.radius_um[0] * veil**3 * towards
    edge = np.clip(depth_um / veil_um, 0, 1)
    smallness = 1 / (1 + (droplet.radius_um[0] / 3.0) ** 2)
    clearness = (1 - 0.7 * opacity * smallness) * (0.35 + 0.65 * edge)
    return depth_um >= 0, clearness.astype(np.float32)


def _outline(droplet, sine, cosine):
    """
    Outline of a droplet over its radius, at each direction.

    1 + a cos(2 t + p) + b cos(3 t + q) with 5 a + 10 b < 1, which makes it convex
    (r^2 + 2 r'^2 - r r'' > 0 at every direction).
    """
    second, third = 0.14 * uniform(droplet.ids, "oval")[0], 0.025 * uniform(droplet.ids, "pear")[0]
    turn2 = 2 * np.pi * uniform(droplet.ids, "oval turn")[0]
    turn3 = 2 * np.pi * uniform(droplet.ids, "pear turn")[0]
    cosine2, sine2 = cosine * cosine - sine * sine, 2 * sine * cosine
    cosine3, sine3 = cosine2 * cosine - sine2 * sine, sine2 * cosine + cosine2 * sine
    return (
        1
        + second * (np.cos(turn2) * cosine2 - np.sin(turn2) * sine2)
        + third * (np.cos(turn3) * cosine3 - np.sin(turn3) * sine3)
    )
