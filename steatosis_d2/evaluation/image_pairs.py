"""The truths and the predictions of each image, from two COCO files, checked."""

import logging
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from steatosis_d2.data.coco import category_names, take_category
from steatosis_d2.errors import InputError
from steatosis_d2.files import drop_suffix
from steatosis_d2.instances.rle import as_sound_rle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagePair:
    """
    What is true and what was predicted in one image; masks are COCO run-length codes.

    Attributes:
        file_name (str): as in the file of truths.
        height (int): in px.
        width (int): in px.
        truths (list[dict]): the true instances.
        ignored (list[dict]): regions where instances were not outlined one by one.
        predictions (list[dict]): in descending order of the scores, equal ones as in their file.
        scores (ndarray): float64, one a prediction.
        group (str or None): the kind of image, where the file of truths tells it.
        mpp (float or None): pixel size in um/px, where one of the files tells it.
    """

    file_name: str
    height: int
    width: int
    truths: list[dict]
    ignored: list[dict]
    predictions: list[dict]
    scores: np.ndarray
    group: str | None = None
    mpp: float | None = None


def pair_images(truth, predictions, *, truth_name, predictions_name):
    """
    Bring the images of two COCO files together by ``file_name``.

    Folder and suffix do not count, since predictions are often made on copies (truth
    ``a/1.webp``, prediction ``1.png``). Only where bare names repeat within a file
    (``a/1.png`` and ``b/1.png``) must the folders agree as well.

    A truth with ``iscrowd`` or ``ignore`` set is a region to ignore. A prediction without a
    score counts as certain (1). Categories are not told apart: see :func:`split_by_category`.

    Args:
        truth (dict): content of a COCO file, as :func:`~steatosis_d2.data.coco.read_coco` gives.
        predictions (dict): the same, with a ``score`` in each annotation.
        truth_name (str or Path): what errors call the first file.
        predictions_name (str or Path): what errors call the second file.

    Returns:
        list[ImagePair]: in the order of the truth's images.

    Raises:
        InputError: an image is in one file only or twice in one, sizes differ, or an annotation
            has no sound mask or score.
    """
    names = (truth_name, predictions_name)
    if not truth["images"]:
        raise InputError(f"'{truth_name}' lists no images; there is nothing to measure.")
    truth_images, predicted_images = _by_name(truth["images"], predictions["images"], names)
    _check_same_images(truth_images, predicted_images, names)
    truth_annotations = _by_image(truth["annotations"])
    predicted_annotations = _by_image(predictions["annotations"])
    return [
        _pair(
            image,
            truth_annotations.get(image["id"], []),
            predicted_images[key],
            predicted_annotations.get(predicted_images[key]["id"], []),
            names,
        )
        for key, image in truth_images.items()
    ]


def split_by_category(truth, predictions, *, truth_name, predictions_name, category=None):
    """
    Two COCO files as pairs of contents, one a category; ids do not count, names do.

    Args:
        truth, predictions (dict): contents of COCO files, from
            :func:`~steatosis_d2.data.coco.read_coco`.
        truth_name, predictions_name (str or Path): what errors call them.
        category (str or None): the only one that is wanted.

    Returns:
        dict: name (str) -> (truths, predictions). Where both files have but one category, or none,
        it is the one pair, whatever it is called.

    Raises:
        InputError: a prediction's category is not known, or nobody outlined the one that is wanted.
    """
    names = category_names(truth)
    used = {names.get(one.get("category_id")) for one in truth["annotations"]} - {None}
    predicted = category_names(predictions) or names
    _check_known(predictions, predicted, predictions_name)
    found = {predicted.get(one.get("category_id")) for one in predictions["annotations"]} - {None}
    if category is None and len(names) <= 1 and len(set(predicted.values())) <= 1:
        if names and found - set(names.values()):
            logger.warning(
                "'%s' is about '%s', '%s' about '%s'; they are compared as if they were one.",
                predictions_name,
                *found,
                truth_name,
                *names.values(),
            )
        return {next(iter(names.values()), ""): (truth, predictions)}
    if category is not None and category not in names.values():
        raise InputError(
            f"'{truth_name}' has no category '{category}'; it has "
            f"{', '.join(sorted(names.values())) or 'none'}."
        )
    strange = sorted(found - set(names.values()))
    if strange and category is None:
        raise InputError(
            f"'{predictions_name}' has predictions of the category '{strange[0]}', which is not "
            f"among those of '{truth_name}': {', '.join(sorted(names.values()))}. Choose one that "
            "both have with --category."
        )
    wanted = [category] if category else sorted(used | found)
    predictions = predictions | {
        "categories": [{"id": number, "name": name} for number, name in predicted.items()]
    }
    return {name: (take_category(truth, name), take_category(predictions, name)) for name in wanted}


