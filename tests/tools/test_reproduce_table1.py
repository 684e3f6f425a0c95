"""tools/reproduce_table1.sh as a user runs it, and the arithmetic of its table."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import measure_table1
import numpy as np
import pytest
import table1
import table1_intervals
import table1_results

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.files import write_json
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.model_zoo import get_config

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "reproduce_table1.sh"
PATIENCE_S = 300
COLUMNS = table1.PAPERS["liver"].columns | table1.PAPERS["nucleus"].columns


def start(*arguments, log, budget="smoke"):
    """The script in a process group of its own, so that it can be killed with all it has begun."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with log.open("w") as file:
        return subprocess.Popen(
            [str(word) for word in (SCRIPT, *arguments)],
            env=os.environ | {"PATH": path, "BUDGET": budget, "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill_at(process, file):
    deadline = time.monotonic() + PATIENCE_S
    while not file.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the script ended before it could be killed"
    assert file.is_file()


@pytest.mark.slow
def test_smoke_is_killed_goes_on_and_measures_as_evaluate_does(tmp_path, run_script):
    output, log = tmp_path / "table 1", tmp_path / "log.txt"
    first, second = (output / f"R-{depth}" / "seed-1" for depth in (41, 50))
    kill_at(start("liver", output, log=log), second / "last_checkpoint")  # of step 4
    finished = (first / "inference" / "predictions.json").stat().st_mtime_ns
    assert not (second / "inference").exists()

    assert start("liver", output, log=log).wait(PATIENCE_S) == 0, log.read_text()
    assert (first / "inference" / "predictions.json").stat().st_mtime_ns == finished
    assert "Starting training from iteration 4" in (second / "log.txt").read_text()
    assert [path.name for path in second.glob("*.pth")] == ["model_final.pth"]

    rows = {row["method"]: row for row in csv.DictReader((output / "table.csv").open())}
    classical = {file.stem: file for file in output.glob("classical/*/*.json")}
    assert classical.keys() >= {"clump-split", "watershed"}
    assert rows.keys() == classical.keys() | {"starter", "ResNet-41", "ResNet-50"}
    page = (output / "table.md").read_text()
    assert page in log.read_text()
    assert all(f"\n| {name} " in page for name in rows)
    assert all(float(rows[name]["f1"]) > 0.3 for name in ("clump-split", "starter"))
    assert rows["ResNet-50"]["seeds"] == "1"
    assert f'SEED 1 OUTPUT_DIR "{second}"' in rows["ResNet-50"]["command"]

    results = output / "results"
    assert {file.stem for file in results.glob("*.json")} == classical.keys() | {
        "starter", "ResNet-41_seed-1", "ResNet-50_seed-1"
    }  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(results, elsewhere / "results")
    done = run_script("tools/table1.py", "liver", elsewhere / "results", "--output", elsewhere)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "table.md").read_text() == page

    truth = output / "datasets" / "liver_synthetic" / "annotations" / "instances_val.json"
    predictions = Path("inference", "predictions.json")
    metrics = tmp_path / "metrics.json"
    starter = get_config("liver/starter.yaml").MODEL.ROI_HEADS.SCORE_THRESH_TEST
    for threshold, files in (
        (starter, {"starter": output / "starter" / predictions}),
        (0, classical | {"ResNet-41": first / predictions, "ResNet-50": second / predictions}),
    ):
        named = [f"{name}={file}" for name, file in files.items()]
        done = run_script(
            "tools/evaluate.py", "--ground-truth", truth, "--score-threshold", threshold,
            "--predictions", *named, "--output", metrics,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        measured = json.loads(metrics.read_text())
        for name in files:
            of_method = measured[name] if len(files) > 1 else measured
            for group, figure in table1.PAPERS["liver"].columns.values():
                assert float(rows[name][figure]) == of_method[group][figure], (name, figure)


@pytest.mark.parametrize(("table", "title"), [("liver", "Liver"), ("nucleus", "Nuclei")])
def test_the_published_table_is_that_of_its_results(table, title, tmp_path, run_script):
    root = SCRIPT.parents[1]
    done = run_script("tools/table1.py", table, root / "docs/table1" / table, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "table.csv").open() as file:
        rows = {
            row["method"]: row for row in csv.DictReader(file) if row["test_set"].endswith("val")
        }
    text = (root / "configs" / "README.md").read_text()
    lines = text[text.index(f"### {title}, `cpu`") :].split("**What depth brought")[0].splitlines()
    _, header, _, *published = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] in ("|", "#")
    ]
    names = [COLUMNS[heading][1] for heading in header[1:-1]]
    shown = {name.split(" ")[0].rstrip(","): figures for name, *figures in published}
    for method, row in rows.items():
        *figures, hours = shown[method]
        assert figures == [f"{100 * float(row[name]):.1f}" for name in names], method
        assert hours == row["hours"]


