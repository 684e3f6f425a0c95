import functools
import logging

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.coco import read_coco
from steatosis_d2.data.instance_masks import encode_label_file
from steatosis_d2.data.prepare import prepare_argument_parser, read_sample, write_dataset
from steatosis_d2.data.sources import Sample
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import decode_mask

read_labels = functools.partial(read_sample, encode_masks=encode_label_file)


@pytest.fixture
def sample(tmp_path):
    """Function that makes a sample: a grey image of 10 x 14 px and a label image."""

    def make(name, labels=0):
        mask = np.zeros((10, 14), np.uint8)
        for label in range(1, labels + 1):
            mask[2 * label - 1, 3:8] = label
        paths = tmp_path / "in" / f"{name}.jpg", tmp_path / "masks" / f"{name}.png"
        for path, pixels in zip(paths, (np.full((10, 14), 90, np.uint8), mask), strict=True):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
        return Sample(name, name, *paths)

    return make


@pytest.fixture
def write(tmp_path):
    """Function that writes the samples of each split and returns the folder."""

    def write_splits(train=(), val=(), **options):
        splits = {"train": list(train), "val": list(val), "test": []}
        write_dataset(splits, tmp_path / "out", read=read_labels, category="droplet", **options)
        return tmp_path / "out"

    return write_splits


def annotations_of(folder, split):
    return read_coco(folder / "annotations" / f"instances_{split}.json")


def test_images_are_8_bit_rgb_png(sample, write):
    folder = write([sample("a")])
    with Image.open(folder / "images" / "a.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (14, 10))


def test_records_of_a_split(sample, write):
    folder = write([sample("a", 2), sample("b"), sample("c", 1)], val=[sample("d", 3)])
    train, val = annotations_of(folder, "train"), annotations_of(folder, "val")
    assert train["images"] == [
        {"id": number, "file_name": f"{name}.png", "height": 10, "width": 14}
        for number, name in enumerate("abc", start=1)
    ]
    assert [record["image_id"] for record in train["annotations"]] == [1, 1, 3]
    assert [record["id"] for record in train["annotations"]] == [1, 2, 3]
    assert [record["id"] for record in val["annotations"]] == [1, 2, 3]
    second = train["annotations"][1]
    assert (second["bbox"], second["area"], second["iscrowd"]) == ([3, 3, 5, 1], 5, 0)
    assert decode_mask(second["segmentation"])[3, 3:8].all()


def test_split_without_images_is_written_empty(sample, write):
    test = annotations_of(write([sample("a", 1)]), "test")
    assert (test["images"], test["annotations"]) == ([], [])
    assert test["categories"] == [{"id": 1, "name": "droplet"}]


def test_pixel_size_is_written_only_where_it_is_known(sample, write):
    folder = write([sample("a")], mpp=0.5)
    assert annotations_of(folder, "train")["images"][0]["mpp"] == 0.5
    folder = write([sample("a")])
    assert "mpp" not in annotations_of(folder, "train")["images"][0]


def test_bad_samples_are_named_together_and_the_others_written(tmp_path, sample, write):
    samples = [sample(name, 1) for name in "abcd"]
    samples[1].masks_path.unlink()
    samples[2].image_path.write_bytes(samples[2].image_path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"2 images were left out(.|\n)*b\.png(.|\n)*c\.jpg"):
        write(samples)
    train = annotations_of(tmp_path / "out", "train")
    assert [image["file_name"] for image in train["images"]] == ["a.png", "d.png"]
    assert [record["image_id"] for record in train["annotations"]] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == [
        "a.png",
        "d.png",
    ]


def test_second_run_gives_the_same_bytes(sample, write):
    samples = [sample("a", 2)]
    folder = write(samples)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    first = [path.read_bytes() for path in files]
    write(samples)
    assert [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()] == first
    assert len(files) == 4


def test_source_images_are_never_overwritten(tmp_path, sample):
    splits = {"train": [sample("a")], "val": [], "test": []}
    (tmp_path / "in").rename(tmp_path / "images")
    moved = Sample("a", "a", tmp_path / "images" / "a.jpg", splits["train"][0].masks_path)
    with pytest.raises(InputError, match="choose another --output"):
        write_dataset(splits | {"train": [moved]}, tmp_path, read=read_labels, category="droplet")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a.jpg"]


def test_numbers_are_logged(sample, write, caplog):
    caplog.set_level(logging.INFO)
    write([sample("a", 3), sample("b")])
    assert "train: 2 images, 1 of them without a droplet; 3 instances" in caplog.text


def test_interrupted_run_leaves_no_half_files(tmp_path, sample, write, monkeypatch):
    def write_half(image, path, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    samples = [sample("a")]
    monkeypatch.setattr(Image.Image, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        write(samples)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_default_output_is_in_detectron2s_folder(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/sets")
    args = prepare_argument_parser("text", dataset_name="liver_torino").parse_args([])
    assert str(args.output) == "/data/sets/liver_torino"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    args = prepare_argument_parser("text", dataset_name="liver_torino").parse_args([])
    assert str(args.output) == "datasets/liver_torino"


@pytest.mark.parametrize(
    "fractions, match",
    [("0.5 0.4 0.2", "is not 1"), ("1.5 -0.5 0", "no fraction"), ("all of it", "no fraction")],
)
def test_fractions_that_are_none(capsys, fractions, match):
    parser = prepare_argument_parser("text", dataset_name="liver_torino")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--fractions", *fractions.split()])
    assert match in capsys.readouterr().err
