"""Pixel sizes in every form that files state them in."""

import logging

import numpy as np
import pytest
import tifffile

from steatosis_d2.errors import InputError
from steatosis_d2.slides.slide import ArraySlide, open_slide

PICTURE = np.full((64, 64, 3), 200, np.uint8)


def write_ome(path, **attributes):
    sizes = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
        'OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="uint8" SizeX="64" SizeY="64" SizeC="3" SizeZ="1" SizeT="1" {sizes} '
        'Interleaved="true"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" '
        'PlaneCount="1"/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=None, description=xml.encode())
    return path


@pytest.mark.parametrize(
    ("size", "unit"),
    [
        ("0.5", "µm"),  # micro sign
        ("0.5", "μm"),  # Greek letter mu
        ("0.5", "um"),
        ("0.5", "micron"),
        ("0,5", "µm"),
        ("500", "nm"),
        ("0.0005", "mm"),
        ("5e-5", "cm"),
        ("5e-7", "m"),
        ("5000", "Å"),
        ("5000", "Å"),  # the unit's own sign
        ("1.968503937e-5", "in"),
    ],
)
def test_ome(tmp_path, size, unit):
    sizes = {f"PhysicalSize{axis}": size for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    with open_slide(write_ome(tmp_path / "a.ome.tif", **sizes, **units)) as slide:
        assert slide.mpp == pytest.approx(0.5)


def test_ome_without_a_unit_means_um(tmp_path):
    path = write_ome(tmp_path / "a.ome.tif", PhysicalSizeX=0.25, PhysicalSizeY=0.25)
    with open_slide(path) as slide:
        assert slide.mpp == 0.25


def test_ome_with_x_alone(tmp_path, caplog):
    with open_slide(write_ome(tmp_path / "a.ome.tif", PhysicalSizeX=0.25)) as slide:
        assert slide.mpp == 0.25
    assert "for one axis alone" in caplog.text


@pytest.mark.parametrize(("size", "unit"), [("0.5", "pixel"), ("about a half", "µm")])
def test_what_cannot_be_understood_is_said(tmp_path, caplog, size, unit):
    sizes = {f"PhysicalSize{axis}": size for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    with open_slide(write_ome(tmp_path / "a.ome.tif", **sizes, **units)) as slide:
        assert slide.mpp is None
    assert f"states a pixel size of '{size} {unit}', which is no length" in caplog.text


@pytest.mark.parametrize(
    ("per_unit", "unit"),
    [
        (2, "um"),
        (2, "µm"),
        (2, "μm"),
        (2, "\\u00B5m"),
        (2, "micron"),
        (2, "microns"),
        (2, "micrometer"),
        (2000, "mm"),
        (20_000, "cm"),
        (50_800, "inch"),
        (0.002, "nm"),
    ],
)
def test_fiji(tmp_path, per_unit, unit):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        PICTURE,
        photometric="rgb",
        metadata=None,
        resolution=(per_unit, per_unit),
        resolutionunit=1,
        description=f"ImageJ=1.54f\nunit={unit}\n".encode(),
    )
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)


def test_a_unit_of_fijis_that_is_no_length_is_said(tmp_path, caplog):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PICTURE, imagej=True, resolution=(2, 2), metadata={"unit": "furlong"})
    with open_slide(path) as slide:
        assert slide.mpp is None
    assert "in 'furlong', which is no length" in caplog.text


@pytest.mark.parametrize(("per_unit", "unit"), [(50_800, 2), (20_000, 3), (2000, 4), (2, 5)])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_resolution_tags(tmp_path, per_unit, unit, tile):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        PICTURE,
        photometric="rgb",
        metadata=None,
        tile=tile,
        resolution=(per_unit, per_unit),
        resolutionunit=unit,
    )
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.5)


def test_a_resolution_tag_for_x_alone(tmp_path, caplog):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, PICTURE, photometric="rgb", metadata=None, resolution=(20_000, 1), resolutionunit=3
    )
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["YResolution"].overwrite((0, 1))
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.5)
    assert "for one axis alone" in caplog.text


def test_what_is_given_wins_over_a_broken_header(tmp_path, caplog):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, PICTURE, description='<?xml version="1.0"?><OME broken <OME>', metadata=None
    )
    with caplog.at_level(logging.WARNING), open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25
        assert (slide.read_region(0, 0, 64, 64) == PICTURE).all()
    assert "has a damaged header; the given pixel size is used" in caplog.text


@pytest.mark.parametrize("mpp", [40, 20, 5.5, 0.01, 0, -1])
def test_a_magnification_is_no_pixel_size(mpp):
    with pytest.raises(InputError, match=r"expected um/px, a number from 0\.05 to 5"):
        ArraySlide(PICTURE, mpp=mpp)


def test_a_magnification_is_explained():
    with pytest.raises(InputError, match=r"A magnification of 40x is about 0\.25 um/px"):
        ArraySlide(PICTURE, mpp=40)
