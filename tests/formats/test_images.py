"""Pictures in every form that their writers give them: equal to the reference, or refused."""

import itertools

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from rotations import ROTATION_TAG, UPRIGHT_TO_STORED

from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.errors import InputError
from steatosis_d2.slides.slide import open_slide

HEIGHT, WIDTH = 150, 170


@pytest.fixture(scope="module")
def picture():
    """A picture that looks like a bright field, whose values use all of the range."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(120, 256, (HEIGHT // 10, WIDTH // 10, 3), np.uint8)
    picture = blocks.repeat(10, axis=0).repeat(10, axis=1)
    picture[0, 0], picture[0, 1] = 255, 0
    return picture


def widen(picture, n_bits):
    """8 bits as a camera of more would store them, in 16."""
    stored = picture.astype(np.uint16)
    return (stored << (n_bits - 8)) | (stored >> (16 - n_bits))


def read_both(path, **settings):
    """As training reads it, and as a slide, which must be the same."""
    image = read_image_rgb(path, **settings)
    with open_slide(path, **settings) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, slide.width, slide.height), image)
    return image


LAYOUTS = {
    "strips": {"rowsperstrip": 16},
    "one strip": {},
    "tiles": {"tile": (64, 64)},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
}
CODECS = [None, "zlib", "lzw", "zstd", "packbits", "lzma", "png", "lerc", "jpegxl"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("samples", [1, 3])
def test_every_number_of_bits_in_every_layout(tmp_path, picture, layout, n_bits, samples):
    stored = picture if n_bits == 8 else widen(picture, n_bits)
    expected = picture
    if samples == 1:
        stored, expected = stored[..., 0], np.repeat(picture[..., :1], 3, axis=2)
    path = tmp_path / "a.tif"
    photometric = "rgb" if samples == 3 else "minisblack"
    tifffile.imwrite(path, stored, photometric=photometric, metadata=None, **LAYOUTS[layout])
    np.testing.assert_array_equal(read_both(path), expected)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", ["strips", "tiles"])
@pytest.mark.parametrize("n_bits", [8, 12])
def test_every_lossless_compression(tmp_path, picture, codec, layout, n_bits):
    stored = picture if n_bits == 8 else widen(picture, n_bits)
    path = tmp_path / "a.tif"
    arguments = {"compressionargs": {"level": 0}} if codec == "lerc" else {}
    if codec == "jpegxl":
        arguments = {"compressionargs": {"lossless": True}}
    try:
        tifffile.imwrite(
            path, stored, photometric="rgb", compression=codec, **arguments, **LAYOUTS[layout]
        )
    except (ValueError, imagecodecs.DelayedImportError, RuntimeError) as error:
        pytest.skip(f"tifffile does not write it: {error}")
    np.testing.assert_array_equal(read_both(path), picture)


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "webp"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_lossy_compressions_keep_the_colours(tmp_path, codec, layout):
    flat = np.full((128, 128, 3), (200, 120, 170), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, flat, photometric="rgb", compression=codec, **LAYOUTS[layout])
    assert np.abs(read_both(path).astype(int) - flat).max() <= 3


def test_a_codec_that_is_not_known_is_named(tmp_path, picture):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(34676)  # SGI LogLuv
    with pytest.raises(InputError, match="SGILOG"):
        read_both(path)


@pytest.mark.parametrize("n_bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits(tmp_path, picture, n_bits, channels):
    stored = widen(picture, n_bits) if n_bits > 8 else picture.astype(np.uint16) * 257
    alpha = np.full((HEIGHT, WIDTH, 1), 65535, np.uint16)
    colours = stored if channels > 2 else stored[..., :1]
    planes = colours if channels in (1, 3) else np.concatenate([colours, alpha], axis=2)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(planes.squeeze())))
    expected = picture if channels > 2 else np.repeat(picture[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_both(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("samples", ["grey", "rgb", "planes", "1 bit", "palette"])
def test_white_may_be_zero_and_colours_may_lie_in_planes(tmp_path, picture, samples):
    path, expected = tmp_path / "a.tif", picture
    if samples == "grey":
        tifffile.imwrite(path, 255 - picture[..., 0], photometric="miniswhite")
        expected = np.repeat(picture[..., :1], 3, axis=2)
    elif samples == "rgb":
        tifffile.imwrite(path, picture, photometric="rgb")
    elif samples == "planes":
        stored = np.moveaxis(picture, -1, 0)
        tifffile.imwrite(path, stored, photometric="rgb", planarconfig="separate")
    elif samples == "1 bit":
        bright = picture[..., 0] > 180
        tifffile.imwrite(path, bright, photometric="minisblack")
        expected = np.repeat(bright[..., None], 3, axis=2) * np.uint8(255)
    else:
        quantized = Image.fromarray(picture).quantize(40)
        quantized.save(path)
        expected = np.asarray(quantized.convert("RGB"))
    np.testing.assert_array_equal(read_both(path), expected)


@pytest.mark.parametrize("orientation", UPRIGHT_TO_STORED)
@pytest.mark.parametrize("kind", ["tif", "tiles.tif", "16.tif", "png", "16.png"])
def test_rotation_tags_are_applied(tmp_path, picture, orientation, kind):
    path = tmp_path / f"a.{kind}"
    stored = np.ascontiguousarray(UPRIGHT_TO_STORED[orientation](picture))
    if kind.endswith("tif"):
        stored = widen(stored, 12) if kind == "16.tif" else stored
        tile = (64, 64) if kind == "tiles.tif" else None
        tag = [(ROTATION_TAG, "H", 1, orientation, True)]
        tifffile.imwrite(path, stored, photometric="rgb", tile=tile, metadata=None, extratags=tag)
    else:
        exif = Image.Exif()
        exif[ROTATION_TAG] = orientation
        Image.fromarray(stored).save(path, exif=exif)
    np.testing.assert_array_equal(read_both(path), picture)


# --- transparency ---


def transparent_right_half(picture):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, : WIDTH // 2] = 255
    rgba = np.dstack([picture, alpha])
    rgba[alpha == 0, :3] = (90, 20, 60)  # what lies under transparency is nobody's business
    expected = picture.copy()
    expected[:, WIDTH // 2 :] = 255
    return rgba, expected


@pytest.mark.parametrize(
    "kind", ["png", "webp", "tif", "tiles.tif", "premultiplied.tif", "ome.tif", "12.tif"]
)
def test_what_is_transparent_is_white(tmp_path, picture, kind):
    rgba, expected = transparent_right_half(picture)
    path = tmp_path / f"a.{kind}"
    if kind in ("png", "webp"):
        Image.fromarray(rgba).save(
            path, **({"lossless": True, "exact": True} if "w" in kind else {})
        )
    else:
        extra = "unassalpha"
        if kind == "premultiplied.tif":
            extra, rgba = "assocalpha", rgba * (rgba[..., 3:] > 0)
        if kind == "12.tif":
            rgba = widen(rgba, 12)
        tile = (64, 64) if kind in ("tiles.tif", "ome.tif") else None
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=[extra], tile=tile)
    np.testing.assert_array_equal(read_both(path), expected)


def test_half_transparent_px_are_blended(tmp_path):
    Image.new("RGBA", (4, 4), (100, 0, 200, 51)).save(tmp_path / "a.png")
    assert np.abs(read_both(tmp_path / "a.png").astype(int) - (224, 204, 244)).max() <= 1


def test_a_transparent_colour_of_a_palette_is_white(tmp_path, picture):
    image = Image.fromarray(picture[..., 0] // 64, mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 200, 210, 220])
    image.save(tmp_path / "a.png", transparency=3)
    shown = read_both(tmp_path / "a.png")
    assert (shown[picture[..., 0] >= 192] == 255).all()
    assert (shown[picture[..., 0] < 64] == (10, 20, 30)).all()


# --- several pages ---


def write_pages(path, *pages, **settings):
    with tifffile.TiffWriter(path) as tiff:
        for page in pages:
            tiff.write(page, photometric="rgb", metadata=None, **settings)


def test_thumbnails_and_labels_are_passed_over_wherever_they_lie(tmp_path, picture):
    small, label = np.full((40, 50, 3), 9, np.uint8), np.full((60, 30, 3), 7, np.uint8)
    for number, pages in enumerate(itertools.permutations([small, label, picture])):
        for tile in (None, (16, 16)):
            path = tmp_path / f"{number}_{tile is None}.tif"
            write_pages(path, *pages, tile=tile)
            np.testing.assert_array_equal(read_both(path), picture)


def test_resolutions_without_a_word_of_a_pyramid(tmp_path, picture):
    for tile in (None, (16, 16)):
        path = tmp_path / "a.tif"
        write_pages(path, picture[::4, ::4], picture, picture[::2, ::2], tile=tile)
        np.testing.assert_array_equal(read_both(path), picture)


def test_pages_of_one_size_are_refused_unless_one_is_chosen(tmp_path, picture):
    path = tmp_path / "a.tif"
    write_pages(path, np.full_like(picture, 243), picture, picture[::-1])
    with pytest.raises(InputError, match=r"holds 3 pictures of like size.*--page"):
        read_both(path)
    np.testing.assert_array_equal(read_both(path, page=2), picture)
    np.testing.assert_array_equal(read_both(path, page=3), picture[::-1])
    with pytest.raises(InputError, match=r"has no page 4; expected one of 1, 2, 3"):
        read_both(path, page=4)


def test_the_picture_is_told_from_a_mask_beside_it(tmp_path, picture):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture[..., 0] > 200, metadata=None)
        tiff.write(picture, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(read_both(path), picture)


def lut(*colour):
    return np.outer(colour, np.arange(256)).astype(np.uint8)


RED_GREEN_BLUE = [lut(1, 0, 0), lut(0, 1, 0), lut(0, 0, 1)]


def test_fijis_composite_of_red_green_and_blue_is_a_picture(tmp_path, picture):
    path = tmp_path / "a.tif"
    settings = {"axes": "CYX", "mode": "composite", "LUTs": RED_GREEN_BLUE}
    tifffile.imwrite(path, np.moveaxis(picture, -1, 0), imagej=True, metadata=settings)
    np.testing.assert_array_equal(read_both(path), picture)


@pytest.mark.parametrize(
    "settings",
    [
        {"axes": "CYX", "mode": "composite", "LUTs": RED_GREEN_BLUE[::-1]},
        {"axes": "ZYX"},
        {"axes": "TYX"},
    ],
)
def test_stacks_and_fluorescence_are_refused(tmp_path, picture, settings):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.moveaxis(picture, -1, 0), imagej=True, metadata=settings)
    with pytest.raises(InputError, match="holds 3 pictures of like size"):
        read_both(path)


@pytest.mark.parametrize("axes", ["ZYX", "CYX"])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_any_page_of_a_stack_may_be_chosen(tmp_path, picture, axes, kind):
    path, stack = tmp_path / "a.tif", np.stack([picture[..., 0], picture[..., 1]])
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": axes}, **{kind: True})
    for page in (1, 2):
        grey = np.repeat(stack[page - 1, ..., None], 3, axis=2)
        np.testing.assert_array_equal(read_both(path, page=page), grey)


@pytest.mark.parametrize("axes", ["YXS", "CYX", "SYX"])
def test_omes_channels_may_come_first(tmp_path, picture, axes):
    stored = picture if axes == "YXS" else np.moveaxis(picture, -1, 0)
    photometric = "minisblack" if axes == "CYX" else "rgb"
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, stored, photometric=photometric, metadata={"axes": axes})
    np.testing.assert_array_equal(read_both(path), picture)


def test_an_animation_is_refused(tmp_path, picture):
    images = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True)
    with pytest.raises(InputError, match=r"a\.webp' is an animation"):
        read_both(tmp_path / "a.webp")
