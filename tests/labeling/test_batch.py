"""Labels of many files, and what becomes of the bad ones."""

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.errors import InputError
from steatosis_d2.inference.parallel import open_mapper
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.labeling.batch import (
    LabelledImage,
    as_coco_records,
    describe_run,
    label_file,
)
from steatosis_d2.labeling.pixel_size import estimate_mpp, measure_nuclei


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def paint_nuclei(radius_px, *, number=16, side=400):
    image = np.full((side, side, 3), (190, 120, 170), np.uint8)
    rows, columns = np.indices((side, side))
    pitch = side // 4
    for i in range(number):
        row, column = pitch // 2 + pitch * (i // 4), pitch // 2 + pitch * (i % 4)
        image[(rows - row) ** 2 + (columns - column) ** 2 <= radius_px**2] = (70, 40, 110)
    return image


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "does not exist"),
        ("text.png", b"not an image", "cannot be read"),
        ("slide.SVS", b"", "whole slide, which cannot be labelled yet"),
    ],
)
def test_fault_of_a_file_is_returned_with_its_name(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    labelled = label_file(tmp_path / name, method="clump-split", mpp=0.25)
    assert message in labelled.fault
    assert name in labelled.fault


def test_blank_file_has_no_labels_and_no_fault(tmp_path):
    Image.new("RGB", (60, 40), "white").save(tmp_path / "blank.png")
    labelled = label_file(tmp_path / "blank.png", method="watershed", mpp=0.25)
    assert labelled == LabelledImage(height=40, width=60, mpp=0.25, mpp_source="given")


def test_glass_needs_no_pixel_size_where_it_is_estimated(tmp_path):
    Image.new("RGB", (60, 40), (236, 236, 236)).save(tmp_path / "glass.png")
    labelled = label_file(tmp_path / "glass.png", method="clump-split", mpp="estimate")
    assert labelled == LabelledImage(height=40, width=60)


@pytest.mark.parametrize(
    ("mpp", "expected"), [("estimate", (0.25, "nuclei")), (0.4, (0.4, "given"))]
)
def test_pixel_size_comes_with_its_source(tmp_path, mpp, expected):
    Image.fromarray(paint_nuclei(13)).save(tmp_path / "tile.png")
    labelled = label_file(tmp_path / "tile.png", method="watershed", mpp=mpp)
    assert (labelled.mpp, labelled.mpp_source) == expected


def test_pixel_size_is_never_guessed_without_being_asked(tmp_path):
    """It was: 20x or 40x, whichever the nuclei fitted better."""
    Image.fromarray(paint_nuclei(13)).save(tmp_path / "tile.png")
    labelled = label_file(tmp_path / "tile.png", method="watershed", mpp=None)
    assert "states no pixel size" in labelled.fault
    assert "--mpp estimate" in labelled.fault


def test_pixel_size_of_the_file_is_taken(tmp_path):
    path = tmp_path / "tile.tif"
    Image.fromarray(paint_nuclei(13)).save(path, resolution=20_000, resolution_unit="cm")
    labelled = label_file(path, method="watershed", mpp="estimate")
    assert (labelled.mpp, labelled.mpp_source) == (0.5, "file")


@pytest.mark.parametrize(("radius_px", "mpp"), [(6.5, 0.5), (13, 0.25)])
def test_magnification_follows_the_size_of_the_nuclei(radius_px, mpp):
    assert estimate_mpp(measure_nuclei(paint_nuclei(radius_px))) == (mpp, 16)


def test_unusual_pixel_size_is_estimated_as_it_is():
    mpp, _ = estimate_mpp(measure_nuclei(paint_nuclei(8.6)))
    assert mpp == pytest.approx(0.37, rel=0.06)


def test_too_few_nuclei_give_no_pixel_size(tmp_path):
    Image.fromarray(paint_nuclei(13, number=3)).save(tmp_path / "tile.png")
    labelled = label_file(tmp_path / "tile.png", method="watershed", mpp="estimate")
    assert "with 3 nuclei it cannot be estimated" in labelled.fault


def test_nuclei_are_measured_and_slits_are_not():
    image = paint_nuclei(10, number=5)
    image[350:354, 20:380] = (70, 40, 110)
    assert measure_nuclei(image) == pytest.approx([20] * 5, rel=0.1)


def test_records_leave_out_faulty_files_and_number_the_rest():
    mask = np.zeros((40, 60), bool)
    mask[5:10, 5:10] = True
    labelled = {
        "a.png": LabelledImage(40, 60, None, None, [encode_mask(mask)] * 2, [0.9, 0.6]),
        "bad.png": LabelledImage(fault="bad"),
        "b.png": LabelledImage(40, 60, 0.5, "nuclei", [encode_mask(mask)], [0.7]),
    }
    images, annotations = as_coco_records(labelled)
    assert [(image["id"], image["file_name"]) for image in images] == [(1, "a.png"), (2, "b.png")]
    assert (images[1]["mpp"], images[1]["mpp_source"]) == (0.5, "nuclei")
    assert [(a["id"], a["image_id"], a["score"]) for a in annotations] == [
        (1, 1, 0.9),
        (2, 1, 0.6),
        (3, 2, 0.7),
    ]


def test_run_names_the_parameters_of_each_pixel_size_it_used():
    given = describe_run([LabelledImage(mpp=0.3)], method="clump-split", mpp=0.3)
    assert given["mpp"] == 0.3
    assert given["parameters"]["0.3"]["min_diameter_um"] == 5.0
    estimated = [LabelledImage(mpp=mpp) for mpp in (0.5, 0.25, 0.5)]
    assert list(describe_run(estimated, method="watershed", mpp="estimate")["parameters"]) == [
        "0.25",
        "0.5",
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    with open_mapper(workers=workers) as map_in_order:
        assert list(map_in_order(abs, [3, -1, -2])) == [3, 1, 2]


def test_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("steatosis_d2.inference.parallel._SCHEDULER_TIMEOUT_S", 1)
    with (
        pytest.raises(InputError, match=r"tcp://127.0.0.1:9.*dask scheduler"),
        open_mapper(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


def test_address_without_a_port_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("steatosis_d2.inference.parallel._SCHEDULER_TIMEOUT_S", 1)
    with pytest.raises(InputError, match="nonsense"), open_mapper(scheduler="nonsense"):
        pass
