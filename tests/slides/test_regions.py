"""Regions of interest come from QuPath, or from whatever else writes GeoJSON."""

import gzip
import json
from pathlib import Path

import pytest
import shapely

from steatosis_d2.errors import InputError
from steatosis_d2.inference.plan import name_inputs
from steatosis_d2.slides.regions import find_regions, read_regions

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
    regions = read(content).union
    assert regions.is_valid
    assert regions.area == area


def test_gzipped_files_are_read(read):
    assert read(FEATURE, name="regions.geojson.gz").union.area == 100


def test_regions_that_overlap_count_once(read):
    assert read([FEATURE, FEATURE]).union.area == 100


def test_an_outline_that_crosses_itself_is_mended(read):
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    regions = read(bow_tie).union
    assert regions.is_valid
    assert regions.area == pytest.approx(50)
    assert regions.contains(shapely.Point(1, 5)) and not regions.contains(shapely.Point(5, 1))


def test_lines_and_points_are_left_out(read):
    assert read([FEATURE, {**FEATURE, "geometry": LINE}]).union.geom_type == "Polygon"


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


def square(left, right, name=None, **properties):
    ring = [[left, 0], [right, 0], [right, 10], [left, 10], [left, 0]]
    if name:
        properties["classification"] = {"name": name}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.mark.parametrize("name", ["Ignore*", "ignore*", "Ignore*: fold"])
def test_what_qupath_ignores_is_taken_away(read, name):
    assert read([square(0, 20, "Tissue"), square(0, 8, name)]).union.bounds == (8, 0, 20, 10)


def test_a_region_class_is_a_region(read):
    assert read([square(0, 20, "Region*"), square(0, 8, "Ignore*")]).union.area == 120


def test_what_is_ignored_alone_is_taken_from_the_whole_slide(read):
    regions = read(square(0, 8, "Ignore*")).union
    assert not regions.contains(shapely.Point(4, 5))
    assert regions.contains(shapely.Point(9, 5))
    assert regions.contains(shapely.Point(90_000, 90_000))


def test_all_that_is_wanted_may_not_be_ignored(read):
    with pytest.raises(InputError, match="encloses no area"):
        read([square(0, 8), square(0, 8, "Ignore*")])


def test_what_was_detected_is_no_region(read):
    found = [square(50 + i, 51 + i, objectType="detection") for i in range(5)]
    assert read([square(0, 20, objectType="annotation"), *found]).union.area == 200
    assert read(found).union.area == 50, "unless there is nothing else"


def inputs(*file_names):
    return name_inputs({name: Path(name) for name in file_names})


def test_each_input_has_its_file(tmp_path):
    (tmp_path / "a.geojson").write_text(json.dumps(square(0, 20)))
    (tmp_path / "b.geojson.gz").write_bytes(gzip.compress(json.dumps(square(0, 30)).encode()))
    regions = find_regions(tmp_path, inputs("x/a.svs", "x/b.svs"))
    assert [one.union.area for one in regions] == [200, 300]
    with pytest.raises(InputError, match=r"no regions of 'c\.svs'; expected c\.geojson"):
        find_regions(tmp_path, inputs("a.svs", "c.svs"))


def test_one_file_is_for_one_input(tmp_path):
    (tmp_path / "a.geojson").write_text(json.dumps(square(0, 20)))
    [regions] = find_regions(tmp_path / "a.geojson", inputs("b.svs"))
    assert regions.union.area == 200
    with pytest.raises(InputError, match=r"for 2 inputs.*holds a\.geojson and so on"):
        find_regions(tmp_path / "a.geojson", inputs("a.svs", "b.svs"))


def test_several_regions_are_parts_by_name(read):
    named = [
        square(0, 10, "left"),
        square(5, 15, "left"),
        square(20, 30, "Tumor"),
        square(40, 50),
        square(0, 2, "Ignore*"),
    ]
    regions = read(named)
    assert [name for name, _ in regions.named] == ["left 1", "left 2", "Tumor", "region 4"]
    assert [area.area for _, area in regions.named] == [80, 100, 100, 100]  # two overlap
    assert regions.union.area == 130 + 100 + 100


def test_one_region_is_a_part_where_it_has_a_name(read):
    assert read(square(0, 10)).named == ()
    assert [name for name, _ in read(square(0, 10, "core A")).named] == ["core A"]


def test_regions_from_python_have_names():
    shapes = {"a": shapely.box(0, 0, 10, 10), "b": shapely.box(5, 0, 15, 10)}
    [regions] = find_regions(shapes, inputs("a.svs"))
    assert regions.union.area == 150
    assert [name for name, _ in regions.named] == ["a", "b"]
