"""What a run writes beside its usual files, where it is asked for: formats of other programs."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from steatosis_d2.errors import InputError, needs_extra

# Name of the format, and of the extra in setup.py that it needs -> module whose FORMAT it is.
FORMATS = {
    "spatialdata": "steatosis_d2.inference.spatial_store",
    "dicom": "steatosis_d2.inference.dicom_annotations",
}


def _accept(_place_or_slide):
    """Nothing speaks against it."""


@dataclass(frozen=True)
class FurtherFormat:
    """
    How the results of a slide are written for another program.

    Attributes:
        suffix (str): of the file or folder, after the slide's name.
        check_place (callable): (path); raises InputError where it cannot be written there.
        check_slide (callable): (slide); raises InputError where it is not for such a slide.
        write (callable): (path, segmented, table_path); writes it, whole or not at all, from the
            slide (SegmentedSlide) and its finished table.
    """

    suffix: str
    write: Callable
    check_place: Callable = _accept
    check_slide: Callable = _accept


def load_format(name):
    """
    Import what writes a format.

    Args:
        name (str): one of :data:`FORMATS`.

    Returns:
        FurtherFormat: ready to write.

    Raises:
        InputError: there is no such format, or its packages are not installed.
    """
    if name not in FORMATS:
        raise InputError(f"format '{name}' is not known; expected one of: {', '.join(FORMATS)}.")
    with needs_extra(name, f"format '{name}'"):
        return importlib.import_module(FORMATS[name]).FORMAT


def check_formats(names, folder, items):
    """
    Refuse formats before hours are spent on what cannot be written.

    Args:
        names (iterable[str]): of the formats.
        folder (Path or None): for the files; None writes none yet.
        items (list[SlideInput]): the inputs.

    Returns:
        tuple[str, ...]: the names, each once.

    Raises:
        InputError: as :func:`load_format`; or something else is in a file's place.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        further = load_format(name)
        for item in items if folder is not None else ():
            further.check_place(folder / f"{item.name}{further.suffix}")
    return names


def check_slide(names, slide):
    """
    Refuse a slide that a format is not for.

    Args:
        names (iterable[str]): of the formats.
        slide (Slide): open.

    Raises:
        InputError: says why.
    """
    for name in names:
        load_format(name).check_slide(slide)


def write_formats(names, segmented, folder, *, result_folder):
    """
    Write one slide's results in further formats, and note that they are there.

    Args:
        names (iterable[str]): of the formats.
        segmented (SegmentedSlide): slide, tissue and instances.
        folder (Path): that holds its finished table, and is written to.
        result_folder (Path): for the notes.
    """
    for name in names:
        further = load_format(name)
        further.write(
            folder / f"{segmented.name}{further.suffix}",
            segmented,
            folder / f"{segmented.name}.parquet",
        )
        _note(name, result_folder).touch()


def list_missing_formats(names, result_folder):
    """The formats (list[str]) that :func:`write_formats` did not note in a folder (Path)."""
    return [name for name in names if not _note(name, result_folder).exists()]


def _note(name, result_folder):
    return result_folder / f"{name}.written"
