"""The files of a run, written from instances whose masks are known."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from drawn_slide import DISKS, PINK, SHAPE, draw_slide, outline_real_tile, paint
from PIL import Image
from pycocotools import mask as coco_mask

from steatosis_d2.data.coco import read_coco
from steatosis_d2.inference.outputs import Reporting, write_run_outputs, write_slide_outputs
from steatosis_d2.instances.geojson import read_features
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.outlines import fill_geometry
from steatosis_d2.instances.rle import decode_mask
from steatosis_d2.measurement.filters import parse_rules
from steatosis_d2.measurement.summary import fault_row


@pytest.fixture
def segment(tmp_path):
    """Function: (instances, mpp, name) -> Segmented, on a pink tile with white disks."""

    def segment(instances=DISKS, **changes):
        return draw_slide(tmp_path / "inputs", instances, **changes)

    return segment


def write_all(folder, *segmented, rules=(), faults=None, **settings):
    """Outputs of a whole run, as the script writes them."""
    result_folders = [folder / ".segment" / one.name for one in segmented]
    for one, result_folder in zip(segmented, result_folders, strict=True):
        write_slide_outputs(
            one,
            folder,
            result_folder=result_folder,
            reporting=Reporting(rules=tuple(parse_rules(list(rules))), **settings),
        )
    category = segmented[0].category if segmented else "droplet"
    write_run_outputs(
        result_folders,
        folder,
        category=category,
        categories=(category,),
        model={"kind": "drawn"},
        parameters={"filter": list(rules)},
        faults=faults or [],
    )
    return folder


def test_every_output_is_there(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment())
    assert {path.name for path in folder.iterdir()} == {
        ".segment",
        "predictions.json",
        "report.html",
        "summary.csv",
        "tile.geojson.gz",
        "tile.parquet",
        "tile_overlay.png",
    }


def test_masks_come_back_from_coco_and_from_geojson(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment())
    annotations = read_coco(folder / "predictions.json")["annotations"]
    np.testing.assert_array_equal(
        sum(decode_mask(one["segmentation"]).astype(int) for one in annotations), paint(DISKS)
    )
    outlined = [
        Instance(*fill_geometry(feature.geometry), 1.0)
        for feature in read_features(folder / "tile.geojson.gz")
    ]
    np.testing.assert_array_equal(paint(outlined), paint(DISKS))


def test_coco_says_what_its_masks_say(tmp_path, segment):
    content = read_coco(write_all(tmp_path / "out", segment()) / "predictions.json")
    [image] = content["images"]
    size = {"height": 300, "width": 400, "mpp": 0.5, "mpp_source": "given"}
    assert image == {"id": 1, "file_name": "tile.png"} | size
    assert content["info"]["model"] == {"kind": "drawn"}
    for annotation, one in zip(content["annotations"], DISKS, strict=True):
        assert annotation["area"] == one.crop.sum()
        assert annotation["bbox"] == [one.left, one.top, *one.crop.shape[::-1]]
        assert annotation["score"] == one.score


def test_box_is_that_of_the_mask_where_the_crop_is_larger(tmp_path, segment):
    """Growing and cutting masks leaves empty rows and columns in their crops."""
    one = DISKS[0]
    loose = Instance(np.pad(one.crop, ((3, 1), (2, 5))), one.top - 3, one.left - 2, one.score)
    folder = write_all(tmp_path / "out", segment([loose]))
    [annotation] = read_coco(folder / "predictions.json")["annotations"]
    assert annotation["bbox"] == [one.left, one.top, *one.crop.shape[::-1]]
    assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
    table = pd.read_parquet(folder / "tile.parquet")
    box = ["left_px", "top_px", "width_px", "height_px"]
    assert table[box].iloc[0].tolist() == annotation["bbox"]


def test_run_of_two_inputs_numbers_images_and_annotations(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment(DISKS[:2], name="a"), segment(name="b"))
    content = read_coco(folder / "predictions.json")
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.png"]
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert [one["image_id"] for one in content["annotations"]] == [1, 1, 2, 2, 2, 2]


def test_dropped_instances_are_in_the_table_alone(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment(), rules=["score>=0.5"])
    table = pd.read_parquet(folder / "tile.parquet")
    assert table["dropped_by"].tolist() == ["", "", "score>=0.5", ""]
    assert len(read_coco(folder / "predictions.json")["annotations"]) == 3
    names = [one.properties["name"] for one in read_features(folder / "tile.geojson.gz")]
    assert names == ["1", "2", "4"]
    assert pd.read_csv(folder / "summary.csv")["droplets"].tolist() == [3]


def test_measurements_in_qupath_are_those_of_the_table(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment())
    table = pd.read_parquet(folder / "tile.parquet")
    features = read_features(folder / "tile.geojson.gz")
    for (_, row), feature in zip(table.iterrows(), features, strict=True):
        measurements = feature.properties["measurements"]
        assert measurements["area_um2"] == pytest.approx(row["area_um2"], abs=1e-4)
        assert measurements["touching"] == row["touching"]
        assert measurements["instance_id"] == row["instance_id"]


def test_parquet_says_its_unit_model_and_parameters(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment())
    metadata = pq.read_schema(folder / "tile.parquet").metadata
    assert json.loads(metadata[b"steatosis_d2"]) == {
        "mpp": 0.5,
        "mpp_source": "given",
        "unit": "um",
        "geometry": "px of the full resolution, x to the right, y down, from the upper left corner",
        "model": {"kind": "drawn"},
        "parameters": {"tile_px": 1024},
    }


def test_without_a_pixel_size_everything_is_in_px(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment(mpp=None))
    columns = pq.read_schema(folder / "tile.parquet").names
    assert "area_px" in columns
    assert not any(name.endswith(("_um", "_um2")) for name in columns)
    assert "mpp" not in read_coco(folder / "predictions.json")["images"][0]
    assert "pixel size is not known" in (folder / "report.html").read_text()


def test_overlay_has_the_size_of_a_tile_and_outlines(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment(), rules=["score>=0.5"])
    overlay_rgb = np.asarray(Image.open(folder / "tile_overlay.png"))
    assert overlay_rgb.shape == (*SHAPE, 3)
    assert overlay_rgb[60, 40].tolist() == [0, 140, 60]  # the left end of a disk that is kept
    assert overlay_rgb[200, 295].tolist() == [230, 80, 0]  # and of the one that is dropped
    assert overlay_rgb[150, 150].tolist() == list(PINK)


def test_lone_instance_has_no_distance_in_any_file(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment(DISKS[:1]))
    [feature] = read_features(folder / "tile.geojson.gz")
    assert "nearest_neighbour_um" not in feature.properties["measurements"]
    column = pq.read_table(folder / "tile.parquet")["nearest_neighbour_um"]
    assert column.null_count == 1
    assert "nan" not in (folder / "summary.csv").read_text().lower()


def test_nuclei_are_called_nuclei_in_every_file(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment(category="nucleus"))
    assert read_coco(folder / "predictions.json")["categories"] == [{"id": 1, "name": "nucleus"}]
    assert pd.read_csv(folder / "summary.csv")["nuclei"].tolist() == [4]
    for feature in read_features(folder / "tile.geojson.gz"):
        assert feature.properties["classification"]["name"] == "nucleus"
    without_pictures = re.sub(r"data:image/[^\"]*", "", (folder / "report.html").read_text())
    assert not re.search(r"\bfat\b|droplet|macro", without_pictures)


def test_input_without_instances(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment([]), rules=["paper"])
    assert read_coco(folder / "predictions.json")["annotations"] == []
    assert read_features(folder / "tile.geojson.gz") == []
    assert len(pd.read_parquet(folder / "tile.parquet")) == 0
    assert pd.read_csv(folder / "summary.csv")["fat_area_percent"].tolist() == [0]
    assert "No droplets found." in (folder / "report.html").read_text()


def test_empty_and_full_tables_have_the_same_columns(tmp_path, segment):
    folder = write_all(tmp_path / "out", segment([], name="empty"), segment(name="full"))
    empty, full = (pq.read_schema(folder / f"{name}.parquet") for name in ("empty", "full"))
    assert empty.names == full.names
    assert empty.types == full.types


def test_real_tile(tmp_path, shared_data):
    """Droplets as they are: masks come back from polygons that QuPath's library finds valid."""
    segmented = outline_real_tile(shared_data)
    folder = write_all(tmp_path / "out", segmented, rules=["paper"])
    table = pd.read_parquet(folder / "tile.parquet")
    reasons = table["dropped_by"]
    kept = [one for one, reason in zip(segmented.found, reasons, strict=True) if not reason]
    features = read_features(folder / "tile.geojson.gz")
    assert len(kept) > 50
    shape = segmented.slide.height, segmented.slide.width
    for one, feature in zip(kept, features, strict=True):
        outlined = Instance(*fill_geometry(feature.geometry), 1.0)
        np.testing.assert_array_equal(paint([outlined], shape=shape), paint([one], shape=shape))


