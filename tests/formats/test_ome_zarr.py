"""OME-Zarr as ome-zarr and zarr write it, in all its layouts; what is no picture is refused."""

import json
import pickle
import shutil
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from steatosis_d2 import label, segment
from steatosis_d2.data.images import list_inputs
from steatosis_d2.errors import InputError
from steatosis_d2.screening.labels import find_images, read_labels
from steatosis_d2.slides.slide import SLIDE_SUFFIXES, open_slide

zarr = pytest.importorskip("zarr", reason="OME-Zarr needs zarr: pip install '.[zarr]'")

RED_GREEN_BLUE = ("FF0000", "00FF00", "0000FF")
UM = "micrometer"


@pytest.fixture(scope="module")
def picture():
    """Random colours of coarse blocks, 90 x 140 px: no two windows look alike."""
    return np.random.default_rng(0).integers(1, 256, (90, 140, 3), np.uint8)


def write(
    path,
    pixels,
    axes,
    *,
    version="0.4",
    mpp=0.25,
    unit=UM,
    colours=None,
    n_levels=1,
    attributes=None,
    **settings,
):
    """An OME-Zarr written by zarr, whose metadata can be anything; its group."""
    group = zarr.create_group(path, zarr_format=2 if version < "0.5" else 3, overwrite=True)
    for level in range(n_levels):
        step = tuple(slice(None, None, 2**level if axis in "yx" else 1) for axis in axes)
        group.create_array(str(level), data=np.ascontiguousarray(pixels[step]), **settings)
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": describe_scale(axes, mpp=mpp * 2**level),
        }
        for level in range(n_levels)
    ]
    multiscale = {"axes": describe_axes(axes, unit=unit), "datasets": datasets}
    ome = {"multiscales": [multiscale]} | (attributes or {})
    if colours:
        ome["omero"] = {"channels": [{"color": colour} for colour in colours]}
    group.attrs.update(ome if version < "0.5" else {"ome": {"version": version} | ome})
    return group


def describe_axes(axes, *, unit=UM):
    return [
        {"name": axis, "type": {"c": "channel", "t": "time"}.get(axis, "space")}
        | ({"unit": unit} if axis in "zyx" and unit else {})
        for axis in axes
    ]


def describe_scale(axes, *, mpp):
    return [{"type": "scale", "scale": [mpp if axis in "yx" else 1.0 for axis in axes]}]


def read_whole(path, **settings):
    with open_slide(path, **settings) as slide:
        return slide.read_region(0, 0, slide.width, slide.height)


def zip_folder(folder, path, *, root=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{root}{file.relative_to(folder)}")
    return path


# --- what ome-zarr writes ---


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "czyx", "tczyx"])
def test_what_ome_zarr_writes(tmp_path, picture, version, axes):
    writer = pytest.importorskip("ome_zarr.writer")
    from ome_zarr.format import format_from_version

    pixels = np.moveaxis(picture, -1, 0)
    writer.write_image(
        pixels.reshape([dict(zip("cyx", pixels.shape, strict=True)).get(axis, 1) for axis in axes]),
        str(tmp_path / "a.zarr"),
        axes=describe_axes(axes),
        fmt=format_from_version(version),
        scale_factors=[2, 4],
        coordinate_transformations=[
            describe_scale(axes, mpp=0.25 * 2**level) for level in range(3)
        ],
        storage_options={"chunks": (1,) * (len(axes) - 2) + (32, 48)},
    )
    with open_slide(tmp_path / "a.zarr") as slide:
        assert [(level.width, level.height) for level in slide.levels] == [
            (140, 90),
            (70, 45),
            (35, 22),
        ]
        assert (slide.mpp, slide.mpp_source) == (0.25, "file")
        assert np.array_equal(slide.read_region(0, 0, 140, 90), picture)
        assert np.array_equal(slide.read_region(30, 25, 60, 50), picture[25:75, 30:90])


def test_a_sharded_array_is_read_chunk_by_chunk(tmp_path, picture):
    write(tmp_path / "a", picture, "yxc", version="0.5", chunks=(16, 16, 3), shards=(64, 64, 3))
    assert np.array_equal(read_whole(tmp_path / "a"), picture)


