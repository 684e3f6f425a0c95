"""SpatialData stores, read back by SpatialData itself."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from drawn_slide import DISKS, MANY_FORMS, SHAPE, draw_slide, outline_real_tile

from steatosis_d2.data.images import list_inputs
from steatosis_d2.errors import InputError
from steatosis_d2.inference.outputs import Reporting, write_slide_outputs
from steatosis_d2.measurement.filters import parse_rules
from steatosis_d2.slides.slide import SLIDE_SUFFIXES

spatialdata = pytest.importorskip("spatialdata", reason="needs: pip install '.[spatialdata]'")
import geopandas  # noqa: E402
from geopandas.testing import assert_geoseries_equal  # noqa: E402
from spatialdata.transformations import get_transformation  # noqa: E402


def write_files(tmp_path, instances=MANY_FORMS, *, rules=(), **changes):
    """The folder with the files of a drawn slide, its store among them."""
    return write_files_of(
        draw_slide(tmp_path / "inputs", instances, **changes), tmp_path, rules=rules
    )


def write_files_of(segmented, tmp_path, *, rules=()):
    write_slide_outputs(
        segmented,
        tmp_path / "out",
        result_folder=tmp_path / "journal",
        reporting=Reporting(rules=tuple(parse_rules(list(rules))), formats=("spatialdata",)),
    )
    return tmp_path / "out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of a slide with many forms of droplets, of which a filter drops one."""
    return write_files(tmp_path_factory.mktemp("slide"), rules=["score>=0.5"])


@pytest.fixture(scope="module")
def store(folder):
    """Its store, as SpatialData reads it."""
    return spatialdata.read_zarr(folder / "tile.zarr")


@pytest.fixture
def write(tmp_path):
    """Function: (instances, settings) -> the store of another slide, read anew."""

    def write(*arguments, **settings):
        return spatialdata.read_zarr(write_files(tmp_path, *arguments, **settings) / "tile.zarr")

    return write


def test_shapes_and_measurements_are_those_of_the_table(folder, store):
    table = geopandas.read_parquet(folder / "tile.parquet").set_index("instance_id")
    assert_geoseries_equal(store["droplets"].geometry, table.geometry)
    assert store["droplets"].area.to_numpy() * 0.5**2 == pytest.approx(table["area_um2"])
    measured = store["measurements"]
    for name in measured.var_names:
        assert measured[:, name].X.ravel() == pytest.approx(table[name], nan_ok=True)
    assert measured.obs["dropped_by"].tolist() == table["dropped_by"].tolist()
    assert {*measured.var_names, *measured.obs} >= {*table.columns} - {"geometry"}


def test_table_annotates_the_shapes(store):
    """One row a droplet, which SpatialData itself joins with its outline."""
    shapes, rows = spatialdata.join_spatialelement_table(
        store, spatial_element_names="droplets", table_name="measurements", how="inner"
    )
    assert len(shapes["droplets"]) == len(rows) == len(MANY_FORMS)
    outlined, centres = shapes["droplets"].geometry.values, shapely.points(rows.obsm["spatial"])
    # the first has a hole there, the fourth and fifth lie on both sides
    assert shapely.contains(outlined, centres).tolist() == [False, True, True, False, False, True]


def test_coordinate_systems_are_px_and_um(store):
    assert set(store.coordinate_systems) == {"global", "um"}
    extent = spatialdata.get_extent(store["wsi_thumbnail"], coordinate_system="um")
    assert extent == {"x": (0, SHAPE[1] / 2), "y": (0, SHAPE[0] / 2)}
    in_um = spatialdata.transform(store["droplets"], to_coordinate_system="um")
    assert in_um.area.to_numpy() == pytest.approx(store["measurements"][:, "area_um2"].X.ravel())


def test_without_a_pixel_size_there_are_px_alone(write):
    store = write(mpp=None)
    assert store.coordinate_systems == ["global"]
    areas_px = store["measurements"][:, "area_px"].X.ravel()
    assert areas_px.tolist() == [one.crop.sum() for one in MANY_FORMS]


