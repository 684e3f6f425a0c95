"""Data sets as their authors publish them, and a user's own, as lists of samples."""

import contextlib
import logging
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from steatosis_d2.data.images import list_images, read_image_rgb
from steatosis_d2.data.instance_masks import list_mask_files
from steatosis_d2.data.zip_path import ZipPath
from steatosis_d2.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Sample:
    """
    One image and where its instance masks are.

    Attributes:
        name: unique in its data set; the prepared image is called after it.
        case: what must stay in one split: a patient, a slide.
        image_path: the image file.
        masks_path: the mask file, or the folder of masks; it need not exist.
    """

    name: str
    case: str
    image_path: Path | ZipPath
    masks_path: Path | ZipPath


@contextlib.contextmanager
def open_source(source):
    """
    Give the folder of a source; a zip file is read as one, without extracting it.

    Args:
        source (Path): a folder or a zip file.

    Yields:
        Path or ZipPath: the folder, for as long as the block runs.

    Raises:
        InputError: the source is missing, or neither a folder nor a whole zip file.
    """
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise InputError(f"source '{source}' does not exist; check the path.")
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"source '{source}' is neither a folder nor a whole zip file ({error}); download it "
            "again, or extract it and pass the folder."
        ) from None
    with archive:
        yield ZipPath(archive)


def list_guo2019(folder):
    """
    Liver tiles of Guo et al., ISBI 2019: ``<id>/image/<id>.png``, ``<id>/masks/<n>.png``.

    Args:
        folder (Path or ZipPath): holds the sample folders, at any depth.

    Returns:
        list[Sample]: in order of their names; the case is the slide, the name's first number.

    Raises:
        InputError: there are none, or two of one name, or two images in one.
    """
    return _list_sample_folders(
        folder, image_folder="image", case_of=lambda name: name.partition("_")[0]
    )


def read_guo2019_image(path):
    """
    Read a tile of Guo et al. as RGB: the published files hold red and blue swapped.

    Args:
        path (Path or ZipPath): the tile.

    Returns:
        ndarray: uint8, shape (H, W, 3), RGB.
    """
    return read_image_rgb(path)[..., ::-1]


def list_torino(folder):
    """
    Liver tiles outlined by hand (Torino): ``image/<case>_<n>.webp``, ``manual/<case>_<n>.png``.

    Args:
        folder (Path or ZipPath): holds the folders ``image`` and ``manual``, at any depth.

    Returns:
        list[Sample]: in order of their names; the case is the name up to its last underscore.

    Raises:
        InputError: the two folders are not there, or hold no image, or two of one name.
    """
    homes = [manual.parent for manual in _find_folders(folder, "manual")]
    homes = [home for home in homes if (home / "image").is_dir()]
    if len(homes) != 1:
        raise InputError(
            f"'{folder}' has {len(homes)} places with the folders 'image' and 'manual' side by "
            "side; expected one. Check the path."
        )
    return pair_images_with_masks(
        homes[0] / "image",
        homes[0] / "manual",
        case_of=lambda name: name.rpartition("_")[0] or name,
    )


def list_bbbc038(folder):
    """
    Nuclei of the 2018 Data Science Bowl: ``<id>/images/<id>.png``, ``<id>/masks/<hash>.png``.

    Args:
        folder (Path or ZipPath): holds the sample folders, at any depth.

    Returns:
        list[Sample]: in order of their names; each image is a case, since its origin is not told.

    Raises:
        InputError: there are none, or two of one name, or two images in one.
    """
    return _list_sample_folders(folder, image_folder="images", case_of=lambda name: name)


def pair_images_with_masks(images_folder, masks_folder, *, case_of):
    """
    Images with the mask file, or the folder of masks, that has the same name.

    Args:
        images_folder (Path or ZipPath): holds ``<name>.<any image suffix>``.
        masks_folder (Path or ZipPath): holds ``<name>.<mask suffix>`` or ``<name>/``.
        case_of (callable): name of an image -> its case.

    Returns:
        list[Sample]: in order of their names. Without a mask, ``masks_path`` is the PNG file that
        should have been there.

    Raises:
        InputError: a folder is missing, there is no image, or two files share a name.
    """
    for folder in (images_folder, masks_folder):
        if not folder.is_dir():
            raise InputError(f"folder '{folder}' does not exist; check the path.")
    images = _by_name(list_images(images_folder))
    subfolders = [path for path in masks_folder.iterdir() if path.is_dir()]
    masks = _by_name([*list_mask_files(masks_folder), *subfolders])
    if not images:
        raise InputError(f"folder '{images_folder}' holds no image; check the path.")
    orphans = sorted(masks.keys() - images.keys())
    if orphans:
        logger.warning(
            "%d masks in '%s' have no image of their name: %s",
            len(orphans),
            masks_folder,
            ", ".join(orphans),
        )
    return [
        Sample(name, case_of(name), path, masks.get(name, masks_folder / f"{name}.png"))
        for name, path in sorted(images.items())
    ]


def compile_case_pattern(text):
    """
    A pattern for :func:`case_of_name`.

    Args:
        text (str): a regular expression.

    Returns:
        re.Pattern: compiled.

    Raises:
        InputError: it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(f"case pattern '{text}' is no regular expression: {error}.") from None


def case_of_name(name, *, pattern):
    r"""
    The case that a name tells.

    Args:
        name (str): name of an image, without suffix.
        pattern (re.Pattern): finds the case, as its first group or, without groups, as a whole.

    Returns:
        str: the case.

    Raises:
        InputError: the pattern does not match, or matches nothing.

    Examples:
        >>> case_of_name("L07_2000_976", pattern=re.compile(r"L(\d+)_"))
        '07'
    """
    match = pattern.search(name)
    case = match[1 if pattern.groups else 0] if match else None
    if not case:
        raise InputError(
            f"the case pattern '{pattern.pattern}' finds no case in the image name '{name}'; "
            "correct the pattern or the name."
        )
    return case


def _list_sample_folders(folder, *, image_folder, case_of):
    homes: dict[str, Path] = {}
    for images in _find_folders(folder, image_folder):
        home = images.parent
        if home.name in homes:
            raise InputError(
                f"two samples are called '{home.name}': '{homes[home.name]}' and '{home}'; "
                "keep one of them."
            )
        homes[home.name] = home
    if not homes:
        raise InputError(
            f"'{folder}' has no samples; expected folders '<id>/{image_folder}' and '<id>/masks'. "
            "Check the path."
        )
    return [
        Sample(name, case_of(name), _only_image(home / image_folder, name), home / "masks")
        for name, home in sorted(homes.items())
    ]


def _find_folders(root, name):
    """Folders of a name at any depth, without the shadow copies in zip files made on a Mac."""
    folders = (path for path in root.rglob(name) if path.is_dir())
    return sorted((path for path in folders if "__MACOSX" not in path.parts), key=str)


def _only_image(folder, name):
    paths = list_images(folder)
    if len(paths) > 1:
        raise InputError(
            f"'{folder}' holds {len(paths)} images ('{paths[0].name}', '{paths[1].name}'); "
            "expected one. Remove the others."
        )
    return paths[0] if paths else folder / f"{name}.png"


def _by_name(paths):
    by_name: dict[str, Path] = {}
    for path in paths:
        name = path.name if path.is_dir() else path.stem
        if name in by_name:
            raise InputError(
                f"'{by_name[name].name}' and '{path.name}' in '{path.parent}' share the name "
                f"'{name}', by which images and masks are matched; rename or remove one."
            )
        by_name[name] = path
    return by_name
