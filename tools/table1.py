#!/usr/bin/env python
"""
The table of a paper's networks, from what tools/reproduce_table1.sh has left in its folder.

A network's figures are means over its trainings, one a seed. Their 95% intervals are of two kinds:
over seeds (Student's t) for what another training would give, and over images (bootstrap) for what
other images would give.

example:
  python tools/table1.py liver output/table1
  writes output/table1/table.md and output/table1/table.csv
"""

import argparse
import contextlib
import csv
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy import stats
from tabulate import tabulate

from steatosis_d2.data.coco import read_coco
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.evaluation.figures import MATCH_IOU, Evaluation, evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.evaluation.tables import TABLE_1_COLUMNS
from steatosis_d2.files import replace_when_done
from steatosis_d2.statistics.bootstrap import LEVEL, bootstrap_interval


@dataclass(frozen=True)
class Paper:
    """
    What a paper reports, and how it came to it.

    Attributes:
        name (str): how it is cited.
        columns (dict): heading -> group and name of the figure.
        decisive (str): heading of the figure by which depth is judged.
        rows (dict): method -> heading -> what the paper reports, in percent.
        left_out (str): what it reports beside that, and why it is in no column.
        conditions (dict): what figures depend on -> how it was in the paper.
    """

    name: str
    columns: dict
    decisive: str
    rows: dict
    left_out: str
    conditions: dict


PAPERS = {
    "liver": Paper(
        name="Guo et al. 2019",
        columns=TABLE_1_COLUMNS,
        decisive="F1",
        rows={
            "clump segmentation": {"paper AP50": 52.18, "paper F1": 45.03, "paper Jaccard": 67.42},
            "ResNet41": {"paper AP50": 67.61, "paper F1": 62.06, "paper Jaccard": 73.18},
            "ResNet50": {"paper AP50": 75.87, "paper F1": 65.88, "paper Jaccard": 76.97},
            "ResNet65": {"paper AP50": 69.55, "paper F1": 61.69, "paper Jaccard": 74.38},
        },
        left_out="Its recall (45.50, 58.37, 60.66 and 55.60) follows from neither definition of "
        "recall here.",
        conditions={
            "trained on": "387 tiles of its authors, 45 more to choose by",
            "measured on": "19 tiles of its authors",
            "labels": "by its classical method, screened by a pathologist",
            "images": "enlarged by 2",
            "begins with": "COCO weights",
            "channels of res2": "256",
            "steps": "70 to 110 epochs of 12 crops of 512 px, of the heads first",
        },
    ),
    "nucleus": Paper(
        name="Johnson 2018",
        columns={
            "AP": ("segm", "AP"),
            "AP50": ("segm", "AP50"),
            "F1": ("instances", "f1"),
            "F1 at 0.7": ("by_iou", "f1_70"),
            "PQ": ("instances", "pq"),
            "mean matched IoU": ("instances", "mean_matched_iou"),
            "DSB 2018": ("instances", "dsb2018_score"),
        },
        decisive="PQ",  # AP, the paper's own, has no interval over images
        rows={"ResNet-50": {"AP": 56.06}, "ResNet-101": {"AP": 59.40}},
        left_out='Its "average mask IoU" (66.98 and 70.54) is not defined there.',
        conditions={
            "trained on": "a part of BBBC038 stage1_train",
            "measured on": "the rest of it",
            "labels": "as they were in 2018",
            "images": "enlarged by 2",
            "begins with": "COCO weights",
            "channels of res2": "256",
            "steps": "100 epochs of 6 crops, of the heads first",
        },
    ),
}

LABELS = {
    "liver_torino": "outlined by hand by an expert",
    "liver_guo2019": "the paper's own, as published",
    "liver_synthetic": "drawn, so known exactly",
    "nucleus_bbbc038": "BBBC038's, with the community's corrections",
}


@dataclass(frozen=True)
class Training:
    """
    A training that is done.

    Attributes:
        folder (Path): its ``OUTPUT_DIR``.
        seed (int): that it was begun with.
        config (dict): every key.
        steps (int): how many it took.
        hours (float): that they took.
        machine (str): on which.
        command (str): by which.
    """

    folder: Path
    seed: int
    config: dict
    steps: int
    hours: float
    machine: str
    command: str


