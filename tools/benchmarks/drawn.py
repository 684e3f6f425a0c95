"""Drawn tissue and annotations, the same on every machine."""

import cv2
import numpy as np

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.instances.rle import encode_crop


def draw_tissue(side_px, *, droplets):
    """Grainy pink with white disks, uint8, shape (side_px, side_px, 3)."""
    rng = np.random.default_rng(0)
    grain = cv2.GaussianBlur(rng.normal(0, 50, (side_px, side_px)), (0, 0), 2)
    image_rgb = np.array([172, 86, 152]) + grain[..., np.newaxis]
    for (row, column), radius in zip(*random_disks(rng, droplets, side_px), strict=True):
        cv2.circle(image_rgb, (int(column), int(row)), int(radius), (238, 238, 238), -1)
    return cv2.GaussianBlur(image_rgb, (0, 0), 1.5).clip(0, 255).astype(np.uint8)


def coco_content(images, side_px, *, scores=None):
    """Content of a COCO file of square images, given the run-length codes of each."""
    records = [
        image_record(image_id, f"{image_id}.png", height=side_px, width=side_px)
        for image_id in range(1, len(images) + 1)
    ]
    of_each = [(image_id, rle) for image_id, rles in enumerate(images, 1) for rle in rles]
    annotations = [
        annotation_record(i + 1, image_id, rle, score=None if scores is None else scores[i])
        for i, (image_id, rle) in enumerate(of_each)
    ]
    return {"images": records, "annotations": annotations}


def random_disks(rng, number, side_px):
    """Centres (row, column) and radii in px of disks well within a square image."""
    return rng.uniform(40, side_px - 40, (number, 2)), rng.uniform(5, 25, number)


def draw_disks(centres_rc, radii, side_px):
    """Run-length codes of disks in a square image."""
    return [
        draw_disk(row, column, radius, side_px)
        for (row, column), radius in zip(centres_rc, radii, strict=True)
    ]


def draw_disk(row, column, radius, side_px):
    """Run-length code of a disk in a square image."""
    top, left = int(row - radius), int(column - radius)
    size = int(2 * radius) + 2
    rows, columns = np.ogrid[top : top + size, left : left + size]
    crop = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return encode_crop(crop, top=top, left=left, height=side_px, width=side_px)
