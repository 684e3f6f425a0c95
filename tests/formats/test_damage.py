"""
Files with bytes changed, left out or put in: read, or refused in one line.

By hand, for minutes: DAMAGE_ROUNDS=3000 python -m pytest tests/formats/test_damage.py
"""

import json
import os
import resource
import warnings

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from steatosis_d2.data.coco import check_outlined, read_coco
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.data.instance_masks import read_mask_pages
from steatosis_d2.errors import InputError
from steatosis_d2.instances.geojson import read_features
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.screening.labels import read_labels
from steatosis_d2.slides.regions import read_regions
from steatosis_d2.slides.slide import open_slide

# What a file of a few kilobytes may take, whatever its header says
MEMORY_MB = 1500
ROUNDS = int(os.environ.get("DAMAGE_ROUNDS", "25"))
PICTURE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
LABELS = np.kron(np.arange(12).reshape(3, 4), np.ones((20, 20), int)).astype(np.uint8)
TILED = {"tile": (32, 32), "photometric": "rgb"}

PICTURES = {
    "a.png": lambda p: Image.fromarray(PICTURE).save(p),
    "16.png": lambda p: p.write_bytes(imagecodecs.png_encode(PICTURE.astype(np.uint16) * 257)),
    "a.jpg": lambda p: Image.fromarray(PICTURE).save(p),
    "a.webp": lambda p: Image.fromarray(PICTURE).save(p),
    "a.bmp": lambda p: Image.fromarray(PICTURE).save(p),
    "a.tif": lambda p: tifffile.imwrite(p, PICTURE, photometric="rgb"),
    "lzw.tif": lambda p: tifffile.imwrite(p, PICTURE, photometric="rgb", compression="lzw"),
    "tiles.tif": lambda p: tifffile.imwrite(p, PICTURE, compression="jpeg", **TILED),
    "a.ome.tif": lambda p: tifffile.imwrite(p, PICTURE, compression="zlib", **TILED),
    "fiji.tif": lambda p: tifffile.imwrite(p, PICTURE[..., 0], imagej=True, resolution=(2, 2)),
}


def scanner_file(**options):
    """A writer of a TIFF in tiles of JPEG, as a scanner's program writes it."""
    return lambda path: tifffile.imwrite(
        path, PICTURE, compression="jpeg", metadata=None, **(TILED | options)
    )


APERIO = "Aperio Image Library v11.2.1\n90x70 [0,0 90x70] (32x32) JPEG/RGB Q=70|MPP = 0.499"
PHILIPS = (
    '<?xml version="1.0" encoding="UTF-8"?><DataObject ObjectType="DPUfsImport">'
    '<Attribute Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">PHILIPS'
    '</Attribute><Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" '
    'PMSVR="IDataObjectArray"><Array><DataObject ObjectType="DPScannedImage"><Attribute '
    'Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'
    '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" '
    'PMSVR="IDataObjectArray"><Array><DataObject ObjectType="PixelDataRepresentation"><Attribute '
    'Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
    "&quot;0.00025&quot; &quot;0.00025&quot;</Attribute></DataObject></Array></Attribute>"
    "</DataObject></Array></Attribute></DataObject>"
)
LEICA = (
    '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="a" uuid="x" '
    'sizeX="60000" sizeY="60000"><barcode/><image name="i" uuid="y"><device model="m" version="1"/>'
    '<pixels sizeX="90" sizeY="70"><dimension sizeX="90" sizeY="70" r="0" ifd="0"/></pixels>'
    '<view sizeX="45000" sizeY="35000" offsetX="0" offsetY="0"/><scanSettings><objectiveSettings>'
    "<objective>20</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4"
    "</numericalAperture><illuminationSource>brightfield</illuminationSource>"
    "</illuminationSettings></scanSettings></image></collection></scn>"
)
HAMAMATSU = [(65420, "I", 1, 1, True), (65421, "f", 1, 20.0, True)] + [
    (tag, "i", 1, 0, True) for tag in (65422, 65423, 65424)
]
SLIDES = {
    "a.svs": ("aperio", scanner_file(description=APERIO)),
    "a.tif": ("philips", scanner_file(description=PHILIPS, software="Philips DP v1.0")),
    "a.scn": ("leica", scanner_file(description=LEICA, bigtiff=True)),
    "a.ndpi": ("hamamatsu", scanner_file(tile=None, rowsperstrip=70, extratags=HAMAMATSU)),
}
MASKS = {
    "a.png": lambda p: Image.fromarray(LABELS).save(p),
    "p.png": lambda p: Image.fromarray(LABELS, mode="P").save(p),
    "a.tif": lambda p: tifffile.imwrite(p, LABELS, compression="zlib"),
    "pages.tif": lambda p: tifffile.imwrite(p, np.stack([LABELS > 3, LABELS == 2])),
}


def coco():
    one = {"id": 1, "image_id": 1, "category_id": 1, "score": 0.5, "iscrowd": 0}
    outlines = [encode_mask(LABELS == 3), [[1, 1, 9, 1, 9, 9]]]
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80, "mpp": 0.5}],
        "annotations": [
            one | {"id": number, "segmentation": outline}
            for number, outline in enumerate(outlines, 1)
        ],
        "categories": [{"id": 1, "name": "droplet"}],
    }


RING = [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]
FEATURE = {
    "type": "Feature",
    "id": "00000000-0000-4000-8000-000000000001",
    "geometry": {"type": "Polygon", "coordinates": [RING]},
    "properties": {"objectType": "annotation", "classification": {"name": "Ignore*"}},
}


