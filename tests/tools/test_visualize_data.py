import json

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.report.overlay import TRUE_RGB

SCRIPT = "tools/visualize_data.py"
BOX_RGB = (0, 90, 200)


@pytest.fixture
def visualize(disks, run_script):
    """Function that writes pictures of the disks: (*arguments) -> process, {name: picture}."""

    def run(*arguments):
        output = disks / "pictures"
        spec = f"('coco:{disks}/annotations.json:{disks}/images',)"
        process = run_script(
            SCRIPT,
            *("--config-file", "liver/starter.yaml", "--output", output, *arguments),
            *("DATASETS.TRAIN", spec, "INPUT.CROP.SIZE", "[64,64]"),
            *("INPUT.STAIN_PROBABILITY", "0.0", "INPUT.BRIGHTNESS", "(1.0,1.0)"),
        )
        return process, {path.name: np.asarray(Image.open(path)) for path in output.glob("*")}

    return run


def shows(picture, color_rgb):
    return (picture == color_rgb).all(axis=2)


def test_annotation_shows_the_data_set_as_it_is(visualize, disks):
    process, pictures = visualize("--source", "annotation")
    assert process.returncode == 0, process.stderr
    assert sorted(pictures) == [f"{place:05d}_tile_{place + 1}.png" for place in range(5)]
    picture = pictures["00000_tile_1.png"]
    original = np.asarray(Image.open(disks / "images/tile_1.png"))
    outline = shows(picture, TRUE_RGB)
    assert np.array_equal(picture[~outline], original[~outline])
    # Outlines are the outermost pixels of the disks.
    assert outline.sum() > 90
    assert (original[outline] == 240).all()
    assert not shows(pictures["00004_tile_5.png"], TRUE_RGB).any()


def test_train_shows_what_the_network_sees_the_same_in_every_run(visualize):
    process, first = visualize("--number", 7)
    assert process.returncode == 0, process.stderr
    assert [name[:5] for name in sorted(first)] == [f"{place:05d}" for place in range(7)]
    assert {picture.shape for picture in first.values()} == {(64, 64, 3)}
    assert any(shows(picture, TRUE_RGB).any() for picture in first.values())
    # An epoch shows each of the five images once.
    assert len({name[6:] for name in sorted(first)[:5]}) == 5
    _, second = visualize("--number", 7)
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("source", ["train", "annotation"])
def test_boxes_are_drawn_where_asked_for(source, visualize):
    _, without = visualize("--source", source, "--number", 5)
    _, with_boxes = visualize("--source", source, "--number", 5, "--boxes")
    assert not any(shows(picture, BOX_RGB).any() for picture in without.values())
    assert sum(shows(picture, BOX_RGB).any() for picture in with_boxes.values()) >= 3


@pytest.mark.slow
def test_real_tiles_are_shown(shared_data, run_script, tmp_path):
    data = tmp_path / "torino"
    source = shared_data / "torino_liver"
    prepared = run_script("datasets/prepare_torino.py", "--source", source, "--output", data)
    assert prepared.returncode == 0, prepared.stderr
    spec = f"('coco:{data}/annotations/instances_val.json:{data}/images',)"
    overrides = ("DATASETS.TRAIN", spec)
    process = run_script(
        SCRIPT,
        *("--config-file", "liver/starter.yaml", "--output", tmp_path / "out", "--number", 8),
        *overrides,
    )
    assert process.returncode == 0, process.stderr
    pictures = [np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*")]
    assert len(pictures) == 8
    # A tile that its scale makes smaller than the crop is shown whole.
    assert max(side for picture in pictures for side in picture.shape[:2]) == 384
    assert sum(shows(picture, TRUE_RGB).sum() > 50 for picture in pictures) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "nowhere.yaml"),
        (["--config-file", "liver/starter.yaml", "DATASETS.TRAIN", "('no',)"], "not registered"),
        (["--config-file", "liver/starter.yaml", "DATASETS.TRAIN", "()"], "is empty"),
        (["--config-file", "liver/starter.yaml", "INPUT.NONE", "1"], "INPUT.NONE"),
    ],
)
def test_users_mistake_is_one_line(arguments, message, run_script, tmp_path):
    process = run_script(SCRIPT, "--output", tmp_path, *arguments)
    assert process.returncode == 1
    assert message in process.stderr
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("source", ["train", "annotation"])
def test_unsound_mask_names_its_image(source, visualize, disks):
    content = json.loads((disks / "annotations.json").read_text())
    content["annotations"][0]["segmentation"] = {"size": [9, 9], "counts": [81]}
    (disks / "annotations.json").write_text(json.dumps(content))
    process, _ = visualize("--source", source)
    assert process.returncode == 1
    assert "tile_1.png" in process.stderr
    assert "size [9, 9]; expected [96, 128]" in process.stderr


@pytest.mark.parametrize("arguments", [["--number", "0"], ["--source", "nowhere"]])
def test_bad_usage_is_exit_code_2(arguments, run_script, tmp_path):
    options = ["--config-file", "liver/starter.yaml", "--output", tmp_path]
    assert run_script(SCRIPT, *options, *arguments).returncode == 2
