import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.data.sources import (
    case_of_name,
    list_bbbc038,
    list_guo2019,
    list_torino,
    open_source,
    pair_images_with_masks,
    read_guo2019_image,
)
from steatosis_d2.errors import InputError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def own_case(name):
    return name


# ---- folders and zip files


def test_folder_is_its_own_source(tmp_path):
    with open_source(tmp_path) as folder:
        assert folder == tmp_path


def test_zip_file_reads_like_the_folder_in_it(tmp_path):
    image = tmp_path / "s" / "stage1_train" / "a" / "images" / "a.png"
    touch(image, tmp_path / "s" / "stage1_train" / "a" / "masks" / "1.png")
    Image.fromarray(np.full((3, 4, 3), 77, np.uint8)).save(image)
    shutil.make_archive(tmp_path / "s", "zip", tmp_path / "s")
    with open_source(tmp_path / "s.zip") as folder:
        [sample] = list_bbbc038(folder)
        assert sample.name == "a"
        assert [path.name for path in sample.masks_path.iterdir()] == ["1.png"]
        assert (read_image_rgb(sample.image_path) == 77).all()


def test_missing_source(tmp_path):
    with (
        pytest.raises(InputError, match=r"absent' does not exist"),
        open_source(tmp_path / "absent"),
    ):
        pass


def test_source_that_is_neither_folder_nor_zip(tmp_path):
    (tmp_path / "a.zip").write_text("an error page of the download server")
    with (
        pytest.raises(InputError, match=r"a\.zip' is neither a folder nor a whole zip"),
        open_source(tmp_path / "a.zip"),
    ):
        pass


def test_truncated_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/images/a.png", b"0" * 1000)
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:800])
    with pytest.raises(InputError, match="whole zip"), open_source(tmp_path / "a.zip"):
        pass


# ---- folders of samples


def test_guo2019_names_cases_and_paths(tmp_path):
    home = tmp_path / "140_10189_5493_2000_0_976"
    touch(home / "image" / f"{home.name}.png", home / "masks" / "1.png")
    touch(tmp_path / "94_1_2_2000_0_0" / "image" / "tile.png")
    first, second = list_guo2019(tmp_path)
    assert (first.name, first.case) == (home.name, "140")
    assert (first.image_path, first.masks_path) == (
        home / "image" / f"{home.name}.png",
        home / "masks",
    )
    assert (second.name, second.case) == ("94_1_2_2000_0_0", "94")


def test_shadow_copies_of_a_mac_are_no_samples(tmp_path):
    touch(tmp_path / "a" / "images" / "a.png", tmp_path / "__MACOSX" / "a" / "images" / "._a.png")
    assert [sample.name for sample in list_bbbc038(tmp_path)] == ["a"]


def test_sample_without_image_keeps_the_expected_path(tmp_path):
    """So that reading it names the file, and the other samples are still prepared."""
    (tmp_path / "a" / "images").mkdir(parents=True)
    [sample] = list_bbbc038(tmp_path)
    assert sample.image_path == tmp_path / "a" / "images" / "a.png"


def test_two_samples_of_one_name(tmp_path):
    touch(tmp_path / "x" / "a" / "images" / "a.png", tmp_path / "y" / "a" / "images" / "a.png")
    with pytest.raises(InputError, match="two samples are called 'a'"):
        list_bbbc038(tmp_path)


def test_two_images_in_one_sample(tmp_path):
    touch(tmp_path / "a" / "images" / "a.png", tmp_path / "a" / "images" / "b.png")
    with pytest.raises(InputError, match=r"holds 2 images \('a\.png', 'b\.png'\)"):
        list_bbbc038(tmp_path)


@pytest.mark.parametrize("list_samples", [list_guo2019, list_bbbc038, list_torino])
def test_empty_source(tmp_path, list_samples):
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        list_samples(tmp_path)


def test_guo2019_red_and_blue_are_swapped_back(tmp_path):
    Image.fromarray(np.full((2, 2, 3), (10, 20, 30), np.uint8)).save(tmp_path / "a.png")
    assert read_guo2019_image(tmp_path / "a.png")[0, 0].tolist() == [30, 20, 10]