def damage(content, rng):
    """The bytes of a file after an accident."""
    kind, place = rng.integers(4), int(rng.integers(len(content)))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + content[place + int(rng.integers(1, 40)) :]
    if kind == 2:
        return content[:place] + rng.bytes(int(rng.integers(1, 9))) + content[place:]
    changed = bytearray(content)
    # Headers decide on more than what comes after them.
    for at in rng.integers(0, min(len(content), 400) if rng.random() < 0.7 else len(content), 3):
        changed[at] = rng.integers(256)
    return bytes(changed)


def read_slide(path):
    with open_slide(path) as slide:
        if slide.width * slide.height < 2**24:
            slide.read_region(0, 0, slide.width, slide.height)


def read_all_labels(path):
    check_outlined(read_coco(path), path)
    read_labels(path)


def check(path, content, read, *, seed):
    """Reading a damaged file works, or raises what is shown as one line; memory is bounded."""
    before_mb = peak_mb()
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        path.write_bytes(damage(content, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path)
            except InputError as error:
                assert path.name in str(error)
    assert peak_mb() - before_mb < MEMORY_MB


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("read", [read_image_rgb, read_slide])
@pytest.mark.timeout(300)
def test_pictures(tmp_path, name, read):
    PICTURES[name](tmp_path / name)
    check(tmp_path / name, (tmp_path / name).read_bytes(), read, seed=1)


@pytest.mark.parametrize("read", [read_image_rgb, read_slide])
@pytest.mark.parametrize("name", ["lzw.tif", "a.ome.tif"])
def test_a_height_that_the_pieces_do_not_fill_is_refused(tmp_path, name, read):
    """It was read, as gigabytes of black."""
    path = tmp_path / name
    PICTURES[name](path)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(6_000_000, dtype="I")
    with pytest.raises(InputError, match=r"of the \d+ pieces that its size needs"):
        read(path)


@pytest.mark.parametrize("read", [read_image_rgb, read_slide])
def test_a_size_that_is_no_number_is_refused(tmp_path, read):
    """A tuple times a billion took all memory."""
    path = tmp_path / "a.tif"
    PICTURES["tiles.tif"](path)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["TileWidth"].overwrite((1, 1), dtype="H")
        tiff.pages[0].tags["TileLength"].overwrite(1_400_000_000, dtype="I")
    with pytest.raises(InputError, match=r"its tilewidth is .*expected a number"):
        read(path)


@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.timeout(300)
def test_slides_of_scanners(tmp_path, name):
    vendor, write = SLIDES[name]
    write(tmp_path / name)
    assert openslide.OpenSlide.detect_format(tmp_path / name) == vendor
    with open_slide(tmp_path / name) as slide:
        assert (slide.width, slide.height) == PICTURE.shape[1::-1]
    check(tmp_path / name, (tmp_path / name).read_bytes(), read_slide, seed=5)


@pytest.mark.parametrize("name", MASKS)
def test_masks(tmp_path, name):
    MASKS[name](tmp_path / name)
    check(tmp_path / name, (tmp_path / name).read_bytes(), read_mask_pages, seed=2)


@pytest.mark.parametrize("read", [read_features, read_regions])
def test_geojson(tmp_path, read):
    content = json.dumps({"type": "FeatureCollection", "features": [FEATURE, FEATURE]}).encode()
    check(tmp_path / "a.geojson", content, read, seed=3)


def test_coco(tmp_path):
    check(tmp_path / "a.json", json.dumps(coco()).encode(), read_all_labels, seed=4)


WRONG = [None, True, -1, 0, 1e400, "", "x", [], [1], {}, {"a": 1}, [[1, 2]], 10**30, float("nan")]


def places_in(content, path=()):
    """Where values are in nested lists and dicts."""
    yield path
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield from places_in(content[key], (*path, key))


def put(content, path, value):
    if not path:
        return value
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return content


@pytest.mark.parametrize("kind", ["coco", "geojson"])
def test_any_value_may_be_wrong(tmp_path, kind):
    make = coco if kind == "coco" else lambda: json.loads(json.dumps(FEATURE))
    reads = [read_all_labels] if kind == "coco" else [read_features, read_regions]
    path = tmp_path / "a.json"
    for place in places_in(make()):
        for value in WRONG:
            path.write_text(json.dumps(put(make(), place, value)))
            for read in reads:
                try:
                    read(path)
                except InputError as error:
                    assert "a.json" in str(error)


@pytest.mark.parametrize("version", [2, 3])
def test_any_value_of_an_ome_zarr_may_be_wrong(tmp_path, version):
    zarr = pytest.importorskip("zarr", reason="OME-Zarr needs zarr: pip install '.[zarr]'")
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    group.create_array("0", data=PICTURE, chunks=(32, 32, 3))
    axes = [{"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "micrometer"}, {"name": "c"}]
    scale = [{"type": "scale", "scale": [0.5, 0.5, 1]}]
    ome = {
        "multiscales": [
            {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
        ],
        "omero": {"channels": [{"color": "FF0000"}, {"color": "00FF00"}, {"color": "0000FF"}]},
    }
    group.attrs.update(ome if version == 2 else {"ome": ome})
    names = (".zattrs", ".zgroup", "0/.zarray") if version == 2 else ("zarr.json", "0/zarr.json")
    for path in [tmp_path / "a.zarr" / name for name in names]:
        content = path.read_text()
        for number, place in enumerate(places_in(json.loads(content))):
            wrong = WRONG[number % len(WRONG)]
            path.write_text(json.dumps(put(json.loads(content), place, wrong)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read_slide(tmp_path / "a.zarr")
                except InputError as error:
                    assert "a.zarr" in str(error)
        path.write_text(content)
    read_slide(tmp_path / "a.zarr")
