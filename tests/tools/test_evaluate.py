"""tools/evaluate.py as a user runs it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.instances.rle import encode_mask

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate.py"
HEIGHT, WIDTH = 30, 40


def square(top, left, side=8):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + side, left : left + side] = True
    return encode_mask(mask)


def coco(squares_by_name, *, height=HEIGHT, scores=None):
    """A COCO file's content: file name -> corners (top, left) of its squares."""
    images, annotations = [], []
    for image_id, (name, corners) in enumerate(squares_by_name.items(), 1):
        images.append(image_record(image_id, name, height=height, width=WIDTH))
        for corner in corners:
            number = len(annotations)
            score = scores[number] if scores else None
            annotations.append(
                annotation_record(number + 1, image_id, square(*corner), score=score)
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}


TRUTH = coco({"case 1/a.webp": [(0, 0), (0, 20)], "case 1/b.webp": [(5, 5)], "c.webp": []})
# One found exactly, one off by two columns, one missed; one false on the healthy image.
PREDICTED = coco(
    {"b.png": [], "c.png": [(9, 9)], "a.png": [(0, 0), (0, 22)]}, scores=[0.4, 0.9, 0.8]
)


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write_file


def evaluate(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=120
    )


def pair(truth, predictions):
    return pair_images(truth, predictions, truth_name="gt.json", predictions_name="pred.json")


