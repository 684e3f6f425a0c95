import numpy as np
import pytest
import tifffile
from PIL import Image

from steatosis_d2.data.images import list_images, list_inputs, read_image_rgb
from steatosis_d2.errors import InputError

COLOUR = (200, 100, 50)


def filled(*values, dtype=np.uint8):
    return np.full((3, 4, len(values)), values, dtype).squeeze()


@pytest.mark.parametrize(
    "pixels, expected",
    [
        (filled(*COLOUR), COLOUR),
        (filled(*COLOUR, 0), COLOUR),
        (filled(77), (77, 77, 77)),
        (filled(77, 0), (77, 77, 77)),
        (filled(65535, dtype=np.uint16), (255, 255, 255)),
        (filled(257 * 77, dtype=np.uint16), (77, 77, 77)),
        (filled(1).astype(bool), (255, 255, 255)),
    ],
    ids=["RGB", "transparent RGBA", "grey", "grey with alpha", "16-bit white", "16-bit", "1-bit"],
)
def test_modes_of_png(tmp_path, pixels, expected):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image_rgb = read_image_rgb(tmp_path / "a.png")
    assert (image_rgb.dtype, image_rgb.shape) == (np.uint8, (3, 4, 3))
    assert (image_rgb == expected).all()


def test_palette_is_looked_up(tmp_path):
    Image.fromarray(filled(*COLOUR)).quantize(4).save(tmp_path / "a.png")
    assert (read_image_rgb(tmp_path / "a.png") == COLOUR).all()


def test_16_bit_rgb_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", filled(65535, 257, 0, dtype=np.uint16))
    assert (read_image_rgb(tmp_path / "a.tif") == (255, 1, 0)).all()


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    Image.fromarray(filled(*COLOUR)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image_rgb(tmp_path / "a.jpg").shape == (4, 3, 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_12_bits_in_a_16_bit_file_keep_their_contrast(tmp_path, suffix):
    stored = np.array([[0, 16, 1600, 4095]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored)
    Image.fromarray(stored).save(tmp_path / "a.png")
    assert read_image_rgb(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 1, 100, 255]


def test_path_as_text(tmp_path):
    Image.fromarray(filled(*COLOUR)).save(tmp_path / "a.png")
    assert (read_image_rgb(str(tmp_path / "a.png")) == COLOUR).all()


def test_missing_image(tmp_path):
    with pytest.raises(InputError, match=r"image '.*a\.png' does not exist"):
        read_image_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_image(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=rf"image '.*a\{suffix}' cannot be read"):
        read_image_rgb(path)


def test_damage_that_breaks_the_tiff_reader_itself(tmp_path):
    """A TIFF cut within its header made tifffile raise struct.error, shown as a traceback."""
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"a\.tif' cannot be read"):
        read_image_rgb(tmp_path / "a.tif")


def test_seven_channels_are_an_error(tmp_path):
    pixels = np.zeros((20, 30, 7), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"a\.tif' has 7 channels; expected grey or RGB"):
        read_image_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("value, dtype", [(0.5, np.float32), (70000, np.int32)])
def test_32_bit_image_is_an_error(tmp_path, value, dtype):
    """They were clipped or wrapped around, without a word."""
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 4), value, dtype))
    with pytest.raises(InputError, match=rf"holds {np.dtype(dtype)} values .* expected 8 or 16"):
        read_image_rgb(tmp_path / "a.tif")


def test_12_bit_image_with_small_values_is_scaled_like_any_other(tmp_path):
    """One with no value above 255 was left unscaled, so neighbours of one slide differed."""
    Image.fromarray(filled(255, dtype=np.uint16)).save(tmp_path / "a.png")
    assert (read_image_rgb(tmp_path / "a.png") == 255 >> 4).all()


def test_listing_is_sorted_and_skips_hidden_and_other_files(tmp_path):
    for name in ("b.PNG", "a.tif", "._b.PNG", "notes.txt", "c.jpeg"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(str(tmp_path))] == ["a.tif", "b.PNG", "c.jpeg"]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_of_folders_are_named_within_them(tmp_path):
    for name in ("b.png", "a.tif", "notes.txt", ".hidden.png"):
        touch(tmp_path / "tiles" / name)
    files, faults = list_inputs([tmp_path / "tiles"])
    assert list(files) == ["a.tif", "b.png"]
    assert faults == []


def test_same_names_in_two_folders_are_told_apart(tmp_path):
    paths = [touch(tmp_path / case / "1.png") for case in ("a", "b")]
    files, _ = list_inputs([tmp_path / "a", tmp_path / "b"])
    assert files == {"a/1.png": paths[0], "b/1.png": paths[1]}


def test_file_given_twice_is_listed_once(tmp_path):
    path = touch(tmp_path / "1.png")
    files, _ = list_inputs([path, tmp_path, str(path)])
    assert list(files) == ["1.png"]


def test_folder_without_images_is_a_fault(tmp_path):
    files, [fault] = list_inputs([tmp_path])
    assert files == {}
    assert str(tmp_path) in fault


def test_other_kinds_of_files_are_listed_on_demand(tmp_path):
    for name in ("a.png", "b.svs"):
        touch(tmp_path / name)
    files, _ = list_inputs([tmp_path], suffixes={".svs"})
    assert list(files) == ["b.svs"]
