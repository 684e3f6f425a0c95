"""tools/segment.py as a user runs it: tiles and slides, bad input, interruption and resume."""

import gzip
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.coco import DROPLET, annotation_record, image_record, write_coco
from steatosis_d2.instances.rle import encode_label_image

TOOL = "tools/segment.py"
SCRIPT = Path(__file__).resolve().parents[2] / TOOL
CLASSICAL = ("--model", "clump-split", "--mpp", "0.25")


def paint_droplets(height, width, *, seed):
    """H&E-like picture with a droplet every 64 px, and its label image."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (172, 86, 152), np.uint8)
    labels = np.zeros((height, width), np.int32)
    for row in range(32, height - 31, 64):
        for column in range(32, width - 31, 64):
            center = (np.array([column, row]) + rng.integers(-4, 5, 2)).tolist()
            radius = int(rng.integers(16, 22))
            cv2.circle(image, center, radius, (236, 236, 236), -1)
            cv2.circle(labels, center, radius, int(labels.max()) + 1, -1)
    return cv2.GaussianBlur(image, (0, 0), 1.5), labels


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """``images/`` with two tiles of 25 droplets and one of glass; ``truth.json``."""
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "images").mkdir()
    images, annotations = [], []
    for image_id, name in enumerate(("glass.png", "one.png", "two.png"), start=1):
        image, labels = paint_droplets(320, 320, seed=image_id)
        if name == "glass.png":
            image[:], labels[:] = 240, 0
        Image.fromarray(image).save(folder / "images" / name)
        images.append(image_record(image_id, name, height=320, width=320))
        annotations += [
            annotation_record(len(annotations) + i, image_id, rle)
            for i, rle in enumerate(encode_label_image(labels).values(), start=1)
        ]
    write_coco(folder / "truth.json", images, annotations, category=DROPLET)
    return folder


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A picture of 704 x 576 px with 99 droplets: 20 tiles of 256 px."""
    path = tmp_path_factory.mktemp("slide") / "slide.png"
    Image.fromarray(paint_droplets(576, 704, seed=0)[0]).save(path)
    return path


