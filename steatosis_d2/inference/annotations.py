"""Instances of each slide as COCO annotations, on disk until the run's file is put together."""

import contextlib
import gzip
import json
from pathlib import Path

import numpy as np

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.files import replace_when_done
from steatosis_d2.instances.geojson import open_gzip_text
from steatosis_d2.instances.rle import encode_strip
from steatosis_d2.instances.strip import stack_instances

ANNOTATIONS = "annotations.jsonl.gz"


@contextlib.contextmanager
def open_annotations(result_folder, slide):
    """
    A file for the annotations of one slide, written whole or not at all.

    Args:
        result_folder (Path): the slide's; it exists.
        slide (Slide): that the instances lie in.

    Yields:
        callable: takes a list of Instance, in px of level 0, and adds them.
    """
    with (
        replace_when_done(result_folder / ANNOTATIONS) as temporary,
        open_gzip_text(temporary) as file,
    ):

        def write(instances):
            for annotation in _as_records(instances, slide):
                file.write(json.dumps(annotation, separators=(",", ":")) + "\n")

        yield write


def read_annotations(result_folders):
    """
    The annotations of all slides, numbered through.

    Args:
        result_folders (list[Path]): in the order of the images, whose ids are 1, 2, ...

    Yields:
        dict: COCO annotation.
    """
    number = 0
    for image_id, result_folder in enumerate(result_folders, 1):
        with gzip.open(Path(result_folder, ANNOTATIONS), "rt", encoding="utf-8") as lines:
            for line in lines:
                number += 1
                yield json.loads(line) | {"id": number, "image_id": image_id}


def describe_slide(segmented):
    """The COCO record of a slide (SegmentedSlide); its id is to be changed."""
    slide = segmented.slide
    return image_record(
        1,
        segmented.file_name,
        height=slide.height,
        width=slide.width,
        mpp=slide.mpp,
        mpp_source=slide.mpp_source,
    )


def _as_records(instances, slide):
    strip = stack_instances(instances)
    rles = encode_strip(strip, height=slide.height, width=slide.width)
    for instance, rle, box_xywh in zip(instances, rles, strip.find_boxes().tolist(), strict=True):
        yield annotation_record(
            0,
            0,
            rle,
            score=round(float(instance.score), 4),
            box_xywh=box_xywh,
            area_px=np.count_nonzero(instance.crop),
            category_id=instance.class_index + 1,
        )
