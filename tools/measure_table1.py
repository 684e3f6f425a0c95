#!/usr/bin/env python
"""
Measure what tools/reproduce_table1.sh has left in its folder.

Each training, and each method that needs none, gets a file in DIR/results: its figures, what each
image adds to them, and how they came about. tools/table1.py makes the table of these files. They
are small: copy those of several machines into one folder, and the table is of all of them.

example:
  python tools/measure_table1.py liver output/table1
"""

import argparse
import contextlib
import json
from pathlib import Path

import numpy as np
import yaml
from table1 import PAPERS
from table1_results import Figure, Result, Training, read_command, write_result

from steatosis_d2.data.coco import read_coco
from steatosis_d2.errors import exit_cleanly
from steatosis_d2.evaluation.figures import MATCH_IOU, evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images

LABELS = {
    "liver_torino": "outlined by hand by an expert",
    "liver_guo2019": "the paper's own, as published",
    "liver_synthetic": "drawn, so known exactly",
    "nucleus_bbbc038": "BBBC038's, with the community's corrections",
}


def main():
    """Measure all that is finished, one file each."""
    arguments = parse_arguments()
    columns, output = PAPERS[arguments.table].columns, arguments.output
    for name, training, predictions in list_methods(output):
        figures, images = {}, {}
        for test_set, (file, score_threshold) in predictions.items():
            truth = find_annotations(output, test_set)
            evaluation = evaluate_files(truth, file, score_threshold=score_threshold)
            figures[test_set] = {
                heading: take_figure(evaluation, figure) for heading, figure in columns.items()
            }
            images[test_set] = [image.file_name for image in evaluation.images]
        write_result(output / "results", Result(name, training, figures, images))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=PAPERS, help="which paper's")
    parser.add_argument("output", type=Path, metavar="DIR", help="what the script has left")
    return parser.parse_args()


def list_methods(output):
    """
    What there is to be measured.

    Yields:
        tuple[str, Training or None, dict]: name; how it was trained, if it was; and test set ->
        what it found there (Path) and the lowest score that counts.
    """
    for name in sorted({file.stem for file in output.glob("classical/*/*.json")}):
        files = sorted(output.glob(f"classical/*/{name}.json"))
        yield name, None, {file.parent.name: (file, 0.0) for file in files}
    for folder in (output / "starter", *sorted(output.glob("R-*/seed-*"))):
        if not (folder / "done").is_file():
            continue
        if folder.name == "starter":
            yield "starter", None, list_predictions(folder)
        else:
            depth = folder.parent.name.removeprefix("R-")
            yield f"ResNet-{depth}", read_training(output, folder), list_predictions(folder)


def list_predictions(folder):
    """Test set -> what a network found there, and the lowest score that counts by its config."""
    config = read_config(folder)
    names, inference = config["DATASETS"]["TEST"], folder / "inference"
    score_threshold = config["MODEL"]["ROI_HEADS"]["SCORE_THRESH_TEST"]
    return {
        name: (
            (inference / name if len(names) > 1 else inference) / "predictions.json",
            score_threshold,
        )
        for name in names
    }


def find_annotations(output, name):
    """The COCO file of a data set that the script has prepared, by its name in configs."""
    dataset, _, split = name.rpartition("_")
    return output / "datasets" / dataset / "annotations" / f"instances_{split}.json"


def evaluate_files(truth_file, predictions_file, *, score_threshold):
    """All figures of one test set: :class:`~steatosis_d2.evaluation.figures.Evaluation`."""
    pairs = pair_images(
        read_coco(truth_file),
        read_coco(predictions_file),
        truth_name=truth_file,
        predictions_name=predictions_file,
    )
    return evaluate_pairs(pairs, score_threshold=score_threshold)


def read_training(output, folder):
    """How the training of a folder, which has come to its end, went."""
    config = read_config(folder)
    steps, hours = read_hours(folder / "metrics.json")
    return Training(
        seed=config["SEED"],
        steps=steps,
        hours=hours,
        machine=", ".join((folder / "done").read_text(encoding="utf-8").split("\n")).strip(", "),
        command=read_command(folder),
        conditions=describe_conditions(output, config, steps),
    )