def test_mistakes_are_one_line(tmp_path):
    for arguments, budget, message in (
        ((), "smoke", "usage: BUDGET=full|cpu|smoke tools/reproduce_table1.sh"),
        (("lung", tmp_path), "smoke", "error: the table is 'lung'; expected liver or nucleus"),
        (("liver", tmp_path), "cpu", "usage:"),
        (("liver", tmp_path), "tiny", "error: BUDGET is 'tiny'; expected full, cpu"),
        (("liver", tmp_path / "new", tmp_path), "cpu", "has neither torino_liver/ nor guo2019"),
    ):
        log = tmp_path / "log.txt"
        assert start(*arguments, log=log, budget=budget).wait(PATIENCE_S) == 1
        assert message in log.read_text()
        assert log.read_text().count("\n") == 1


def test_other_settings_in_one_folder_are_refused(tmp_path):
    """What was trained by another recipe would stand in the table as if it were this one's."""
    (tmp_path / "settings.txt").write_text("liver\nelsewhere\n")
    log = tmp_path / "log.txt"
    assert start("liver", tmp_path, "SOLVER.BASE_LR", "0.1", log=log).wait(PATIENCE_S) == 1
    assert "was begun with other settings" in log.read_text()


def test_interval_over_seeds_is_students():
    """Mean 2, standard deviation 1, 2 degrees of freedom: 4.3027 / sqrt(3) to either side."""
    low, high = table1_intervals.interval_over_seeds(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    assert np.isnan(table1_intervals.interval_over_seeds(np.array([0.7]))).all()


def test_interval_over_images_is_that_of_a_mean():
    """40 images, each with 10 truths of which 0 to 9 are found: mean 0.45, its error 0.046."""
    found = np.tile(np.arange(10.0), 4)
    low, high = table1_intervals.interval_over_images([(found, np.full(40, 10.0))])
    error = 0.1 * found.std() / np.sqrt(40)
    assert (low, high) == pytest.approx((0.45 - 1.96 * error, 0.45 + 1.96 * error), abs=0.01)


def test_interval_over_images_of_several_seeds_draws_the_same_images_for_all():
    """Where one training finds what the other misses, the mean is 0.5 on whatever images."""
    found, truths = np.tile([0.0, 1.0], 10), np.ones(20)
    shares = [(found, truths), (1 - found, truths)]
    assert table1_intervals.interval_over_images(shares) == pytest.approx((0.5, 0.5))


def test_interval_of_a_difference_is_of_pairs():
    """A network that finds half of what the other finds on every image: no image says otherwise."""
    truths = np.full(12, 8.0)
    shares, other = [(np.full(12, 4.0), truths)], [(np.full(12, 2.0), truths)]
    assert table1_intervals.interval_over_images(shares, minus=other) == pytest.approx((0.25, 0.25))
    uneven = np.arange(12.0)
    same = table1_intervals.interval_over_images([(uneven, truths)], minus=[(uneven, truths)])
    assert same == pytest.approx((0, 0))


@pytest.mark.parametrize("shares", [None, [(np.ones(1), np.ones(1))]])
def test_one_image_and_coco_ap_have_no_interval(shares):
    assert np.isnan(table1_intervals.interval_over_images(shares)).all()


def draw(corners_by_image):
    """A COCO file's content: squares of 8 px in images of 40 x 40 px, by their corners."""
    images, annotations = [], []
    for image_id, corners in enumerate(corners_by_image, 1):
        images.append(image_record(image_id, f"{image_id}.png", height=40, width=40))
        for top, left in corners:
            mask = np.zeros((40, 40), bool)
            mask[top : top + 8, left : left + 8] = True
            annotations.append(
                annotation_record(len(annotations) + 1, image_id, encode_mask(mask), score=0.9)
            )
    return {"images": images, "annotations": annotations}


TRUTH = draw([[(0, 0), (0, 20)], [(5, 5)], [], []])
FOUND = draw([[(0, 0), (0, 22)], [], [(9, 9)], []])  # exact, off by two columns, missed, false
FOUND_MORE = draw([[(0, 0), (0, 20)], [(5, 6)], [(9, 9)], []])


def evaluate(found, truth=TRUTH):
    pairs = pair_images(truth, found, truth_name="truth", predictions_name="found")
    return evaluate_pairs(pairs)


@pytest.mark.parametrize(
    "evaluation", [evaluate(FOUND), evaluate(FOUND, truth=draw([[]] * 4))], ids=["", "healthy"]
)
@pytest.mark.parametrize("figure", COLUMNS.values(), ids="/".join)
def test_shares_of_all_images_are_the_figure(figure, evaluation):
    taken = measure_table1.take_figure(evaluation, figure)
    group, name = figure
    assert taken.value == evaluation.metrics[group][name]
    if group == "segm":
        assert taken.part is None
        return
    assert sum(taken.part) == pytest.approx(taken.value * sum(taken.whole))


def training(seed):
    return table1_results.Training(
        seed=seed, steps=100, hours=seed / 2, machine="cores: 2", command="python", conditions={}
    )


def take_figures(evaluation):
    return {
        heading: measure_table1.take_figure(evaluation, figure)
        for heading, figure in COLUMNS.items()
    }


def method(name, *found, truth=TRUTH, images=4):
    trainings = [training(seed) for seed in range(1, len(found) + 1)]
    evaluations = [evaluate(one, truth) for one in found]
    for one in evaluations:
        del one.images[images:]
    return table1_intervals.Method(name, [take_figures(one) for one in evaluations], trainings)


def test_row_is_the_mean_over_seeds():
    """F1 of 4/6 and of 6/7, so 76.2%; hours of 0.5 and 1."""
    page = table1.format_figures(table1.PAPERS["liver"], [method("R", FOUND, FOUND_MORE)])
    cells = [cell.strip() for cell in page.splitlines()[2].split("|")]
    assert cells[1:3] == ["R", "1 2"]
    assert cells[8] == "76.2"
    assert cells[-2] == "0.75"


def test_csv_has_each_seed_and_the_mean_with_its_ends(tmp_path):
    paper, path = table1.PAPERS["liver"], tmp_path / "table.csv"
    table1.write_csv(path, paper, {"val": [method("R", FOUND, FOUND_MORE)]})
    [row] = csv.DictReader(path.open())
    assert (row["test_set"], row["seeds"], row["machine"]) == ("val", "1 2", "cores: 2")
    assert row["f1_by_seed"] == "0.66667 0.85714"
    mean, low, high = (
        float(row[f"f1{end}"]) for end in ("", "_over_seeds_low", "_over_seeds_high")
    )
    assert mean == pytest.approx((4 / 6 + 6 / 7) / 2)
    assert (low + high) / 2 == pytest.approx(mean)
    assert row["AP_over_images_low"] == ""


def test_depth_is_judged_by_pairs_of_trainings():
    shallow, deep = method("A", FOUND, FOUND), method("B", FOUND_MORE, FOUND_MORE)
    difference = table1_intervals.estimate_difference(deep, shallow, "F1")
    assert difference.value == pytest.approx(6 / 7 - 4 / 6)
    assert difference.over_seeds == pytest.approx((difference.value,) * 2)
    text = table1.describe_depth(table1.PAPERS["liver"], [shallow, deep])
    assert "in F1 against A: B +19.0 points (95% interval over seeds 19.0 to 19.0" in text


def test_one_seed_and_one_image_have_no_interval():
    methods = [method(name, FOUND, images=1) for name in "AB"]
    assert "cannot tell" in table1.describe_depth(table1.PAPERS["liver"], methods)
    assert table1.format_intervals(table1.PAPERS["liver"], methods) == []


@pytest.mark.parametrize("by_each_seed", [True, False])
def test_what_chance_could_give_is_no_gain(by_each_seed):
    """Depth finds one of four droplets more on each image, with both seeds or with one of them."""
    corners = [(0, 0), (0, 20), (20, 0), (20, 20)]
    truth, worse, better = (draw([corners[:n]] * 3) for n in (4, 2, 3))
    shallow = method("A", worse, worse, truth=truth)
    deep = method("B", better, better if by_each_seed else worse, truth=truth)
    text = table1.describe_depth(table1.PAPERS["liver"], [shallow, deep])
    assert ("no more than chance" in text) != by_each_seed


def test_hours_count_what_was_done_twice_once(tmp_path):
    """Killed after step 60 and gone on from step 40, slower: 40 steps of 9 s and 40 of 18 s."""
    done = [(19, 9.0), (39, 9.0), (59, 9.0), (59, 18.0), (79, 18.0)]
    lines = [json.dumps({"iteration": iteration, "time": time}) for iteration, time in done]
    lines += ['{"iteration": 80, "x/AP": 1}', '{"iteration": 99, "ti']
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    assert measure_table1.read_hours(tmp_path / "metrics.json") == (80, pytest.approx(0.3))


def result(name, seed=None, images=("1.png",)):
    figures = {"val": take_figures(evaluate(FOUND))}
    trained = training(seed) if seed else None
    return table1_results.Result(name, trained, figures, {"val": list(images)})


def test_results_survive_their_files_and_only_seeds_of_every_network_count(tmp_path):
    kept = [
        result("clump-split"), result("starter"),
        result("ResNet-41", 2), result("ResNet-50", 2), result("ResNet-101", 2),
    ]  # fmt: skip
    for one in (*kept, result("ResNet-50", 1), result("ResNet-101", 3)):
        table1_results.write_result(tmp_path, one)
    results = table1_results.read_results(tmp_path)
    assert sorted(results, key=lambda one: one.method) == sorted(kept, key=lambda one: one.method)
    methods = table1_intervals.arrange_methods(results, "val")
    assert [one.name for one in methods] == [one.method for one in kept]
    assert [len(one.trainings) for one in methods] == [0, 0, 1, 1, 1]

    (tmp_path / "ResNet-41_seed-2.json").unlink()
    table1_results.write_result(tmp_path, result("ResNet-41", 4))
    with pytest.raises(InputError, match="no seed by which every network is trained"):
        table1_results.read_results(tmp_path)


def test_results_without_the_command_that_made_them_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no command\.txt"):
        table1_results.read_command(tmp_path)


def test_results_of_different_images_are_refused(tmp_path):
    table1_results.write_result(tmp_path, result("ResNet-41", 1))
    table1_results.write_result(tmp_path, result("ResNet-50", 1, images=["2.png"]))
    with pytest.raises(InputError, match="ResNet-50 was measured on other images than ResNet-41"):
        table1_results.read_results(tmp_path)


def test_trainings_of_different_recipes_are_refused(tmp_path):
    table1_results.write_result(tmp_path, result("ResNet-41", 1))
    other = result("ResNet-41", 2)
    other.training.conditions["steps"] = "9 of 4 crops of 256 px"
    table1_results.write_result(tmp_path, other)
    with pytest.raises(InputError, match="ResNet-41 differ in more than the seed"):
        table1_results.read_results(tmp_path)


def test_unfinished_trainings_are_not_measured(tmp_path):
    write_json(measure_table1.find_annotations(tmp_path, "liver_synthetic_val"), TRUTH)
    for run in ("R-50/seed-1", "R-50/seed-2", "R-41/seed-2"):
        folder = tmp_path / run
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config_text(seed=run[-1]))
        (folder / "metrics.json").write_text('{"iteration": 19, "time": 1.0}')
        (folder / "command.txt").write_text("python\n\nSEED\n1\n")
        (folder / "done").write_text("Xeon, cores: 2\nH200\n")
    (tmp_path / "R-50" / "seed-1" / "done").unlink()
    methods = list(measure_table1.list_methods(tmp_path))
    assert [name for name, _, _ in methods] == ["ResNet-41", "ResNet-50"]
    _, trained, predictions = methods[0]
    assert (trained.seed, trained.machine) == (2, "Xeon, cores: 2, H200")
    assert trained.command == 'python "" SEED 1'
    assert trained.conditions["steps"] == "20 of 4 crops of 256 px"
    assert trained.conditions["measured on"] == "liver_synthetic_val: images 4, instances 3"
    assert list(predictions) == ["liver_synthetic_val"]


def config_text(seed):
    """What the measuring reads of a training's config."""
    return f"""
SEED: {seed}
DATASETS: {{TRAIN: [], TEST: [liver_synthetic_val]}}
INPUT: {{MPP: 0.25, SCALE: 2.0, CROP: {{SIZE: [256, 256]}}}}
MODEL: {{WEIGHTS: "", RESNETS: {{RES2_OUT_CHANNELS: 128}}, ROI_HEADS: {{SCORE_THRESH_TEST: 0.5}}}}
SOLVER: {{IMS_PER_BATCH: 4, STAGES: [{{train: all}}]}}
"""
