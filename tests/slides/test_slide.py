"""Slides and images are read alike, whatever their format; what is wrong with them is said."""

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from steatosis_d2.errors import InputError
from steatosis_d2.slides.pyramid_writer import write_pyramid
from steatosis_d2.slides.slide import ArraySlide, open_slide

CENTIMETER, INCH, NO_UNIT = 3, 2, 1


@pytest.fixture(scope="session")
def svs(shared_data):
    return shared_data / "slides" / "CMU-1-Small-Region.svs"


def read_whole(path, **settings):
    with open_slide(path, **settings) as slide:
        return slide.read_region(0, 0, slide.width, slide.height)


def write_tiff(path, pixels, **settings):
    tifffile.imwrite(path, pixels, **settings)
    return path


def ome_metadata(size, unit="µm", axes="YXS"):
    return {
        "axes": axes,
        **{f"PhysicalSize{axis}": size for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": unit for axis in "XY"},
    }


# --- windows ---


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tif"])
def test_plain_images_are_read_losslessly(tmp_path, picture, suffix):
    path = tmp_path / f"tile.{suffix}"
    Image.fromarray(picture).save(path, **({"lossless": True} if suffix == "webp" else {}))
    with open_slide(path) as slide:
        assert (slide.width, slide.height, slide.mpp) == (400, 300, None)
        assert np.array_equal(slide.read_region(0, 0, 400, 300), picture)


def test_an_image_of_one_px_is_a_slide(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "one.png")
    with open_slide(tmp_path / "one.png") as slide:
        assert slide.read_region(0, 0, 1, 1).tolist() == [[[1, 2, 3]]]
        assert slide.thumbnail(2048).shape == (1, 1, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
@pytest.mark.parametrize("tile", [None, (128, 128)])
def test_tiffs_of_every_mode_become_rgb(tmp_path, mode, tile):
    """Flat red, in strips (read by Pillow) and in tiles (read by OpenSlide)."""
    pixels = np.asarray(Image.new("RGB", (256, 256), (255, 0, 0)).convert(mode))
    palette = np.zeros((3, 256), np.uint16)
    palette[:, pixels.flat[0] if mode == "P" else 0] = 65535, 0, 0
    settings = {
        "L": {"photometric": "minisblack"},
        "RGBA": {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        "CMYK": {"photometric": "separated"},
        "P": {"photometric": "palette", "colormap": palette},
    }[mode]
    path = write_tiff(tmp_path / "slide.tif", pixels, tile=tile, metadata=None, **settings)
    expected = (76, 76, 76) if mode == "L" else (255, 0, 0)
    assert np.abs(read_whole(path) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("suffix", ["tif", "ome.tif"])
@pytest.mark.parametrize("tile", [None, (128, 128)])
def test_16_bits_are_scaled_to_8(tmp_path, picture, suffix, tile):
    path = tmp_path / f"slide.{suffix}"
    write_tiff(path, picture.astype(np.uint16) * 257, tile=tile, photometric="rgb")
    assert np.array_equal(read_whole(path), picture)


@pytest.mark.parametrize("suffix", ["tif", "ome.tif"])
@pytest.mark.parametrize("tile", [None, (128, 128)])
def test_12_bits_keep_their_contrast(tmp_path, picture, suffix, tile):
    """Grey values of a 12-bit camera, as a plain image and as what is read tile by tile."""
    grey, path = picture[..., 0], tmp_path / f"slide.{suffix}"
    write_tiff(path, grey.astype(np.uint16) * 16, tile=tile, photometric="minisblack")
    assert np.array_equal(read_whole(path), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("jpeg_quality", [None, 95])
def test_a_pyramid_is_read_by_openslide_with_its_pixel_size(tmp_path, jpeg_quality):
    smooth = np.linspace(100, 200, 3000).astype(np.uint8)
    picture = np.broadcast_to(smooth[None, :, None], (2100, 3000, 3)).copy()
    path = tmp_path / "slide.tif"
    write_pyramid(path, ArraySlide(picture, mpp=0.25), jpeg_quality=jpeg_quality)
    assert openslide.OpenSlide.detect_format(path) == "generic-tiff"
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.25)
        sizes = [(level.width, level.height) for level in slide.levels]
        assert sizes == [(3000, 2100), (750, 525)]
        largest_error = 0 if jpeg_quality is None else 3
        window = slide.read_region(500, 100, 700, 300).astype(int)
        assert np.abs(window - picture[100:400, 500:1200]).max() <= largest_error
        thumbnail = slide.thumbnail(100).astype(int)
        assert np.abs(thumbnail - picture[15::30, 15::30]).max() <= 3


OME_KINDS = {
    "tiles": {"tile": (64, 128)},
    "strips": {"rowsperstrip": 7},
    "deflate": {"tile": (64, 64), "compression": "zlib", "predictor": True},
    "lzw": {"tile": (64, 64), "compression": "lzw"},
    "planes": {"tile": (64, 64), "planarconfig": "separate"},
}


@pytest.mark.parametrize("kind", OME_KINDS)
def test_ome_tiffs_are_read_piece_by_piece(tmp_path, picture, kind):
    is_planar = kind == "planes"
    path = write_tiff(
        tmp_path / "slide.ome.tif",
        np.moveaxis(picture, -1, 0) if is_planar else picture,
        photometric="rgb",
        metadata=ome_metadata(0.25, axes="CYX" if is_planar else "YXS"),
        **OME_KINDS[kind],
    )
    with open_slide(path) as slide:
        assert slide.mpp == 0.25
        assert np.array_equal(slide.read_region(70, 30, 200, 250), picture[30:280, 70:270])


def test_jpeg_in_ome_tiffs_has_its_colours(tmp_path):
    flat = np.full((128, 128, 3), (200, 120, 170), np.uint8)
    path = tmp_path / "slide.ome.tif"
    write_tiff(path, flat, photometric="rgb", tile=(64, 64), compression="jpeg")
    assert np.abs(read_whole(path).astype(int) - flat).max() <= 2


def test_grey_ome_tiffs_become_rgb(tmp_path, picture):
    path = write_tiff(tmp_path / "slide.ome.tif", picture[..., 0], tile=(64, 64))
    assert np.array_equal(read_whole(path), np.repeat(picture[..., :1], 3, axis=2))


def test_the_pyramid_of_an_ome_tiff_is_used(tmp_path, picture):
    path = tmp_path / "slide.ome.tif"
    settings = {"photometric": "rgb", "tile": (64, 64)}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(picture, subifds=1, metadata=ome_metadata(0.5), **settings)
        writer.write(np.zeros_like(picture[::4, ::4]), subfiletype=1, **settings)
    with open_slide(path) as slide:
        assert [level.width for level in slide.levels] == [400, 100]
        assert not slide.thumbnail(100).any()


def test_tiles_left_out_of_a_tiff_are_white(tmp_path, picture):
    path = write_tiff(tmp_path / "slide.ome.tif", picture, tile=(64, 64), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite((0, *counts.value[1:]))
    with open_slide(path) as slide:
        assert (slide.read_region(0, 0, 64, 64) == 255).all()
        assert np.array_equal(slide.read_region(64, 0, 64, 64), picture[:64, 64:128])


def test_stacks_of_channels_are_refused(tmp_path, picture):
    stack = np.stack([picture[..., 0]] * 4)
    path = write_tiff(tmp_path / "cells.ome.tif", stack, tile=(64, 64), photometric="minisblack")
    with pytest.raises(InputError, match=r"cells\.ome\.tif' holds 4 pictures of like size.*--page"):
        open_slide(path)


@pytest.mark.parametrize("tile", [None, (128, 128)])
def test_other_numbers_than_8_or_16_bits_are_refused(tmp_path, tile):
    path = write_tiff(tmp_path / "real.tif", np.zeros((256, 256), np.float32), tile=tile)
    with pytest.raises(InputError, match=r"real\.tif.*float32.*8 or 16 bits"):
        open_slide(path)


def test_large_images_that_are_no_tiff_name_the_cure(tmp_path, monkeypatch, picture):
    path = tmp_path / "huge.png"
    Image.fromarray(picture).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"huge\.png.*too large.*tiled TIFF"):
        open_slide(path)


def test_a_transparent_region_is_white(monkeypatch, tmp_path, picture):
    """Scanners leave out what holds no tissue; OpenSlide gives it as transparent black."""
    path = write_tiff(
        tmp_path / "slide.tif", picture, tile=(64, 64), photometric="rgb", compression="zlib"
    )
    rgba = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (200, 120, 170, 255))
    monkeypatch.setattr(openslide.OpenSlide, "read_region", lambda *_: rgba)
    with open_slide(path) as slide:
        assert slide.read_region(0, 0, 2, 1).tolist() == [[[255, 255, 255], [200, 120, 170]]]


def test_the_scanned_rectangle_is_the_slide(monkeypatch, tmp_path, picture):
    """MRXS slides lie on a canvas many times their size; QuPath's coordinates leave it out."""
    path = write_tiff(
        tmp_path / "slide.tif", picture, tile=(64, 64), photometric="rgb", compression="zlib"
    )
    bounds = {"x": "30", "y": "40", "width": "200", "height": "100"}
    properties = {f"openslide.bounds-{name}": value for name, value in bounds.items()}
    monkeypatch.setattr(openslide.OpenSlide, "properties", properties)
    with open_slide(path) as slide:
        assert (slide.width, slide.height) == (200, 100)
        assert np.array_equal(slide.read_region(5, 7, 50, 60), picture[47:107, 35:85])


# --- pixel size ---


@pytest.mark.parametrize(
    ("per_unit", "unit", "mpp"),
    [
        (40_000, CENTIMETER, 0.25),
        (50_800, INCH, 0.5),
        (72, INCH, None),
        (96, INCH, None),
        (300, INCH, None),
        (40_000, NO_UNIT, None),
    ],
)
@pytest.mark.parametrize("tile", [None, (128, 128)])
def test_resolution_tags_count_where_a_microscope_may_have_set_them(
    tmp_path, per_unit, unit, mpp, tile
):
    path = write_tiff(
        tmp_path / "slide.tif",
        np.zeros((256, 256, 3), np.uint8),
        tile=tile,
        photometric="rgb",
        metadata=None,
        resolution=(per_unit, per_unit),
        resolutionunit=unit,
    )
    with open_slide(path) as slide:
        assert slide.mpp == (mpp if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(
    ("unit", "mpp"), [("µm", 0.5), ("nm", None), ("pixel", None), ("mm", None)]
)
def test_omes_physical_size_has_its_unit(tmp_path, picture, unit, mpp):
    path = tmp_path / "slide.ome.tif"
    write_tiff(path, picture, photometric="rgb", metadata=ome_metadata(0.5, unit))
    with open_slide(path) as slide:
        assert slide.mpp == mpp


def test_dots_per_inch_of_a_png_are_no_pixel_size(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "tile.png", dpi=(50_800, 50_800))
    with open_slide(tmp_path / "tile.png") as slide:
        assert slide.mpp is None


def test_the_given_pixel_size_wins_and_a_disagreement_is_said(tmp_path, picture, caplog):
    path = tmp_path / "slide.ome.tif"
    write_tiff(path, picture, photometric="rgb", metadata=ome_metadata(0.5))
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25
    assert "slide.ome.tif': the given 0.25 um/px are used, although the file states 0.5" in (
        caplog.text
    )


def test_a_given_pixel_size_within_a_tenth_is_no_disagreement(tmp_path, picture, caplog):
    path = tmp_path / "slide.ome.tif"
    write_tiff(path, picture, photometric="rgb", metadata=ome_metadata(0.5))
    caplog.set_level(logging.WARNING)
    with open_slide(path, mpp=0.52) as slide:
        assert slide.mpp == 0.52
    assert not caplog.records


@pytest.mark.parametrize("mpp", [0, -0.25, float("nan"), float("inf"), 0.04, 5.1, 40])
def test_a_given_pixel_size_must_be_one(tmp_path, picture, mpp):
    Image.fromarray(picture).save(tmp_path / "tile.png")
    with pytest.raises(InputError, match=r"tile\.png.*expected um/px, a number from 0\.05 to 5"):
        open_slide(tmp_path / "tile.png", mpp=mpp)


@pytest.fixture
def oblong_px(tmp_path, picture):
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.52}
    path = tmp_path / "oblong.ome.tif"
    return write_tiff(path, picture, photometric="rgb", metadata={"axes": "YXS", **sizes})


def test_px_that_are_not_square_are_refused(oblong_px):
    with pytest.raises(InputError, match=r"oblong\.ome\.tif' has px of 0\.5 x 0\.52 um"):
        open_slide(oblong_px)


def test_a_given_pixel_size_mends_px_that_are_not_square(oblong_px):
    with open_slide(oblong_px, mpp=0.51) as slide:
        assert slide.mpp == 0.51


# --- threads and processes ---


@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif"])
def test_threads_read_the_same_px_as_one(tmp_path, picture, name):
    path = tmp_path / name
    write_tiff(path, picture, tile=(64, 64), photometric="rgb", compression="zlib")
    corners = [(x, y) for x in range(0, 350, 30) for y in range(0, 250, 30)]
    with open_slide(path) as slide, ThreadPoolExecutor(4) as pool:
        windows = pool.map(lambda corner: slide.read_region(*corner, 50, 50), corners)
        for (x, y), window in zip(corners, windows, strict=True):
            assert np.array_equal(window, picture[y : y + 50, x : x + 50])


@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif", "tile.png"])
def test_a_slide_pickles_with_the_pixel_size_it_was_given(tmp_path, picture, name):
    Image.fromarray(picture).save(tmp_path / "tile.png")
    if name != "tile.png":
        write_tiff(tmp_path / name, picture, tile=(64, 64), photometric="rgb")
    with open_slide(tmp_path / name, mpp=0.3) as slide:
        copy = pickle.loads(pickle.dumps(slide))
    with copy:
        assert copy.mpp == 0.3
        assert np.array_equal(copy.read_region(0, 0, 400, 300), picture)


# --- faults ---


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.svs' does not exist"):
        open_slide(tmp_path / "gone.svs")


def test_a_folder_is_no_slide(tmp_path):
    with pytest.raises(InputError, match="is a folder; expected a file"):
        open_slide(tmp_path)


@pytest.mark.parametrize("content", [b"", b"just some text", b"\0" * 5000])
def test_what_is_no_slide_is_named(tmp_path, content):
    (tmp_path / "text.svs").write_bytes(content)
    with pytest.raises(InputError, match=r"text\.svs' is no slide that OpenSlide knows"):
        open_slide(tmp_path / "text.svs")


@pytest.mark.parametrize("xml", ["<OME broken <OME>", "<OME><Image></Image></OME>"])
def test_damaged_ome_metadata_are_named(tmp_path, picture, xml):
    path = tmp_path / "slide.ome.tif"
    write_tiff(path, picture, description=f'<?xml version="1.0"?>{xml}', metadata=None)
    with pytest.raises(InputError, match=r"slide\.ome\.tif.*OME metadata are damaged"):
        open_slide(path)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif"])
def test_a_tiff_that_was_cut_short_is_an_error(tmp_path, picture, name, share):
    path = write_tiff(tmp_path / name, picture, tile=(64, 64), photometric="rgb")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=name):
        read_whole(path)


@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif"])
def test_a_damaged_tile_is_named_with_its_place(tmp_path, picture, name):
    path = write_tiff(
        tmp_path / name, picture, tile=(64, 64), photometric="rgb", compression="zlib"
    )
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[8]  # second row of tiles, second column
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 500)
    with open_slide(path) as slide:
        assert np.array_equal(slide.read_region(0, 0, 64, 64), picture[:64, :64])
        with pytest.raises(InputError, match=rf"{name}' cannot be read at x 70, y 65"):
            slide.read_region(70, 65, 20, 20)


# --- a real slide ---


def test_a_real_aperio_slide_is_read(svs):
    with open_slide(svs) as slide:
        assert (slide.width, slide.height) == (2220, 2967)
        assert slide.mpp == pytest.approx(0.499)
        mean_rgb = slide.thumbnail(500).mean(axis=(0, 1))
    assert mean_rgb[0] > mean_rgb[2] > mean_rgb[1]  # pink


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.3, 0.65, 0.9])
def test_a_real_slide_that_was_cut_short_is_an_error(svs, tmp_path, share):
    """At nine tenths all px are there, but the pixel size and what follows are not."""
    content = svs.read_bytes()
    (tmp_path / "cut.svs").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut\.svs"):
        read_whole(tmp_path / "cut.svs")


def test_a_pyramid_of_real_tissue_is_as_its_tiles(shared_data, tmp_path):
    [tile] = sorted((shared_data / "guo2019_liver").glob("*/image/*.png"))[:1]
    with open_slide(tile, mpp=0.25) as slide:
        image_rgb = slide.read_region(0, 0, slide.width, slide.height)
        write_pyramid(tmp_path / "guo.tif", slide)
    with open_slide(tmp_path / "guo.tif") as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert np.array_equal(slide.read_region(0, 0, slide.width, slide.height), image_rgb)
