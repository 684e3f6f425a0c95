"""From the network's small masks to bitmaps as large as the objects, never as the image."""

import numpy as np
import torch
from torch.nn import functional

# Pixels that are interpolated at a time; 16 bytes each, so that a chunk stays in the cache.
CHUNK_PX = 2**17


def paste_crops(mask_probabilities, boxes_xyxy, *, height, width, threshold=0.5):
    """
    Bitmaps of masks that the network predicted in the frame of their boxes.

    The same pixels, bit by bit, as Detectron2's ``paste_masks_in_image``, which makes one bitmap
    of the whole image for each: the same arithmetic on the same operands, for the part of the
    image that a box covers, and for many boxes at a time.

    Args:
        mask_probabilities (Tensor): float32, shape (N, M, M), in 0..1.
        boxes_xyxy (Tensor): float32, shape (N, 4), in px of the image; may reach beyond it.
        height, width (int): of the image, in px.
        threshold (float): probability from which a pixel belongs to the object.

    Returns:
        list[tuple]: for each mask ``(crop, top, left)``: bool, shape (h, w), the mask in its
        bounding box, and row and column of the crop's first pixel. A mask without a pixel is a
        crop of shape (0, 0).
    """
    regions = covered_regions(boxes_xyxy, height=height, width=width)
    crops = {}
    for chunk in chunks_of_like_size(regions):
        bitmaps = interpolate(mask_probabilities[chunk], boxes_xyxy[chunk], regions[chunk])
        bitmaps = (bitmaps >= threshold).cpu().numpy()
        for index, bitmap, region in zip(chunk, bitmaps, regions[chunk], strict=True):
            crops[index] = crop_tightly(bitmap, region)
    return [crops[index] for index in range(len(regions))]


def covered_regions(boxes_xyxy, *, height, width):
    """Rows and columns that boxes cover, with a margin of 1 px: int64, (N, 4), l, t, r, b."""
    limits = np.array([width, height, width, height])
    boxes = boxes_xyxy.cpu().numpy()
    regions = np.concatenate([np.floor(boxes[:, :2]) - 1, np.ceil(boxes[:, 2:]) + 1], axis=1)
    return np.clip(regions, 0, limits).astype(np.int64)


def chunks_of_like_size(regions):
    """Indices of regions, sorted by size and cut into chunks of about CHUNK_PX."""
    widths, heights = (regions[:, 2:] - regions[:, :2]).T
    order = np.lexsort((widths, heights))
    chunks, start = [], 0
    for stop in range(1, len(order) + 1):
        chunk = order[start : stop + 1]
        is_full = len(chunk) * heights[chunk].max() * widths[chunk].max() > CHUNK_PX
        if is_full or stop == len(order):
            chunks.append(order[start:stop])
            start = stop
    return chunks


def interpolate(mask_probabilities, boxes_xyxy, regions):
    """Probabilities at the pixels of each region: (N, h, w) of the largest one's size."""
    left, top, right, bottom = torch.from_numpy(regions).to(boxes_xyxy.device).T
    x = fractions_of_box(left, (right - left).max(), boxes_xyxy[:, 0::2])
    y = fractions_of_box(top, (bottom - top).max(), boxes_xyxy[:, 1::2])
    shape = (len(regions), y.shape[1], x.shape[1])
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=3)
    return functional.grid_sample(mask_probabilities[:, None], grid, align_corners=False)[:, 0]


def fractions_of_box(start, length, ends):
    """Pixel centres from ``start`` on, in the frame where the box is -1..1: (N, length)."""
    centres = start[:, None] + torch.arange(length, device=start.device) + 0.5
    begin, end = ends[:, :1], ends[:, 1:]
    # In this order and in float32, as Detectron2 computes it: another order rounds differently
    return (centres - begin) / (end - begin) * 2 - 1


def crop_tightly(bitmap, region):
    """The True pixels of a region's bitmap in their bounding box, and its top and left."""
    left, top, right, bottom = region
    bitmap = bitmap[: bottom - top, : right - left]
    rows = np.flatnonzero(bitmap.any(axis=1))
    columns = np.flatnonzero(bitmap.any(axis=0))
    if not rows.size:
        return np.zeros((0, 0), bool), int(top), int(left)
    crop = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # A copy, since a view would keep the whole chunk
    return crop.copy(), int(top + rows[0]), int(left + columns[0])
