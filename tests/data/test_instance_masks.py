import numpy as np
import pytest
import tifffile
from PIL import Image

from steatosis_d2.data.instance_masks import (
    detect_layout,
    encode_binary_file,
    encode_label_file,
    encode_mask_folder,
    read_mask,
)
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import decode_mask

SHAPE = {"height": 12, "width": 16}


@pytest.fixture
def blank():
    return np.zeros((12, 16), np.uint8)


def save(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def areas(codes):
    return [int(decode_mask(rle).sum()) for rle in codes]


def rectangle(mask, rows, columns, value=255):
    drawn = mask.copy()
    drawn[rows, columns] = value
    return drawn


# ---- one file an instance


def test_folder_gives_one_instance_for_each_file(tmp_path, blank):
    save(tmp_path / "m" / "a.png", rectangle(blank, slice(0, 3), slice(0, 4)))
    save(tmp_path / "m" / "b.png", rectangle(blank, slice(5, 7), slice(5, 8), value=1))
    codes = encode_mask_folder(tmp_path / "m", **SHAPE)
    assert areas(codes) == [12, 6]
    assert decode_mask(codes[1])[5:7, 5:8].all()


def test_folder_keeps_overlaps(tmp_path, blank):
    save(tmp_path / "m" / "a.png", rectangle(blank, slice(0, 4), slice(0, 4)))
    save(tmp_path / "m" / "b.png", rectangle(blank, slice(2, 6), slice(2, 6)))
    assert areas(encode_mask_folder(tmp_path / "m", **SHAPE)) == [16, 16]


def test_folder_drops_zero_files_and_counts_them(tmp_path, blank, caplog):
    save(tmp_path / "m" / "a.png", rectangle(blank, slice(0, 3), slice(0, 4)))
    save(tmp_path / "m" / "b.png", blank)
    assert areas(encode_mask_folder(tmp_path / "m", **SHAPE)) == [12]
    assert "1 of 2 mask files" in caplog.text


def test_folder_with_one_zero_file_is_an_image_without_instances(tmp_path, blank, caplog):
    save(tmp_path / "m" / "0.png", blank)
    assert encode_mask_folder(tmp_path / "m", **SHAPE) == []
    assert not caplog.text


def test_empty_folder_is_an_image_without_instances_and_said_so(tmp_path, caplog):
    (tmp_path / "m").mkdir()
    assert encode_mask_folder(tmp_path / "m", **SHAPE) == []
    assert "is empty" in caplog.text


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"absent' does not exist"):
        encode_mask_folder(tmp_path / "absent", **SHAPE)


def test_folder_skips_hidden_and_other_files(tmp_path, blank):
    save(tmp_path / "m" / "a.png", rectangle(blank, slice(0, 3), slice(0, 4)))
    (tmp_path / "m" / "._a.png").write_bytes(b"shadow copy of a Mac")
    (tmp_path / "m" / "Thumbs.db").write_bytes(b"")
    assert areas(encode_mask_folder(tmp_path / "m", **SHAPE)) == [12]


def test_smoothed_mask_is_an_error(tmp_path, blank):
    soft = rectangle(blank, slice(0, 3), slice(0, 4))
    soft[3, :4] = 120
    save(tmp_path / "m" / "soft.png", soft)
    with pytest.raises(InputError, match=r"soft\.png' holds 3 values"):
        encode_mask_folder(tmp_path / "m", **SHAPE)


# ---- label images


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.float32])
def test_label_types(tmp_path, dtype):
    labels = np.zeros((12, 16), dtype)
    labels[0:2, 0:2] = 1
    labels[5:8, 5:9] = 200 if dtype == np.uint8 else 40000
    tifffile.imwrite(tmp_path / "a.tif", labels)
    assert areas(encode_label_file(tmp_path / "a.tif", **SHAPE)) == [4, 12]


def test_16_bit_png_labels_are_not_scaled(tmp_path):
    labels = np.zeros((12, 16), np.uint16)
    labels[0, 0], labels[0, 1], labels[11, 15] = 1, 2, 300
    save(tmp_path / "a.png", labels)
    assert areas(encode_label_file(tmp_path / "a.png", **SHAPE)) == [1, 1, 1]


def test_palette_labels_are_the_indices(tmp_path, blank):
    image = Image.fromarray(rectangle(blank, slice(0, 2), slice(0, 2), value=7), mode="P")
    image.putpalette([255, 255, 255] * 256)
    image.save(tmp_path / "a.png")
    assert set(np.unique(read_mask(tmp_path / "a.png"))) == {0, 7}


def test_touching_labels_stay_apart(tmp_path, blank):
    labels = rectangle(blank, slice(0, 4), slice(0, 4), value=1)
    save(tmp_path / "a.png", rectangle(labels, slice(0, 4), slice(4, 10), value=2))
    assert areas(encode_label_file(tmp_path / "a.png", **SHAPE)) == [16, 24]


def test_grey_labels_saved_as_rgba_are_read(tmp_path, blank):
    grey = rectangle(blank, slice(0, 2), slice(0, 3), value=9)
    save(tmp_path / "a.png", np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
    assert areas(encode_label_file(tmp_path / "a.png", **SHAPE)) == [6]


def test_coloured_mask_is_an_error(tmp_path):
    save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8))
    with pytest.raises(InputError, match=r"a\.png' is coloured"):
        encode_label_file(tmp_path / "a.png", **SHAPE)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
