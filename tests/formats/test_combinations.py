"""
Any combination of what a TIFF or PNG may be: equal to the reference or refused, never different.

By hand, for minutes, with new examples:
COMBINATIONS=5000 python -m pytest tests/formats/test_combinations.py --hypothesis-profile default
"""

import os
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from PIL import Image
from rotations import ROTATION_TAG, UPRIGHT_TO_STORED

from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.data.instance_masks import read_mask_pages
from steatosis_d2.errors import InputError
from steatosis_d2.slides.slide import open_slide

EXAMPLES = settings(
    max_examples=int(os.environ.get("COMBINATIONS", "150")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
UM_IN = {"µm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "in": 25_400.0}

TIFF = st.fixed_dictionaries(
    {
        "layout": st.sampled_from([{}, {"rowsperstrip": 16}, {"tile": (16, 48)}]),
        "bigtiff": st.booleans(),
        "byteorder": st.sampled_from("<>"),
        "codec": st.sampled_from([None, "zlib", "lzw", "zstd", "packbits", "lzma"]),
        "predictor": st.booleans(),
        "n_bits": st.sampled_from([8, 10, 12, 14, 16]),
        "samples": st.sampled_from([1, 2, 3, 4]),
        "in_planes": st.booleans(),
        "white_is_zero": st.booleans(),
        "orientation": st.sampled_from(sorted(UPRIGHT_TO_STORED)),
        "size_form": st.sampled_from(["none", "cm", "inch", *UM_IN]),
        "mpp": st.floats(0.06, 4.9),
    }
)


def draw_picture(height, width, samples):
    """A bright field that uses all values; with samples 2 and 4, a part of it is transparent."""
    rng = np.random.default_rng(height * width)
    blocks = rng.integers(120, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].copy()
    picture[0, 0], picture[0, 1] = 255, 0
    if samples < 3:
        picture[:] = picture[..., :1]
    alpha = np.full((height, width, 1), 255, np.uint8)
    if samples in (2, 4):
        alpha[height // 2 :, width // 3 :] = 0
    return picture, alpha


def as_stored(picture, alpha, *, samples, n_bits):
    """The samples of a file: colours, then alpha, in so many bits."""
    colours = picture if samples > 2 else picture[..., :1]
    stored = np.concatenate([colours, alpha], axis=2) if samples in (2, 4) else colours
    if n_bits == 8:
        return stored
    stored = stored.astype(np.uint16)
    return (stored << (n_bits - 8)) | (stored >> (16 - n_bits))


def write_tiff(path, stored, form):
    """The samples as a TIFF of this form."""
    samples = form["samples"]
    stored = UPRIGHT_TO_STORED[form["orientation"]](stored)
    options = {"photometric": "rgb" if samples > 2 else "minisblack"}
    if samples == 1:
        stored = stored[..., 0]
        if form["white_is_zero"]:
            options["photometric"] = "miniswhite"
            stored = (255 if form["n_bits"] == 8 else 65535) - stored
    elif form["in_planes"]:
        options["planarconfig"], stored = "separate", np.moveaxis(stored, -1, 0)
    else:
        options["planarconfig"] = "contig"
    if samples in (2, 4):
        options["extrasamples"] = ["unassalpha"]
    size_form, mpp = form["size_form"], form["mpp"]
    if size_form in ("cm", "inch"):
        per_um = 1 / mpp
        options["resolution"] = (per_um * UM_IN["in" if size_form == "inch" else "cm"],) * 2
        options["resolutionunit"] = "INCH" if size_form == "inch" else "CENTIMETER"
    is_ome = size_form in UM_IN and size_form != "cm"
    if is_ome:
        size = mpp / UM_IN[size_form]
        options["metadata"] = {
            f"PhysicalSize{axis}{unit}": value
            for axis in "XY"
            for unit, value in (("", size), ("Unit", size_form))
        }
    tifffile.imwrite(
        path,
        np.ascontiguousarray(stored),
        ome=is_ome,
        bigtiff=form["bigtiff"],
        byteorder=form["byteorder"],
        compression=form["codec"],
        predictor=form["predictor"] and form["codec"] in ("zlib", "lzw", "zstd"),
        extratags=[(ROTATION_TAG, "H", 1, form["orientation"], True)],
        **({} if is_ome else {"metadata": None}),
        **form["layout"],
        **options,
    )


@EXAMPLES
@given(form=TIFF, height=st.integers(20, 70), width=st.integers(20, 70))
def test_tiff(form, height, width):
    # White that is 0 in 16 bits says nothing of how many bits are used
    assume(not (form["white_is_zero"] and form["samples"] == 1 and form["n_bits"] in (10, 12, 14)))
    picture, alpha = draw_picture(height, width, form["samples"])
    expected = np.where(alpha > 0, picture, 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.ome.tif" if form["size_form"] in UM_IN else "a.tif")
        stored = as_stored(picture, alpha, samples=form["samples"], n_bits=form["n_bits"])
        try:
            write_tiff(path, stored, form)
        except (ValueError, NotImplementedError):
            assume(False)  # tifffile does not write it
        try:
            image = read_image_rgb(path)
            with open_slide(path) as slide:
                shown, mpp = slide.read_region(0, 0, slide.width, slide.height), slide.mpp
        except InputError as error:
            assert "a." in str(error)
            event(f"refused: {str(error).partition(' ')[2][:60]}")
            return
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(shown, expected)
    assert mpp == (None if form["size_form"] == "none" else pytest.approx(form["mpp"], rel=1e-3))


@EXAMPLES
@given(
    samples=st.sampled_from([1, 2, 3, 4]),
    n_bits=st.sampled_from([8, 10, 12, 14, 16]),
    height=st.integers(16, 70),
    width=st.integers(16, 70),
)
def test_png(samples, n_bits, height, width):
    picture, alpha = draw_picture(height, width, samples)
    expected = np.where(alpha > 0, picture, 255).astype(np.uint8)
    stored = as_stored(picture, alpha, samples=samples, n_bits=n_bits)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.png")
        planes = stored if samples > 1 else stored[..., 0]
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(planes)))
        np.testing.assert_array_equal(read_image_rgb(path), expected)


@EXAMPLES
@given(
    container=st.sampled_from(["png", "palette.png", "tif", "tiles.tif", "stack.tif", "ome.tif"]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int32, np.float32]),
    codec=st.sampled_from([None, "zlib", "lzw"]),
    n_instances=st.integers(0, 6),
    orientation=st.sampled_from(sorted(UPRIGHT_TO_STORED)),
    seed=st.integers(0, 5),
)
def test_masks(container, dtype, codec, n_instances, orientation, seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 56), dtype)
    for number in range(1, n_instances + 1):
        top, left = rng.integers(0, 30, 2)
        labels[top : top + 8, left : left + 9] = number
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.{container}")
        if container.endswith("png"):
            labels = labels.astype(np.uint8)
            mode = "P" if container == "palette.png" else None
            image = Image.fromarray(labels, mode=mode)
            if mode:
                image.putpalette([0, 0, 0, *rng.integers(1, 256, 3 * 255).tolist()])
            image.save(path)
        else:
            pages = labels
            if container == "stack.tif":
                numbers = [number for number in np.unique(labels) if number] or [1]
                pages = np.stack([(labels == number).astype(dtype) for number in numbers])
            turned = UPRIGHT_TO_STORED[orientation]
            stored = turned(pages) if pages.ndim == 2 else np.stack([turned(one) for one in pages])
            tifffile.imwrite(
                path,
                np.ascontiguousarray(stored),
                photometric="minisblack",
                compression=codec,
                tile=(16, 16) if container == "tiles.tif" else None,
                extratags=[(ROTATION_TAG, "H", 1, orientation, False)],
            )
        try:
            found = read_mask_pages(path)
        except InputError as error:
            event(f"refused: {str(error)[:60]}")
            return
    if container == "stack.tif":
        union = np.any([np.asarray(page) > 0 for page in found], axis=0)
        np.testing.assert_array_equal(union, labels > 0)
    else:
        [page] = found
        same = np.asarray(page) if page.ndim == 2 else None
        assert same is not None
        np.testing.assert_array_equal(same.astype(np.int64), labels.astype(np.int64))