def test_thumbnail_lies_over_the_slide(write, monkeypatch):
    monkeypatch.setattr("steatosis_d2.inference.spatial_store.THUMBNAIL_PX", 100)
    store = write()
    thumbnail = store["wsi_thumbnail"]
    assert thumbnail.shape == (3, 75, 100)
    assert thumbnail.c.values.tolist() == ["r", "g", "b"]
    scale = get_transformation(thumbnail).to_affine_matrix(("x", "y"), ("x", "y"))
    assert np.diag(scale).tolist() == [4, 4, 1]


def test_tissue_is_outlined_within_the_slide(write, monkeypatch):
    monkeypatch.setattr("steatosis_d2.slides.tissue.CELL_UM", 3.5)  # cells that 300 px cut
    [tissue] = write()["tissues"].geometry
    assert tissue.equals(shapely.box(0, 0, *SHAPE[::-1]))


def test_regions_keep_their_names(write):
    regions = (("left", shapely.box(0, 0, 200, 300)), ("right", shapely.box(200, 0, 400, 300)))
    store = write(named_regions=regions)
    assert store["regions"]["name"].tolist() == ["left", "right"]
    assert store["regions"].geometry.area.tolist() == [60_000, 60_000]


def test_slide_without_droplets(write):
    store = write([])
    assert "droplets" not in store
    assert store["measurements"].n_obs == 0
    assert "area_um2" in store["measurements"].var_names


def test_nuclei_are_called_nuclei(write):
    store = write(DISKS, category="nucleus")
    assert len(store["nuclei"]) == len(DISKS)
    assert set(store["measurements"].obs["category"]) == {"nucleus"}


def test_store_says_what_made_it(store):
    assert store.attrs["steatosis_d2"]["model"] == {"kind": "drawn"}
    # what wsidata looks for
    assert store.attrs["slide_properties"] == {"shape": list(SHAPE), "mpp": 0.5}


def test_written_again_the_bytes_are_the_same(tmp_path):
    def digest(folder):
        return {
            path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }

    before = digest(write_files(tmp_path))
    assert digest(write_files(tmp_path)) == before


def test_real_tile(tmp_path, shared_data):
    folder = write_files_of(outline_real_tile(shared_data), tmp_path)
    store = spatialdata.read_zarr(folder / "tile.zarr")
    table = geopandas.read_parquet(folder / "tile.parquet").set_index("instance_id")
    assert len(table) > 50
    assert_geoseries_equal(store["droplets"].geometry, table.geometry)
    assert store["measurements"][:, "area_um2"].X.ravel().tolist() == table["area_um2"].tolist()


def test_store_beside_a_slide_is_no_input(folder, tmp_path):
    """As LazySlide keeps it: else it would be taken for a slide in OME-Zarr."""
    shutil.copytree(folder / "tile.zarr", tmp_path / "tile.zarr")
    (tmp_path / "tile.png").touch()
    files, faults = list_inputs([tmp_path], suffixes=SLIDE_SUFFIXES)
    assert list(files) == ["tile.png"]
    assert not faults


def test_what_this_program_did_not_write_is_not_replaced(write, tmp_path):
    slide_in_zarr = tmp_path / "out" / "tile.zarr"
    slide_in_zarr.mkdir(parents=True)
    attributes = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {}}}
    (slide_in_zarr / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(InputError, match=r"tile\.zarr' is there already"):
        write()
    assert [path.name for path in slide_in_zarr.iterdir()] == ["zarr.json"]


@pytest.mark.parametrize("change", ["no outlines", "no description"])
def test_table_of_another_program_is_refused(folder, tmp_path, change):
    from steatosis_d2.inference.spatial_store import write_store

    path = tmp_path / "tile.parquet"
    table = pq.read_table(folder / "tile.parquet")
    if change == "no outlines":  # as earlier versions wrote it
        table = table.drop_columns("geometry")
    else:
        table = table.replace_schema_metadata()
    pq.write_table(table, path)
    with pytest.raises(InputError, match="segment the slide anew"):
        write_store(tmp_path / "tile.zarr", draw_slide(tmp_path, []), path)
