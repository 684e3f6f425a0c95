"""From slides to better weights, as a user types it: sample, (screen), finetune, segment."""

import csv
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.synthetic import Anatomy, Look, SyntheticLiver
from steatosis_d2.slides.slide import open_slide

MPP = 0.5


def run_command(*words):
    return subprocess.run(
        [sys.executable, "-m", "steatosis_d2", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Three slides of 800 x 600 px with more and less fat, one of them in toto glass beside it."""
    folder = tmp_path_factory.mktemp("slides")
    for number, fat_fraction in enumerate((0.0, 0.1, 0.3)):
        liver = SyntheticLiver(Anatomy(seed=number, fat_fraction=fat_fraction), Look(), MPP)
        image = np.full((600, 1200, 3), 240, np.uint8)
        image[:, :800] = liver.render(top=0, left=0, height=600, width=800).image_rgb
        with tifffile.TiffWriter(folder / f"s{number}.tif") as tiff:
            tiff.write(
                image,
                tile=(256, 256),
                photometric="rgb",
                resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER",
            )
    return folder


@pytest.fixture(scope="module")
def sampled(slides, tmp_path_factory):
    output = tmp_path_factory.mktemp("sampled") / "regions"
    done = run_command("sample", slides, "--output", output, "--regions", 9, "--size-um", 80)
    assert done.returncode == 0, done.stderr
    assert "9 regions of 3 cases" in done.stdout
    return output


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_tiles_are_the_slides_pixels_with_their_origin(sampled, slides):
    labels = read_coco(sampled / "labels.json")
    assert len(labels["images"]) == 9
    assert {image["case"] for image in labels["images"]} == {"s0", "s1", "s2"}
    for image in labels["images"]:
        path, source = sampled / "images" / image["file_name"], image["source"]
        with open_slide(path) as tile, open_slide(slides / source["slide"]) as slide:
            assert tile.mpp == pytest.approx(MPP, rel=1e-4)
            window = source["left_px"], source["top_px"], image["width"], image["height"]
            np.testing.assert_array_equal(
                tile.read_region(0, 0, tile.width, tile.height), slide.read_region(*window)
            )
        assert source["left_px"] + image["width"] <= 900  # half of a region may be glass


@pytest.mark.slow
def test_cases_stay_in_one_split_and_the_table_says_why(sampled):
    with (sampled / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["case"], row["split"]) for row in rows}) == 3
    assert all(row["reason"] for row in rows)
    in_splits = [
        image["file_name"]
        for split in ("train", "val", "test")
        for image in read_coco(sampled / "annotations" / f"instances_{split}.json")["images"]
    ]
    assert sorted(in_splits) == sorted(row["tile"] for row in rows)
    lean, fatty = (
        [float(row["fat_share"]) for row in rows if row["file_name"] == name]
        for name in ("s0.tif", "s2.tif")
    )
    assert np.mean(fatty) > 0.05 > np.mean(lean)


@pytest.mark.slow
def test_the_same_slides_and_seed_give_the_same_bytes(sampled, slides, tmp_path):
    words = ("sample", slides, "--output", tmp_path, "--regions", 9, "--size-um", 80)
    assert run_command(*words).returncode == 0
    assert digest(tmp_path) == digest(sampled)


@pytest.mark.slow
def test_cases_come_from_a_file_and_bad_slides_are_named(slides, tmp_path):
    (tmp_path / "cases.csv").write_text("file_name,case\ns0.tif,A\ns1.tif,A\n")
    (tmp_path / "bad.tif").write_bytes(b"II*")
    done = run_command(
        "sample", slides / "s0.tif", slides / "s1.tif", tmp_path / "bad.tif", "--output",
        tmp_path / "out", "--regions", 2, "--size-um", 80, "--cases", tmp_path / "cases.csv",
    )  # fmt: skip
    assert done.returncode == 1
    assert "bad.tif" in done.stderr
    assert "Traceback" not in done.stderr
    images = read_coco(tmp_path / "out" / "labels.json")["images"]
    assert [image["case"] for image in images] == ["A", "A"]


@pytest.mark.slow
def test_glass_alone_has_no_region(tmp_path):
    Image.new("RGB", (600, 600), (240, 240, 240)).save(tmp_path / "glass.png")
    done = run_command("sample", tmp_path / "glass.png", "--output", tmp_path / "o", "--mpp", 0.5)
    assert done.returncode == 1
    assert "no region of 200 um is mostly tissue" in done.stderr


@pytest.mark.slow
def test_too_little_to_judge_is_refused(sampled, tmp_path):
    content = read_coco(sampled / "labels.json")
    content["annotations"] = content["annotations"][:5]
    (tmp_path / "few.json").write_text(json.dumps(content))
    done = run_command(
        "finetune", tmp_path / "few.json", "--images", sampled / "images", "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "expected 20 objects or more" in done.stderr
    assert "Traceback" not in done.stderr
