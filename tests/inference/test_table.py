"""The table of droplets as GeoPandas and pandas read it: its outlines and columns."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from drawn_slide import MANY_FORMS, Segmented, draw_slide, paint

from steatosis_d2.errors import InputError
from steatosis_d2.inference import table as table_module
from steatosis_d2.inference.outputs import Reporting, write_slide_outputs
from steatosis_d2.inference.table import read_model_of
from steatosis_d2.instances.geojson import read_features, read_number
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.outlines import fill_geometry
from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import choose_parameters
from steatosis_d2.measurement.filters import parse_rules
from steatosis_d2.slides.slide import open_slide

geopandas = pytest.importorskip("geopandas", reason="needs geopandas: pip install '.[dev]'")


@pytest.fixture
def write(tmp_path):
    """Function: instances -> folder with the files of a slide on which they were found."""

    def write(instances=MANY_FORMS, *, rules=(), **changes):
        write_slide_outputs(
            draw_slide(tmp_path / "inputs", instances, **changes),
            tmp_path / "out",
            result_folder=tmp_path / "journal",
            reporting=Reporting(rules=tuple(parse_rules(list(rules)))),
        )
        return tmp_path / "out"

    return write


def test_geopandas_reads_the_masks_pixel_by_pixel(write):
    droplets = geopandas.read_parquet(write() / "tile.parquet")
    assert droplets.crs is None
    assert droplets.geometry.is_valid.all()
    for one, geometry in zip(MANY_FORMS, droplets.geometry, strict=True):
        np.testing.assert_array_equal(paint([Instance(*fill_geometry(geometry), 1)]), paint([one]))
    assert (droplets.geometry.area * 0.5**2).tolist() == droplets["area_um2"].tolist()


def test_outlines_are_those_of_the_geojson(write):
    folder = write(rules=["score>=0.5"])
    droplets = geopandas.read_parquet(folder / "tile.parquet").set_index("instance_id")
    features = read_features(folder / "tile.geojson.gz")
    assert len(features) == len(droplets) - 1  # one is dropped, and has an outline all the same
    for feature in features:
        assert feature.geometry.equals(droplets.geometry[read_number(feature)])
    assert set(droplets.geom_type) == {"Polygon", "MultiPolygon"}


def test_metadata_are_those_of_geoparquet(write):
    metadata = pq.read_metadata(write() / "tile.parquet").metadata
    geo = json.loads(metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"], column["crs"]) == ("1.0.0", "WKB", None)
    droplets = geopandas.read_parquet(write() / "tile.parquet")
    assert column["bbox"] == droplets.total_bounds.tolist()
    assert set(droplets.geom_type) <= set(column["geometry_types"])
    shells = shapely.get_exterior_ring(shapely.get_parts(droplets.geometry.values))
    assert shapely.is_ccw(shells).all()


def test_pandas_reads_the_columns_with_the_outlines_last(write):
    table = pd.read_parquet(write() / "tile.parquet")
    assert table.columns[0] == "instance_id"
    assert table.columns[-2:].tolist() == ["dropped_by", "geometry"]
    assert table["instance_id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert shapely.from_wkb(table["geometry"].iloc[0]).area == MANY_FORMS[0].crop.sum()


def test_table_that_is_written_in_several_pieces(write, monkeypatch):
    whole = geopandas.read_parquet(write() / "tile.parquet")
    monkeypatch.setattr(table_module, "_ROW_GROUP", 2)
    monkeypatch.setattr("steatosis_d2.instances.strip._MAX_PIXELS", 3000)
    path = write() / "tile.parquet"
    assert pq.read_metadata(path).num_row_groups > 1
    pd.testing.assert_frame_equal(geopandas.read_parquet(path), whole)


def test_table_without_droplets(write):
    droplets = geopandas.read_parquet(write([]) / "tile.parquet")
    assert len(droplets) == 0
    assert droplets.geometry.name == "geometry"


def test_real_tile(tmp_path, shared_data):
    """Droplets as they are: GeoPandas finds them valid and as large as they are in the table."""
    path = next((shared_data / "guo2019_liver").glob("161_*/image/*.png"))
    slide = open_slide(path, mpp=0.25)
    image_rgb = slide.read_region(0, 0, slide.width, slide.height)
    found = label_by_clump_split(image_rgb, mpp=0.25, parameters=choose_parameters(0.25))
    segmented = Segmented(slide, found)
    write_slide_outputs(segmented, tmp_path / "out", result_folder=tmp_path / "journal")
    droplets = geopandas.read_parquet(tmp_path / "out" / "tile.parquet")
    assert len(droplets) == len(found) > 50
    assert droplets.geometry.is_valid.all()
    assert (droplets.geometry.area * 0.25**2).tolist() == droplets["area_um2"].tolist()


def test_damaged_table_is_named(tmp_path):
    (tmp_path / "L07.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"L07\.parquet' is damaged"):
        read_model_of(tmp_path)
