"""What tests of screening share: labels, and decisions as the page makes them."""

import numpy as np

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.instances.rle import decode_mask, encode_label_image, encode_mask

HEIGHT, WIDTH = 40, 60
# Rows and columns (first, last + 1) of the labels of image 1, by id.
BOXES = {1: (4, 14, 4, 14), 2: (4, 14, 14, 24), 3: (20, 36, 10, 42)}


def box_mask(top, bottom, left, right):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def write_labels_file(path, *, scores=(0.9, 0.2, 0.5), **changes):
    """Two images; the first has the labels of BOXES, ``changes`` are to the first annotation."""
    images = [image_record(i, f"{i}.png", height=HEIGHT, width=WIDTH) for i in (1, 2)]
    annotations = [
        annotation_record(number, 1, encode_mask(box_mask(*box)), score=score)
        for (number, box), score in zip(BOXES.items(), scores, strict=True)
    ]
    annotations[0] |= changes
    write_coco(path, images, annotations, category="droplet")
    return path


def write_true_labels(path, file_name, label_image, *, mpp):
    """All instances of an image as labels, with scores by chance."""
    codes = encode_label_image(label_image)
    scores = np.random.default_rng(0).uniform(0.3, 1, len(codes)).round(3)
    height, width = label_image.shape
    write_coco(
        path,
        [image_record(1, file_name, height=height, width=width, mpp=mpp)],
        [
            annotation_record(number, 1, rle, score=score)
            for number, (rle, score) in enumerate(zip(codes.values(), scores, strict=True), 1)
        ],
        category="droplet",
    )


def seen(screening, reviewer="Ann", **options):
    """What the page knows of image 1: id -> record."""
    return {record["id"]: record for record in screening.describe(1, reviewer, **options)["labels"]}


def decide(screening, action, *label_ids, reviewer="Ann", **options):
    """Decide with what the reviewer would see just now."""
    known = seen(screening, reviewer)
    revisions = {label_id: known[label_id]["revision"] for label_id in label_ids}
    screening.decide(1, reviewer, action, revisions=revisions, **options)


def undo(screening, reviewer="Ann"):
    number = screening.describe(1, reviewer)["undoable"]
    screening.decide(1, reviewer, "undo", undoes=number)


def mask_of(screening, label_id):
    return decode_mask(screening.state(1).labels[label_id].rle)


def verdicts(screening, reviewer="Ann"):
    return {label_id: record["verdict"] for label_id, record in seen(screening, reviewer).items()}
