"""Names that file systems allow and programs stumble over."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.coco import image_record, read_coco
from steatosis_d2.data.images import list_inputs
from steatosis_d2.files import printable, replace_when_done, shorten
from steatosis_d2.inference.plan import name_inputs
from steatosis_d2.screening.labels import find_images

# What each is called in tables and files.
NAMES = {
    b"plain.png": "plain.png",
    b"latin1_\xb5m.png": "latin1_%B5m.png",
    "µ m ö.png".encode(): "µ m ö.png",
    b"line\nbreak.png": "line%0Abreak.png",
    b"-dash.png": "-dash.png",
    b"quote'\".png": "quote'\".png",
    b"<b>&.png": "<b>&.png",
    b"x" * 251 + b".png": "x" * 251 + ".png",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tile under each of these names."""
    folder = tmp_path_factory.mktemp("names")
    image = np.full((64, 64, 3), (200, 120, 170), np.uint8)
    rows, columns = np.ogrid[:64, :64]
    image[(rows - 30) ** 2 + (columns - 30) ** 2 < 144] = 240
    for name in NAMES:
        Image.fromarray(image).save(folder / "a.png")
        (folder / "a.png").rename(os.fsdecode(os.fsencode(folder) + b"/" + name))
    return folder


def test_segment_writes_all_outputs_of_every_name(folder, tmp_path, run_script):
    options = ("--model", "clump-split", "--mpp", 0.5, "--output", tmp_path / "out")
    done = run_script("tools/segment.py", folder, *options)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == set(NAMES.values())
    assert {row["droplets"] for row in rows} == {"1"}
    predictions = read_coco(tmp_path / "out" / "predictions.json")
    assert {image["file_name"] for image in predictions["images"]} == set(NAMES.values())
    for suffix in ("_overlay.png", ".parquet", ".geojson.gz"):
        assert len(list((tmp_path / "out").glob(f"*{suffix}"))) == len(NAMES)
    assert "&lt;b&gt;&amp;" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_label_names_every_image_and_draws_it(folder, tmp_path, run_script):
    options = ("--mpp", 0.5, "--output", tmp_path / "l.json", "--overlay", tmp_path / "pictures")
    done = run_script("tools/generate_labels.py", folder, *options)
    assert done.returncode == 0, done.stderr
    names = {image["file_name"] for image in read_coco(tmp_path / "l.json")["images"]}
    assert names == set(NAMES.values())
    assert len(list((tmp_path / "pictures").iterdir())) == len(NAMES)
    json.loads((tmp_path / "l.json").read_bytes().decode())  # plain UTF-8


def test_screening_finds_the_files_that_results_name(folder):
    images = [image_record(i, name, height=64, width=64) for i, name in enumerate(NAMES.values())]
    label_file = SimpleNamespace(images={image["id"]: image for image in images}, path="l.json")
    assert {os.fsencode(path.name) for path in find_images(label_file, folder).values()} == set(
        NAMES
    )


def test_two_names_that_print_alike_are_a_fault(tmp_path):
    for name in (b"a\xb5.png", b"a%B5.png"):
        open(os.fsencode(tmp_path) + b"/" + name, "w").close()  # noqa: PTH123
    files, [fault] = list_inputs([tmp_path])
    assert len(files) == 1
    assert "rename one" in fault


def test_a_bad_file_of_such_a_name_is_reported(tmp_path, run_script):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad_\xff.png"))
    path.write_bytes(b"no image")
    options = ("--model", "clump-split", "--mpp", 0.5, "--output", tmp_path / "out")
    done = run_script("tools/segment.py", path, *options)
    assert done.returncode == 1
    assert "bad_%FF.png' cannot be read" in done.stderr


def test_one_stem_in_two_folders_gives_two_sets_of_files(tmp_path, run_script):
    for case in ("one", "two"):
        (tmp_path / case).mkdir()
        Image.new("RGB", (64, 64), (200, 120, 170)).save(tmp_path / case / "1.png")
    folders = [tmp_path / case for case in ("one", "two")]
    options = ("--model", "clump-split", "--mpp", 0.5, "--output", tmp_path / "out")
    assert run_script("tools/segment.py", *folders, *options).returncode == 0
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*_overlay.png"))
    assert pictures == ["one_1.png_overlay.png", "two_1.png_overlay.png"]


def test_names_that_differ_in_case_alone_are_told_apart():
    names = [item.name for item in name_inputs({n: Path(n) for n in ("A.svs", "a.png")})]
    assert names == ["A.svs", "a.png"]


def test_long_names_stay_apart():
    long = [f"{'x' * 240}{number}" for number in range(3)]
    shortened = [shorten(name) for name in long]
    assert len(set(shortened)) == 3
    assert max(len(name) for name in shortened) <= 200
    assert shorten("ö" * 120).encode().decode()


def test_a_printable_name_is_as_it_was():
    assert printable("Fall 7, µm – ok.svs") == "Fall 7, µm – ok.svs"


def test_a_file_with_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("y" * 251 + ".txt")
    with replace_when_done(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"
