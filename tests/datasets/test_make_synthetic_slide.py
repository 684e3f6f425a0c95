"""datasets/make_synthetic_slide.py as a user runs it, coarsely, since drawing takes time."""

import subprocess
import sys
from pathlib import Path

import pytest

from steatosis_d2.data.coco import read_coco
from steatosis_d2.slides.slide import open_slide

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "make_synthetic_slide.py"


def run(output, *options):
    return subprocess.run(
        [sys.executable, SCRIPT, "--output", output, "--mpp", "4", *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    done = run(folder, "--seed", "2")
    assert done.returncode == 0, done.stderr
    return folder


def test_slide_states_its_pixel_size_and_the_truth_its_image(folder):
    truth = read_coco(folder / "truth.json")
    with open_slide(folder / "biopsy.tif") as slide:
        assert slide.mpp == pytest.approx(4.0)
        [image] = truth["images"]
        assert (image["width"], image["height"]) == (slide.width, slide.height)
    assert len(truth["annotations"]) > 100


def test_files_are_the_same_with_two_processes(folder, tmp_path):
    run(tmp_path, "--seed", "2", "--workers", "2")
    for name in ("biopsy.tif", "truth.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_an_output_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = run(tmp_path / "file")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
