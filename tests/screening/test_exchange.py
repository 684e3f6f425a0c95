"""Labels to QuPath and back."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from steatosis_d2.data.coco import image_record
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import decode_mask, encode_mask
from steatosis_d2.screening.exchange import (
    find_files,
    import_labels,
    name_files,
    write_labels,
)
from steatosis_d2.screening.labels import Label, LabelFile

HEIGHT, WIDTH = 30, 40
IMAGE = image_record(1, "a.png", height=HEIGHT, width=WIDTH)


def box_mask(top, bottom, left, right):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def with_hole():
    mask = box_mask(2, 12, 20, 32)
    mask[5:9, 24:28] = False
    return mask


def in_two_parts():
    return box_mask(15, 20, 2, 8) | box_mask(20, 26, 8, 12)


LABELS = [
    Label(3, encode_mask(box_mask(2, 10, 2, 10)), 0.8),
    Label(7, encode_mask(with_hole()), 0.4),
    Label(9, encode_mask(in_two_parts()), None),
]


def square(left, top, side=4.0):
    corners = [(0, 0), (side, 0), (side, side), (0, side), (0, 0)]
    return {
        "type": "Polygon",
        "coordinates": [[[left + x, top + y] for x, y in corners]],
    }


def drawn(geometry, **properties):
    """What a person adds in QuPath."""
    return {
        "type": "Feature",
        "id": "7c1b6a30-5f2e-4d6c-9a3e-2f5d8c1e4b70",
        "geometry": geometry,
        "properties": {"objectType": "annotation", "isLocked": False} | properties,
    }


@pytest.fixture
def round_trip(tmp_path):
    """A function: edit the list of features -> Imported."""

    def run(edit=lambda features: features, *, labels=LABELS, name="a.geojson", **options):
        path = tmp_path / name
        write_labels(path, labels, category="droplet", object_type="annotation")
        opener = gzip.open if name.endswith(".gz") else open
        with opener(path, "rt") as file:
            features = json.load(file)["features"]
        content = edit(features)
        with opener(path, "wt") as file:
            json.dump({"type": "FeatureCollection", "features": content}, file)
        settings = {"categories": ["droplet"], "first_free_id": 100}
        return import_labels(path, labels, IMAGE, **settings, **options)

    return run


def state(imported):
    return {label.id: label.screening for label in imported.labels}


def changes(imported):
    return {name: count for name, count in imported.changes.items() if count}


def test_written_objects_have_class_score_and_kind(tmp_path):
    labels = [LABELS[0], replace(LABELS[1], screening="rejected"), LABELS[2]]
    write_labels(tmp_path / "a.geojson", labels, category="droplet", object_type="detection")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    properties = [feature["properties"] for feature in features]
    assert [one["classification"]["name"] for one in properties] == [
        "droplet",
        "rejected",
        "droplet",
    ]
    assert [one["measurements"] for one in properties] == [{"score": 0.8}, {"score": 0.4}, {}]
    assert {one["objectType"] for one in properties} == {"detection"}
    assert [feature["geometry"]["type"] for feature in features] == [
        "Polygon",
        "Polygon",
        "MultiPolygon",
    ]


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_round_trip_without_edits_changes_nothing(round_trip, name):
    imported = round_trip(name=name)
    assert imported.labels == LABELS or [vars(label) for label in imported.labels] == [
        vars(label) for label in LABELS
    ]
    assert changes(imported) == {"unchanged": 3}
    assert imported.remarks == []


@settings(deadline=None, max_examples=60)
@given(mask=hnp.arrays(bool, (9, 8)))
def test_round_trip_of_any_mask_changes_no_pixel(tmp_path_factory, mask):
    mask[4, 4] = True
    path = tmp_path_factory.mktemp("any") / "a.geojson"
    image = image_record(1, "a.png", height=9, width=8)
    labels = [Label(1, encode_mask(mask))]
    write_labels(path, labels, category="droplet", object_type="detection")
    imported = import_labels(path, labels, image, categories=["droplet"], first_free_id=2)
    assert [label.rle for label in imported.labels] == [labels[0].rle]
    assert changes(imported) == {"unchanged": 1}


def as_qupath_saves(features):
    """Other order, whole numbers as 3.0, other starting points, no scores, more properties."""
    for feature in features:
        feature["properties"] = {
            "objectType": "annotation",
            "isLocked": True,
            "classification": {"name": "droplet", "color": [1, 2, 3]},
        }
        geometry = feature["geometry"]
        polygons = geometry["coordinates"]
        for polygon in [polygons] if geometry["type"] == "Polygon" else polygons:
            for ring in polygon:
                turned = [*ring[2:-1], *ring[:3]][::-1]
                ring[:] = [[float(x), float(y)] for x, y in turned]
    return features[::-1]


def test_what_qupath_rewrites_without_meaning_it_changes_nothing(round_trip):
    imported = round_trip(as_qupath_saves)
    assert [label.rle for label in imported.labels] == [label.rle for label in LABELS]
    assert [label.score for label in imported.labels] == [0.8, 0.4, None]
    assert changes(imported) == {"unchanged": 3}


def test_objects_that_lost_their_ids_are_known_by_their_pixels(round_trip):
    def forget(features):
        return [{key: f[key] for key in f if key != "id"} for f in features[::-1]]

    assert changes(round_trip(forget)) == {"unchanged": 3}


def test_bare_list_of_features_is_read(tmp_path):
    path = tmp_path / "a.geojson"
    write_labels(path, LABELS, category="droplet", object_type="detection")
    path.write_text(json.dumps(json.loads(path.read_text())["features"]))
    imported = import_labels(path, LABELS, IMAGE, categories=["droplet"], first_free_id=100)
    assert changes(imported) == {"unchanged": 3}


def test_deleted_object_is_rejected(round_trip):
    imported = round_trip(lambda features: features[1:])
    assert state(imported) == {3: "rejected", 7: "unreviewed", 9: "unreviewed"}
    assert changes(imported) == {"deleted": 1, "unchanged": 2}


def test_reclassified_object_is_rejected(round_trip):
    def reject(features):
        features[0]["properties"]["classification"] = {"name": "Rejected"}
        features[1]["properties"]["classification"] = {"names": ["vessel", "small"]}
        return features

    imported = round_trip(reject)
    assert state(imported) == {3: "rejected", 7: "rejected", 9: "unreviewed"}
    assert changes(imported) == {"rejected": 2, "unchanged": 1}


def test_rejected_object_that_is_a_droplet_again_is_accepted(round_trip):
    labels = [replace(LABELS[0], screening="rejected"), *LABELS[1:]]

    def restore(features):
        features[0]["properties"]["classification"] = {"name": "droplet"}
        return features

    imported = round_trip(restore, labels=labels)
    assert state(imported)[3] == "accepted"
    assert changes(imported) == {"restored": 1, "unchanged": 2}


def test_rejected_object_stays_rejected(round_trip):
    labels = [replace(LABELS[0], screening="rejected"), *LABELS[1:]]
    imported = round_trip(labels=labels)
    assert state(imported)[3] == "rejected"
    assert changes(imported) == {"unchanged": 3}


def test_edited_outline_is_taken_pixel_by_pixel(round_trip):
    def edit(features):
        features[0]["geometry"] = square(3.4, 2.0, 6.2)
        return features

    imported = round_trip(edit)
    assert np.array_equal(decode_mask(imported.labels[0].rle), box_mask(2, 8, 3, 10))
    assert (imported.labels[0].id, state(imported)[3]) == (3, "accepted")
    assert changes(imported) == {"edited": 1, "unchanged": 2}


def test_added_objects_get_ids_of_their_own(round_trip):
    def add(features):
        multi = {"type": "MultiPolygon", "coordinates": []}
        multi["coordinates"] = [square(30, 20)["coordinates"], square(35, 24)["coordinates"]]
        new = [
            drawn(square(15, 22)),
            drawn(multi, classification={"name": "droplet"}),
            drawn(square(36, 2, 3), classification={"name": "rejected"}),
        ]
        return new + features

    imported = round_trip(add)
    assert state(imported) | {3: "", 7: "", 9: ""} == {
        3: "",
        7: "",
        9: "",
        100: "accepted",
        101: "accepted",
        102: "rejected",
    }
    assert np.array_equal(decode_mask(imported.labels[3].rle), box_mask(22, 26, 15, 19))
    assert decode_mask(imported.labels[4].rle).sum() == 32
    assert changes(imported) == {"unchanged": 3, "added": 3}


def test_copied_object_is_added_and_the_original_kept(round_trip):
    """The copy, which comes first in the file, once took the place of the label."""

    def copy(features):
        moved = json.loads(json.dumps(features[0])) | {"geometry": square(15, 22)}
        return [moved, *features]

    imported = round_trip(copy)
    assert changes(imported) == {"unchanged": 3, "added": 1}
    assert imported.labels[0].rle == LABELS[0].rle


def test_region_of_another_class_is_left_out_and_said(round_trip):
    imported = round_trip(
        lambda features: [
            *features,
            drawn(square(0, 0, 30), classification={"name": "Tissue"}),
        ]
    )
    assert changes(imported) == {"unchanged": 3}
    assert imported.remarks == ["object number 4 has the class 'Tissue'; left out"]


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [3, 3]},
        {"type": "LineString", "coordinates": [[0, 0], [9, 9]]},
        square(100, 100),
        square(-50, -50, 40),
    ],
)
def test_objects_without_a_pixel_are_left_out_and_said(round_trip, geometry):
    imported = round_trip(lambda features: [*features, drawn(geometry)])
    assert changes(imported) == {"unchanged": 3}
    assert imported.remarks == ["object number 4 encloses no pixel of the image; left out"]


def test_outline_that_crosses_itself_is_mended_and_said(round_trip):
    bow_tie = {
        "type": "Polygon",
        "coordinates": [[[20, 16], [36, 28], [36, 16], [20, 28], [20, 16]]],
    }
    imported = round_trip(lambda features: [*features, drawn(bow_tie)])
    assert imported.remarks == ["object number 4 crossed itself; mended"]
    assert changes(imported) == {"unchanged": 3, "added": 1}
    assert decode_mask(imported.labels[3].rle).sum() == pytest.approx(96, abs=14)


def test_outline_beyond_the_image_is_cut(round_trip):
    imported = round_trip(lambda features: [*features, drawn(square(35, 25, 1e9))])
    assert np.array_equal(decode_mask(imported.labels[3].rle), box_mask(25, 30, 35, 40))


def test_untouched_labels_are_accepted_when_asked(round_trip):
    labels = [replace(LABELS[0], screening="rejected"), *LABELS[1:]]
    imported = round_trip(labels=labels, accept_untouched=True)
    assert state(imported) == {3: "rejected", 7: "accepted", 9: "accepted"}


@pytest.mark.parametrize(
    "identity", [5, None, "x", {"a": 1}, "00000000-0000-4000-8000-0000000000ff"]
)
def test_strange_ids_are_those_of_new_objects(round_trip, identity):
    new = drawn(square(15, 22)) | {"id": identity}
    assert changes(round_trip(lambda features: [*features, new])) == {"unchanged": 3, "added": 1}


@pytest.mark.parametrize("properties", [None, [], "text", {"classification": "droplet"}])
def test_strange_properties_are_no_class(round_trip, properties):
    new = drawn(square(15, 22)) | {"properties": properties}
    assert changes(round_trip(lambda features: [*features, new])) == {"unchanged": 3, "added": 1}


@pytest.mark.parametrize(
    "coordinates",
    [
        [[[0, 0], [float("nan"), 5], [5, 5], [0, 0]]],
        [[[0, 0], [float("inf"), 5], [5, 5], [0, 0]]],
        [[[0, 0]]],
    ],
)
def test_coordinates_that_are_none_are_an_error(round_trip, coordinates):
    bad = drawn({"type": "Polygon", "coordinates": coordinates})
    with pytest.raises(InputError, match=r"a\.geojson': object number 4 is no GeoJSON"):
        round_trip(lambda features: [*features, bad])


# Files


def label_file(tmp_path, *names):
    images = {
        number: image_record(number, name, height=HEIGHT, width=WIDTH)
        for number, name in enumerate(names, 1)
    }
    return LabelFile(
        path=tmp_path / "labels.json",
        digest="",
        images=images,
        labels={number: [] for number in images},
        regions=[],
        categories={"droplet": 1},
        info={},
    )


def test_files_are_named_after_their_images(tmp_path):
    names = name_files(label_file(tmp_path, "a.png", "sub/a.png", "b.png", "b.tif", "c.x.png"))
    assert list(map(str, names.values())) == ["a", "sub/a", "b.png", "b.tif", "c.x"]


def test_each_image_gets_its_file(tmp_path):
    for name in ("a.geojson", "sub/a.geojson.gz", "c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, faults = find_files(
        label_file(tmp_path, "a.png", "sub/a.png", "c.png", "d.png"), tmp_path
    )
    assert {number: path.name for number, path in found.items()} == {
        1: "a.geojson",
        2: "a.geojson.gz",
        3: "c.json",
    }
    assert faults == []


def test_files_of_no_image_and_two_of_one_are_faults(tmp_path):
    for name in ("a.geojson", "b.geojson", "b.geojson.gz", "x.geojson"):
        (tmp_path / name).touch()
    found, faults = find_files(label_file(tmp_path, "a.png", "b.png"), tmp_path)
    assert list(found) == [1]
    assert "image 'b.png' has 2 files" in faults[0]
    assert "x.geojson' belongs to no image" in faults[1]


def test_folder_without_files_of_the_images_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no GeoJSON files of any image"):
        find_files(label_file(tmp_path, "a.png"), tmp_path)
    with pytest.raises(InputError, match="none' of GeoJSON files does not exist"):
        find_files(label_file(tmp_path, "a.png"), tmp_path / "none")
