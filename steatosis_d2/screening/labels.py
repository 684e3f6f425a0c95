"""Labels to screen, from a COCO file, and the images they belong to."""

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from steatosis_d2.data.coco import DROPLET, category_names, read_coco
from steatosis_d2.data.images import IMAGE_SUFFIXES
from steatosis_d2.data.ome_zarr import is_ome_zarr_folder
from steatosis_d2.errors import InputError
from steatosis_d2.files import printable
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.rle import UnsoundMask, as_sound_rles, decode_crop, find_boxes

logger = logging.getLogger(__name__)

ACCEPTED = "accepted"
REJECTED = "rejected"
UNREVIEWED = "unreviewed"
VERDICTS = (ACCEPTED, REJECTED, UNREVIEWED)
# What is larger is shown, and trained from, in pieces.
WHOLE_PX = 4096
_LISTED = 5
# So many labels are checked at once: faster than one by one, in little memory.
_CHECKED_AT_ONCE = 10_000


@dataclass(frozen=True, eq=False)
class Label:
    """
    One outlined object. Its pixels never change: an edit makes a new label, with a new id.

    Attributes:
        id (int): unique among all labels of a file and those made from them.
        rle (dict): COCO RLE with ``counts`` as str; at least one pixel.
        score (float or None): confidence in 0..1; None where a person drew it.
        screening (str): one of :data:`VERDICTS`.
        category (str): what it is; empty for what its file calls first.
    """

    id: int
    rle: dict
    score: float | None = None
    screening: str = UNREVIEWED
    category: str = ""

    def as_instance(self):
        """The label as an Instance; one that a person drew counts as certain."""
        crop, top, left = decode_crop(self.rle)
        return Instance(crop, top, left, 1.0 if self.score is None else self.score)


@dataclass(frozen=True, eq=False)
class LabelFile:
    """
    What a COCO file of labels holds.

    Attributes:
        path (Path): of the file.
        digest (str): SHA-256 of its bytes.
        images (dict): image id (int) -> COCO record.
        labels (dict): image id (int) -> its labels (list[Label]).
        regions (list[dict]): annotations of areas to ignore that are no labels.
        categories (dict): name of what is labelled -> its id in the file, the first first.
        info (dict): the file's own ``info``.
    """

    path: Path
    digest: str
    images: dict[int, dict]
    labels: dict[int, list[Label]]
    regions: list[dict]
    categories: dict[str, int]
    info: dict

    @property
    def category(self):
        """What is labelled (str): the first, where there are several."""
        return next(iter(self.categories))

    @property
    def highest_id(self):
        """The highest id of a label or region; 0 if there is none."""
        ids = [label.id for labels in self.labels.values() for label in labels]
        return max(ids + [region["id"] for region in self.regions], default=0)


def read_labels(path):
    """
    Read a COCO file of labels, of any origin.

    A file that was screened before has a ``screening`` in its annotations, which is where the
    work goes on. An annotation with ``iscrowd`` and without ``screening`` is an area to ignore.

    Args:
        path (str or Path): a COCO file, such as ``tools/generate_labels.py`` writes.

    Returns:
        LabelFile: with masks in any of COCO's forms as run-length codes.

    Raises:
        InputError: the file is missing or no COCO file, or has an unsound mask, id or score.
    """
    path = Path(path)
    content = read_coco(path)
    if not content["images"]:
        raise InputError(f"'{path}' lists no images; there is nothing to screen.")
    images = {image["id"]: image for image in content["images"]}
    of_image: dict[int, list[dict]] = {image_id: [] for image_id in images}
    regions = []
    for annotation in content["annotations"]:
        if annotation.get("iscrowd") and "screening" not in annotation:
            regions.append(annotation)
        else:
            of_image[annotation["image_id"]].append(annotation)
    names = category_names(content) or {1: DROPLET}
    labels = {
        image_id: [
            label
            for first in range(0, len(annotations), _CHECKED_AT_ONCE)
            for label in _as_labels(
                annotations[first : first + _CHECKED_AT_ONCE], images[image_id], names, path
            )
        ]
        for image_id, annotations in of_image.items()
    }
    return LabelFile(
        path=path,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        images=images,
        labels=labels,
        regions=regions,
        categories={name: number for number, name in names.items()},
        info=content.get("info") or {},
    )


