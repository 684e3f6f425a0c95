"""Labels of many image files, as one COCO file's records."""

import functools
from dataclasses import asdict, dataclass, field

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.data.images import IMAGE_SUFFIXES, read_image_rgb
from steatosis_d2.errors import InputError
from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import choose_parameters
from steatosis_d2.labeling.pixel_size import guess_magnification
from steatosis_d2.labeling.watershed import label_by_watershed
from steatosis_d2.slides.slide import SLIDE_SUFFIXES

METHODS = {"clump-split": label_by_clump_split, "watershed": label_by_watershed}


@dataclass(frozen=True)
class LabelledImage:
    """
    What became of one image file.

    Attributes:
        height, width (int): in px; 0 where it could not be read.
        assumed_mpp (float or None): pixel size taken from the nuclei, in um/px; None where it
            was given.
        rles (list[dict]): COCO RLE of each droplet.
        scores (list[float]): confidence of each droplet.
        fault (str or None): why it could not be labelled.
    """

    height: int = 0
    width: int = 0
    assumed_mpp: float | None = None
    rles: list[dict] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    fault: str | None = None


def label_files(files, *, method, mpp, map_in_order):
    """
    Label image files one after another.

    Args:
        files (list[Path]): image files.
        method (str): one of ``METHODS``.
        mpp (float or None): pixel size of all images in um/px; None where it is not known.
        map_in_order (callable): from :func:`steatosis_d2.inference.parallel.open_mapper`.

    Yields:
        LabelledImage: one a file, in order, whatever the number of workers.
    """
    yield from map_in_order(functools.partial(label_file, method=method, mpp=mpp), files)


def label_file(path, *, method, mpp):
    """
    Label one image file; a fault of the file is returned, not raised.

    Args:
        path (Path): an image file.
        method (str): one of ``METHODS``.
        mpp (float or None): pixel size in um/px.

    Returns:
        LabelledImage: labels, or the fault.
    """
    try:
        _refuse_slide(path)
        image_rgb = read_image_rgb(path)
    except (InputError, OSError) as error:
        return LabelledImage(fault=str(error))
    assumed_mpp = guess_magnification(image_rgb) if mpp is None else None
    known_mpp = mpp or assumed_mpp
    droplets = METHODS[method](image_rgb, mpp=known_mpp, parameters=choose_parameters(known_mpp))
    height, width = image_rgb.shape[:2]
    return LabelledImage(
        height=height,
        width=width,
        assumed_mpp=assumed_mpp,
        rles=[droplet.encode(image_rgb.shape) for droplet in droplets],
        scores=[round(droplet.score, 4) for droplet in droplets],
    )


def as_coco_records(labelled, *, mpp):
    """
    COCO records of labelled images; those with a fault are left out.

    Args:
        labelled (dict): ``file_name`` (str) -> LabelledImage.
        mpp (float or None): pixel size that was given, in um/px.

    Returns:
        tuple[list[dict], list[dict]]: images and annotations.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for file_name, image in labelled.items():
        if image.fault:
            continue
        record = image_record(
            len(images) + 1, file_name, height=image.height, width=image.width, mpp=mpp
        )
        if image.assumed_mpp is not None:
            record["assumed_mpp"] = image.assumed_mpp
        images.append(record)
        annotations += [
            annotation_record(len(annotations) + 1 + i, record["id"], rle, score=score)
            for i, (rle, score) in enumerate(zip(image.rles, image.scores, strict=True))
        ]
    return images, annotations


def describe_run(labelled, *, method, mpp):
    """
    COCO ``info``: the method, the pixel size that was given, and the parameters that were used.

    Args:
        labelled (collection[LabelledImage]): all images of the run.
        method (str): one of ``METHODS``.
        mpp (float or None): pixel size that was given, in um/px.

    Returns:
        dict: ``parameters`` has one entry for each pixel size, the key being um/px.
    """
    assumed = {image.assumed_mpp for image in labelled if image.assumed_mpp is not None}
    used = sorted(assumed) if mpp is None else [mpp]
    return {
        "description": "droplet labels without a trained model",
        "method": method,
        "mpp": mpp,
        "parameters": {f"{used_mpp:g}": asdict(choose_parameters(used_mpp)) for used_mpp in used},
    }


def _refuse_slide(path):
    if path.suffix.lower() in SLIDE_SUFFIXES - IMAGE_SUFFIXES:
        raise InputError(
            f"'{path}' is a whole slide, which cannot be labelled yet; export tiles from it as "
            "PNG or TIFF and label those."
        )
