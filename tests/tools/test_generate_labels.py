"""tools/generate_labels.py and its companions as a user runs them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import compare_labels
import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from steatosis_d2 import segment_image
from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.synthetic import Anatomy, Look, SyntheticLiver
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.matching import match_instances, sparse_iou
from steatosis_d2.evaluation.metrics import instance_metrics
from steatosis_d2.instances.rle import decode_mask
from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import choose_parameters

TOOL = "tools/generate_labels.py"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """A folder with two tiles of 25 droplets each and one of glass."""
    folder = tmp_path_factory.mktemp("tiles")
    for seed, name in enumerate(("one.png", "two.png")):
        rng = np.random.default_rng(seed)
        image = np.full((320, 320, 3), (172, 86, 152), np.uint8)
        for row in range(32, 320, 64):
            for column in range(32, 320, 64):
                center = (np.array([column, row]) + rng.integers(-4, 5, 2)).tolist()
                cv2.circle(image, center, int(rng.integers(16, 22)), (236, 236, 236), -1)
        Image.fromarray(cv2.GaussianBlur(image, (0, 0), 1.5)).save(folder / name)
    Image.new("RGB", (320, 320), (236, 236, 236)).save(folder / "glass.png")
    return folder


def test_folder_becomes_one_coco_file(tiles, tmp_path, run_script):
    process = run_script(TOOL, tiles, "--output", tmp_path / "labels.json", "--mpp", "0.25")
    assert process.returncode == 0, process.stderr
    labels = read_coco(tmp_path / "labels.json")
    assert [image["file_name"] for image in labels["images"]] == ["glass.png", "one.png", "two.png"]
    assert [image["mpp"] for image in labels["images"]] == [0.25] * 3
    of_image = [annotation["image_id"] for annotation in labels["annotations"]]
    assert [of_image.count(image_id) for image_id in (1, 2, 3)] == [0, 25, 25]
    assert all(0.5 <= annotation["score"] <= 1 for annotation in labels["annotations"])
    assert labels["info"]["method"] == "clump-split"
    assert labels["info"]["parameters"]["0.25"]["growth_um"] == 0.5
    first = labels["annotations"][0]
    assert decode_mask(first["segmentation"]).sum() == first["area"]


@pytest.fixture(scope="module")
def picture():
    """1400 x 1200 px of synthetic liver at 0.5 um/px: several tiles."""
    liver = SyntheticLiver(Anatomy(seed=3, fat_fraction=0.12), Look(), 0.5)
    return liver.render(top=0, left=0, height=1200, width=1400).image_rgb


@pytest.mark.slow
def test_slide_gets_the_labels_of_one_large_image(picture, tmp_path, run_script):
    Image.fromarray(picture).save(tmp_path / "image.png")
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        tiled = {"tile": (256, 256), "photometric": "rgb"}
        tiff.write(picture, subifds=1, **tiled)
        tiff.write(picture[::2, ::2], subfiletype=1, **tiled)
    written = []
    for name in ("image.png", "slide.tif"):
        output = tmp_path / f"{name}.json"
        process = run_script(TOOL, tmp_path / name, "--output", output, "--mpp", "0.5")
        assert process.returncode == 0, process.stderr
        written.append(read_coco(output)["annotations"])
    assert len(written[0]) > 300
    assert written[0] == written[1]


@pytest.mark.slow
def test_tiles_of_a_slide_are_labelled_like_the_whole(picture):
    parameters = choose_parameters(0.5)
    whole = label_by_clump_split(picture, mpp=0.5, parameters=parameters)
    in_tiles = segment_image(picture, mpp=0.5, model="clump-split").instances
    encoded = [[one.encode(picture.shape) for one in found] for found in (whole, in_tiles)]
    figures = instance_metrics(match_instances(sparse_iou(*encoded)), iou_threshold=0.5)
    assert figures["f1"] > 0.98


@pytest.mark.slow
def test_killed_run_is_gone_on_with_and_gives_the_same_bytes(picture, tmp_path, run_script):
    Image.fromarray(picture).save(tmp_path / "slide.png")
    run_script(TOOL, tmp_path / "slide.png", "--output", tmp_path / "once.json", "--mpp", "0.5")
    output = tmp_path / "labels.json"
    command = [TOOL, tmp_path / "slide.png", "--output", output, "--mpp", "0.5"]
    journal = tmp_path / ".labels.json.journal"
    with subprocess.Popen([sys.executable, *map(str, command)], cwd=REPOSITORY) as process:
        while not any(path.stat().st_size for path in journal.glob("*/journal")):
            time.sleep(0.01)
        process.kill()
    assert not output.exists()
    refused = run_script(*command)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    process = run_script(*command, "--resume")
    assert process.returncode == 0, process.stderr
    assert output.read_bytes() == (tmp_path / "once.json").read_bytes()
    assert not journal.exists()


@pytest.mark.slow
def test_processes_and_cluster_write_the_same_bytes(tiles, tmp_path, run_script):
    distributed = pytest.importorskip("distributed")
    written = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        for name, how in (
            ("one", ()),
            ("processes", ("--workers", "3")),
            ("cluster", ("--scheduler", cluster.scheduler_address)),
        ):
            output = tmp_path / f"{name}.json"
            process = run_script(TOOL, tiles, "--output", output, "--mpp", "0.25", *how)
            assert process.returncode == 0, process.stderr
            written.append(output.read_bytes())
    assert written[0] == written[1] == written[2]


def test_bad_files_are_named_and_the_others_labelled(tiles, tmp_path, run_script):
    (tmp_path / "broken.png").write_bytes((tiles / "one.png").read_bytes()[:500])
    (tmp_path / "slide.svs").write_bytes(b"II*")
    process = run_script(
        TOOL, tiles / "one.png", tmp_path / "broken.png", tmp_path / "slide.svs",
        tmp_path / "missing.png", "--output", tmp_path / "labels.json", "--mpp", "0.25",
    )  # fmt: skip
    assert process.returncode == 1
    for name in ("broken.png", "slide.svs", "missing.png"):
        assert name in process.stderr
    labels = read_coco(tmp_path / "labels.json")
    assert [image["file_name"] for image in labels["images"]] == ["one.png"]
    assert len(labels["annotations"]) == 25


def test_glass_alone_is_an_empty_file_and_no_error(tiles, tmp_path, run_script):
    process = run_script(
        TOOL, tiles / "glass.png", "--output", tmp_path / "labels.json", "--mpp", "0.5"
    )
    assert process.returncode == 0, process.stderr
    labels = read_coco(tmp_path / "labels.json")
    assert len(labels["images"]) == 1
    assert labels["annotations"] == []


def test_folder_without_images_still_writes_a_file_and_fails(tmp_path, run_script):
    (tmp_path / "empty").mkdir()
    process = run_script(TOOL, tmp_path / "empty", "--output", tmp_path / "labels.json")
    assert process.returncode == 1
    assert "has no images" in process.stderr
    assert read_coco(tmp_path / "labels.json")["images"] == []


def test_overlay_shows_each_image(tiles, tmp_path, run_script):
    process = run_script(
        TOOL, tiles, "--output", tmp_path / "labels.json", "--mpp", "0.25", "--overlay",
        tmp_path / "pictures",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["glass.png.png", "one.png.png", "two.png.png"]
    changed = np.asarray(Image.open(tmp_path / "pictures/one.png.png")) != np.asarray(
        Image.open(tiles / "one.png")
    )
    assert changed.any(axis=2).mean() > 0.01
    np.testing.assert_array_equal(
        Image.open(tmp_path / "pictures/glass.png.png"), Image.open(tiles / "glass.png")
    )


def test_unknown_pixel_size_is_not_guessed(tiles, tmp_path, run_script):
    process = run_script(TOOL, tiles / "one.png", "--output", tmp_path / "labels.json")
    assert process.returncode == 1
    assert "one.png' states no pixel size" in process.stderr
    assert read_coco(tmp_path / "labels.json")["images"] == []


def test_pixel_size_that_cannot_be_estimated_is_said(tiles, tmp_path, run_script):
    """The drawn tile has no nuclei."""
    process = run_script(
        TOOL, tiles / "one.png", "--output", tmp_path / "labels.json", "--mpp", "estimate"
    )
    assert process.returncode == 1
    assert "with 0 nuclei it cannot be estimated" in process.stderr


def test_watershed_is_the_other_method(tiles, tmp_path, run_script):
    process = run_script(
        TOOL, tiles, "--output", tmp_path / "labels.json", "--method", "watershed", "--mpp", "0.25"
    )
    assert process.returncode == 0, process.stderr
    labels = read_coco(tmp_path / "labels.json")
    assert labels["info"]["method"] == "watershed"
    assert len(labels["annotations"]) == 50


@pytest.mark.parametrize(
    "arguments", [("--mpp", "0"), ("--mpp", "nan"), ("--workers", "0"), ("--method", "magic")]
)
def test_senseless_options_are_usage_errors(tiles, tmp_path, run_script, arguments):
    process = run_script(TOOL, tiles, "--output", tmp_path / "labels.json", *arguments)
    assert process.returncode == 2


def test_output_that_cannot_be_written_is_named(tiles, tmp_path, run_script):
    (tmp_path / "file").touch()
    process = run_script(
        TOOL, tiles / "glass.png", "--mpp", "0.5", "--output", tmp_path / "file" / "labels.json"
    )
    assert process.returncode == 1
    assert "file" in process.stderr


def test_methods_are_compared_in_one_table(tiles, tmp_path, run_script):
    run_script(TOOL, tiles, "--output", tmp_path / "truth.json", "--mpp", "0.25")
    process = run_script(
        "tools/compare_labels.py", "--images", tiles, "--ground-truth", tmp_path / "truth.json",
        "--output", tmp_path / "labels",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    rows = [line.split("|")[1:3] for line in process.stdout.splitlines() if "|" in line]
    figures = {name.strip(): value.strip() for name, value in rows}
    assert figures["clump-split"] == "1.000"
    assert float(figures["watershed"]) > 0.9
    written = {path.name for path in (tmp_path / "labels").iterdir()}
    assert written >= {"clump-split.json", "watershed.json"}
    truth, labels = (
        json.loads((tmp_path / file).read_text())
        for file in ("truth.json", "labels/clump-split.json")
    )
    assert len(labels["annotations"]) == len(truth["annotations"])


def test_methods_without_a_pixel_size_ask_for_it(tiles):
    truth = {"images": [{"id": 1, "file_name": "glass.png"}], "annotations": []}
    with pytest.raises(InputError, match=r"pixel size of 'glass.png'; give it with --mpp"):
        compare_labels.label_images(truth, tiles, {}, mpp=None)


def test_scorecard_is_fitted_and_printed_as_source(tiles, tmp_path, run_script):
    run_script(TOOL, tiles, "--output", tmp_path / "truth.json", "--mpp", "0.25")
    process = run_script(
        "tools/fit_scorecard.py", "--images", tiles, "--ground-truth", tmp_path / "truth.json",
        "--mpp", "0.25",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    from steatosis_d2.labeling.scorecards import PAPER_CARD, Scorecard

    card = eval(process.stdout, {"Scorecard": Scorecard})
    assert list(card.curves) == list(PAPER_CARD.curves)


def test_fitting_without_any_bright_region_says_so(tiles, tmp_path, run_script):
    image = {"id": 1, "file_name": "glass.png", "height": 320, "width": 320}
    (tmp_path / "truth.json").write_text(json.dumps({"images": [image], "annotations": []}))
    process = run_script(
        "tools/fit_scorecard.py", "--images", tiles, "--ground-truth", tmp_path / "truth.json",
        "--mpp", "0.25",
    )  # fmt: skip
    assert process.returncode == 1
    assert "no bright region" in process.stderr


@pytest.mark.slow
def test_tiles_of_the_paper_reach_the_aim(shared_data, tmp_path, run_script):
    """F1 of at least 0.82 and PQ of at least 0.70."""
    source = shared_data / "guo2019_liver"
    run_script("datasets/prepare_guo2019.py", "--source", source, "--output", tmp_path)
    truth = merge_splits(tmp_path / "annotations")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    process = run_script(
        TOOL, tmp_path / "images", "--output", tmp_path / "labels.json", "--mpp", "0.25",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    process = run_script(
        "tools/evaluate.py", "--ground-truth", tmp_path / "truth.json", "--predictions",
        tmp_path / "labels.json", "--output", tmp_path / "metrics.json",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())["instances"]
    assert metrics["f1"] >= 0.82
    assert metrics["pq"] >= 0.70


def merge_splits(folder):
    """The images and annotations of all splits, numbered anew."""
    images, annotations = [], []
    for path in sorted(folder.glob("*.json")):
        content = read_coco(path)
        new_id = {image["id"]: len(images) + i for i, image in enumerate(content["images"], 1)}
        images += [image | {"id": new_id[image["id"]]} for image in content["images"]]
        annotations += [
            annotation | {"id": len(annotations) + i, "image_id": new_id[annotation["image_id"]]}
            for i, annotation in enumerate(content["annotations"], 1)
        ]
    return {"images": images, "annotations": annotations}
