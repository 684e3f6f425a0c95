"""Instances of a DICOM slide as DICOM: a file of Microscopy Bulk Simple Annotations."""

import hashlib
import itertools
import json
import logging

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pydicom
from highdicom import AlgorithmIdentificationSequence
from highdicom.ann import (
    AnnotationCoordinateTypeValues,
    AnnotationGroup,
    AnnotationGroupGenerationTypeValues,
    GraphicTypeValues,
    Measurements,
    MicroscopyBulkSimpleAnnotations,
)
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from steatosis_d2 import __version__
from steatosis_d2.data.coco import DROPLET
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done
from steatosis_d2.inference.further_formats import FurtherFormat
from steatosis_d2.instances.outlines import trace_outlines

logger = logging.getLogger(__name__)

_PACKAGE = "steatosis_d2"
_MAGIC, _MAGIC_AT = b"DICM", 128
# Series of a study are numbered; those of scanners are small numbers.
_FIRST_SERIES_NUMBER = 1000
# Must be there, and may be empty; slides whose patient was removed may lack them.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_NO_DATE = "19000101"
_DESCRIPTION = (
    "Outer outlines. Areas are those of the masks, without holes; diameters are those of disks of "
    "the same areas."
)
# Of what has no code in SNOMED CT as DICOM uses it.
_OWN_CODES = "99STEATOSIS_D2"


def check_is_dicom(slide):
    """
    Refuse a slide that annotations in DICOM cannot refer to.

    Args:
        slide (Slide): open.

    Raises:
        InputError: it is no DICOM slide, or its header lacks what they repeat.
    """
    if not _is_dicom(slide.path):
        raise InputError(
            f"'{slide.path}' is no DICOM slide; DICOM annotations refer to one. Leave --format "
            "dicom out for it, or convert it to DICOM."
        )
    source = _read_source(slide)
    try:  # without groups, to see what highdicom says of the header before hours are spent
        uids = {"series_uid": source.SeriesInstanceUID, "instance_uid": source.SOPInstanceUID}
        _make_annotations(source, [], **uids, category="", model={"kind": _PACKAGE})
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"the header of '{slide.path}' does not allow DICOM annotations ({error}). Leave "
            "--format dicom out for it, or mend the header."
        ) from None


def write_dicom_annotations(path, segmented, table_path):
    """
    Write a slide's instances as DICOM annotations: a group a category, an outline an instance.

    A polygon of DICOM has no holes and no parts: the outline is the outer one, of the largest part;
    the area that goes with it is that of the mask. What a filter dropped is left out. The bytes
    depend on the slide and what was found alone: identifiers are derived from both, and dates are
    the slide's. DICOM has no empty annotations: where nothing was found no file is written, and
    one of an earlier run is removed.

    Args:
        path (Path): the file to write.
        segmented (SegmentedSlide): a DICOM slide, from :func:`check_is_dicom`, and its instances.
        table_path (Path): the slide's finished table, ``<name>.parquet``.

    Raises:
        InputError: the slide's files have changed.
    """
    table = _read_table(table_path)
    is_kept = table["dropped_by"] == ""
    kept = table[is_kept]
    if kept.empty:
        path.unlink(missing_ok=True)
        logger.info("'%s': nothing was found, so there are no DICOM annotations", segmented.name)
        return
    outlines = _trace_outer_outlines(itertools.compress(segmented.instances(), is_kept))
    source = _read_source(segmented.slide)
    series_uid = _derive_uid(source.SeriesInstanceUID, segmented.model, segmented.parameters)
    instance_uid = _derive_uid(source.SOPInstanceUID, series_uid, _digest(outlines, kept))
    annotations = _make_annotations(
        source,
        list(_group_by_category(segmented, kept, outlines, instance_uid)),
        series_uid=series_uid,
        instance_uid=instance_uid,
        category=segmented.category,
        model=segmented.model,
    )
    with replace_when_done(path) as temporary:
        annotations.save_as(temporary)


def _make_annotations(source, groups, *, series_uid, instance_uid, category, model):
    """The content of a file (MicroscopyBulkSimpleAnnotations), with nothing that the clock says."""
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # it notes each module that it copies
    annotations = MicroscopyBulkSimpleAnnotations(
        source_images=[source],
        annotation_coordinate_type=AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=groups,
        series_instance_uid=series_uid,
        series_number=_FIRST_SERIES_NUMBER + int(source.get("SeriesNumber") or 0),
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=_PACKAGE,
        manufacturer_model_name=model["kind"],
        software_versions=__version__,
        device_serial_number=model.get("weights_sha256", "none"),
        content_description=f"{category} instances",
        content_date=source.get("ContentDate") or source.StudyDate or _NO_DATE,
        content_time=source.get("ContentTime") or source.StudyTime or "000000",
        series_description=f"{_PACKAGE} {__version__}",
    )
    # Optional; of the equipment, highdicom notes itself last.
    del annotations.InstanceCreationDate, annotations.InstanceCreationTime
    del annotations.ContributingEquipmentSequence[-1].ContributionDateTime
    return annotations


