"""COCO files: one way to build, write and read them."""

import json
from pathlib import Path

from pycocotools import mask as coco_mask

from steatosis_d2.data.coco_forms import bring_to_form
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done

DROPLET = "droplet"
NUCLEUS = "nucleus"
# A prediction, or a box, belongs to an ignored area ("iscrowd") if more than this share of it lies
# inside: in training and in evaluation alike.
IGNORED_SHARE = 0.5


def image_record(
    image_id,
    file_name,
    *,
    height,
    width,
    mpp=None,
    mpp_source=None,
    group=None,
    other_white=None,
    incomplete=False,
):
    """
    COCO record of one image.

    Args:
        image_id (int): unique in its file.
        file_name (str): relative to the image folder.
        height (int): in px.
        width (int): in px.
        mpp (float or None): pixel size in um/px, where it is known.
        mpp_source (str or None): where that comes from; ``nuclei`` is an estimate.
        group (str or None): the kind of image, where a data set has several.
        other_white (dict or None): COCO RLE of all white that is no fat, where it is known.
        incomplete (bool): some droplets are not labelled.

    Returns:
        dict: COCO ``images`` entry, with the extra keys ``mpp``, ``mpp_source``, ``group``,
        ``other_white`` and ``incomplete`` where they are known or true.
    """
    record = {"id": image_id, "file_name": file_name, "height": int(height), "width": int(width)}
    if mpp is not None:
        record["mpp"] = float(mpp)
    if mpp_source is not None:
        record["mpp_source"] = mpp_source
    if group is not None:
        record["group"] = group
    if other_white is not None:
        record["other_white"] = other_white
    if incomplete:
        record["incomplete"] = True
    return record


def annotation_record(
    annotation_id, image_id, rle, *, score=None, box_xywh=None, area_px=None, category_id=1
):
    """
    COCO record of one instance; box and area follow from the mask.

    Args:
        annotation_id (int): unique in its file, at least 1 (COCOeval takes 0 for unmatched).
        image_id (int): the image it belongs to.
        rle (dict): COCO RLE with ``counts`` as str.
        score (float or None): confidence in 0..1, for predictions and generated labels.
        box_xywh (list[int] or None): the mask's bounding box in px, where it is known already;
            pycocotools, which is asked otherwise, stops at images of 2^32 px.
        area_px (int or None): the mask's pixels; as ``box_xywh``.
        category_id (int): of what it is.

    Returns:
        dict: COCO ``annotations`` entry; ``bbox`` is [x, y, width, height] in px.
    """
    record = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle,
        "bbox": coco_mask.toBbox(rle).tolist() if box_xywh is None else box_xywh,
        "area": int(coco_mask.area(rle) if area_px is None else area_px),
        "iscrowd": 0,
    }
    if score is not None:
        record["score"] = float(score)
    return record


def write_coco(path, images, annotations, *, category, info=None):
    """
    Write one COCO file, whole or not at all, an annotation a line.

    Args:
        path (str or Path): the file to write.
        images (list[dict]): from :func:`image_record`.
        annotations (iterable[dict]): from :func:`annotation_record`; millions may come one by one.
        category (str or list[dict]): name of the one category, ``droplet`` or ``nucleus``, whose id
            is 1; or COCO records of several, from :func:`category_records` for instance.
        info (dict or None): COCO ``info``: where the data come from, with which parameters.
    """
    head = {
        "info": info or {},
        "images": images,
        "categories": [{"id": 1, "name": category}] if isinstance(category, str) else category,
    }
    with replace_when_done(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, allow_nan=False)[:-1] + ', "annotations": [')
        separator = "\n"
        for annotation in annotations:
            file.write(separator + json.dumps(annotation, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def read_coco(path):
    """
    Read a COCO file and check what everything after it relies on.

    Args:
        path (str or Path): a COCO JSON file of truths or of predictions.

    Returns:
        dict: the file's content, in the form of
        :func:`~steatosis_d2.data.coco_forms.bring_to_form`.

    Raises:
        InputError: the file is missing, is not JSON, lacks a list or a key, repeats an id, or
            has an annotation of an image that is not in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"COCO file '{path}' does not exist; check the path.")
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"'{path}' is not JSON ({error}); expected a COCO file, as datasets/prepare_*.py write."
        ) from None
    return check_coco(content, path)


def check_coco(content, path):
    """
    Check what everything relies on, as :func:`read_coco` does.

    Args:
        content (object): of a COCO file.
        path (str or Path): what to call it in messages.

    Returns:
        dict: the content, in one form.

    Raises:
        InputError: as :func:`read_coco`.
    """
    if not isinstance(content, dict):
        content = {}
    missing = [key for key in ("images", "annotations") if not isinstance(content.get(key), list)]
    if missing:
        raise InputError(
            f"'{path}' has no list {' and no list '.join(repr(key) for key in missing)}; "
            "expected a COCO file with 'images' and 'annotations'."
        )
    _check_keys(path, content["images"], ("id", "file_name", "height", "width"), kind="image")
    _check_keys(path, content["annotations"], ("image_id",), kind="annotation")
    return bring_to_form(content, path)


def check_outlined(content, path):
    """
    Refuse truths that say nothing: all of them areas to ignore, though nobody screened them.

    Args:
        content (dict): of a COCO file of truths, from :func:`read_coco`.
        path (str or Path): what to call it in messages.

    Raises:
        InputError: there are annotations, and all are areas to ignore (``iscrowd``) that no
            screening has made such.
    """
    annotations = content["annotations"]
    if annotations and all(one.get("iscrowd") and "screening" not in one for one in annotations):
        raise InputError(
            f"'{path}': all {len(annotations)} annotations are areas to ignore (iscrowd 1), as "
            "CVAT exports masks; expected outlines of single objects. If each is one object, set "
            "its iscrowd to 0."
        )


def category_records(names):
    """COCO records of categories (list[dict]), whose ids are 1, 2, ..."""
    return [{"id": number, "name": name} for number, name in enumerate(names, 1)]


def category_names(content):
    """
    The categories of a COCO file.

    Args:
        content (dict): from :func:`read_coco`.

    Returns:
        dict: id (int) -> name (str).
    """
    return {one["id"]: one["name"] for one in content.get("categories") or []}


def take_category(content, name):
    """
    Part of a COCO file.

    Args:
        content (dict): from :func:`read_coco`.
        name (str): of a category.

    Returns:
        dict: with all images, and the annotations and the record of this category alone.
    """
    names = category_names(content)
    annotations = [one for one in content["annotations"] if names.get(one["category_id"]) == name]
    categories = [one for one in content["categories"] if one["name"] == name]
    return content | {"annotations": annotations, "categories": categories}


def _check_keys(path, records, keys, *, kind):
    for number, record in enumerate(records, 1):
        missing = [key for key in keys if not isinstance(record, dict) or key not in record]
        if missing:
            raise InputError(
                f"'{path}': {kind} number {number} has no '{missing[0]}'; expected COCO records "
                f"with {', '.join(keys)}."
            )
