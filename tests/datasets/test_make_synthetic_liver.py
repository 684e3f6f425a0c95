"""datasets/make_synthetic_liver.py as a user runs it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from steatosis_d2.cli import prepare_synthetic
from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.instances.rle import decode_mask

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "make_synthetic_liver.py"
SMALL = ("--train", "5", "--val", "1", "--test", "0", "--size", "96", "--mpp", "1")


def run(*arguments, cwd=None):
    # Warnings of the installation itself are not what these tests look for.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A small dataset: the script's process and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("dataset") / "liver"
    done = run("--output", folder, *SMALL, "--seed", "3")
    return done, folder


@pytest.fixture(scope="module")
def script():
    """The command as a module, to ask it what it draws."""
    return prepare_synthetic


def plan_tile(script, index, *, size_px):
    return script.TilePlan(
        "train", index, seed=3, size_px=size_px, mpp=1.0, stain="hematoxylin-eosin"
    )


def test_it_writes_tiles_and_one_coco_file_for_each_split(dataset):
    done, folder = dataset
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(digests(folder)) == [
        "annotations/instances_test.json",
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        *(f"images/train_{index:05d}.png" for index in range(5)),
        "images/val_00000.png",
    ]


def test_the_result_goes_to_stdout_and_no_bar_to_a_file(dataset):
    done, folder = dataset
    assert done.stderr == ""
    assert f"{folder / 'annotations' / 'instances_val.json'}: tiles 1" in done.stdout


def test_records_describe_the_tiles(dataset):
    _, folder = dataset
    content = read_coco(folder / "annotations" / "instances_train.json")
    assert content["categories"] == [{"id": 1, "name": "droplet"}]
    assert content["info"]["seed"] == 3
    assert content["info"]["size_px"] == 96
    assert [image["mpp"] for image in content["images"]] == [1.0] * 5
    for image in content["images"]:
        assert read_image_rgb(folder / "images" / image["file_name"]).shape == (96, 96, 3)


def test_the_file_holds_exactly_what_was_drawn(dataset, script):
    _, folder = dataset
    content = read_coco(folder / "annotations" / "instances_train.json")
    drawn = 0
    for index, image in enumerate(content["images"]):
        tile = script.draw_tile(
            script.TilePlan("train", index, seed=3, size_px=96, mpp=1.0, stain="hematoxylin-eosin")
        )
        pixels = read_image_rgb(folder / "images" / image["file_name"])
        np.testing.assert_array_equal(pixels, tile.image_rgb)
        masks = [
            decode_mask(annotation["segmentation"])
            for annotation in content["annotations"]
            if annotation["image_id"] == image["id"]
        ]
        assert len(masks) == tile.labels.max()
        covered = np.sum(masks, axis=0) if masks else np.zeros((96, 96))
        np.testing.assert_array_equal(covered, tile.labels > 0)
        drawn += len(masks)
    assert drawn == len(content["annotations"]) > 5


def test_healthy_and_glass_tiles_are_images_without_annotations(dataset, script):
    _, folder = dataset
    content = read_coco(folder / "annotations" / "instances_train.json")
    annotated = {annotation["image_id"] for annotation in content["annotations"]}
    empty = [index for index, image in enumerate(content["images"]) if image["id"] not in annotated]
    assert set(script.HEALTHY_TILES + script.GLASS_TILES) & set(range(5)) <= set(empty)
    healthy, glass = (
        read_image_rgb(folder / "images" / f"train_{index:05d}.png")
        for index in (script.HEALTHY_TILES[0], script.GLASS_TILES[0])
    )
    assert np.median(healthy[..., 1]) < 190 < glass.min()


def test_some_tiles_are_crowded_with_vessels(script, monkeypatch):
    def share_of_lumina(indices):
        plans = [
            script.TilePlan("train", index, seed=3, size_px=208, mpp=1.0, stain="hematoxylin-eosin")
            for index in indices
        ]
        return np.mean([script.draw_tile(plan).white_not_fat.mean() for plan in plans])

    monkeypatch.setattr(script, "BORDER_SHARE", 0)
    others = set(range(script.PERIOD)) - {*script.VESSEL_TILES, *script.GLASS_TILES}
    assert share_of_lumina(script.VESSEL_TILES) > 1.4 * share_of_lumina(others)


def test_a_split_of_no_tiles_is_a_file_of_no_images(dataset):
    _, folder = dataset
    content = json.loads((folder / "annotations" / "instances_test.json").read_text())
    assert content["images"] == content["annotations"] == []


@pytest.mark.slow
def test_files_do_not_depend_on_the_number_of_workers(dataset, tmp_path):
    _, folder = dataset
    done = run("--output", tmp_path / "again", *SMALL, "--seed", "3", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "again") == digests(folder)


def test_another_seed_makes_other_tiles(dataset, tmp_path):
    _, folder = dataset
    done = run("--output", tmp_path, "--train", "1", "--val", "0", "--test", "0", "--size", "96")
    assert done.returncode == 0, done.stderr
    name = "images/train_00000.png"
    assert digests(tmp_path)[name] != digests(folder)[name]


def test_the_default_output_is_where_the_dataset_is_registered(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    done = run("--train", "1", "--val", "0", "--test", "0", "--size", "8")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sets/liver_synthetic/annotations/instances_train.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "0"), "'0' is less than 1"),
        (("--size", "big"), "invalid positive_integer value: 'big'"),
        (("--train", "-1"), "'-1' is less than 0"),
        (("--mpp", "0"), "'0' is no pixel size"),
        (("--mpp", "4.5"), "'4.5' is out of range; expected 0.05 to 4.0 um/px"),
        (("--workers", "0"), "'0' is less than 1"),
    ],
)
def test_senseless_numbers_are_usage_errors(tmp_path, arguments, message):
    done = run("--output", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_one_clear_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = run("--output", blocked, *SMALL)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(blocked) in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_examples():
    done = run("--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