# --- folders and zip files ---


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("name", "root"), [("a.ozx", ""), ("b.zarr.zip", "b.zarr/")])
def test_zip_files(tmp_path, picture, version, name, root):
    write(tmp_path / "a", picture, "yxc", version=version, n_levels=2)
    path = zip_folder(tmp_path / "a", tmp_path / name, root=root)
    with open_slide(path) as slide:
        assert slide.mpp == 0.25
        assert np.array_equal(slide.read_region(0, 0, 140, 90), picture)


def test_a_folder_is_one_input_also_within_a_folder_of_slides(tmp_path, picture):
    write(tmp_path / "slides" / "b.ome.zarr", picture, "yxc")
    write(tmp_path / "without_suffix", picture, "yxc")
    zip_folder(tmp_path / "without_suffix", tmp_path / "slides" / "c.ozx")
    Image.fromarray(picture).save(tmp_path / "slides" / "a.png")
    inputs = [tmp_path / "slides", tmp_path / "without_suffix"]
    files, faults = list_inputs(inputs, suffixes=SLIDE_SUFFIXES)
    assert list(files) == ["a.png", "b.ome.zarr", "c.ozx", "without_suffix"]
    assert faults == []


@pytest.mark.parametrize("name", ["a.zarr", "a.ozx"])
def test_a_slide_pickles_and_says_once_what_is_missing(tmp_path, picture, name, caplog):
    write(tmp_path / "a.zarr", picture, "yxc", chunks=(32, 32, 3))
    (tmp_path / "a.zarr" / "0" / "0.0.0").unlink()
    zip_folder(tmp_path / "a.zarr", tmp_path / "a.ozx")
    with open_slide(tmp_path / name, mpp=0.5) as slide, pickle.loads(pickle.dumps(slide)) as copy:
        assert copy.mpp == 0.5
        assert np.array_equal(copy.thumbnail(140), slide.thumbnail(140))
    assert [record.message for record in caplog.records if "1 of 15 chunks" in record.message]
    assert caplog.text.count("chunks are not there") == 1


# --- as an input of the commands ---


@pytest.fixture
def tile(tmp_path):
    """A tile of 12 droplets of 14 um at 0.5 um/px, as PNG and as OME-Zarr of both versions."""
    pixels = np.full((256, 340, 3), (172, 86, 152), np.uint8)
    for number in range(12):
        center = (40 + 84 * (number % 4), 50 + 78 * (number // 4))
        cv2.circle(pixels, center, 14, (236, 236, 236), -1)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 1)
    folder = tmp_path / "tiles"
    planes = np.moveaxis(pixels, -1, 0)
    write(folder / "old.ome.zarr", planes, "cyx", mpp=0.5, chunks=(1, 64, 64), n_levels=2)
    write(folder / "new.zarr", pixels, "yxc", version="0.5", mpp=0.5, chunks=(128, 128, 3))
    zip_folder(folder / "new.zarr", folder / "zipped.ozx")
    Image.fromarray(pixels).save(folder / "png.png")
    return folder


def test_the_droplets_are_those_of_the_same_picture_as_png(tile, tmp_path):
    results = segment(tile, tmp_path / "out", model="clump-split", mpp=0.5)
    assert [result.name for result in results] == ["new", "old", "png", "zipped"]
    expected = pd.read_parquet(tmp_path / "out" / "png.parquet")
    assert len(expected) == 12
    for name in ("new", "old", "zipped"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "out" / f"{name}.parquet"), expected
        )


def test_labels_name_the_folder(tile):
    labels = label([tile / "old.ome.zarr"], workers=1)
    assert [image["file_name"] for image in labels.coco["images"]] == ["old.ome.zarr"]
    assert len(labels.coco["annotations"]) == 12
    labels.write(tile / "labels.json")
    found = find_images(read_labels(tile / "labels.json"), tile)
    assert list(found.values()) == [tile / "old.ome.zarr"]


def test_regions_and_cases_are_found_by_the_name_without_its_suffixes(tile, tmp_path):
    (tmp_path / "regions").mkdir()
    half = {"type": "Polygon", "coordinates": [[[0, 0], [170, 0], [170, 256], [0, 256], [0, 0]]]}
    (tmp_path / "regions" / "old.geojson").write_text(json.dumps(half))
    [result] = segment(
        tile / "old.ome.zarr", model="clump-split", roi=tmp_path / "regions", case_pattern="^.+$"
    )
    assert len(result.table) == 6
    assert result.summary["case"] == "old"


