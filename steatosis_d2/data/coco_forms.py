"""COCO files as other programs write them, brought to one form."""

import ntpath
from collections import Counter

from steatosis_d2.errors import InputError

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("", "0", "0.0", "false", "no", "none", "null")


def bring_to_form(content, path):
    """
    Bring what is read the same by everyone to the form that everything after this relies on.

    Ids become whole numbers; ``iscrowd`` 0 or 1, which ``ignore`` sets, too; a polygon that stands
    alone becomes a list of one; file names have slashes and no drive. What has a meaning is kept.

    Args:
        content (dict): of a COCO file, with lists ``images`` and ``annotations`` of records.
        path (str or Path): what to call it in messages.

    Returns:
        dict: of records that are new where they differ.

    Raises:
        InputError: a size or a flag is none, or an id repeats.
    """
    image_ids = _number([image["id"] for image in content["images"]], path, kind="images")
    known = content.get("categories") or []
    if not isinstance(known, list) or not all(isinstance(one, dict) for one in known):
        raise InputError(
            f"'{path}' has 'categories' of another form; expected a list of records with 'id' and "
            "'name'."
        )
    category_ids = _number([one.get("id") for one in known], path, kind="categories")
    numbers = _number_annotations(content["annotations"], path)
    images = [_as_image(image, image_ids, path) for image in content["images"]]
    annotations = [
        _as_annotation(one, number, image_ids, category_ids, path)
        for one, number in zip(content["annotations"], numbers, strict=True)
    ]
    formed = content | {"images": images, "annotations": annotations}
    if known:
        formed["categories"] = [
            _change(
                category, {"id": category_ids[_key(category.get("id"))], "name": _name(category)}
            )
            for category in known
        ]
    return formed


def _number(ids, path, *, kind):
    """Whole number of each id, by its text: its own where all are such, else counted from 1."""
    texts = [_key(one) for one in ids]
    if len(set(texts)) < len(texts):
        first, _ = Counter(texts).most_common(1)[0]
        raise InputError(f"'{path}' has two {kind} with id {first}; ids must be unique.")
    own = [_as_int(one) for one in ids]
    if None in own or len(set(own)) < len(own):
        own = list(range(1, len(ids) + 1))
    return dict(zip(texts, own, strict=True))


def _number_annotations(annotations, path):
    ids = [one.get("id") for one in annotations]
    if all(one is None for one in ids):  # as some programs leave them out
        return list(range(1, len(ids) + 1))
    return list(_number(ids, path, kind="annotations").values())


def _key(identity):
    """An id as text, by which 1, 1.0 and "1" are the same."""
    number = _as_int(identity)
    return str(identity if number is None else number)


def _as_int(value):
    """A whole number that is one or says one; else None."""
    if isinstance(value, bool):
        return None
    try:
        number = int(str(value)) if not isinstance(value, float) else int(value)
    except (ValueError, OverflowError):
        return None
    return number if number == value or str(number) == str(value).strip() else None


def _as_image(image, image_ids, path):
    sides = {side: _as_int(image[side]) for side in ("height", "width")}
    for side, value in sides.items():
        if value is None or value < 1:
            raise InputError(
                f"'{path}': image '{image['file_name']}' has the {side} {image[side]!r}; expected "
                "a whole number of px."
            )
    name = str(image["file_name"])
    if "\\" in name:
        drive, name = ntpath.splitdrive(name.replace("\\", "/"))
        name = name.rsplit("/", 1)[-1] if drive else name
    return _change(image, {"id": image_ids[_key(image["id"])], "file_name": name} | sides)


def _as_annotation(annotation, number, image_ids, category_ids, path):
    image_id = image_ids.get(_key(annotation["image_id"]))
    if image_id is None:
        raise InputError(
            f"'{path}': annotation {annotation.get('id')} belongs to image "
            f"{annotation['image_id']}, which is not in the file."
        )
    changes = {"id": number, "image_id": image_id}
    crowd = _as_flag(annotation, "iscrowd", path) or _as_flag(annotation, "ignore", path)
    if "iscrowd" in annotation or crowd:
        changes["iscrowd"] = int(crowd)
    if "category_id" in annotation or len(category_ids) == 1:
        category = annotation.get("category_id")
        only = next(iter(category_ids.values())) if len(category_ids) == 1 else None
        unknown = category if isinstance(category, int | str | None) else str(category)
        changes["category_id"] = (
            only if category is None else category_ids.get(_key(category), unknown)
        )
    outline = annotation.get("segmentation")
    if isinstance(outline, list) and outline and isinstance(outline[0], int | float):
        changes["segmentation"] = [outline]
    return _change(annotation, changes)


def _as_flag(record, key, path):
    value = record.get(key)
    if isinstance(value, bool | int | float) or value is None:
        return bool(value)
    text = str(value).strip().casefold()
    if text not in _TRUE + _FALSE:
        raise InputError(
            f"'{path}': annotation {record.get('id')} has {key!r} {value!r}; expected 0 or 1."
        )
    return text in _TRUE


def _name(category):
    return str(category.get("name") or category.get("id"))


def _change(record, changes):
    """The record itself where nothing differs: files have hundreds of thousands."""
    differs = any(
        key not in record or record[key] != value or type(record[key]) is not type(value)
        for key, value in changes.items()
    )
    return record | changes if differs else record