def test_every_output_of_one_run(write, tmp_path):
    truth, predictions = write("gt.json", TRUTH), write("pred.json", PREDICTED)
    outputs = {name: tmp_path / "new" / name for name in ("metrics.json", "images.csv", "plots")}
    done = evaluate(
        *("--ground-truth", truth, "--predictions", predictions, "--score-threshold", "0.5"),
        *("--output", outputs["metrics.json"], "--per-image", outputs["images.csv"]),
        *("--plots", outputs["plots"]),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 images; all but COCO AP count predictions with a score of at least 0.5" in done.stdout

    metrics = json.loads(outputs["metrics.json"].read_text())
    expected = evaluate_pairs(pair(TRUTH, PREDICTED), score_threshold=0.5).metrics
    assert {group: metrics[group] for group in expected} == expected
    assert metrics["instances"]["recall"] == pytest.approx(2 / 3)
    assert metrics["instances"]["mean_matched_iou"] == pytest.approx((1 + 48 / 80) / 2)
    assert metrics["clinical"]["healthy_images_clean_share"] == 1
    assert metrics["settings"]["coco_detections_per_image"] == 1000

    with outputs["images.csv"].open() as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["case 1/a.webp", "case 1/b.webp", "c.webp"]
    assert float(rows["case 1/a.webp"]["pq"]) == pytest.approx(0.8)
    assert rows["case 1/b.webp"]["count_error"] == "1"
    assert float(rows["c.webp"]["dice"]) == 1

    for name in ("precision_recall", "f1_over_iou", "fat_area"):
        with Image.open(outputs["plots"] / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, "something is drawn"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(outputs)


def test_kinds_of_images_are_told_apart_where_the_truths_name_them(write):
    kinds = ("fluorescence", "histology", "fluorescence")
    images = [image | {"group": kind} for image, kind in zip(TRUTH["images"], kinds, strict=True)]
    predictions = write("pred.json", PREDICTED)
    for truth, expected in (
        (TRUTH | {"images": images}, [["fluorescence", "2", "2"], ["histology", "1", "1"]]),
        (TRUTH, []),
    ):
        done = evaluate("--ground-truth", write("gt.json", truth), "--predictions", predictions)
        assert (done.returncode, done.stderr) == (0, "")
        _, _, by_kind = done.stdout.partition("By kind of image")
        assert [line.split()[:3] for line in by_kind.splitlines()[2:]] == expected


def test_several_predictions_make_table_1(write, tmp_path):
    truth = write("gt.json", TRUTH)
    files = [f"ResNet41={write('r41.json', PREDICTED)}", write("perfect.json", TRUTH)]
    output = tmp_path / "metrics.json"
    done = evaluate("--ground-truth", truth, "--predictions", *files, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()
    ]
    assert header[:5] == ["method", "paper AP50", "paper recall", "paper F1", "paper Jaccard"]
    assert [row[0] for row in rows] == ["ResNet41", "perfect"]
    assert dict(zip(header, rows[1], strict=True))["PQ"] == "100.00"
    assert dict(zip(header, rows[0], strict=True))["recall"] == "66.67"
    assert set(json.loads(output.read_text())) == {"ResNet41", "perfect"}


def test_several_score_thresholds_make_a_table(write, tmp_path):
    truth, predictions = write("gt.json", TRUTH), write("pred.json", PREDICTED)
    files = ("--ground-truth", truth, "--predictions", predictions)
    output = tmp_path / "metrics.json"
    done = evaluate(*files, "--score-threshold", "0", "0.5", "1.1", "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(output.read_text())
    assert list(figures) == ["pred from 0", "pred from 0.5", "pred from 1.1"]
    assert figures["pred from 0.5"]["settings"]["score_threshold"] == 0.5
    counts = [figures[name]["instances"]["predictions"] for name in figures]
    assert counts[0] > counts[1] > counts[2] == 0
    assert "| pred from 0.5" in done.stdout


def test_a_bad_file_among_several_is_named_after_the_table_of_the_others(write):
    done = evaluate(
        *("--ground-truth", write("gt.json", TRUTH), "--predictions"),
        *(write("good.json", PREDICTED), write("broken.json", "{")),
    )
    assert done.returncode == 1
    assert "| good" in done.stdout
    assert "broken.json' is not JSON" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "content",
    ["not json", "[]", '{"images": []}', '{"images": [3], "annotations": []}', "null"],
)
def test_a_file_that_is_not_coco_is_one_clear_line(write, content):
    truth, predictions = write("gt.json", TRUTH), write("pred.json", content)
    done = evaluate("--ground-truth", truth, "--predictions", predictions)
    assert done.returncode == 1
    assert done.stderr.startswith("error: '") and done.stderr.count("\n") == 1
    assert "pred.json'" in done.stderr


def test_a_missing_file_is_one_clear_line(write, tmp_path):
    done = evaluate("--ground-truth", write("gt.json", TRUTH), "--predictions", tmp_path / "no")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no' does not exist" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "a.json"], "--ground-truth"),
        (["--ground-truth", "g", "--predictions", "a.json", "b/a.json"], "one name"),
        (["--ground-truth", "g", "--predictions", "a", "b", "--plots", "p"], "at a time"),
        (["--ground-truth", "g", "--predictions", "a", "--score-threshold", "nan"], "'nan'"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message):
    done = evaluate(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_repeated_bare_names_are_told_apart_by_their_folders():
    truth = coco({"x/1.webp": [(0, 0)], "y/1.webp": [(20, 30)]})
    predictions = coco({"y/1.png": [(20, 30)], "x/1.png": [(0, 0)]})
    metrics = evaluate_pairs(pair(truth, predictions)).metrics
    assert metrics["instances"]["f1"] == 1


def test_two_images_of_one_name_are_an_error():
    twice = coco({"a.png": [], "a.jpg": []})
    with pytest.raises(InputError, match=r"'pred.json' has 2 images named 'a'"):
        pair(coco({"a.png": []}), twice)


@pytest.mark.parametrize("swapped", [False, True])
def test_an_image_in_one_file_only_is_an_error(swapped):
    files = [coco({"a.png": [], "b.png": []}), coco({"a.png": []})]
    message = r"1 of 2 images are in '{}' but not in '{}' \(first: 'b.png'\)"
    names = ["gt.json", "pred.json"]
    if swapped:
        files, names = files[::-1], names[::-1]
    with pytest.raises(InputError, match=message.format(*names)):
        pair(*files)


def test_sizes_that_differ_are_an_error():
    with pytest.raises(InputError, match=r"'a.png' is 30 x 40 px .* 'gt.json' but 60 x 40 px"):
        pair(coco({"a.png": []}), coco({"a.png": []}, height=60))


def test_truths_without_images_are_an_error():
    with pytest.raises(InputError, match=r"'gt.json' lists no images"):
        pair(coco({}), coco({}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("segmentation", None, "neither a COCO run-length code nor a list of polygons"),
        ("segmentation", [[1, 2, 3, 4]], "three or more points"),
        (
            "segmentation",
            square(0, 0) | {"size": [40, 30]},
            r"size \[40, 30\]; expected \[30, 40\]",
        ),
        ("segmentation", square(0, 0) | {"counts": "~~"}, "no COCO run-length code"),
        ("segmentation", {"size": [30, 40], "counts": [1, 2]}, "add up to 3 px; expected 30 x 40"),
        ("segmentation", {"size": [30, 40], "counts": [-1, 1201]}, "annotation 1"),
        ("score", "high", "score 'high'; expected a number"),
        ("score", float("nan"), "score nan; expected a number"),
    ],
)
def test_an_unsound_annotation_is_an_error_that_names_it(key, value, message):
    """pycocotools never returns from codes whose lengths differ, and takes two points for a box."""
    predictions = coco({"a.png": [(0, 0)]})
    predictions["annotations"][0][key] = value
    with pytest.raises(InputError, match=message) as error:
        pair(coco({"a.png": [(0, 0)]}), predictions)
    assert "pred.json" in str(error.value)
    assert "annotation 1" in str(error.value)


def test_crowd_and_ignore_mark_regions_to_ignore():
    truth = coco({"a.png": [(0, 0), (0, 20), (20, 0)]})
    truth["annotations"][1]["iscrowd"] = 1
    truth["annotations"][2]["ignore"] = 1
    [image] = pair(truth, coco({"a.png": []}))
    assert (len(image.truths), len(image.ignored)) == (1, 2)


def test_predictions_come_in_order_of_their_scores():
    predictions = coco({"a.png": [(0, 0), (0, 20), (20, 0)]}, scores=[0.2, 0.7, 0.7])
    [image] = pair(coco({"a.png": []}), predictions)
    assert image.scores.tolist() == [0.7, 0.7, 0.2]
    assert image.predictions == [square(0, 20), square(20, 0), square(0, 0)]


def test_neither_torch_nor_detectron2_is_loaded():
    """Measuring two files must start in a moment, on a machine without a GPU stack."""
    code = (
        "import runpy, sys; sys.argv = ['evaluate.py', '--help']\n"
        f"try: runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "except SystemExit: print({'torch', 'detectron2', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("set()\n")
