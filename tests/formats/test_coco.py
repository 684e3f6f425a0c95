"""COCO as other programs write it: read as it is meant, or refused."""

import json

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.catalog import load_coco_file
from steatosis_d2.data.coco import read_coco
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.screening.labels import read_labels

HEIGHT, WIDTH = 40, 50
PLACES = {1: (2, 3), 2: (20, 5), 3: (10, 30)}


def mask_at(top, left):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + 8, left : left + 9] = True
    return mask


def coco(**changes):
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [left, top, 9, 8],
            "area": 72,
            "segmentation": encode_mask(mask_at(top, left)),
        }
        | changes
        for number, (top, left) in PLACES.items()
    ]
    image = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
    return {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "droplet"}],
    }


def write(path, content, *, encoding="utf-8"):
    path.write_bytes(json.dumps(content).encode(encoding))
    return path


def load(tmp_path, content, **settings):
    """As training reads it."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    path = write(tmp_path / "a.json", content, **settings)
    # Detectron2 keeps what it knows of a data set's name.
    name = str(tmp_path)
    return load_coco_file(name, annotations=path, images=tmp_path, cure="")


def boxes(records):
    return sorted(one["bbox"] for one in records[0]["annotations"] if not one["iscrowd"])


EXPECTED = sorted([left, top, 9, 8] for top, left in PLACES.values())


def edit(content, function):
    for annotation in content["annotations"]:
        function(annotation)
    return content


def polygon(box):
    left, top, width, height = box
    return [left, top, left + width, top, left + width, top + height, left, top + height]


FORMS = {
    "plain": lambda: coco(),
    "iscrowd as text": lambda: coco(iscrowd="0"),
    "iscrowd false": lambda: coco(iscrowd=False),
    "iscrowd null": lambda: coco(iscrowd=None),
    "no bbox": lambda: edit(coco(), lambda one: one.pop("bbox")),
    "no area": lambda: edit(coco(), lambda one: one.pop("area")),
    "no iscrowd": lambda: edit(coco(), lambda one: one.pop("iscrowd")),
    "no ids": lambda: edit(coco(), lambda one: one.pop("id")),
    "no category": lambda: edit(coco(), lambda one: one.pop("category_id")),
    "category null": lambda: coco(category_id=None),
    "flat polygon": lambda: edit(coco(), lambda one: one.update(segmentation=polygon(one["bbox"]))),
    "list of polygons": lambda: edit(
        coco(), lambda one: one.update(segmentation=[polygon(one["bbox"])])
    ),
    "ids as text": lambda: edit(
        coco(image_id="1"), lambda one: one.update(id=f"a{one['id']}", category_id="1")
    ),
    "ids as floats": lambda: coco(image_id=1.0, category_id=1.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_objects_whatever_the_form(tmp_path, form):
    assert boxes(load(tmp_path, FORMS[form]())) == EXPECTED
    labels = read_labels(tmp_path / "a.json").labels[1]
    assert len(labels) == 3


def test_a_byte_order_mark_is_no_fault(tmp_path):
    assert boxes(load(tmp_path, coco(), encoding="utf-8-sig")) == EXPECTED


@pytest.mark.parametrize("name", ["C:\\data\\tiles\\a.png", "a.png"])
def test_paths_of_windows(tmp_path, name):
    content = coco()
    content["images"][0]["file_name"] = name
    assert load(tmp_path, content)[0]["file_name"] == str(tmp_path / "a.png")


def test_folders_of_windows(tmp_path):
    content = coco()
    content["images"][0]["file_name"] = "tiles\\a.png"
    assert read_coco(write(tmp_path / "a.json", content))["images"][0]["file_name"] == "tiles/a.png"


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_areas_to_ignore_are_such_however_they_are_marked(tmp_path, key):
    content = coco()
    content["annotations"][0][key] = "1"
    assert len(boxes(load(tmp_path, content))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iscrowd": 1}, "all 3 annotations are areas to ignore.*as CVAT exports"),
        ({"iscrowd": "maybe"}, "'iscrowd' 'maybe'; expected 0 or 1"),
        ({"segmentation": None}, "annotation 1: mask is neither"),
        ({"segmentation": []}, "annotation 1: mask is neither"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 1: mask is neither"),
        ({"segmentation": {"size": [4, 4], "counts": "0"}}, r"annotation 1: mask has size"),
        ({"category_id": 7}, "annotation 1 has the category 7"),
        ({"image_id": 9}, "annotation 1 belongs to image 9"),
    ],
)
def test_what_says_nothing_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, coco(**changes))


@pytest.mark.parametrize("content", [b"", b"[", b"\xff\xfe", b"[" * 100_000, b"null", b"[1]"])
def test_what_is_no_coco_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json'"):
        read_coco(tmp_path / "a.json")


# --- several categories ---


@pytest.fixture
def two_categories(tmp_path):
    """Two nuclei and a droplet; predictions have the droplet alone, under another id."""
    truth = coco()
    truth["categories"] = [{"id": 4, "name": "nucleus"}, {"id": 7, "name": "droplet"}]
    for number, annotation in enumerate(truth["annotations"]):
        annotation["category_id"] = 7 if number == 0 else 4
    predictions = coco(score=0.9)
    del predictions["annotations"][1:]
    write(tmp_path / "truth.json", truth)
    write(tmp_path / "predictions.json", predictions)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    return tmp_path


def evaluate(run_script, folder, *options):
    return run_script(
        "tools/evaluate.py",
        *("--ground-truth", folder / "truth.json"),
        *("--predictions", folder / "predictions.json"),
        *("--output", folder / "metrics.json", *options),
    )


def test_one_category_is_measured_by_its_name(two_categories, run_script):
    assert evaluate(run_script, two_categories, "--category", "droplet").returncode == 0
    figures = json.loads((two_categories / "metrics.json").read_text())
    assert figures["instances"]["recall"] == figures["instances"]["precision"] == 1


def test_without_a_choice_each_is_measured_by_itself(two_categories, run_script):
    assert evaluate(run_script, two_categories).returncode == 0
    figures = json.loads((two_categories / "metrics.json").read_text())
    recall = {name: figures[name]["instances"]["recall"] for name in figures}
    assert recall == {"predictions, droplet": 1, "predictions, nucleus": 0}


def test_a_prediction_of_no_known_category_is_refused(two_categories, run_script):
    content = coco(score=0.9, category_id=3)
    content["categories"] = [{"id": 3, "name": "vessel"}]
    write(two_categories / "predictions.json", content)
    done = evaluate(run_script, two_categories)
    assert done.returncode == 1
    assert "the category 'vessel', which is not among" in done.stderr
    write(two_categories / "predictions.json", content | {"categories": [{"id": 1, "name": "x"}]})
    done = evaluate(run_script, two_categories)
    assert done.returncode == 1
    assert "has the category 3, which is not among [1]" in done.stderr


def test_one_category_each_of_another_name_is_measured_and_said(two_categories, run_script):
    write(two_categories / "truth.json", coco())
    content = coco(score=0.9)
    content["categories"] = [{"id": 1, "name": "fat"}]
    write(two_categories / "predictions.json", content)
    done = evaluate(run_script, two_categories)
    assert done.returncode == 0
    assert "is about 'fat'" in done.stderr
    figures = json.loads((two_categories / "metrics.json").read_text())
    assert figures["instances"]["f1"] == 1


def test_nothing_found_is_no_perfect_score(two_categories, run_script):
    write(two_categories / "truth.json", coco(iscrowd=1))
    write(two_categories / "predictions.json", coco() | {"annotations": []})
    done = evaluate(run_script, two_categories)
    assert done.returncode == 1
    assert "set its iscrowd to 0" in done.stderr


def test_screening_keeps_categories(two_categories, run_script):
    labels = two_categories / "truth.json"
    tool, folder = "tools/screen_labels.py", two_categories / "q"
    assert run_script(tool, "export", labels, "--images", two_categories, "--output", folder)
    features = json.loads((folder / "a.geojson").read_text())["features"]
    classes = [one["properties"]["classification"]["name"] for one in features]
    assert classes == ["droplet", "nucleus", "nucleus"]
    output = two_categories / "back.json"
    done = run_script(tool, "import", labels, "--geojson", folder, "--output", output)
    assert "3 unchanged" in done.stdout
    content = read_coco(output)
    assert content["categories"] == read_coco(labels)["categories"]
    assert [one["category_id"] for one in content["annotations"]] == [7, 4, 4]