@pytest.mark.parametrize("change", ["bytes", "name"])
def test_a_finished_run_is_resumed_for_a_copy_but_not_for_another_slide(tile, tmp_path, change):
    run = {"output": tmp_path / "out", "model": "clump-split"}
    segment(tile / "old.ome.zarr", **run)
    before = (tmp_path / "out" / "old.parquet").stat().st_mtime_ns
    copy = tmp_path / "elsewhere" / "old.ome.zarr"
    shutil.copytree(tile / "old.ome.zarr", copy)
    segment(copy, **run, resume=True)
    assert (tmp_path / "out" / "old.parquet").stat().st_mtime_ns == before
    chunk = copy / "0" / "0.0.0"
    if change == "bytes":
        chunk.write_bytes((copy / "0" / "0.0.1").read_bytes())
    else:
        chunk.rename(copy / "0" / "0.9.9")
    with pytest.raises(
        InputError, match=r"cannot be resumed, since it has changed: .*sha256_of_ends"
    ):
        segment(copy, **run, resume=True)


# --- channels, bits ---


@pytest.mark.parametrize("axes", ["yxc", "cyx", "ycx", "zyxc", "tyxc", "cxy"])
def test_channels_may_lie_on_any_axis(tmp_path, picture, axes):
    pixels = picture.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"])
    pixels = pixels.reshape((1,) * (len(axes) - 3) + pixels.shape)
    write(tmp_path / "a", pixels, axes)
    assert np.array_equal(read_whole(tmp_path / "a"), picture)


@pytest.mark.parametrize("colours", [RED_GREEN_BLUE, ("#ff0000", "FF00", "FF"), None])
def test_three_channels_are_a_picture_if_they_are_red_green_and_blue(tmp_path, picture, colours):
    write(tmp_path / "a", np.moveaxis(picture, -1, 0), "cyx", colours=colours)
    assert np.array_equal(read_whole(tmp_path / "a"), picture)


def test_channels_of_fluorescence_are_refused_unless_one_is_chosen(tmp_path, picture):
    pixels = np.moveaxis(picture, -1, 0)
    write(tmp_path / "a", pixels, "cyx", colours=("0000FF", "00FF00", "FFFFFF"))
    with pytest.raises(
        InputError, match=r"3 pictures of like size, a stack.*Choose it with --page"
    ):
        open_slide(tmp_path / "a")
    assert np.array_equal(read_whole(tmp_path / "a", page=2), np.dstack([picture[..., 1]] * 3))