def _is_dicom(path):
    if not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


def _find_finest(slide):
    """The file of the slide's series that holds its full resolution."""
    tags = ["SeriesInstanceUID", "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "ImageType"]
    own = pydicom.dcmread(slide.path, stop_before_pixels=True, specific_tags=tags)
    for path in sorted(slide.path.parent.iterdir()):
        if not _is_dicom(path):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        except Exception:  # damage has many names, and this file is perhaps of another slide
            continue
        size = header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows")
        if (
            header.get("SeriesInstanceUID") == own.SeriesInstanceUID
            and size == (slide.width, slide.height)
            and "VOLUME" in header.get("ImageType", ())
        ):
            return path
    raise InputError(
        f"the file of '{slide.path}' that holds its full resolution of {slide.width} x "
        f"{slide.height} px is not in its folder; expected all files of the series. Copy it again."
    )


def _read_source(slide):
    """What the file of the full resolution says (pydicom.Dataset), without pixels."""
    source = pydicom.dcmread(_find_finest(slide), stop_before_pixels=True)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in source:
            setattr(source, keyword, "")
    return source


def _read_table(path):
    """What is written of each instance (pandas.DataFrame)."""
    known = pq.read_schema(path).names
    columns = ("category", "dropped_by", "area_um2", "equivalent_diameter_um")
    return pd.read_parquet(path, columns=[name for name in columns if name in known])


def _trace_outer_outlines(instances):
    """Outer outline of each instance's largest part: float32, shape (n, 2), (x, y) in px."""
    outlines = []
    for polygons in trace_outlines(instances):
        rings = [outer.astype(np.float32) for outer, *_ in polygons]
        outlines.append(max(rings, key=cv2.contourArea)[:-1])  # DICOM closes polygons itself
    return outlines


def _group_by_category(segmented, kept, outlines, instance_uid):
    """An AnnotationGroup of each category that was found."""
    found = [name for name in segmented.categories if (kept["category"] == name).any()]
    for number, category in enumerate(found, 1):
        is_own = (kept["category"] == category).to_numpy()
        property_category, property_type = _choose_codes(category)
        yield AnnotationGroup(
            number=number,
            uid=_derive_uid(instance_uid, category),
            label=category,
            description=_DESCRIPTION,
            annotated_property_category=property_category,
            annotated_property_type=property_type,
            graphic_type=GraphicTypeValues.POLYGON,
            graphic_data=[outlines[place] for place in np.flatnonzero(is_own)],
            algorithm_type=AnnotationGroupGenerationTypeValues.AUTOMATIC,
            algorithm_identification=_describe_algorithm(segmented),
            measurements=_as_measurements(kept[is_own]),
        )


def _choose_codes(category):
    """Codes of what is annotated: its kind, and itself."""
    if category == DROPLET:
        return codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.FattyDegeneration
    if category == "nucleus":
        return codes.SCT.AnatomicalStructure, codes.SCT.Nucleus
    return codes.SCT.AnatomicalStructure, CodedConcept(category, _OWN_CODES, category)


def _describe_algorithm(segmented):
    settings = segmented.model | segmented.parameters
    return AlgorithmIdentificationSequence(
        name=segmented.model["kind"],
        family=codes.DCM.ArtificialIntelligence
        if "weights" in segmented.model
        else codes.DCM.MorphologicalOperations,
        version=__version__,
        source=_PACKAGE,
        parameters={
            name: str(value)
            for name, value in settings.items()
            if isinstance(value, (str, int, float)) and name != "kind"
        },
    )


def _as_measurements(rows):
    """Area and diameter (list of Measurements), where the pixel size is known."""
    if "area_um2" not in rows:
        return None
    return [
        Measurements(codes.SCT.Area, rows["area_um2"].to_numpy(), codes.UCUM.SquareMicrometer),
        Measurements(
            codes.SCT.Diameter, rows["equivalent_diameter_um"].to_numpy(), codes.UCUM.Micrometer
        ),
    ]


def _digest(outlines, kept):
    digest = hashlib.sha256()
    for outline in outlines:
        digest.update(outline)
    digest.update(kept.to_csv(index=False).encode())
    return digest.hexdigest()


def _derive_uid(*sources):
    """A UID (str) that is the same whenever these are."""
    return str(generate_uid(entropy_srcs=[json.dumps(one, sort_keys=True) for one in sources]))


FORMAT = FurtherFormat("_annotations.dcm", write_dicom_annotations, check_slide=check_is_dicom)
