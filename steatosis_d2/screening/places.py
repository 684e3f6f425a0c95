"""Labels of a slide by where they are: those in view, and squares to judge one after another."""

import functools
from dataclasses import dataclass

import numpy as np
import shapely

from steatosis_d2.instances.rle import find_boxes

# Side of the squares; in px where the pixel size is not known.
REGION_UM, REGION_PX = 200.0, 800


@dataclass(frozen=True, eq=False)
class Places:
    """
    Where the labels of one image are; those that edits make are added as they come.

    Attributes:
        ids (ndarray): int64, shape (N,).
        boxes_xywh (ndarray): int64, shape (N, 4), in px of the image.
        tree (shapely.STRtree): of the boxes.
        side_px (float): of the squares that the image is divided into.
    """

    ids: np.ndarray
    boxes_xywh: np.ndarray
    tree: shapely.STRtree
    side_px: float

    @classmethod
    def of(cls, labels, *, mpp=None):
        """
        The places of some labels.

        Args:
            labels (iterable[Label]): of one image.
            mpp (float or None): um/px of the image.

        Returns:
            Places: of these labels.
        """
        labels = list(labels)
        boxes = find_boxes([label.rle for label in labels])
        return cls(
            ids=np.array([label.id for label in labels], np.int64),
            boxes_xywh=boxes,
            tree=shapely.STRtree(shapely.box(*boxes[:, :2].T, *(boxes[:, :2] + boxes[:, 2:]).T)),
            side_px=REGION_UM / mpp if mpp else REGION_PX,
        )

    @functools.cached_property
    def known(self):
        """Their ids (frozenset)."""
        return frozenset(self.ids.tolist())

    def in_window(self, window_xyxy):
        """
        Labels whose boxes meet a window.

        Args:
            window_xyxy (tuple[float, float, float, float]): in px of the image.

        Returns:
            list[int]: their ids, ascending.
        """
        return sorted(self.ids[self.tree.query(shapely.box(*window_xyxy))].tolist())

    def squares(self):
        """
        The square that the middle of each label is in.

        Returns:
            ndarray: int64, shape (N, 2), row and column.
        """
        middles = self.boxes_xywh[:, :2] + self.boxes_xywh[:, 2:] / 2
        return (middles[:, ::-1] // self.side_px).astype(np.int64)