def _check_known(predictions, categories, name):
    """Every prediction is of a category that its file lists, if it lists any."""
    if not categories:
        return
    for one in predictions["annotations"]:
        number = one.get("category_id")
        if number not in categories and (number is not None or len(categories) > 1):
            raise InputError(
                f"'{name}': annotation {one['id']} has the category {number!r}, which is not among "
                f"{sorted(categories)}. Write the file again with its 'categories'."
            )


def _by_name(truth_images, predicted_images, names):
    """The images of both files by the shortest key that is unique in both."""
    bare = [
        [drop_suffix(_path(image)).name for image in images]
        for images in (truth_images, predicted_images)
    ]
    if all(len(set(keys)) == len(keys) for keys in bare):
        truth_keys, predicted_keys = bare
    else:
        truth_keys = _full_names(truth_images, names[0])
        predicted_keys = _full_names(predicted_images, names[1])
    return (
        dict(zip(truth_keys, truth_images, strict=True)),
        dict(zip(predicted_keys, predicted_images, strict=True)),
    )


def _full_names(images, name):
    keys = [str(drop_suffix(_path(image))) for image in images]
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"'{name}' has {count} images named '{key}' (suffixes do not count); "
            "rename one, or remove the copy."
        )
    return keys


def _path(image):
    return PurePosixPath(image["file_name"].replace("\\", "/"))


def _check_same_images(truth_images, predicted_images, names):
    for one, other, name, other_name in (
        (truth_images, predicted_images, *names),
        (predicted_images, truth_images, *reversed(names)),
    ):
        lonely = [image["file_name"] for key, image in one.items() if key not in other]
        if lonely:
            raise InputError(
                f"{len(lonely)} of {len(one)} images are in '{name}' but not in '{other_name}' "
                f"(first: '{lonely[0]}'); both files must list the same images, those without "
                "instances as well. Predict the missing ones, or remove them from the other file."
            )
    for key, image in truth_images.items():
        sizes = [(i["height"], i["width"]) for i in (image, predicted_images[key])]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"image '{image['file_name']}' is {sizes[0][0]} x {sizes[0][1]} px (height x "
                f"width) in '{names[0]}' but {sizes[1][0]} x {sizes[1][1]} px in '{names[1]}'; "
                "predict on the image as it was outlined."
            )


def _by_image(annotations):
    groups: dict[int, list[dict]] = {}
    for annotation in annotations:
        groups.setdefault(annotation["image_id"], []).append(annotation)
    return groups


def _pair(image, truths, predicted_image, predictions, names):
    scores = np.array([_score(annotation, names[1]) for annotation in predictions])
    order = np.argsort(-scores, kind="stable")
    return ImagePair(
        file_name=image["file_name"],
        height=image["height"],
        width=image["width"],
        truths=[_rle(truth, image, names[0]) for truth in truths if not _is_ignored(truth)],
        ignored=[_rle(truth, image, names[0]) for truth in truths if _is_ignored(truth)],
        predictions=[_rle(predictions[i], image, names[1]) for i in order],
        scores=scores[order],
        group=image.get("group"),
        mpp=image.get("mpp") or predicted_image.get("mpp"),
    )


def _is_ignored(annotation):
    return bool(annotation.get("iscrowd") or annotation.get("ignore"))


def _score(annotation, name):
    score = annotation.get("score", 1)
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise InputError(
            f"'{name}': annotation {annotation['id']} has the score {score!r}; expected a number."
        )
    return float(score)


def _rle(annotation, image, name):
    try:
        return as_sound_rle(
            annotation.get("segmentation"), height=image["height"], width=image["width"]
        )
    except ValueError as error:
        raise InputError(
            f"'{name}', image '{image['file_name']}', annotation {annotation['id']}: {error} "
            "Write the file again, with masks as run-length codes or polygons."
        ) from None