def test_run_in_which_every_input_failed(tmp_path):
    folder = write_all(
        tmp_path / "out", faults=[fault_row("bad.svs", "slide 'bad.svs' is damaged")]
    )
    assert read_coco(folder / "predictions.json")["images"] == []
    assert pd.read_csv(folder / "summary.csv")["fault"].tolist() == ["slide 'bad.svs' is damaged"]
    assert "1 of 1 inputs could not be segmented" in (folder / "report.html").read_text()


def test_the_report_says_what_an_interval_covers_and_what_not(tmp_path, segment, monkeypatch):
    monkeypatch.setattr("steatosis_d2.measurement.uncertainty.FEWEST_BLOCKS", 2)
    noted = {"images": 68, "fat_area_error_points": 0.418, "count_error": 4.81}
    folder = write_all(tmp_path / "out", segment(mpp=5, model={"validation": noted}))
    report = (folder / "report.html").read_text()
    assert "do not tell how far the network is wrong. On 68 images" in report
    assert "wrong by 0.42 percentage points" in report


def test_run_without_inputs(tmp_path):
    folder = write_all(tmp_path / "out")
    assert read_coco(folder / "predictions.json")["annotations"] == []
    assert (folder / "summary.csv").read_text().startswith("file,region,case,fault,")


def test_written_again_the_bytes_are_the_same(tmp_path, segment):
    segmented = segment()
    folder = write_all(tmp_path / "out", segmented, rules=["paper"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_all(folder, segmented, rules=["paper"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_outputs_in_a_subfolder_where_two_inputs_share_a_stem(tmp_path, segment):
    segmented = segment()
    segmented.name = "case 1/tile.v2"
    folder = write_all(tmp_path / "out", segmented)
    assert (folder / "case 1" / "tile.v2.geojson.gz").is_file()
    assert (folder / "case 1" / "tile.v2_overlay.png").is_file()
    assert 'href="case%201/tile.v2_overlay.png"' in (folder / "report.html").read_text()


def test_annotations_wait_in_the_result_folder_with_result_json_last(tmp_path, segment):
    write_all(tmp_path / "out", segment())
    waiting = tmp_path / "out" / ".segment" / "tile"
    assert {path.name for path in waiting.iterdir()} == {"result.json", "annotations.jsonl.gz"}
    with gzip.open(waiting / "annotations.jsonl.gz", "rt") as lines:
        assert len(lines.readlines()) == len(DISKS)
