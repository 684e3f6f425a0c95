"""Labels of many image files, as one COCO file."""

import functools
from dataclasses import asdict, dataclass, field

from tqdm import tqdm

from steatosis_d2.data.coco import DROPLET, annotation_record, image_record, write_coco
from steatosis_d2.data.images import IMAGE_SUFFIXES
from steatosis_d2.errors import InputError
from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import choose_parameters
from steatosis_d2.labeling.pixel_size import ESTIMATE, open_with_pixel_size
from steatosis_d2.labeling.watershed import label_by_watershed
from steatosis_d2.slides.slide import SLIDE_SUFFIXES

METHODS = {"clump-split": label_by_clump_split, "watershed": label_by_watershed}


@dataclass(frozen=True)
class LabelledImage:
    """
    What became of one image file.

    Attributes:
        height, width (int): in px; 0 where it could not be read.
        mpp (float or None): pixel size in um/px.
        mpp_source (str or None): where that comes from: ``given``, ``file``, ``nuclei``.
        rles (list[dict]): COCO RLE of each droplet.
        scores (list[float]): confidence of each droplet.
        fault (str or None): why it could not be labelled.
    """

    height: int = 0
    width: int = 0
    mpp: float | None = None
    mpp_source: str | None = None
    rles: list[dict] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    fault: str | None = None


@dataclass(frozen=True)
class Labels:
    """
    Labels of all images.

    Attributes:
        coco (dict): ``info``, ``images``, ``categories``, ``annotations``.
        images (dict): ``file_name`` -> LabelledImage.
        faults (list[str]): why images could not be labelled.
    """

    coco: dict
    images: dict
    faults: list[str]

    def write(self, path):
        """Write the COCO file, whole or not at all."""
        write_coco(
            path,
            self.coco["images"],
            self.coco["annotations"],
            category=DROPLET,
            info=self.coco["info"],
        )


def label_all(files, *, method, mpp, map_in_order, progress=False):
    """
    Label all images of a run.

    Args:
        files (dict): ``file_name`` -> Path, from :func:`steatosis_d2.data.images.list_inputs`.
        method, mpp: as for :func:`label_file`.
        map_in_order (callable): like :func:`map`; from
            :func:`steatosis_d2.inference.parallel.open_mapper`, for instance.
        progress (bool): show a bar on a terminal.

    Returns:
        Labels: of the images that could be labelled; the others are among the faults.
    """
    label_one = functools.partial(label_file, method=method, mpp=mpp)
    results = map_in_order(label_one, list(files.values()))
    bar = tqdm(results, total=len(files), unit="image", disable=None if progress else True)
    labelled = dict(zip(files, bar, strict=True))
    images, annotations = as_coco_records(labelled)
    coco = {
        "info": describe_run(labelled.values(), method=method, mpp=mpp),
        "images": images,
        "categories": [{"id": 1, "name": DROPLET}],
        "annotations": annotations,
    }
    return Labels(coco, labelled, [image.fault for image in labelled.values() if image.fault])


def label_file(path, *, method, mpp):
    """
    Label one image file; a fault of the file is returned, not raised.

    Args:
        path (Path): an image file.
        method (str): one of ``METHODS``.
        mpp (float, "estimate" or None): as for :func:`~.pixel_size.open_with_pixel_size`.

    Returns:
        LabelledImage: labels, or the fault.
    """
    try:
        _refuse_slide(path)
        with open_with_pixel_size(path, mpp=mpp) as slide:
            if mpp != ESTIMATE:
                _check_mpp(slide)
            image_rgb = slide.read_region(0, 0, slide.width, slide.height)
    except (InputError, OSError) as error:
        return LabelledImage(fault=str(error))
    droplets = []
    if slide.mpp is not None:  # of glass alone it cannot be estimated
        parameters = choose_parameters(slide.mpp)
        droplets = METHODS[method](image_rgb, mpp=slide.mpp, parameters=parameters)
    return LabelledImage(
        height=slide.height,
        width=slide.width,
        mpp=slide.mpp,
        mpp_source=slide.mpp_source,
        rles=[droplet.encode(image_rgb.shape) for droplet in droplets],
        scores=[round(droplet.score, 4) for droplet in droplets],
    )


def as_coco_records(labelled):
    """
    COCO records of labelled images; those with a fault are left out.

    Args:
        labelled (dict): ``file_name`` (str) -> LabelledImage.

    Returns:
        tuple[list[dict], list[dict]]: images and annotations.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for file_name, image in labelled.items():
        if image.fault:
            continue
        record = image_record(
            len(images) + 1,
            file_name,
            height=image.height,
            width=image.width,
            mpp=image.mpp,
            mpp_source=image.mpp_source,
        )
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
        mpp (float, "estimate" or None): what the user said of the pixel size.

    Returns:
        dict: ``parameters`` has one entry for each pixel size, the key being um/px.
    """
    used = sorted({image.mpp for image in labelled if image.mpp is not None})
    return {
        "description": "droplet labels without a trained model",
        "method": method,
        "mpp": mpp,
        "parameters": {f"{used_mpp:g}": asdict(choose_parameters(used_mpp)) for used_mpp in used},
    }


def _check_mpp(slide):
    if slide.mpp is None:
        raise InputError(
            f"'{slide.path}' states no pixel size, and labels are made in um. Pass it, e.g. "
            "--mpp 0.25; or let it be estimated from the nuclei, with --mpp estimate."
        )


def _refuse_slide(path):
    if path.suffix.lower() in SLIDE_SUFFIXES - IMAGE_SUFFIXES:
        raise InputError(
            f"'{path}' is a whole slide, which cannot be labelled yet; export tiles from it as "
            "PNG or TIFF and label those."
        )
