"""Many small masks in one array, so that they are measured and traced together."""

from dataclasses import dataclass

import numpy as np

# Measuring takes some 20 bytes a pixel, so a strip stays below 10 MB, yet holds hundreds of
# droplets of common size.
_MAX_PIXELS = 500_000


@dataclass(frozen=True, eq=False)
class Strip:
    """
    The crops of instances, one below another, with a border of zeros round each.

    Attributes:
        pixels (ndarray): bool, shape (H, W); the first row and the first column are zeros.
        starts (ndarray): int64, shape (n,), row above each crop's first one.
        tops, lefts (ndarray): int64, shape (n,), row and column of each crop in its image, in px.
    """

    pixels: np.ndarray
    starts: np.ndarray
    tops: np.ndarray
    lefts: np.ndarray

    def find_owners(self, rows):
        """Index of the instance that each row of the strip belongs to; the zeros above included."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def sum_rows(self, values):
        """
        Add up a figure of the strip's rows over the rows of each instance.

        Args:
            values (ndarray): shape (H or H - 1, ...), one entry a row, or a pair of rows.

        Returns:
            ndarray: shape (n, ...).
        """
        return np.add.reduceat(values, self.starts, axis=0)

    def find_row_ends(self):
        """
        Where the pixels of each row begin and end.

        Returns:
            tuple[ndarray, ndarray, ndarray]: the rows of the strip that have pixels; the column
            of the first pixel of each, and of the last.
        """
        rows = np.flatnonzero(self.pixels.any(axis=1))
        first = self.pixels[rows].argmax(axis=1)
        last = self.pixels.shape[1] - 1 - self.pixels[rows, ::-1].argmax(axis=1)
        return rows, first, last

    def find_boxes(self):
        """
        Bounding boxes of the masks, none of them empty; their crops may be larger.

        Returns:
            ndarray: int64, shape (n, 4), left, top, width, height in px of the image.
        """
        rows, first, last = self.find_row_ends()
        starts = np.searchsorted(rows, self.starts)
        left = np.minimum.reduceat(first, starts)
        width = np.maximum.reduceat(last, starts) + 1 - left
        top, bottom = rows[starts], rows[np.append(starts[1:], len(rows)) - 1]
        return np.stack(
            [
                left - 1 + self.lefts,
                top - 1 - self.starts + self.tops,
                width,
                bottom + 1 - top,
            ],
            axis=1,
        )


def stack_instances(instances):
    """
    Stack the masks of some instances.

    Args:
        instances (list[Instance]): at least one.

    Returns:
        Strip: in the same order.
    """
    return stack_crops(
        [instance.crop for instance in instances],
        tops=[instance.top for instance in instances],
        lefts=[instance.left for instance in instances],
    )


def stack_crops(crops, *, tops, lefts):
    """
    Stack some masks.

    Args:
        crops (list[ndarray]): bool, shape (h, w), at least one.
        tops, lefts (list[int]): row and column of each in its image, in px.

    Returns:
        Strip: in the same order.
    """
    heights = [len(crop) for crop in crops]
    ends = np.cumsum(np.add(heights, 1))
    starts = np.concatenate([[0], ends[:-1]])
    pixels = np.zeros((ends[-1] + 1, max(crop.shape[1] for crop in crops) + 2), bool)
    for start, crop in zip(starts.tolist(), crops, strict=True):
        height, width = crop.shape
        pixels[start + 1 : start + 1 + height, 1 : 1 + width] = crop
    return Strip(pixels, starts, np.array(tops, np.int64), np.array(lefts, np.int64))


def split_in_batches(instances):
    """
    Cut a stream of instances into lists that fit a strip of bounded size.

    Args:
        instances (iterable[Instance]): any number.

    Yields:
        list[Instance]: at least one; a single one that is larger than the bound comes alone.
    """
    batch: list = []
    rows, width = 1, 0
    for instance in instances:
        crop_height, crop_width = instance.crop.shape
        rows, width = rows + crop_height + 1, max(width, crop_width)
        if batch and rows * (width + 2) > _MAX_PIXELS:
            yield batch
            batch, rows, width = [], crop_height + 2, crop_width
        batch.append(instance)
    if batch:
        yield batch
