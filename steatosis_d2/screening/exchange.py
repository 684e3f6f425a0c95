"""Labels to QuPath and back, as GeoJSON."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from steatosis_d2.errors import InputError
from steatosis_d2.files import drop_suffix
from steatosis_d2.instances.geojson import (
    class_name,
    detection_feature,
    open_feature_collection,
    read_features,
    read_number,
)
from steatosis_d2.instances.outlines import trace_outlines
from steatosis_d2.report.overlay import DROPPED_RGB, PREDICTED_RGB
from steatosis_d2.screening.edits import encode_geometry
from steatosis_d2.screening.labels import ACCEPTED, REJECTED, Label

# What can happen to a label, in the order of a report.
CHANGES = ("unchanged", "edited", "rejected", "deleted", "restored", "added")
SUFFIXES = (".geojson", ".geojson.gz", ".json")


@dataclass(frozen=True, eq=False)
class Imported:
    """
    An image's labels after QuPath.

    Attributes:
        labels (list[Label]): all of them; those that are rejected or deleted are ``rejected``.
        changes (Counter): one of :data:`CHANGES` (str) -> number of labels.
        remarks (list[str]): what was left out or mended.
    """

    labels: list[Label]
    changes: Counter
    remarks: list[str]


def name_files(label_file):
    """
    What the GeoJSON file of each image is called, without suffix.

    Args:
        label_file (LabelFile): the labels.

    Returns:
        dict: image id (int) -> PurePosixPath: the image's name without its suffix, or with it
        where two would be called alike.
    """
    names = {
        image_id: PurePosixPath(image["file_name"].replace("\\", "/"))
        for image_id, image in label_file.images.items()
    }
    uses = Counter(drop_suffix(name) for name in names.values())
    return {
        image_id: name if uses[drop_suffix(name)] > 1 else drop_suffix(name)
        for image_id, name in names.items()
    }


def write_labels(path, labels, *, category, object_type):
    """
    Write an image's labels as a GeoJSON file that QuPath imports.

    Args:
        path (str or Path): the file to write.
        labels (list[Label]): of one image; rejected ones get the class ``rejected``.
        category (str): class of the others that state none of their own.
        object_type (str): ``detection`` or ``annotation``.
    """
    instances = [label.as_instance() for label in labels]
    with open_feature_collection(path) as write_feature:
        for label, polygons in zip(labels, trace_outlines(instances), strict=True):
            is_rejected = label.screening == REJECTED
            feature = detection_feature(
                polygons,
                number=label.id,
                category=REJECTED if is_rejected else label.category or category,
                color_rgb=DROPPED_RGB if is_rejected else PREDICTED_RGB,
                measurements={} if label.score is None else {"score": label.score},
                object_type=object_type,
            )
            write_feature(feature)


def find_files(label_file, folder):
    """
    Which GeoJSON file belongs to which image.

    Args:
        label_file (LabelFile): the labels.
        folder (str or Path): where QuPath's exports are, named as :func:`name_files` says.

    Returns:
        tuple: dict of image id (int) -> Path, without the images that have no file; list of faults
        (str), one a file that belongs to no image, or that is not the only one of its image.

    Raises:
        InputError: the folder is missing or holds no file of any image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"folder '{folder}' of GeoJSON files does not exist; check the path.")
    strange = {path for path in folder.rglob("*") if path.name.endswith(SUFFIXES)}
    found, faults = {}, []
    for image_id, name in name_files(label_file).items():
        own = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}") in strange]
        if len(own) == 1:
            found[image_id] = own[0]
        elif own:
            faults.append(
                f"image '{label_file.images[image_id]['file_name']}' has {len(own)} files: "
                f"{', '.join(map(repr, map(str, own)))}. Keep the one that counts."
            )
        strange.difference_update(own)
    faults += [
        f"'{path}' belongs to no image of '{label_file.path}'; expected the image's name with "
        f"{', '.join(SUFFIXES)}."
        for path in sorted(strange)
    ]
    if not found:
        raise InputError(
            "\nerror: ".join(faults) or f"folder '{folder}' has no GeoJSON files of any image."
        )
    return found, faults


