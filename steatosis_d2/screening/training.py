"""From screened labels to the COCO file that a network is trained on."""

from collections import Counter

from steatosis_d2.data.coco import annotation_record, write_coco
from steatosis_d2.screening.labels import ACCEPTED, REJECTED, UNREVIEWED, VERDICTS

DROP = "drop"
IGNORE = "ignore"
KEEP = "keep"


def as_annotations(labels, image_id, *, categories, rejected=IGNORE, unreviewed=KEEP):
    """
    COCO annotations of an image's screened labels; ``screening`` tells them apart.

    An area to ignore has ``iscrowd`` 1, as COCO marks what is not outlined one by one: what is
    found there is neither right nor wrong. Most rejected labels are real objects badly outlined;
    without a mask they would be taught as background.

    Args:
        labels (list[Label]): of one image.
        image_id (int): of the image.
        categories (dict): name -> id, the first for labels of no category of their own.
        rejected (str): ``ignore`` makes areas to ignore of rejected labels, ``drop`` leaves them
            out.
        unreviewed (str): ``keep`` trains on labels that nobody has judged, ``ignore`` and ``drop``
            as for rejected ones.

    Yields:
        dict: COCO annotation; its id is the label's.
    """
    treatment = {ACCEPTED: KEEP, REJECTED: rejected, UNREVIEWED: unreviewed}
    for label in labels:
        if treatment[label.screening] != DROP:
            record = annotation_record(label.id, image_id, label.rle, score=label.score)
            yield record | {
                "category_id": categories.get(label.category, next(iter(categories.values()))),
                "iscrowd": int(treatment[label.screening] == IGNORE),
                "screening": label.screening,
            }


def write_screened(path, label_file, labels, *, rejected=IGNORE, unreviewed=KEEP):
    """
    Write screened labels as a COCO file to train on, or to screen further.

    Args:
        path (str or Path): the file to write.
        label_file (LabelFile): where the labels came from; its images and areas to ignore stay.
        labels (dict): image id (int) -> its labels (list[Label]) as they now stand.
        rejected, unreviewed (str): as for :func:`as_annotations`.

    Returns:
        Counter: how many labels are accepted, rejected and unreviewed.
    """
    counts = Counter(dict.fromkeys(VERDICTS, 0))
    counts.update(label.screening for of_image in labels.values() for label in of_image)
    annotations = [
        annotation
        for image_id, of_image in labels.items()
        for annotation in as_annotations(
            of_image,
            image_id,
            categories=label_file.categories,
            rejected=rejected,
            unreviewed=unreviewed,
        )
    ]
    write_coco(
        path,
        list(label_file.images.values()),
        annotations + label_file.regions,
        category=[{"id": number, "name": name} for name, number in label_file.categories.items()],
        info=label_file.info | {"screening": dict(counts)},
    )
    return counts
