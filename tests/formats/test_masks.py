"""Masks as programs write them: the same instances, or a refusal."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from rotations import ROTATION_TAG, UPRIGHT_TO_STORED

from steatosis_d2.data.instance_masks import ENCODERS, detect_layout
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import decode_mask

SIZE = {"height": 60, "width": 80}


@pytest.fixture(scope="module")
def labels():
    """Four disks, none of which touch."""
    rows, columns = np.ogrid[: SIZE["height"], : SIZE["width"]]
    labels = np.zeros((SIZE["height"], SIZE["width"]), np.uint8)
    for number, (y, x, radius) in enumerate(
        ((12, 12, 8), (14, 50, 6), (44, 20, 9), (40, 60, 11)), 1
    ):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    return labels


def instances_of(path):
    """What preparing data makes of a mask file whose layout is not stated, as sets of px."""
    rles = ENCODERS[detect_layout([path])](path, **SIZE)
    return {decode_mask(rle).tobytes() for rle in rles}


def check(path, labels):
    assert instances_of(path) == {(labels == number).tobytes() for number in range(1, 5)}


COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 200, 0), (90, 0, 255), (255, 255, 0)], np.uint8)


def binary(labels):
    return (labels > 0) * np.uint8(255)


WRITERS = {
    "1 bit, white is zero.tif": lambda p, x: tifffile.imwrite(p, x > 0, photometric="miniswhite"),
    "1 bit, black is zero.tif": lambda p, x: tifffile.imwrite(p, x > 0, photometric="minisblack"),
    "8 bits, white is zero.tif": lambda p, x: tifffile.imwrite(
        p, binary(x), photometric="miniswhite"
    ),
    "labels, white is zero.tif": lambda p, x: tifffile.imwrite(p, x, photometric="miniswhite"),
    "16 bits.tif": lambda p, x: tifffile.imwrite(p, x.astype(np.uint16) * 257),
    "32 bits.tif": lambda p, x: tifffile.imwrite(p, x.astype(np.uint32) * 70_000),
    "float.tif": lambda p, x: tifffile.imwrite(p, x.astype(np.float32)),
    "float64.tif": lambda p, x: tifffile.imwrite(p, x.astype(np.float64)),
    "signed.tif": lambda p, x: tifffile.imwrite(p, x.astype(np.int16)),
    "1 bit.png": lambda p, x: Image.fromarray(x > 0).save(p),
    "binary.png": lambda p, x: Image.fromarray(binary(x)).save(p),
    "binary.bmp": lambda p, x: Image.fromarray(binary(x)).save(p),
    "rgb.png": lambda p, x: Image.fromarray(COLOURS[x]).save(p),
    "rgb.tif": lambda p, x: tifffile.imwrite(p, COLOURS[x], photometric="rgb"),
    "rgb, 16 bits.tif": lambda p, x: tifffile.imwrite(
        p, COLOURS[x].astype(np.uint16) * 257, photometric="rgb"
    ),
    "white on black, rgb.png": lambda p, x: Image.fromarray(
        np.repeat(binary(x)[..., None], 3, axis=2)
    ).save(p),
    "red on black.png": lambda p, x: Image.fromarray(COLOURS[(x > 0) * 1]).save(p),
    "colours on white.png": lambda p, x: Image.fromarray(
        np.where(x[..., None] == 0, np.uint8(255), COLOURS[x])
    ).save(p),
    "alpha under white.png": lambda p, x: Image.fromarray(
        np.dstack([np.full((*x.shape, 3), 255, np.uint8), binary(x)])
    ).save(p),
    "alpha under black.png": lambda p, x: Image.fromarray(
        np.dstack([np.zeros((*x.shape, 3), np.uint8), binary(x)])
    ).save(p),
    "alpha of grey.png": lambda p, x: Image.fromarray(
        np.dstack([np.full(x.shape, 80, np.uint8), binary(x)])
    ).save(p),
    "colours where opaque.png": lambda p, x: Image.fromarray(
        np.dstack([np.where(x[..., None] == 0, np.uint8(77), COLOURS[x]), binary(x)])
    ).save(p),
    "alpha.tif": lambda p, x: tifffile.imwrite(
        p,
        np.dstack([np.zeros((*x.shape, 3), np.uint8), binary(x)]),
        photometric="rgb",
        extrasamples=["unassalpha"],
    ),
    "opaque labels.png": lambda p, x: Image.fromarray(np.dstack([x, np.full_like(x, 255)])).save(p),
    "a page each.tif": lambda p, x: tifffile.imwrite(
        p, np.stack([(x == number) * np.uint8(255) for number in range(1, 5)])
    ),
    "a page of 1 bit each.tif": lambda p, x: write_pages(
        p, [x == number for number in range(1, 5)]
    ),
}


def write_pages(path, pages):
    with tifffile.TiffWriter(path) as tiff:
        for page in pages:
            tiff.write(page, metadata=None)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_instances_whatever_the_form(tmp_path, labels, kind):
    WRITERS[kind](tmp_path / kind, labels)
    check(tmp_path / kind, labels)


PALETTES = {
    "black first": [COLOURS, None],
    "white first, then black": [[(255, 255, 255), (0, 0, 0)], [1, 0, 0, 0, 0]],
    "black last": [[*COLOURS[1:], COLOURS[0]], [4, 0, 1, 2, 3]],
    "white for nothing": [[(255, 255, 255), *COLOURS[1:]], None],
    "no black, no white": [[(9, 9, 9), *COLOURS[1:]], None],
    "all the same": [[(255, 0, 0)] * 5, None],
}


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("kind", PALETTES)
def test_palettes_in_any_order(tmp_path, labels, kind, suffix):
    colours, order = PALETTES[kind]
    stored = labels if order is None else np.array(order, np.uint8)[labels]
    image = Image.fromarray(stored, mode="P")
    image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(tmp_path / f"a.{suffix}")
    check(tmp_path / f"a.{suffix}", labels)


@pytest.mark.parametrize("orientation", UPRIGHT_TO_STORED)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_may_be_turned_by_a_tag(tmp_path, labels, orientation, suffix):
    stored = np.ascontiguousarray(UPRIGHT_TO_STORED[orientation](labels))
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(
            path, stored, metadata=None, extratags=[(ROTATION_TAG, "H", 1, orientation, True)]
        )
    else:
        exif = Image.Exif()
        exif[ROTATION_TAG] = orientation
        Image.fromarray(stored).save(path, exif=exif)
    check(path, labels)


def test_pages_of_a_stack_may_overlap(tmp_path):
    pages = np.zeros((2, 60, 80), bool)
    pages[0, 10:30, 10:30] = pages[1, 20:40, 20:40] = True
    write_pages(tmp_path / "a.tif", pages)
    assert instances_of(tmp_path / "a.tif") == {page.tobytes() for page in pages}


REFUSED = {
    "smoothed edges.png": (
        lambda p, x: Image.fromarray(COLOURS[x]).resize((160, 120)).resize((80, 60)).save(p),
        "edges are smoothed, or it is a picture",
    ),
    "half transparent.png": (
        lambda p, x: Image.fromarray(np.dstack([x, x * np.uint8(50)])).save(p),
        "half transparent in places",
    ),
    "probabilities.tif": (
        lambda p, x: tifffile.imwrite(p, x.astype(np.float32) / 5),
        "fractional values",
    ),
    "stack of labels.tif": (
        lambda p, x: tifffile.imwrite(p, np.stack([x, x])),
        "page 1' holds 5 values",
    ),
    "a picture.png": (
        lambda p, x: Image.fromarray(
            np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
        ).save(p),
        "coloured",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_mask_is_refused(tmp_path, labels, kind):
    write, message = REFUSED[kind]
    write(tmp_path / kind, labels)
    with pytest.raises(InputError, match=message):
        ENCODERS["labels" if "stack" not in kind else "stack"](tmp_path / kind, **SIZE)


def test_an_inverted_mask_is_suspected(tmp_path, labels, run_script):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(COLOURS[labels]).save(tmp_path / "images" / "t.png")
    Image.fromarray(255 - binary(labels)).save(tmp_path / "masks" / "t.png")
    done = run_script(
        "datasets/prepare_masks.py",
        *("--images", tmp_path / "images", "--masks", tmp_path / "masks"),
        *("--output", tmp_path / "out", "--fractions", 1, 0, 0),
    )
    assert done.returncode == 0
    assert re.search(r"one instance covers \d\d% of the image. Is its mask inverted", done.stderr)