def find_images(label_file, folder):
    """
    Where the images of a label file are.

    Args:
        label_file (LabelFile): from :func:`read_labels`.
        folder (str or Path): what its ``file_name`` are relative to.

    Returns:
        dict: image id (int) -> Path of an existing file below ``folder``.

    Raises:
        InputError: the folder or images are missing, or a name leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"image folder '{folder}' does not exist; check the path.")
    paths = {}
    for image_id, image in label_file.images.items():
        name = PurePosixPath(str(image["file_name"]).replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or "\0" in str(name):
            raise InputError(
                f"'{label_file.path}': image {image_id} has the file_name "
                f"{image['file_name']!r}, which leads out of the image folder '{folder}'; "
                "expected a name relative to it, without '..'."
            )
        paths[image_id] = folder / name
    if not all(map(_is_image, paths.values())):
        # Outputs call files by names that can be printed.
        called = {folder / printable(str(path.relative_to(folder))): path for path in _walk(folder)}
        paths = {image_id: called.get(path, path) for image_id, path in paths.items()}
    missing = [str(path.relative_to(folder)) for path in paths.values() if not _is_image(path)]
    if missing:
        listed = ", ".join(f"'{name}'" for name in missing[:_LISTED])
        raise InputError(
            f"{len(missing)} of the {len(paths)} images of '{label_file.path}' are not in "
            f"'{folder}': {listed}{', ...' if len(missing) > _LISTED else ''}. Give the folder "
            "that their names are relative to."
        )
    return paths


def _is_image(path):
    return path.is_file() or is_ome_zarr_folder(path)


def _walk(folder):
    return filter(_is_image, folder.rglob("*"))


def is_slide(path, image):
    """
    Whether an image is shown, and trained from, in pieces.

    Args:
        path (Path): its file.
        image (dict): its COCO record.

    Returns:
        bool: True for what is no plain image, or a large one.
    """
    is_large = max(image["height"], image["width"]) > WHOLE_PX
    return path.suffix.lower() not in IMAGE_SUFFIXES or is_large


def check_size(path, size, image):
    """
    Refuse an image that is not the one that was labelled.

    Args:
        path (Path): its file.
        size (tuple[int, int]): its height and width in px.
        image (dict): its COCO record.

    Raises:
        InputError: the sizes differ.
    """
    if size != (image["height"], image["width"]):
        raise InputError(
            f"image '{path}' is {size[0]} x {size[1]} px (height x width); its labels were made "
            f"for {image['height']} x {image['width']} px. Give the images that were labelled."
        )


def _as_labels(annotations, image, names, path):
    """Labels of some annotations of an image; those without pixels are left out."""
    size = {"height": image["height"], "width": image["width"]}
    try:
        rles = as_sound_rles([one.get("segmentation") for one in annotations], **size)
    except UnsoundMask as error:
        with _naming(path, image, annotations[error.index]):
            raise
    has_pixels = (find_boxes(rles)[:, 2] > 0).tolist()
    for annotation, rle, is_label in zip(annotations, rles, has_pixels, strict=True):
        with _naming(path, image, annotation):
            label = Label(
                id=_check_id(annotation["id"]),
                rle=rle,
                score=_check_score(annotation.get("score")),
                screening=_check_screening(annotation.get("screening", UNREVIEWED)),
                category=names.get(annotation.get("category_id"), ""),
            )
        if is_label:
            yield label
        else:
            logger.warning("'%s': annotation %d has no pixels; left out", path, label.id)


@contextlib.contextmanager
def _naming(path, image, annotation):
    """Say which annotation an error is about."""
    try:
        yield
    except ValueError as error:
        raise InputError(
            f"'{path}', image '{image['file_name']}', annotation {annotation['id']}: {error}"
        ) from None


def _check_id(identity):
    if type(identity) is not int or identity < 0:
        raise ValueError(f"the id is {identity!r}; expected a whole number.")
    return identity


def _check_score(score):
    if score is None:
        return None
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ValueError(f"the score is {score!r}; expected a number in 0..1.")
    return float(score)


def _check_screening(screening):
    if screening not in VERDICTS:
        raise ValueError(f"'screening' is {screening!r}; expected {', '.join(VERDICTS)}.")
    return screening