def test_a_stack_is_refused_unless_a_plane_is_chosen(tmp_path, picture):
    stack = np.stack([picture // 2, picture], axis=1)  # y, z, x, c
    write(tmp_path / "a", np.transpose(stack, (3, 1, 0, 2)), "czyx")
    with pytest.raises(
        InputError, match=r"2 pictures of like size, a stack.*Choose it with --page"
    ):
        open_slide(tmp_path / "a")
    assert np.array_equal(read_whole(tmp_path / "a", page=2), picture)
    with pytest.raises(InputError, match="no page 3; expected one of 1, 2"):
        open_slide(tmp_path / "a", page=3)


def test_one_channel_is_grey(tmp_path, picture):
    write(tmp_path / "a", picture[None, ..., 0], "cyx")
    assert np.array_equal(read_whole(tmp_path / "a"), np.dstack([picture[..., 0]] * 3))


@pytest.mark.parametrize("n_bits", [10, 12, 14, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_are_scaled_from_those_in_use(tmp_path, picture, n_bits, order):
    """Zarr 2 stores either order of bytes; bioformats2raw writes the large ones first."""
    bright = np.maximum(picture, 200)
    bright[0, 0] = 255
    pixels = (bright.astype(np.uint16) << (n_bits - 8)).astype(f"{order}u2")
    write(tmp_path / "a", pixels, "yxc", n_levels=2, chunks=(32, 32, 3))
    assert np.array_equal(read_whole(tmp_path / "a"), bright)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8"])
def test_other_values_are_refused(tmp_path, picture, dtype):
    write(tmp_path / "a", picture.astype(dtype), "yxc")
    with pytest.raises(InputError, match=f"holds {dtype} values; expected 8 or 16 bits"):
        open_slide(tmp_path / "a")


def test_jpeg_in_chunks(tmp_path):
    from imagecodecs.numcodecs import Jpeg

    flat = np.full((64, 96, 3), (200, 120, 170), np.uint8)
    write(tmp_path / "a", flat, "yxc", chunks=(32, 32, 3), compressors=Jpeg(level=95))
    assert np.abs(read_whole(tmp_path / "a").astype(int) - flat).max() <= 2


# --- pixel size ---


@pytest.mark.parametrize(
    ("size", "unit"), [(0.25, "micrometer"), (250, "nanometer"), (2.5e-4, "millimeter")]
)
def test_units_of_length(tmp_path, picture, size, unit):
    write(tmp_path / "a", picture, "yxc", mpp=size, unit=unit)
    with open_slide(tmp_path / "a") as slide:
        assert slide.mpp == pytest.approx(0.25)


def test_a_scale_of_the_whole_pyramid_counts_too(tmp_path, picture):
    group = write(tmp_path / "a", picture, "yxc", mpp=1.0)
    multiscales = group.attrs["multiscales"]
    multiscales[0]["coordinateTransformations"] = [{"type": "scale", "scale": [0.5, 0.5, 1]}]
    group.attrs["multiscales"] = multiscales
    with open_slide(tmp_path / "a") as slide:
        assert slide.mpp == 0.5


@pytest.mark.parametrize("unit", [None, "second"])
def test_a_size_without_a_unit_of_length_is_said_and_not_used(tmp_path, picture, unit, caplog):
    write(tmp_path / "a", picture, "yxc", unit=unit)
    with open_slide(tmp_path / "a") as slide:
        assert slide.mpp is None
    assert "states a pixel size of 0.25 in" in caplog.text


def test_names_of_axes_without_units_are_those_of_0_3(tmp_path, picture, caplog):
    group = write(tmp_path / "a", np.moveaxis(picture, -1, 0), "cyx", mpp=1.0)
    datasets = [{"path": "0"}]
    group.attrs["multiscales"] = [{"version": "0.3", "axes": list("cyx"), "datasets": datasets}]
    with open_slide(tmp_path / "a") as slide:
        assert slide.mpp is None
        assert np.array_equal(slide.read_region(0, 0, 140, 90), picture)
    assert caplog.text == ""


# --- what bioformats2raw writes ---


def write_series(folder, pictures, *, version="0.4", names=None):
    """Images beside each other, as bioformats2raw has them."""
    root = zarr.create_group(folder, zarr_format=2 if version < "0.5" else 3)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if version < "0.5" else {"ome": {"version": version} | layout})
    if names:
        attributes = {"series": names}
        root.create_group("OME").attrs.update(
            attributes if version < "0.5" else {"ome": attributes}
        )
    for number, picture in enumerate(pictures):
        name = (names or [str(number) for number in range(len(pictures))])[number]
        write(folder / name, np.moveaxis(picture, -1, 0)[None, :, None], "tczyx", version=version)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("names", [None, ["0", "1", "2"], ["slide", "label", "macro"]])
def test_the_slide_of_bioformats2raw_is_told_from_its_label(tmp_path, picture, version, names):
    pictures = [picture, picture[:30, :30], picture[:40, :50]]
    write_series(tmp_path / "a.zarr", pictures, version=version, names=names)
    assert np.array_equal(read_whole(tmp_path / "a.zarr"), picture)
    assert np.array_equal(read_whole(tmp_path / "a.zarr", page=2), picture[:30, :30])


def test_two_slides_of_like_size_are_refused(tmp_path, picture):
    write_series(tmp_path / "a.zarr", [picture, picture])
    with pytest.raises(InputError, match=r"2 pictures of like size.*1: 140 x 90 px, 2: 140"):
        open_slide(tmp_path / "a.zarr")


# --- what is wrong ---


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "holds no picture: its metadata have no 'multiscales'"),
        ({"labels": ["nuclei"]}, "holds no picture"),
        ({"plate": {"wells": []}}, "is a plate of several pictures.*such as A/1/0"),
        ({"well": {"images": []}}, "is a well of several pictures"),
        ({"multiscales": [{"datasets": []}], "image-label": {}}, "is a label image"),
        ({"multiscales": [{"coordinateSystems": []}]}, "is an OME-Zarr later than 0.5"),
        ({"multiscales": []}, "cannot be read"),
        ({"multiscales": [{"axes": ["y", "x"], "datasets": [{}]}]}, "cannot be read"),
        ({"multiscales": 3}, "cannot be read"),
        ({"multiscales": [{"datasets": [{"path": "7"}]}]}, "is not whole: '7' is missing"),
        (
            {"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]},
            "one length an axis",
        ),
        (
            {"multiscales": [{"axes": ["c", "y", "z"], "datasets": [{"path": "0"}]}]},
            "y and x among",
        ),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_no_picture_is_refused(tmp_path, picture, attributes, message, version):
    group = write(tmp_path / "a.zarr", picture, "yxc", version=version)
    group.attrs.clear()
    group.attrs.update(attributes if version < "0.5" else {"ome": attributes})
    with pytest.raises(InputError, match=f"a.zarr' {message}" if message[0] == "i" else message):
        open_slide(tmp_path / "a.zarr")


def test_a_stack_without_end_is_refused(tmp_path, picture):
    """A damaged length would take all memory."""
    write(tmp_path / "a", picture[None, ..., 0], "zyx")
    metadata = json.loads((tmp_path / "a" / "0" / ".zarray").read_text())
    metadata["shape"][0] = 10**12
    (tmp_path / "a" / "0" / ".zarray").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="states 1000000000000 pictures"):
        open_slide(tmp_path / "a")


def test_an_array_alone_is_refused(tmp_path, picture):
    zarr.save_array(tmp_path / "a.zarr", picture)
    with pytest.raises(InputError, match="holds no group of Zarr"):
        open_slide(tmp_path / "a.zarr")


def test_an_empty_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InputError, match="holds no group of Zarr"):
        open_slide(tmp_path / "a.zarr")


def test_a_zip_file_must_hold_one(tmp_path, picture):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(InputError, match="is a zip file without an OME-Zarr"):
        open_slide(tmp_path / "a.zip")
    for name in "ab":
        write(tmp_path / "both" / name, picture, "yxc")
    zip_folder(tmp_path / "both", tmp_path / "b.zip")
    with pytest.raises(InputError, match="holds 2 OME-Zarr"):
        open_slide(tmp_path / "b.zip")


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_zip_file_that_was_cut_short_is_an_error(tmp_path, picture, share):
    write(tmp_path / "a", picture, "yxc")
    path = zip_folder(tmp_path / "a", tmp_path / "a.ozx")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match="cannot be read"):
        open_slide(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_metadata_that_are_no_json_are_an_error(tmp_path, picture, version):
    write(tmp_path / "a", picture, "yxc", version=version)
    name = ".zattrs" if version < "0.5" else "zarr.json"
    (tmp_path / "a" / name).write_text('{"multiscales": [')
    with pytest.raises(InputError, match="cannot be read"):
        open_slide(tmp_path / "a")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("compressors", ["auto", None])
@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_chunk_is_named_with_its_place(tmp_path, picture, version, compressors, content):
    write(
        tmp_path / "a", picture, "yxc", version=version, chunks=(32, 32, 3), compressors=compressors
    )
    chunk = tmp_path / "a" / "0" / ("1.1.0" if version < "0.5" else "c/1/1/0")
    chunk.write_bytes(content)
    with (
        open_slide(tmp_path / "a") as slide,
        pytest.raises(InputError, match=r"a' cannot be read at x 0, y 0 .*damaged or cut short"),
    ):
        slide.read_region(0, 0, 140, 90)


def test_without_zarr_the_line_to_install_it_is_named(tmp_path, picture, monkeypatch):
    write(tmp_path / "a.zarr", picture, "yxc")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(InputError, match=r"needs the package 'zarr': pip install 'steatosis-d2\["):
        open_slide(tmp_path / "a.zarr")
