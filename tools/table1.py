#!/usr/bin/env python
"""
The table of a paper's networks, from the files that tools/measure_table1.py wrote.

A network's figures are means over its trainings, one a seed. Their 95% intervals are of two kinds:
over seeds (Student's t) for what another training would give, and over images (bootstrap) for what
other images would give.

example:
  python tools/table1.py liver output/table1/results --output output/table1
  writes output/table1/table.md and output/table1/table.csv
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from table1_intervals import arrange_methods, estimate, estimate_difference
from table1_results import read_command, read_results
from tabulate import tabulate

from steatosis_d2.errors import exit_cleanly
from steatosis_d2.evaluation.tables import TABLE_1_COLUMNS
from steatosis_d2.files import replace_when_done


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


def main():
    """Put the results together, write two files and show one of them."""
    arguments = parse_arguments()
    paper, results = PAPERS[arguments.table], read_results(arguments.results)
    test_sets = {name: arrange_methods(results, name) for name in results[0].figures}
    text = format_page(paper, test_sets, read_command(arguments.results))
    with replace_when_done(arguments.output / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_csv(arguments.output / "table.csv", paper, test_sets)
    print(text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=PAPERS, help="which paper's")
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of *.json")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    return parser.parse_args()


def format_page(paper, test_sets, typed):
    """All that is to be said, as Markdown; typed: the command that began it."""
    methods = next(iter(test_sets.values()))
    networks = [method.trainings for method in methods if method.trainings]
    first_trainings = [trainings[0] for trainings in networks]
    machines = {training.machine for trainings in networks for training in trainings}
    parts = [
        f"# Table 1 of {paper.name}, again",
        f"```bash\n{typed}\n```",
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
        format_conditions(paper, first_trainings),
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
            *(_percent(method.values(heading).mean()) for heading in paper.columns),
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
        method.name: [estimate(method, heading) for heading in paper.columns] for method in methods
    } | {
        f"{method.name} minus {networks[0].name}": [
            estimate_difference(method, networks[0], heading) for heading in paper.columns
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
    """One sentence: what each network has more than the shallowest, and how surely."""
    shallowest, *deeper = [method for method in methods if method.trainings]
    gains = "; ".join(_describe_gain(paper, method, shallowest) for method in deeper)
    return f"What depth brought, in {paper.decisive} against {shallowest.name}: {gains}."


def _describe_gain(paper, method, shallowest):
    difference = estimate_difference(method, shallowest, paper.decisive)
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
    return f"{method.name} {100 * difference.value:+.1f} points ({verdict})"


def format_conditions(paper, trainings):
    """What the figures depend on, here and in the paper; trainings: one of each network."""
    rows = [
        [name, " / ".join(dict.fromkeys(one.conditions[name] for one in trainings)), in_paper]
        for name, in_paper in paper.conditions.items()
    ]
    return _table(rows, ["", "here", paper.name], colalign=("left",) * 3)


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
    for heading, (_, name) in paper.columns.items():
        one = estimate(method, heading)
        cells[name] = one.value
        cells[f"{name}_by_seed"] = " ".join(f"{value:.5g}" for value in method.values(heading))
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
