"""Regions of interest come from QuPath, or from whatever else writes GeoJSON."""

import gzip
import json

import pytest
import shapely

from steatosis_d2.errors import InputError
from steatosis_d2.slides.regions import read_regions

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}
FAR_SQUARE = {"type": "Polygon", "coordinates": [[[20, 0], [30, 0], [30, 10], [20, 10], [20, 0]]]}
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
FEATURE = {"type": "Feature", "geometry": SQUARE, "properties": {"objectType": "annotation"}}
LINE = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}


@pytest.fixture
def read(tmp_path):
    """Function that writes content as GeoJSON and reads it as regions."""

    def write_and_read(content, *, name="regions.geojson"):
        text = content if isinstance(content, str) else json.dumps(content)
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return read_regions(tmp_path / name)

    return write_and_read


@pytest.mark.parametrize(
    ("content", "area"),
    [
        (SQUARE, 100),
        (FEATURE, 100),
        ([FEATURE], 100),
        ({"type": "FeatureCollection", "features": [FEATURE]}, 100),
        ({"type": "Polygon", "coordinates": [*SQUARE["coordinates"], HOLE]}, 96),
        (
            {
                "type": "MultiPolygon",
                "coordinates": [SQUARE["coordinates"], FAR_SQUARE["coordinates"]],
            },
            200,
        ),
        ({"type": "GeometryCollection", "geometries": [SQUARE, LINE, FAR_SQUARE]}, 200),
    ],
)
def test_regions_of_every_form_are_read(read, content, area):
    regions = read(content)
    assert regions.is_valid
    assert regions.area == area


def test_gzipped_files_are_read(read):
    assert read(FEATURE, name="regions.geojson.gz").area == 100


def test_regions_that_overlap_count_once(read):
    assert read([FEATURE, FEATURE]).area == 100


def test_an_outline_that_crosses_itself_is_mended(read):
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    regions = read(bow_tie)
    assert regions.is_valid
    assert regions.area == pytest.approx(50)
    assert regions.contains(shapely.Point(1, 5)) and not regions.contains(shapely.Point(5, 1))


def test_lines_and_points_are_left_out(read):
    assert read([FEATURE, {**FEATURE, "geometry": LINE}]).geom_type == "Polygon"


@pytest.mark.parametrize("content", ["", "no json", "[1, 2", '{"type": "Polygon"}', '"text"', "7"])
def test_what_is_no_geojson_is_named(read, content):
    with pytest.raises(InputError, match=r"regions\.geojson"):
        read(content)


@pytest.mark.parametrize("content", [LINE, [], {"type": "FeatureCollection", "features": []}])
def test_regions_without_area_are_an_error(read, content):
    with pytest.raises(InputError, match=r"regions\.geojson' encloses no area"):
        read(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.geojson' does not exist"):
        read_regions(tmp_path / "gone.geojson")
