"""
Data sets by name: ours under ``$DETECTRON2_DATASETS``, and any COCO file by its path.

Importing this module registers ours, as importing ``detectron2.data`` registers COCO. A user's
own data need no Python: ``coco:ANNOTATIONS:IMAGES`` in ``DATASETS.TRAIN`` or ``DATASETS.TEST``
is registered by :func:`steatosis_d2.config.load_config`, hence in every script and process.
"""

import os
from functools import partial
from pathlib import Path

from steatosis_d2.data.coco import category_names, check_outlined, read_coco
from steatosis_d2.data.pixel_size import check_mpp
from steatosis_d2.data.splits import SPLITS
from steatosis_d2.errors import InputError
from steatosis_d2.install_detectron2 import require_detectron2
from steatosis_d2.instances.rle import UnsoundMask, as_sound_rles, find_boxes

require_detectron2()

from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.structures import BoxMode  # noqa: E402

COCO_PREFIX = "coco:"

# What our COCO files say of an image beyond COCO: um/px, the kind of microscopy, all white that
# is no fat (a run-length code), and whether some of its droplets are not labelled.
EXTRA_KEYS = ("mpp", "group", "other_white", "incomplete")

# name -> the command that prepares it
PREPARED_DATASETS = {
    "liver_guo2019": "python datasets/prepare_guo2019.py --source DIR_OR_ZIP",
    "liver_torino": "python datasets/prepare_torino.py --source DIR_OR_ZIP",
    "nucleus_bbbc038": "python datasets/prepare_bbbc038.py --source DIR_OR_ZIP",
    "liver_synthetic": "python datasets/make_synthetic_liver.py",
    "liver_synthetic_40x": "python datasets/make_synthetic_liver.py --mpp 0.25",
}


def register_prepared_datasets(root):
    """
    Register every split of our data sets, whether or not it has been prepared yet.

    Args:
        root (str or Path): the folder that holds ``liver_guo2019/`` and the others, each with
            ``images/`` and ``annotations/instances_{train,val,test}.json``.
    """
    for dataset, command in PREPARED_DATASETS.items():
        folder = Path(root, dataset)
        for split in SPLITS:
            register_coco_file(
                f"{dataset}_{split}",
                annotations=folder / "annotations" / f"instances_{split}.json",
                images=folder / "images",
                cure=f"Prepare it with `{command} --output {folder}`, or set "
                "DETECTRON2_DATASETS to the folder that holds it.",
            )


def register_coco_specs(names):
    """
    Register those names that state a COCO file and its image folder; leave others alone.

    Args:
        names (list[str]): data set names; ``coco:ANNOTATIONS:IMAGES`` ones are registered,
            with paths relative to the working folder.

    Raises:
        InputError: a name starts with ``coco:`` but has not two paths.
    """
    for name in names:
        if not name.startswith(COCO_PREFIX) or name in DatasetCatalog:
            continue
        annotations, separator, images = name.removeprefix(COCO_PREFIX).rpartition(":")
        if not (separator and annotations and images):
            raise InputError(
                f"data set '{name}' does not name a COCO file and a folder; expected "
                "'coco:ANNOTATIONS:IMAGES', for instance 'coco:ann.json:images'."
            )
        register_coco_file(name, annotations=annotations, images=images, cure="Check the path.")


def register_coco_file(name, *, annotations, images, cure):
    """
    Register one COCO file with Detectron2; it is read when it is first asked for.

    Args:
        name (str): the name to use in ``DATASETS``.
        annotations (str or Path): the COCO file.
        images (str or Path): the folder that its ``file_name`` entries are relative to.
        cure (str): what the user can do where the file is missing.
    """
    load = partial(load_coco_file, name, annotations=annotations, images=images, cure=cure)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        json_file=str(annotations), image_root=str(images), evaluator_type="coco"
    )


def load_coco_file(name, *, annotations, images, cure):
    """
    Records of a COCO file in Detectron2's form, checked before hours of training rely on them.

    Args:
        name, annotations, images, cure: as in :func:`register_coco_file`.

    Returns:
        list[dict]: Detectron2's standard data set dicts, one an image, with those of
        ``EXTRA_KEYS`` that the file states.

    Raises:
        InputError: the file or an image of it is missing, or the file is not sound COCO.
    """
    if not Path(annotations).is_file():
        raise InputError(f"data set '{name}': there is no file '{annotations}'. {cure}")
    content = read_coco(annotations)
    where = f"data set '{name}', '{annotations}'"
    check_outlined(content, annotations)
    _check_images(content["images"], Path(images), where=where)
    _check_categories(content, where=where)
    return _as_records(content, Path(images), name=name, where=where)


def _as_records(content, folder, *, name, where):
    """As Detectron2's ``load_coco_json``, from a content that is in our form already."""
    names = category_names(content)
    classes = {number: index for index, number in enumerate(sorted(names))}
    MetadataCatalog.get(name).set(
        thing_classes=[names[number] for number in classes],
        thing_dataset_id_to_contiguous_id=classes,
    )
    annotations_of: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        annotations_of[annotation["image_id"]].append(annotation)
    return [
        {
            "file_name": str(folder / image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": _as_objects(annotations_of[image["id"]], image, classes, where=where),
        }
        | {key: image[key] for key in EXTRA_KEYS if key in image}
        for image in sorted(content["images"], key=lambda one: one["id"])
    ]


def _as_objects(annotations, image, classes, *, where):
    """Annotations of one image in Detectron2's form; those without pixels are left out."""
    if not annotations:
        return []
    size = {"height": image["height"], "width": image["width"]}
    try:
        rles = as_sound_rles([one.get("segmentation") for one in annotations], **size)
    except UnsoundMask as error:
        raise InputError(
            f"{where}, image '{image['file_name']}', annotation {annotations[error.index]['id']}: "
            f"{error} Prepare the data set again, with masks as run-length codes or polygons."
        ) from None
    return [
        {
            "iscrowd": annotation.get("iscrowd", 0),
            "bbox": [float(side) for side in box],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": classes[annotation["category_id"]],
            "segmentation": rle,
        }
        for annotation, rle, box in zip(annotations, rles, find_boxes(rles).tolist(), strict=True)
        if box[2] > 0
    ]


def _check_images(images, folder, *, where):
    if not images:
        raise InputError(f"{where} has no images in it.")
    missing = [
        image["file_name"] for image in images if not (folder / image["file_name"]).is_file()
    ]
    if missing:
        raise InputError(
            f"{where}: {len(missing)} of {len(images)} images are not in '{folder}', the first is "
            f"'{missing[0]}'. Check the image folder."
        )
    for image in images:
        if image.get("mpp") is not None:
            check_mpp(image["mpp"], where=f"{where}: image '{image['file_name']}'")


def _check_categories(content, *, where):
    known = category_names(content).keys()
    for annotation in content["annotations"]:
        if annotation.get("category_id") not in known:
            raise InputError(
                f"{where}: annotation {annotation['id']} has the category "
                f"{annotation.get('category_id')!r}, which is not among 'categories' "
                f"{sorted(known)}."
            )


register_prepared_datasets(Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser())