def digest_outputs(folder):
    """Name -> SHA-256 of all files that a run leaves for its user."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def read_predictions(folder):
    """COCO file of a run: file name -> number of predictions."""
    content = json.loads((folder / "predictions.json").read_text())
    of_image = [annotation["image_id"] for annotation in content["annotations"]]
    return {image["file_name"]: of_image.count(image["id"]) for image in content["images"]}


def test_folder_of_tiles_is_ready_for_evaluation(tiles, tmp_path, run_script):
    process = run_script(TOOL, tiles / "images", "--output", tmp_path, *CLASSICAL)
    assert process.returncode == 0, process.stderr
    assert read_predictions(tmp_path) == {"glass.png": 0, "one.png": 25, "two.png": 25}
    for stem in ("glass", "one", "two"):
        for end in (".geojson.gz", ".parquet", "_overlay.png"):
            assert (tmp_path / f"{stem}{end}").is_file()
    assert (tmp_path / "report.html").is_file()
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 4
    run_script(
        "tools/evaluate.py", "--ground-truth", tiles / "truth.json", "--predictions",
        tmp_path / "predictions.json", "--output", tmp_path / "metrics.json",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["instances"]["f1"] == 1.0
    assert metrics["instances"]["pq"] > 0.9


@pytest.mark.slow
def test_slide_in_tiles_is_the_slide_as_a_whole(slide, tmp_path, run_script):
    """A droplet every 64 px in 9 rows of 11, tile borders or not."""
    for tile_px in (256, 2048):
        process = run_script(
            TOOL, slide, "--output", tmp_path / str(tile_px), *CLASSICAL, "--tile-px", tile_px,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        assert read_predictions(tmp_path / str(tile_px)) == {"slide.png": 99}


def start(slide, output, *options):
    """Start the script without waiting for it, as from a terminal."""
    command = [sys.executable, SCRIPT, slide, "--output", output, *CLASSICAL, *options]
    # Tests that run in a shell's background inherit that Ctrl-C is ignored; users do not.
    ignored = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, ignored)


def stop_when_under_way(process, journal, how, *, delay_s):
    """Send a signal some time after the journal has begun to grow; gives the exit code."""
    size = journal.stat().st_size if journal.exists() else 0
    while process.poll() is None:
        if journal.exists() and journal.stat().st_size > size:
            time.sleep(delay_s)
            process.send_signal(how)
            break
        time.sleep(0.01)
    _, stderr = process.communicate()
    assert "Traceback" not in stderr
    return process.returncode


@pytest.mark.slow
def test_run_killed_again_and_again_ends_like_an_unbroken_one(slide, tmp_path, run_script):
    options = ("--tile-px", "256")
    run_script(TOOL, slide, "--output", tmp_path / "unbroken", *CLASSICAL, *options)
    output = tmp_path / "killed"
    journal = output / ".segment" / "slide" / "journal"
    kills = 0
    for attempt, delay_s in enumerate((0, 0.01, 0.03, 0.1, 0.3)):
        process = start(slide, output, *options, *(("--resume",) if attempt else ()))
        kills += stop_when_under_way(process, journal, signal.SIGKILL, delay_s=delay_s) < 0
        if attempt == 0:
            refused = run_script(TOOL, slide, "--output", output, *CLASSICAL, *options)
            assert refused.returncode == 1
            assert "--resume" in refused.stderr
    assert kills >= 2
    process = run_script(TOOL, slide, "--output", output, *CLASSICAL, *options, "--resume")
    assert process.returncode == 0, process.stderr
    assert digest_outputs(output) == digest_outputs(tmp_path / "unbroken")


def test_interrupt_from_the_keyboard_ends_the_run_cleanly(slide, tmp_path):
    process = start(slide, tmp_path, "--tile-px", "256")
    journal = tmp_path / ".segment" / "slide" / "journal"
    assert stop_when_under_way(process, journal, signal.SIGINT, delay_s=0) == 130


def test_resume_skips_what_is_finished_and_takes_new_inputs(tiles, tmp_path, run_script):
    folder = tiles / "images"
    run_script(TOOL, folder / "one.png", "--output", tmp_path, *CLASSICAL)
    before = (tmp_path / "one.geojson.gz").stat().st_mtime_ns
    process = run_script(TOOL, folder, "--output", tmp_path, *CLASSICAL, "--resume")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "one.geojson.gz").stat().st_mtime_ns == before
    assert read_predictions(tmp_path) == {"glass.png": 0, "one.png": 25, "two.png": 25}


def test_resume_with_other_settings_names_them(tiles, tmp_path, run_script):
    one = tiles / "images" / "one.png"
    run_script(TOOL, one, "--output", tmp_path, *CLASSICAL)
    process = run_script(
        TOOL, one, "--output", tmp_path, *CLASSICAL, "--resume", "--filter", "paper",
        "--score-threshold", "0.9",
    )  # fmt: skip
    assert process.returncode == 1
    assert "min_score was 0.5 and is 0.9" in process.stderr
    assert "filter was" in process.stderr


def test_bad_inputs_are_named_and_the_others_segmented(tiles, tmp_path, run_script):
    (tmp_path / "text.svs").write_text("no slide")
    (tmp_path / "cut.png").write_bytes((tiles / "images/one.png").read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    process = run_script(
        TOOL, tmp_path / "text.svs", tmp_path / "cut.png", tmp_path / "missing.tif",
        tmp_path / "empty", tiles / "images/one.png", "--output", tmp_path / "out", *CLASSICAL,
    )  # fmt: skip
    assert process.returncode == 1
    last_lines = process.stderr.splitlines()[-4:]
    for line, name in zip(last_lines, ("empty", "text.svs", "cut.png", "missing.tif"), strict=True):
        assert line.startswith("error: ")
        assert name in line
    assert read_predictions(tmp_path / "out") == {"one.png": 25}
    assert "text.svs" in (tmp_path / "out/summary.csv").read_text()


@pytest.mark.parametrize(
    "pixels",
    [
        Image.new("RGB", (1, 1), (172, 86, 152)),
        Image.new("L", (300, 200), 120),
        Image.new("CMYK", (300, 200), (0, 120, 60, 20)),
        Image.fromarray(np.full((200, 300), 40_000, np.uint16)),
    ],
    ids=["one px", "grey", "CMYK", "16 bits"],
)
def test_unusual_pictures_are_segmented(tmp_path, run_script, pixels):
    pixels.save(tmp_path / "a.tif")
    process = run_script(TOOL, tmp_path / "a.tif", "--output", tmp_path / "out", *CLASSICAL)
    assert process.returncode == 0, process.stderr
    assert read_predictions(tmp_path / "out") == {"a.tif": 0}


def test_classical_model_asks_for_the_pixel_size(tiles, tmp_path, run_script):
    process = run_script(
        TOOL, tiles / "images/one.png", "--output", tmp_path, "--model", "clump-split"
    )
    assert process.returncode == 1
    assert "one.png" in process.stderr
    assert "--mpp" in process.stderr


def test_inputs_that_share_a_stem_do_not_overwrite_each_other(tiles, tmp_path, run_script):
    for folder, name in (("a", "one.png"), ("b", "glass.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tile.png").write_bytes((tiles / "images" / name).read_bytes())
    out = tmp_path / "out"
    process = run_script(TOOL, tmp_path / "a", tmp_path / "b", "--output", out, *CLASSICAL)
    assert process.returncode == 0, process.stderr
    assert read_predictions(out) == {"a/tile.png": 25, "b/tile.png": 0}
    for name, n_features in (("a_tile.png", 25), ("b_tile.png", 0)):
        features = json.loads(gzip.decompress((out / f"{name}.geojson.gz").read_bytes()))
        assert len(features["features"]) == n_features


def test_regions_of_interest_limit_the_result(slide, tmp_path, run_script):
    box = [[64, 64], [384, 64], [384, 256], [64, 256], [64, 64]]
    region = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [box]}}
    (tmp_path / "regions.geojson").write_text(json.dumps(region))
    process = run_script(
        TOOL, slide, "--output", tmp_path / "out", *CLASSICAL, "--roi",
        tmp_path / "regions.geojson",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert read_predictions(tmp_path / "out") == {"slide.png": 15}


def test_dry_run_says_how_much_there_is_to_do_and_writes_nothing(slide, tmp_path, run_script):
    process = run_script(
        TOOL, slide, "--output", tmp_path / "out", *CLASSICAL, "--tile-px", "256", "--dry-run"
    )
    assert process.returncode == 0, process.stderr
    assert "slide.png" in process.stdout
    assert "20 tiles in 1 inputs: about 0:" in process.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--mpp", "0"),
        ("--workers", "0"),
        ("--score-threshold", "2"),
        ("--overlap-px", "600"),
        ("--weights", "model.pth"),
        ("--workers", "2", "--scheduler", "tcp://127.0.0.1:1"),
        ("--format", "shapefile"),
    ],
)
def test_senseless_options_are_usage_errors(tmp_path, run_script, options):
    process = run_script(TOOL, "a.png", "--output", tmp_path, "--model", "clump-split", *options)
    assert process.returncode == 2
    assert "usage:" in process.stderr


def test_output_that_cannot_be_written_is_named(tiles, tmp_path, run_script):
    (tmp_path / "file").touch()
    process = run_script(TOOL, tiles / "images", "--output", tmp_path / "file/out", *CLASSICAL)
    assert process.returncode == 1
    assert str(tmp_path / "file") in process.stderr


def test_disk_that_fills_up_is_named(slide, tmp_path):
    """A limit on the size of files stands in for the disk."""
    command = [SCRIPT, slide, "--output", tmp_path, *CLASSICAL]
    process = subprocess.run(
        ["bash", "-c", f"ulimit -f 16; {sys.executable} {' '.join(map(str, command))}"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "File too large" in process.stderr
    assert str(tmp_path) in process.stderr
