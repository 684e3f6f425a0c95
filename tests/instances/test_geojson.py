"""GeoJSON as QuPath writes and reads it."""

import gzip
import json

import numpy as np
import pytest
import shapely

from steatosis_d2.errors import InputError
from steatosis_d2.instances.geojson import (
    detection_feature,
    open_feature_collection,
    read_features,
    read_number,
)

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]}
RING = np.array(SQUARE["coordinates"][0])


def feature(polygons=((RING,),), **changes):
    arguments = {
        "number": 17,
        "category": "droplet",
        "color_rgb": (0, 140, 60),
        "measurements": {"area_um2": 1.0},
    }
    return detection_feature(polygons, **(arguments | changes))


def write(path, features):
    with open_feature_collection(path) as write_feature:
        for one in features:
            write_feature(one)
    return path


def test_detection_has_what_qupath_reads():
    assert feature() == {
        "type": "Feature",
        "id": "00000000-0000-4000-8000-000000000011",
        "geometry": SQUARE,
        "properties": {
            "objectType": "detection",
            "name": "17",
            "classification": {"name": "droplet", "color": (0, 140, 60)},
            "measurements": {"area_um2": 1.0},
        },
    }


def test_annotations_are_written_when_asked():
    assert feature(object_type="annotation")["properties"]["objectType"] == "annotation"


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_objects_are_known_by_their_numbers(tmp_path, name):
    path = write(tmp_path / name, [feature(number=17), feature(number=2**40)])
    assert path.read_bytes().startswith(b"\x1f\x8b") == name.endswith("gz")
    assert [read_number(one) for one in read_features(path)] == [17, 2**40]


def test_two_parts_are_a_multipolygon():
    geometry = feature(((RING,), (RING + 10,)))["geometry"]
    assert geometry["type"] == "MultiPolygon"
    assert shapely.geometry.shape(geometry).area == 32


def test_written_features_are_read_again(tmp_path):
    path = write(tmp_path / "a.geojson.gz", [feature(number=1), feature(number=2)])
    features = read_features(path)
    assert [one.properties["name"] for one in features] == ["1", "2"]
    assert features[0].geometry.equals(shapely.box(0, 0, 4, 4))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_file_is_json_by_itself(tmp_path, count):
    path = write(tmp_path / "a.geojson.gz", [feature()] * count)
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == count


def test_equal_features_give_equal_bytes_under_any_name(tmp_path):
    one, other = (write(tmp_path / name, [feature()]) for name in ("a.gz", "b.gz"))
    assert one.read_bytes() == other.read_bytes()


def test_failed_writing_leaves_no_file(tmp_path):
    with (
        pytest.raises(ValueError, match="not JSON compliant"),
        open_feature_collection(tmp_path / "a.geojson.gz") as write_feature,
    ):
        write_feature(feature(measurements={"area_um2": float("nan")}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        SQUARE,
        {"type": "Feature", "geometry": SQUARE, "properties": {}},
        {"type": "Feature", "geometry": SQUARE, "properties": None},
        [{"type": "Feature", "geometry": SQUARE, "properties": {}}],
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": SQUARE}]},
        {"type": "GeometryCollection", "geometries": [SQUARE]},
    ],
)
def test_every_form_of_geojson_is_read(tmp_path, content):
    (tmp_path / "roi.geojson").write_text(json.dumps(content))
    [one] = read_features(tmp_path / "roi.geojson")
    assert one.geometry.area == 16


def test_outline_that_crosses_itself_is_made_valid(tmp_path, caplog):
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]}
    (tmp_path / "roi.geojson").write_text(json.dumps(bow_tie))
    [one] = read_features(tmp_path / "roi.geojson")
    assert one.geometry.is_valid
    assert one.geometry.area == 8
    assert one.is_mended
    assert "roi.geojson': object number 1 is mended (Self-intersection" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not GeoJSON"),
        (b"<xml/>", "is not GeoJSON"),
        (b"\x1f\x8bnot gzip", "is not GeoJSON"),
        (b"\xff\xfe\x00", "is not GeoJSON"),
        (b"[" * 100_000, "is not GeoJSON"),
        (b"12", "object number 1 is no GeoJSON"),
        (b"{}", "object number 1 is no GeoJSON"),
        (b'{"type": "FeatureCollection"}', "object number 1 is no GeoJSON"),
        (b'{"type": "Feature", "geometry": null}', "object number 1 is no GeoJSON"),
        (b'{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "object number 1 is no"),
        (b'{"type": "Polygon", "coordinates": [[[0, "x"], [1, 1], [2, 0]]]}', "number 1 is no"),
        (b'{"type": "Circle", "coordinates": []}', "object number 1 is no GeoJSON"),
    ],
)
def test_what_is_no_geojson_is_named(tmp_path, content, message):
    (tmp_path / "roi.geojson").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_features(tmp_path / "roi.geojson")
    assert "roi.geojson" in str(caught.value)


def test_truncated_gzip_is_named(tmp_path):
    path = write(tmp_path / "a.geojson.gz", [feature()] * 50)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="is not GeoJSON"):
        read_features(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.geojson' does not exist"):
        read_features(tmp_path / "none.geojson")