def test_fractional_and_negative_labels_are_an_error(tmp_path, value):
    labels = np.zeros((12, 16), np.float32)
    labels[3, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", labels)
    with pytest.raises(InputError, match="negative or fractional"):
        encode_label_file(tmp_path / "a.tif", **SHAPE)


def test_size_mismatch_names_the_file_and_both_sizes(tmp_path):
    save(tmp_path / "a.png", np.zeros((16, 12), np.uint8))
    with pytest.raises(InputError, match=r"a\.png' has 16 x 12 px .* its image 12 x 16"):
        encode_label_file(tmp_path / "a.png", **SHAPE)


def test_truncated_mask_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (12, 16), np.uint8)
    path = save(tmp_path / "a.png", noise)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"mask '.*a\.png' cannot be read"):
        encode_label_file(path, **SHAPE)


def test_text_called_png_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match="not an image file"):
        encode_label_file(tmp_path / "a.png", **SHAPE)


def test_missing_mask_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"mask '.*a\.png' does not exist"):
        encode_label_file(tmp_path / "a.png", **SHAPE)


# ---- binary images


def test_components_are_instances(tmp_path, blank):
    mask = rectangle(blank, slice(0, 3), slice(0, 4))
    save(tmp_path / "a.png", rectangle(mask, slice(6, 12), slice(10, 16)))
    assert areas(encode_binary_file(tmp_path / "a.png", **SHAPE)) == [12, 36]


def test_components_that_meet_at_a_corner_are_two(tmp_path, blank):
    mask = rectangle(blank, slice(0, 3), slice(0, 3))
    save(tmp_path / "a.png", rectangle(mask, slice(3, 6), slice(3, 6)))
    assert areas(encode_binary_file(tmp_path / "a.png", **SHAPE)) == [9, 9]


def test_one_bit_file(tmp_path, blank):
    Image.fromarray(rectangle(blank, slice(0, 3), slice(0, 4)) > 0).save(tmp_path / "a.png")
    assert areas(encode_binary_file(tmp_path / "a.png", **SHAPE)) == [12]


def test_blank_file_has_no_instances(tmp_path, blank):
    assert encode_binary_file(save(tmp_path / "a.png", blank), **SHAPE) == []


def test_all_foreground_is_one_instance(tmp_path, blank):
    assert areas(encode_binary_file(save(tmp_path / "a.png", blank + 255), **SHAPE)) == [192]


def test_label_image_read_as_binary_is_an_error(tmp_path, blank):
    labels = rectangle(rectangle(blank, 0, slice(0, 4), value=1), 5, slice(0, 4), value=2)
    with pytest.raises(InputError, match="holds 3 values"):
        encode_binary_file(save(tmp_path / "a.png", labels), **SHAPE)


# ---- which layout


def test_folders_are_detected(tmp_path, blank):
    save(tmp_path / "a" / "1.png", blank)
    assert detect_layout([tmp_path / "a", tmp_path / "b.png"]) == "folder"


@pytest.mark.parametrize("dtype, foreground", [(np.uint8, 255), (np.uint16, 65535)])
def test_zero_and_the_largest_value_are_binary(tmp_path, dtype, foreground):
    mask = np.zeros((12, 16), dtype)
    mask[0:2, 0:2] = mask[8:10, 8:10] = foreground
    assert detect_layout([save(tmp_path / "a.png", mask)]) == "binary"


def test_several_values_in_whole_pieces_are_labels(tmp_path, blank):
    labels = rectangle(rectangle(blank, 0, slice(0, 4), value=1), 5, slice(0, 4), value=2)
    assert detect_layout([save(tmp_path / "a.png", labels)]) == "labels"


def test_one_label_image_among_binary_looking_ones_makes_labels(tmp_path, blank):
    """A label image may hold one instance, whose value 255 looks like a binary mask."""
    single = save(tmp_path / "a.png", rectangle(blank, slice(0, 3), slice(0, 3)))
    labels = rectangle(rectangle(blank, 0, slice(0, 4), value=1), 5, slice(0, 4), value=2)
    assert detect_layout([single, save(tmp_path / "b.png", labels)]) == "labels"


def test_single_labels_are_labels_where_components_are_the_same(tmp_path, blank):
    path = save(tmp_path / "a.png", rectangle(blank, slice(0, 3), slice(0, 3), value=1))
    assert detect_layout([path]) == "labels"


def test_several_pieces_of_one_small_value_are_not_guessed(tmp_path, blank):
    """0/1 masks may be binary, or hold one label that a neighbour cut in two."""
    mask = rectangle(rectangle(blank, 0, slice(0, 4), value=1), 5, slice(0, 4), value=1)
    with pytest.raises(InputError, match="--layout labels or --layout binary"):
        detect_layout([save(tmp_path / "a.png", mask)])


def test_class_maps_are_not_taken_for_labels(tmp_path, blank):
    """Classes (1 = droplet, 2 = nucleus) would each become one scattered instance."""
    classes = blank.copy()
    classes[::4, ::4], classes[2::4, 2::4] = 1, 2
    with pytest.raises(InputError, match="2 values in 24 connected pieces"):
        detect_layout([save(tmp_path / "a.png", classes)])


def test_detection_passes_over_missing_and_broken_files(tmp_path, blank):
    (tmp_path / "broken.png").write_bytes(b"")
    paths = [tmp_path / "absent.png", tmp_path / "broken.png"]
    good = save(tmp_path / "a.png", rectangle(blank, slice(0, 3), slice(0, 3)))
    assert detect_layout([*paths, good]) == "binary"
