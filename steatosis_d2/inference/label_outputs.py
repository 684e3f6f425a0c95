"""Labels that need no network, of tiles and whole slides, as one COCO file."""

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from steatosis_d2.data.coco import DROPLET, write_coco
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done, shorten, write_json
from steatosis_d2.inference.annotations import describe_slide, open_annotations, read_annotations
from steatosis_d2.inference.outputs import OVERLAY_PX
from steatosis_d2.instances.strip import split_in_batches
from steatosis_d2.report.overlay import PREDICTED_RGB, draw_outline

IMAGE = "image.json"


@dataclass(frozen=True)
class Labels:
    """
    Labels of all inputs.

    Attributes:
        coco (dict): ``info``, ``images``, ``categories``, ``annotations``.
        faults (list[str]): why inputs could not be labelled.
    """

    coco: dict
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


class LabelOutputs:
    """In place of an ``OutputFolder``: of each input its labels alone."""

    def __init__(self, *, needs_mpp, overlays=None):
        """
        Args:
            needs_mpp (bool): inputs that state no pixel size are refused. Where it is estimated,
                only glass has none.
            overlays (Path or None): folder for a picture of each input's labels.
        """
        self._needs_mpp = needs_mpp
        self._overlays = overlays

    def check(self, slide):
        """
        Refuse a slide (Slide) before it is read.

        Raises:
            InputError: its pixel size is not known.
        """
        if self._needs_mpp and slide.mpp is None:
            raise InputError(
                f"'{slide.path}' states no pixel size, and labels are made in um. Pass it, e.g. "
                "--mpp 0.25; or let it be estimated from the nuclei, with --mpp estimate."
            )

    def write(self, segmented, result_folder):
        """The labels of one slide (SegmentedSlide), for :func:`collect_labels`."""
        with open_annotations(result_folder, segmented.slide) as write:
            for batch in split_in_batches(segmented.instances()):
                write(batch)
        if self._overlays is not None:
            path = self._overlays / f"{shorten(segmented.file_name)}.png"
            with replace_when_done(path) as temporary:
                Image.fromarray(_draw(segmented)).save(temporary)
        write_json(result_folder / IMAGE, describe_slide(segmented))


def collect_labels(result_folders):
    """
    What :class:`LabelOutputs` wrote of all inputs.

    Args:
        result_folders (list[Path]): in the order of the inputs.

    Returns:
        tuple[list[dict], list[dict]]: COCO records of images and annotations.
    """
    images = [
        json.loads(Path(folder, IMAGE).read_text(encoding="utf-8")) | {"id": number}
        for number, folder in enumerate(result_folders, 1)
    ]
    return images, list(read_annotations(result_folders))


def _draw(segmented):
    picture_rgb = segmented.slide.thumbnail(OVERLAY_PX)
    scale = picture_rgb.shape[1] / segmented.slide.width
    for one in segmented.instances():
        draw_outline(picture_rgb, one.crop, one.top, one.left, color_rgb=PREDICTED_RGB, scale=scale)
    return picture_rgb
