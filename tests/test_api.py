"""The package from Python: what it promises, and that it is what the commands do."""

import doctest
import functools
import hashlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import steatosis_d2
from steatosis_d2 import api
from steatosis_d2.data.synthetic import random_liver
from steatosis_d2.errors import InputError


@pytest.fixture
def tile(tmp_path, monkeypatch):
    """``tile.png`` with 12 droplets of 14 um at 0.5 um/px, in the folder where we are."""
    monkeypatch.chdir(tmp_path)
    image = np.full((256, 340, 3), (172, 86, 152), np.uint8)
    for number in range(12):
        center = (40 + 84 * (number % 4), 50 + 78 * (number // 4))
        cv2.circle(image, center, 14, (236, 236, 236), -1)
    Image.fromarray(cv2.GaussianBlur(image, (0, 0), 1)).save("tile.png")
    return tmp_path / "tile.png"


@pytest.mark.parametrize("name", ["segment", "segment_image", "load_model", "label", "evaluate"])
def test_example_of_each_function_prints_what_it_says(name, tile):
    [example] = doctest.DocTestFinder(recurse=False).find(
        getattr(steatosis_d2, name), name, globs=vars(api).copy()
    )
    assert example.examples
    results = doctest.DocTestRunner().run(example)
    assert results.failed == 0


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def test_results_that_are_written_later_are_those_of_the_command(tile, tmp_path, run_script):
    process = run_script(
        "tools/segment.py", tile, "--output", tmp_path / "command", "--model", "clump-split",
        "--mpp", "0.5", "--filter", "area_um2>=50",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    settings = {"model": "clump-split", "mpp": 0.5, "filters": ["area_um2>=50"]}
    results = steatosis_d2.segment(tile, **settings)
    results.write(tmp_path / "later")
    steatosis_d2.segment(tile, tmp_path / "at once", **settings)
    assert digests(tmp_path / "command") == digests(tmp_path / "later")
    assert digests(tmp_path / "command") == digests(tmp_path / "at once")


def test_results_are_those_of_the_files(tile, tmp_path):
    [found] = results = steatosis_d2.segment(tile, "out", model="clump-split", mpp=0.5)
    in_file = pd.read_parquet("out/tile.parquet").drop(columns="geometry")
    pd.testing.assert_frame_equal(found.table, in_file, check_dtype=False)
    [row] = pd.read_csv("out/summary.csv").to_dict("records")
    assert row["droplets"] == found.summary["droplets"] == 12
    areas = [np.count_nonzero(instance.crop) / 4 for instance in found.instances()]
    assert areas == found.table["area_um2"].tolist()
    assert results["tile.png"] is found


def test_image_in_memory_is_the_image_in_its_file(tile):
    [in_file] = steatosis_d2.segment(tile, model="clump-split", mpp=0.5)
    image_rgb = np.array(Image.open(tile))
    in_memory = steatosis_d2.segment_image(image_rgb, model="clump-split", mpp=0.5)
    pd.testing.assert_frame_equal(in_memory.table, in_file.table)


def test_bad_input_among_others_is_a_fault_and_alone_an_error(tile, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    results = steatosis_d2.segment([tile, "bad.png"], model="clump-split", mpp=0.5)
    assert [found.file_name for found in results] == ["tile.png"]
    [fault] = results.faults
    assert "bad.png" in fault
    with pytest.raises(InputError, match=r"bad\.png"):
        steatosis_d2.segment("bad.png", model="clump-split", mpp=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "resume needs the output folder"),
        ({"model": "clump-split", "weights": "a.pth"}, "clump-split takes none of them"),
        ({"inputs": "nowhere.png"}, "nowhere.png"),
        ({"formats": "shapefile"}, "format 'shapefile' is not known"),
    ],
)
def test_senseless_arguments_are_named(tile, arguments, message):
    settings = {"inputs": tile, "model": "clump-split", "mpp": 0.5} | arguments
    with pytest.raises(InputError, match=message):
        steatosis_d2.segment(settings.pop("inputs"), **settings)


def digest_tree(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def segment_two(tile):
    """Function: (output, settings) -> results of two tiles."""
    pytest.importorskip("spatialdata", reason="needs: pip install '.[spatialdata]'")
    shutil.copy(tile, "other.png")
    return functools.partial(
        steatosis_d2.segment, [tile, "other.png"], model="clump-split", mpp=0.5
    )


def test_format_is_the_same_at_once_later_and_added_by_a_resumed_run(segment_two, tmp_path):
    segment_two(formats="spatialdata").write("later")
    segment_two("at once", formats="spatialdata")
    segment_two("added")
    before = digests(tmp_path / "added")
    segment_two("added", formats=["spatialdata"], resume=True)
    assert digests(tmp_path / "added") == before == digests(tmp_path / "at once")
    for name in ("tile.zarr", "other.zarr"):
        added, at_once, later = (
            digest_tree(tmp_path / folder / name) for folder in ("added", "at once", "later")
        )
        assert added == at_once == later != {}


def test_table_that_is_damaged_does_not_keep_others_from_a_format(segment_two, tmp_path):
    segment_two("out")
    (tmp_path / "out" / "tile.parquet").write_bytes(b"no table")
    results = segment_two("out", formats=["spatialdata"], resume=True)
    [fault] = results.faults
    assert "tile.parquet' is damaged" in fault
    assert not (tmp_path / "out" / "tile.zarr").exists()
    assert (tmp_path / "out" / "other.zarr").is_dir()


def test_format_whose_package_is_missing_is_refused_before_any_work(tile, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "steatosis_d2.inference.spatial_store", raising=False)
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(InputError, match=r"pip install 'steatosis-d2\[spatialdata\]'"):
        steatosis_d2.segment(tile, "out", model="clump-split", mpp=0.5, formats=["spatialdata"])
    assert not (tmp_path / "out").exists()


def test_array_that_is_no_image_is_named():
    with pytest.raises(InputError, match=r"shape \(4, 4\)"):
        steatosis_d2.segment_image(np.zeros((4, 4), np.uint8), model="clump-split", mpp=0.5)


def test_import_is_light_and_public_names_are_listed():
    code = (
        "import sys, steatosis_d2; print(sorted(set(sys.modules) & {'numpy', 'torch', 'cv2'}),"
        "'segment' in dir(steatosis_d2), hasattr(steatosis_d2, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True False\n"


def test_labels_are_of_tissue_out_of_focus_too(tmp_path):
    """What is not labelled is background to a network that learns from it."""
    liver = random_liver(np.random.default_rng(3), mpp=0.5, fat_fraction=0.25, glass_fraction=0.0)
    image = liver.render(top=0, left=0, height=400, width=800).image_rgb.copy()
    image[:, 400:] = cv2.GaussianBlur(image, (0, 0), 2.5 / 0.5)[:, 400:]
    Image.fromarray(image).save(tmp_path / "half.png")
    labels = steatosis_d2.label(tmp_path / "half.png", mpp=0.5)
    [half] = steatosis_d2.segment(tmp_path / "half.png", mpp=0.5, model="clump-split")
    assert sum(one["bbox"][0] > 420 for one in labels.coco["annotations"]) > 5
    assert (half.table["left_px"] < 420).all()