@dataclass(frozen=True)
class Method:
    """
    A row of the table.

    Attributes:
        name (str): what the row is called.
        evaluations (list[Evaluation]): of one test set, one a training.
        trainings (list[Training]): the trainings; none of what was not trained.
    """

    name: str
    evaluations: list[Evaluation]
    trainings: list[Training]

    def values(self, figure):
        """A figure, given by its group and name, of each evaluation: ndarray."""
        group, name = figure
        return np.array([evaluation.metrics[group][name] for evaluation in self.evaluations])

    def shares(self, figure):
        """Each evaluation's :func:`count_shares` of a figure: list[tuple]."""
        return [count_shares(evaluation.images, figure) for evaluation in self.evaluations]


@dataclass(frozen=True)
class Estimate:
    """
    A mean over seeds, or a difference of two.

    Attributes:
        value (float): itself.
        over_seeds, over_images (tuple): its 95% intervals; NaN where it has none.
    """

    value: float
    over_seeds: tuple[float, float]
    over_images: tuple[float, float]


def main():
    """Measure everything, write two files and show one of them."""
    arguments = parse_arguments()
    paper, output = PAPERS[arguments.table], arguments.output
    networks = find_networks(output)
    test_sets = {
        name: measure_methods(output, networks, name)
        for name in read_config(output / "starter")["DATASETS"]["TEST"]
    }
    text = format_page(paper, networks, test_sets, output)
    with replace_when_done(output / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_csv(output / "table.csv", paper, test_sets)
    print(text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=PAPERS, help="which paper's")
    parser.add_argument("output", type=Path, metavar="DIR", help="what the script has left")
    return parser.parse_args()


def find_networks(output):
    """Name -> trainings of each network, the shallowest first, by seeds that all of them have."""
    depths = sorted(int(folder.name.removeprefix("R-")) for folder in output.glob("R-*"))
    networks = {
        f"ResNet-{depth}": {
            training.seed: training
            for training in map(read_training, output.glob(f"R-{depth}/seed-*"))
            if training is not None
        }
        for depth in depths
    }
    seeds = sorted(set.intersection(*map(set, networks.values()))) if networks else []
    if not seeds:
        raise InputError(
            f"'{output}' has no seed by which every network is trained; run "
            "tools/reproduce_table1.sh to its end."
        )
    return {name: [of_seed[seed] for seed in seeds] for name, of_seed in networks.items()}


def read_training(folder):
    """What a training's folder says of it; None where it has not come to its end."""
    done = folder / "done"
    if not done.is_file():
        return None
    config = read_config(folder)
    steps, hours = read_hours(folder / "metrics.json")
    return Training(
        folder=folder,
        seed=config["SEED"],
        config=config,
        steps=steps,
        hours=hours,
        machine=", ".join(done.read_text(encoding="utf-8").split("\n")).strip(", "),
        command=read_command(folder),
    )


def read_config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def read_command(folder):
    """The command whose words a folder holds, one a line, as it is typed."""
    words = (folder / "command.txt").read_text(encoding="utf-8").splitlines()
    return " ".join(f'"{word}"' if shlex.quote(word) != word else word for word in words)


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


def measure_methods(output, networks, test_set):
    """All rows of a test set: what has no network, what ships, what was trained."""
    truth_file = find_annotations(output, test_set)
    truth = read_coco(truth_file)

    def measure(predictions, score_threshold):
        pairs = pair_images(
            truth, read_coco(predictions), truth_name=truth_file, predictions_name=predictions
        )
        return evaluate_pairs(pairs, score_threshold=score_threshold)

    classical = sorted((output / "classical" / test_set).glob("*.json"))
    return [
        *(Method(file.stem, [measure(file, 0.0)], []) for file in classical),
        Method("starter", [measure(*find_predictions(output / "starter", test_set))], []),
        *(
            Method(
                name,
                [measure(*find_predictions(one.folder, test_set)) for one in trainings],
                trainings,
            )
            for name, trainings in networks.items()
        ),
    ]


def find_annotations(output, name):
    """The COCO file of a data set that the script has prepared, by its name in configs."""
    dataset, _, split = name.rpartition("_")
    return output / "datasets" / dataset / "annotations" / f"instances_{split}.json"


def find_predictions(folder, test_set):
    """What a network found in a test set, and the lowest score that counts by its config."""
    config = read_config(folder)
    inference = folder / "inference"
    if len(config["DATASETS"]["TEST"]) > 1:
        inference /= test_set
    return inference / "predictions.json", config["MODEL"]["ROI_HEADS"]["SCORE_THRESH_TEST"]


def estimate(method, figure):
    """A figure of one method, with its intervals."""
    values = method.values(figure)
    return Estimate(
        float(values.mean()),
        interval_over_seeds(values),
        interval_over_images(method.shares(figure)),
    )


def estimate_difference(method, other, figure):
    """
    How much higher a figure is than another method's, with the intervals of that.

    Trainings of one seed see the same images in the same order, and all are measured on the same:
    so both intervals are of paired differences.
    """
    differences = method.values(figure) - other.values(figure)
    return Estimate(
        float(differences.mean()),
        interval_over_seeds(differences),
        interval_over_images(method.shares(figure), minus=other.shares(figure)),
    )


def interval_over_seeds(values):
    """
    95% interval of a mean of normally distributed values (Student's t).

    Args:
        values (ndarray): float, shape (n,).

    Returns:
        tuple[float, float]: NaN for a single value.
    """
    if len(values) < 2:
        return np.nan, np.nan
    quantile = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    margin = quantile * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - margin), float(values.mean() + margin)