def import_labels(path, labels, image, *, categories, first_free_id, accept_untouched=False):
    """
    Read back what QuPath saved of an image.

    Objects are known by the id that they were written with, wherever in the file they are, and
    else by their pixels. An object that encloses the same pixels as its label leaves it as it
    was; any other outline is taken pixel by pixel. New objects without a class are labels of the
    first category; those of a class that is no category and not ``rejected`` (a region, say) are
    left out.

    Args:
        path (str or Path): GeoJSON, gzipped or not, in px of the image.
        labels (list[Label]): those that were written for it.
        image (dict): its COCO record.
        categories (collection[str]): classes of what is labelled.
        first_free_id (int): for the first label that was added.
        accept_untouched (bool): take labels that QuPath leaves as they were for accepted.

    Returns:
        Imported: labels in the order of the given ones, then added ones.

    Raises:
        InputError: the file is missing or no GeoJSON.
    """
    size = {"height": image["height"], "width": image["width"]}
    objects, remarks = _read_objects(path, categories, size)
    claimed, rest = _claim(labels, objects)
    compared = [
        _compare(
            label,
            claimed.get(label.id),
            accept_untouched=accept_untouched,
            first_category=next(iter(categories)),
        )
        for label in labels
    ]
    remarks += [
        f"{drawn.name} has the class '{drawn.other_class}'; left out"
        for drawn in rest
        if drawn.other_class
    ]
    new = [drawn for drawn in rest if not drawn.other_class]
    added = [
        Label(
            number,
            drawn.rle,
            screening=REJECTED if drawn.is_rejected else ACCEPTED,
            category=drawn.category,
        )
        for number, drawn in enumerate(new, first_free_id)
    ]
    changes = Counter(change for _, change in compared)
    changes["added"] += len(added)
    return Imported([label for label, _ in compared] + added, changes, remarks)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """
    An object of a GeoJSON file.

    Attributes:
        name (str): what remarks call it.
        label_id (int or None): the label it was written for.
        rle (dict): the pixels it encloses.
        is_rejected (bool): whether it is none of what is labelled.
        category (str): what it is; empty where it has no class.
        other_class (str): its class, where that is not one of ours; else empty.
    """

    name: str
    label_id: int | None
    rle: dict
    is_rejected: bool
    category: str
    other_class: str


def _read_objects(path, categories, size):
    """The objects that enclose pixels (list[_Drawn]), and remarks on the others and mended ones."""
    objects, remarks = [], []
    ours = {"": ""} | {category.casefold(): category for category in categories}
    for number, feature in enumerate(read_features(path), 1):
        name = f"object number {number}"
        rle = encode_geometry(feature.geometry, **size)
        if rle is None:
            remarks.append(f"{name} encloses no pixel of the image; left out")
            continue
        if feature.is_mended:
            remarks.append(f"{name} crossed itself; mended")
        name_of_class = class_name(feature.properties)
        is_ours = name_of_class.casefold() in ours
        objects.append(
            _Drawn(
                name=name,
                label_id=read_number(feature),
                rle=rle,
                is_rejected=not is_ours,
                category=ours.get(name_of_class.casefold(), ""),
                other_class=""
                if is_ours or name_of_class.casefold() == REJECTED
                else name_of_class,
            )
        )
    return objects, remarks


def _claim(labels, objects):
    """Which object is which label (dict of id -> _Drawn), and the objects that are none."""
    rest = dict(enumerate(objects))
    claimed = {}
    for key_of in (_by_id_and_pixels, _by_id, _by_pixels):
        index: dict[object, list[int]] = {}
        for position, drawn in rest.items():
            index.setdefault(key_of(drawn.label_id, drawn.rle), []).append(position)
        for label in labels:
            positions = index.get(key_of(label.id, label.rle))
            if label.id not in claimed and positions:
                claimed[label.id] = rest.pop(positions.pop(0))
    return claimed, list(rest.values())


def _by_id_and_pixels(label_id, rle):
    return label_id, rle["counts"]


def _by_id(label_id, rle):
    return label_id


def _by_pixels(label_id, rle):
    return rle["counts"]


def _compare(label, drawn, *, accept_untouched, first_category):
    """A label after QuPath, and what happened to it."""
    was_rejected = label.screening == REJECTED
    if drawn is None or drawn.is_rejected:
        change = "deleted" if drawn is None else "rejected"
        return replace(label, screening=REJECTED), "unchanged" if was_rejected else change
    was, category = (one.category or first_category for one in (label, drawn))
    if drawn.rle["counts"] != label.rle["counts"] or category != was:
        return replace(label, rle=drawn.rle, screening=ACCEPTED, category=category), "edited"
    if was_rejected:
        return replace(label, screening=ACCEPTED), "restored"
    screening = ACCEPTED if accept_untouched else label.screening
    return replace(label, screening=screening), "unchanged"
