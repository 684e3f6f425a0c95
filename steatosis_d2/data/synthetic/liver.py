"""
Synthetic H&E-stained liver whose fat droplets are known exactly.

Tissue is a function of its settings and of the pixel's place on an endless slide: any window
can be rendered on its own and shows the same pixels and the same droplets as the same window cut
from a larger rendering. Memory and time grow with the window.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np

from steatosis_d2.data.synthetic.fat import draw_droplets
from steatosis_d2.data.synthetic.layout import Anatomy, Frame
from steatosis_d2.data.synthetic.look import Look, draw_ground, draw_stains, expose

PAD_UM = 8.0  # a nucleus (6 um at most) and the blur (2 um) reach no farther
DRAWABLE_MPP = (0.05, 4.0)
PIECE_PX = 1024  # larger windows are put together from pieces, to bound the memory


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

    Examples:
        >>> liver = SyntheticLiver(Anatomy(seed=1, fat_fraction=0.2))
        >>> window = liver.render(top=0, left=0, height=256, width=256)
        >>> again = liver.render(top=100, left=50, height=8, width=9)
        >>> bool((again.image_rgb == window.image_rgb[100:108, 50:59]).all())
        True
    """

    anatomy: Anatomy
    look: Look = field(default_factory=Look)
    mpp: float = 0.5

    def __post_init__(self):
        finest, coarsest = DRAWABLE_MPP
        if not finest <= self.mpp <= coarsest:
            raise ValueError(f"mpp is {self.mpp}; expected um/px from {finest} to {coarsest}.")

    def render(self, *, top, left, height, width, map_in_order=map):
        """
        Picture and truth of one window of the slide.

        Args:
            top (int): row of the slide where the window begins, any sign.
            left (int): column of the slide where it begins.
            height (int): in px, at least 1.
            width (int): in px, at least 1.
            map_in_order (callable): like :func:`map`; from
                :func:`steatosis_d2.inference.parallel.open_mapper`, several processes draw.

        Returns:
            RenderedWindow: the window.
        """
        if height < 1 or width < 1:
            raise ValueError(f"window of {height} x {width} px; expected 1 x 1 or more.")
        image_rgb = np.empty((height, width, 3), np.uint8)
        labels = np.empty((height, width), np.int32)
        white_not_fat = np.empty((height, width), bool)
        diameters_um: dict[int, float] = {}  # by identity, in order of label
        pieces = list(_pieces(height, width))
        frames = [
            Frame(
                top + rows.start,
                left + columns.start,
                rows.stop - rows.start,
                columns.stop - columns.start,
                self.mpp,
            )
            for rows, columns in pieces
        ]
        drawn = map_in_order(self._render_piece, frames)
        for (rows, columns), (fat, picture, white) in zip(pieces, drawn, strict=True):
            image_rgb[rows, columns], white_not_fat[rows, columns] = picture, white
            labels[rows, columns] = _relabel(fat, diameters_um)
        return RenderedWindow(
            image_rgb=image_rgb,
            labels=labels,
            droplet_ids=np.array(list(diameters_um), np.uint64),
            diameters_um=np.array(list(diameters_um.values()), float),
            white_not_fat=white_not_fat,
        )

    def _render_piece(self, core):
        """Droplets, picture and white places of a frame, in memory of many times its size."""
        pad_px = math.ceil(PAD_UM / self.mpp)
        frame = core.padded(pad_px)
        fat = draw_droplets(self.anatomy, frame)
        ground = draw_ground(self.anatomy, self.look, frame)
        stains = draw_stains(self.anatomy, self.look, frame, ground, fat.labels > 0, fat.clear)
        image_rgb = expose(self.anatomy, self.look, frame, stains)
        inside = (slice(pad_px, -pad_px), slice(pad_px, -pad_px))
        fat = dataclasses.replace(fat, labels=fat.labels[inside])
        return fat, image_rgb[inside], ground.open[inside] & (fat.labels == 0)


def _pieces(height, width):
    """Row and column slices that cover a window."""
    for top in range(0, height, PIECE_PX):
        for left in range(0, width, PIECE_PX):
            yield (
                slice(top, min(top + PIECE_PX, height)),
                slice(left, min(left + PIECE_PX, width)),
            )


def _relabel(fat, diameters_um):
    """Labels of a piece in the numbering of its window, to which its new droplets are added."""
    window_labels = np.zeros(len(fat.droplet_ids) + 1, np.int32)
    number = {identity: k for k, identity in enumerate(diameters_um, start=1)}
    for label in np.unique(fat.labels[fat.labels > 0]):
        identity = int(fat.droplet_ids[label - 1])
        window_labels[label] = number.setdefault(identity, len(number) + 1)
        diameters_um[identity] = float(fat.diameters_um[label - 1])
    return window_labels[fat.labels]