def interval_over_images(shares, *, minus=()):
    """
    95% interval of a figure by a bootstrap over images, the same ones for every training.

    Args:
        shares (list): :func:`count_shares` of each training; the figure is their mean.
        minus (list): the same of what is taken away from it.

    Returns:
        tuple[float, float]: NaN for a single image, and for figures without shares (COCO AP).
    """
    if None in shares or len(shares[0][0]) < 2:
        return np.nan, np.nan
    samples = [counts for share in (*shares, *minus) for counts in share]
    end = 2 * len(shares)

    def statistic(*drawn):
        value = mean_ratio(drawn[:end])
        return value - mean_ratio(drawn[end:]) if minus else value

    return bootstrap_interval(statistic, *samples)


def mean_ratio(counts):
    """Mean over trainings of the ratio of two sums over images, given in turn: shape (..., n)."""
    ratios = [
        part.sum(axis=-1) / whole.sum(axis=-1)
        for part, whole in zip(counts[::2], counts[1::2], strict=True)
    ]
    return np.mean(ratios, axis=0)


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


def format_page(paper, networks, test_sets, output):
    """All that is to be said, as Markdown."""
    first_trainings = [trainings[0] for trainings in networks.values()]
    machines = {training.machine for trainings in networks.values() for training in trainings}
    parts = [
        f"# Table 1 of {paper.name}, again",
        f"```bash\n{read_command(output)}\n```",
        "Figures are percentages, means over seeds. All but AP count what scores at least "
        "`MODEL.ROI_HEADS.SCORE_THRESH_TEST`, and all labels made without a network. Hours are of "
        f"one training, on {'; '.join(sorted(machines))}.",
    ]
    for name, methods in test_sets.items():
        parts += [
            f"## {name}",
            format_figures(paper, methods),
            describe_depth(paper, methods),
            *format_intervals(paper, methods),
        ]
    parts += [
        "## What differs from the paper",
        format_conditions(paper, first_trainings, output),
        f"{paper.left_out} Rows of {paper.name} are of other images: compare them with care.",
        "## Commands",
        "One training of each network; the other seeds differ in `SEED` and `OUTPUT_DIR` alone.",
        "```bash\n" + "\n".join(one.command for one in first_trainings) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def format_figures(paper, methods):
    rows = [
        [
            method.name,
            " ".join(str(training.seed) for training in method.trainings),
            *(_percent(method.values(figure).mean()) for figure in paper.columns.values()),
            _hours(method.trainings),
        ]
        for method in methods
    ]
    rows += [
        [
            f"{paper.name}: {name}",
            "",
            *(f"{row[h]:.1f}" if h in row else "" for h in paper.columns),
            "",
        ]
        for name, row in paper.rows.items()
    ]
    return _table(rows, ["method", "seeds", *paper.columns, "hours"])


def format_intervals(paper, methods):
    """
    Both intervals of each method, and of what each network has more than the shallowest.

    Returns:
        list[str]: paragraphs; none where there are one seed and one image alone.
    """
    networks = [method for method in methods if method.trainings]
    estimates = {
        method.name: [estimate(method, figure) for figure in paper.columns.values()]
        for method in methods
    } | {
        f"{method.name} minus {networks[0].name}": [
            estimate_difference(method, networks[0], figure) for figure in paper.columns.values()
        ]
        for method in networks[1:]
    }
    rows = [
        [name, f"over {kind}", *cells]
        for name, of_method in estimates.items()
        for kind in ("seeds", "images")
        if any(cells := [_interval(getattr(one, f"over_{kind}")) for one in of_method])
    ]
    return rows and [
        "### 95% intervals",
        _table(rows, ["method", "", *paper.columns]),
        "COCO AP ranks the predictions of all images together; it has no interval over images.",
    ]


def describe_depth(paper, methods):
    """One sentence: how much better the deepest network is than the shallowest, and how surely."""
    shallowest, *_, deepest = [method for method in methods if method.trainings]
    difference = estimate_difference(deepest, shallowest, paper.columns[paper.decisive])
    intervals = {"over seeds": difference.over_seeds, "over images": difference.over_images}
    known = {kind: interval for kind, interval in intervals.items() if not np.isnan(interval[0])}
    if known:
        stated = ", ".join(f"{kind} {_interval(interval)}" for kind, interval in known.items())
        is_sure = all(low * high > 0 for low, high in known.values())
        verdict = (
            f"95% interval {stated}: {'more' if is_sure else 'no more'} than chance would give"
        )
    else:
        verdict = "one seed and one image cannot tell that from chance"
    return (
        f"What depth brought: {deepest.name} has {100 * difference.value:+.1f} points of "
        f"{paper.decisive} against {shallowest.name} ({verdict})."
    )


def format_conditions(paper, trainings, output):
    """What the figures depend on, here and in the paper; trainings: one of each network."""
    config = trainings[0].config
    datasets, solver = config["DATASETS"], config["SOLVER"]
    mpp, scale = config["INPUT"]["MPP"], config["INPUT"]["SCALE"]
    labels = {name.rpartition("_")[0] for name in datasets["TRAIN"]}
    here = {
        "trained on": _describe_data(output, datasets["TRAIN"]),
        "measured on": _describe_data(output, datasets["TEST"]),
        "labels": "; ".join(f"{name}: {LABELS[name]}" for name in sorted(labels)),
        "images": f"brought to {mpp:g} um/px" if mpp else f"enlarged by {scale:g}",
        "begins with": _describe_weights(config["MODEL"]["WEIGHTS"]),
        "channels of res2": config["MODEL"]["RESNETS"]["RES2_OUT_CHANNELS"],
        "steps": " / ".join(dict.fromkeys(f"{one.steps:,}" for one in trainings))
        + f" of {solver['IMS_PER_BATCH']} crops of {config['INPUT']['CROP']['SIZE'][0]} px"
        + (", of the heads first" if len(solver["STAGES"]) > 1 else ""),
    }
    rows = [[name, str(here[name]), in_paper] for name, in_paper in paper.conditions.items()]
    return _table(rows, ["", "here", paper.name], colalign=("left",) * 3)


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


def write_csv(path, paper, test_sets):
    """One row a method and test set: fractions, with the ends of their intervals."""
    rows = [
        {
            "test_set": name,
            "method": method.name,
            "seeds": " ".join(str(training.seed) for training in method.trainings),
            "hours": _hours(method.trainings),
            "machine": "; ".join(sorted({training.machine for training in method.trainings})),
            "command": method.trainings[0].command if method.trainings else "",
            **_csv_figures(paper, method),
        }
        for name, methods in test_sets.items()
        for method in methods
    ]
    with replace_when_done(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _csv_figures(paper, method):
    cells = {}
    for figure in paper.columns.values():
        one, name = estimate(method, figure), figure[1]
        cells[name] = one.value
        cells[f"{name}_by_seed"] = " ".join(f"{value:.5g}" for value in method.values(figure))
        for kind, interval in (("seeds", one.over_seeds), ("images", one.over_images)):
            for end, value in zip(("low", "high"), interval, strict=True):
                cells[f"{name}_over_{kind}_{end}"] = "" if np.isnan(value) else value
    return cells


def _hours(trainings):
    return f"{np.mean([training.hours for training in trainings]):.2f}" if trainings else ""


def _percent(fraction):
    return f"{100 * fraction:.1f}"


def _interval(interval):
    return "" if np.isnan(interval[0]) else " to ".join(map(_percent, interval))


def _table(rows, headers, colalign=None):
    return tabulate(
        rows,
        headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=colalign or ("left", "left", *["right"] * (len(headers) - 2)),
    )


if __name__ == "__main__":
    with exit_cleanly():
        main()
