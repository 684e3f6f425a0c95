"""
Data sets by name: ours under ``$DETECTRON2_DATASETS``, and any COCO file by its path.

Importing this module registers ours, as importing ``detectron2.data`` registers COCO. A user's
own data need no Python: ``coco:ANNOTATIONS:IMAGES`` in ``DATASETS.TRAIN`` or ``DATASETS.TEST``
is registered by :func:`steatosis_d2.config.load_config`, hence in every script and process.
"""

import math
import os
from functools import partial
from pathlib import Path

from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.splits import SPLITS
from steatosis_d2.errors import InputError
from steatosis_d2.install_detectron2 import require_detectron2

require_detectron2()

from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.data.datasets import load_coco_json  # noqa: E402

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
    _check_images(content["images"], Path(images), where=where)
    _check_categories(content, where=where)
    extras = {
        image["id"]: {key: image[key] for key in EXTRA_KEYS if key in image}
        for image in content["images"]
    }
    records = load_coco_json(str(annotations), str(images), name)
    return [record | extras[record["image_id"]] for record in records]


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
        mpp = image.get("mpp")
        if mpp is not None and not (isinstance(mpp, int | float) and 0 < mpp < math.inf):
            raise InputError(
                f"{where} gives image '{image['file_name']}' the pixel size {mpp!r}; expected "
                "'mpp' in um/px, above 0, or none."
            )


def _check_categories(content, *, where):
    known = {category.get("id") for category in content.get("categories", [])}
    for annotation in content["annotations"]:
        if annotation.get("category_id") not in known:
            raise InputError(
                f"{where}: annotation {annotation['id']} has the category "
                f"{annotation.get('category_id')!r}, which is not among 'categories' "
                f"{sorted(known)}."
            )


register_prepared_datasets(Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser())