# ---- folders of images and of masks


def test_torino_at_any_depth(tmp_path):
    home = tmp_path / "downloads" / "torino"
    touch(home / "image" / "2016T0890_6.webp", home / "manual" / "2016T0890_6.png")
    [sample] = list_torino(tmp_path)
    assert (sample.name, sample.case) == ("2016T0890_6", "2016T0890")
    assert sample.masks_path == home / "manual" / "2016T0890_6.png"


def test_torino_twice(tmp_path):
    for copy in ("a", "b"):
        touch(tmp_path / copy / "image" / "1_1.webp", tmp_path / copy / "manual" / "1_1.png")
    with pytest.raises(InputError, match="has 2 places"):
        list_torino(tmp_path)


def test_masks_are_files_or_folders_of_the_images_name(tmp_path):
    touch(*(tmp_path / "images" / name for name in ("a.jpg", "b.tif", "c.png")))
    touch(tmp_path / "masks" / "a.tif", tmp_path / "masks" / "b" / "1.png")
    samples = pair_images_with_masks(tmp_path / "images", tmp_path / "masks", case_of=own_case)
    assert [sample.masks_path.name for sample in samples] == ["a.tif", "b", "c.png"]


def test_masks_without_image_are_named(tmp_path, caplog):
    touch(tmp_path / "images" / "a.png", tmp_path / "masks" / "a.png", tmp_path / "masks" / "z.png")
    pair_images_with_masks(tmp_path / "images", tmp_path / "masks", case_of=own_case)
    assert "1 masks" in caplog.text and caplog.text.rstrip().endswith(": z")


@pytest.mark.parametrize("second", ["images/a.jpg", "masks/a.tif", "masks/a/1.png"])
def test_two_files_of_one_name(tmp_path, second):
    touch(tmp_path / "images" / "a.png", tmp_path / "masks" / "a.png", tmp_path / second)
    with pytest.raises(InputError, match="share the name 'a'"):
        pair_images_with_masks(tmp_path / "images", tmp_path / "masks", case_of=own_case)


@pytest.mark.parametrize("missing", ["images", "masks"])
def test_missing_folder(tmp_path, missing):
    for name in {"images", "masks"} - {missing}:
        touch(tmp_path / name / "a.png")
    with pytest.raises(InputError, match=f"{missing}' does not exist"):
        pair_images_with_masks(tmp_path / "images", tmp_path / "masks", case_of=own_case)


def test_folder_without_images(tmp_path):
    touch(tmp_path / "images" / "notes.txt", tmp_path / "masks" / "a.png")
    with pytest.raises(InputError, match="holds no image"):
        pair_images_with_masks(tmp_path / "images", tmp_path / "masks", case_of=own_case)


# ---- cases


@pytest.mark.parametrize(
    "pattern, case", [("^[^_]+", "L07"), (r"L(\d+)_", "07"), (".*", "L07_2000_976")]
)
def test_case_is_the_first_group_or_the_whole_match(pattern, case):
    assert case_of_name("L07_2000_976", pattern=re.compile(pattern)) == case


@pytest.mark.parametrize("pattern", ["^M", "x*", "(M)?L"])
def test_pattern_that_finds_no_case_is_an_error(pattern):
    with pytest.raises(InputError, match="finds no case in the image name 'L07'"):
        case_of_name("L07", pattern=re.compile(pattern))


# ---- the real data


def test_real_sources_have_the_published_numbers(shared_data):
    guo = list_guo2019(shared_data / "guo2019_liver")
    torino = list_torino(shared_data / "torino_liver")
    with open_source(shared_data / "bbbc038" / "stage1_train.zip") as folder:
        nuclei = list_bbbc038(folder)
        masks = sum(len(list(sample.masks_path.iterdir())) for sample in nuclei)
    assert (len(guo), len({sample.case for sample in guo})) == (8, 8)
    assert (len(torino), len({sample.case for sample in torino})) == (434, 329)
    assert (len(nuclei), masks) == (600, 25930)