def describe_conditions(output, config, steps):
    """What figures depend on, in the words of :attr:`table1.Paper.conditions`: dict."""
    datasets, solver = config["DATASETS"], config["SOLVER"]
    mpp, scale = config["INPUT"]["MPP"], config["INPUT"]["SCALE"]
    labels = {name.rpartition("_")[0] for name in datasets["TRAIN"]}
    return {
        "trained on": _describe_data(output, datasets["TRAIN"]),
        "measured on": _describe_data(output, datasets["TEST"]),
        "labels": "; ".join(f"{name}: {LABELS[name]}" for name in sorted(labels)),
        "images": f"brought to {mpp:g} um/px" if mpp else f"enlarged by {scale:g}",
        "begins with": _describe_weights(config["MODEL"]["WEIGHTS"]),
        "channels of res2": str(config["MODEL"]["RESNETS"]["RES2_OUT_CHANNELS"]),
        "steps": f"{steps:,} of {solver['IMS_PER_BATCH']} crops of "
        f"{config['INPUT']['CROP']['SIZE'][0]} px"
        + (", of the heads first" if len(solver["STAGES"]) > 1 else ""),
    }


def read_config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def read_hours(path):
    """
    Number of steps that a training took, and how long; what was done twice counts once.

    Args:
        path (Path): ``metrics.json`` of Detectron2, which a resumed training goes on writing.

    Returns:
        tuple[int, float]: steps, and hours without evaluation and checkpoints.
    """
    seconds = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # a killed training may leave half a line
            record = json.loads(line)
            seconds |= {record["iteration"]: record["time"]} if "time" in record else {}
    steps = max(seconds) + 1
    return steps, float(np.mean(list(seconds.values()))) * steps / 3600


def _describe_weights(weights):
    if not weights:
        return "random weights"
    return "COCO weights" if "/COCO-InstanceSegmentation/" in weights else weights


def _describe_data(output, names):
    contents = {name: read_coco(find_annotations(output, name)) for name in names}
    return "; ".join(
        f"{name}: images {len(content['images'])}, instances {len(content['annotations']):,}"
        for name, content in contents.items()
    )


def take_figure(evaluation, figure):
    """One of an evaluation's figures, given by its group and name, with what images add to it."""
    group, name = figure
    shares = count_shares(evaluation.images, figure) or (None, None)
    part, whole = (counts if counts is None else counts.tolist() for counts in shares)
    return Figure(evaluation.metrics[group][name], part, whole)


def count_shares(images, figure):
    """
    What each image adds to a figure, which is the ratio of two sums over images.

    Args:
        images (list[ImageMeasurement]): of one evaluation.
        figure (tuple): its group and name.

    Returns:
        tuple or None: two ndarrays, shape (n,), whose sums' ratio is the figure; None for COCO AP,
        which is no such ratio.
    """
    group, name = figure
    truths, predictions = (
        np.array([getattr(image.match, key) for image in images], float)
        for key in ("n_truths", "n_predictions")
    )
    iou_threshold = int(name.rpartition("_")[2]) / 100 if group == "by_iou" else MATCH_IOU
    hits = [image.match.ious[image.match.hits(iou_threshold)] for image in images]
    found, ious = (np.array([measure(one) for one in hits], float) for measure in (len, np.sum))
    if group == "segm":
        return None
    if group == "paper":  # means over images with droplets, if there are any
        counted = (truths > 0) | ~truths.any()
        return counted * _of_images(images, name), counted.astype(float)
    pooled = {
        "f1": (2 * found, predictions + truths),
        "f1_70": (2 * found, predictions + truths),
        "recall": (found, truths),
        "pq": (2 * ious, predictions + truths),
        "mean_matched_iou": (ious, found),
    }
    return pooled.get(name) or (_of_images(images, name), np.ones(len(images)))


def _of_images(images, name):
    return np.array([image.figures[name] for image in images])


if __name__ == "__main__":
    with exit_cleanly():
        main()
