"""Squares of slides that experts have judged to the end, as tiles to train from."""

import itertools
import shutil

import numpy as np

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done
from steatosis_d2.instances.rle import as_sound_rle, decode_crop, encode_crop
from steatosis_d2.screening.exchange import name_files
from steatosis_d2.screening.labels import ACCEPTED, UNREVIEWED, Label, check_size, is_slide
from steatosis_d2.screening.places import Places
from steatosis_d2.slides.slide import open_slide
from steatosis_d2.slides.tile_writer import describe_source, name_tile, write_tile


def cut_slides(content, label_file, paths, folder):
    """
    Make tiles of slides: one of each square that the page lists and in which all is judged.

    Labels that reach into a square from others that are not judged become areas to ignore there.
    Images that are no slides are copied beside the tiles, with their annotations as they are.

    Args:
        content (dict): of a COCO file of screened labels.
        label_file (LabelFile): the same file, as :func:`~.labels.read_labels` gives it.
        paths (dict): image id (int) -> Path, from :func:`~.labels.find_images`.
        folder (Path): for the images.

    Returns:
        tuple[list[dict], list[dict]]: COCO ``images``, with ``case`` and ``source`` of the tiles,
        and ``annotations``, with ``screening``.

    Raises:
        InputError: a slide is not the one that was labelled, cannot be read, or nothing is judged.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    image_ids, names = itertools.count(1), name_files(label_file)
    annotations_of: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        annotations_of.setdefault(annotation["image_id"], []).append(annotation)
    for image_id, path in paths.items():
        record = label_file.images[image_id]
        if is_slide(path, record):
            labels = [*label_file.labels[image_id], *_areas_to_ignore(label_file, image_id)]
            name = "_".join(names[image_id].parts)
            tiles = _cut_slide(
                path,
                record,
                labels,
                name=name,
                folder=folder,
                categories=label_file.categories,
            )
        else:
            _copy_file(path, folder / record["file_name"])
            tiles = [(record, annotations_of.get(image_id, []))]
        for tile, of_tile in tiles:
            images.append(tile | {"id": next(image_ids)})
            annotations += [one | {"image_id": images[-1]["id"]} for one in of_tile]
    if not images:
        raise InputError(
            f"no square of the slides of '{label_file.path}' is judged to the end. Judge all "
            "labels of some squares, on the page of 'steatosis-d2 screen serve', and merge again."
        )
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    return images, annotations


def _areas_to_ignore(label_file, image_id):
    """Areas of the file that are no labels, in the same form; their ``screening`` is empty."""
    size = {name: label_file.images[image_id][name] for name in ("height", "width")}
    return [
        Label(region["id"], as_sound_rle(region["segmentation"], **size), screening="")
        for region in label_file.regions
        if region["image_id"] == image_id
    ]


def _copy_file(path, target):
    with replace_when_done(target) as temporary:
        shutil.copyfile(path, temporary)


def _cut_slide(path, record, labels, *, name, folder, categories):
    """COCO record and annotations of each tile that is cut from a slide."""
    labels_by_id = {label.id: label for label in labels}
    places = Places.of(labels, mpp=record.get("mpp"))
    with open_slide(path, mpp=record.get("mpp")) as slide:
        check_size(path, (slide.height, slide.width), record)
        for row, column in _list_judged(labels, places):
            left, top = round(column * places.side_px), round(row * places.side_px)
            right = min(round((column + 1) * places.side_px), slide.width)
            bottom = min(round((row + 1) * places.side_px), slide.height)
            size = {"height": bottom - top, "width": right - left}
            file_name = f"{name_tile(name, left, top)}.tif"
            source = describe_source(record["file_name"], left, top)
            pixels = slide.read_region(left, top, **size)
            write_tile(folder / file_name, pixels, mpp=record.get("mpp"), source=source)
            near = [labels_by_id[i] for i in places.in_window((left, top, right, bottom))]
            cut = ((label, _cut_mask(label.rle, left, top, **size)) for label in near)
            tile = image_record(0, file_name, mpp=record.get("mpp"), **size)
            yield (
                tile | {"case": str(record.get("case", name)), "source": source},
                [_as_annotation(label, rle, categories) for label, rle in cut if rle is not None],
            )


def _list_judged(labels, places):
    """The squares, (row, column), that hold labels of which none is left to judge."""
    squares = list(map(tuple, places.squares().tolist()))
    is_label = [label.screening != "" for label in labels]
    seen = {square for square, one in zip(squares, is_label, strict=True) if one}
    to_do = {
        square
        for square, label in zip(squares, labels, strict=True)
        if label.screening == UNREVIEWED
    }
    return sorted(seen - to_do)


def _cut_mask(rle, left, top, *, height, width):
    """The part of a mask in a window, in px of the window; None if there is none."""
    crop, crop_top, crop_left = decode_crop(rle)
    rows = slice(max(top - crop_top, 0), max(top + height - crop_top, 0))
    columns = slice(max(left - crop_left, 0), max(left + width - crop_left, 0))
    part = crop[rows, columns]
    if not np.any(part):
        return None
    return encode_crop(
        part, top=max(crop_top - top, 0), left=max(crop_left - left, 0), height=height, width=width
    )


def _as_annotation(label, rle, categories):
    record = annotation_record(label.id, 0, rle, score=label.score)
    record["category_id"] = categories.get(label.category, next(iter(categories.values())))
    record["iscrowd"] = int(label.screening != ACCEPTED)
    return record | ({"screening": label.screening} if label.screening else {})
