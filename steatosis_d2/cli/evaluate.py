"""Measure predictions against truths, both COCO files; no model and no GPU needed."""

import argparse
from pathlib import Path

from steatosis_d2.cli.option_types import finite_number
from steatosis_d2.data.coco import check_outlined, read_coco
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images, split_by_category
from steatosis_d2.evaluation.tables import (
    as_record,
    format_table,
    format_table_1,
    write_per_image_csv,
)
from steatosis_d2.files import write_json

EXAMPLES = """
examples:
  %(prog)s --ground-truth gt.json --predictions predictions.json \\
      --output metrics.json --per-image images.csv --plots plots/
  Table 1, several methods side by side in Markdown:
  %(prog)s --ground-truth gt.json \\
      --predictions ResNet41=r41.json ResNet50=r50.json > table1.md
  From which score on should droplets be kept? Ask the training set:
  %(prog)s --ground-truth train.json --predictions predictions.json \\
      --score-threshold 0.5 0.6 0.7 0.8
"""


def run(arguments):
    """Measure each file of predictions, print a table, and write what was asked for."""
    truth = read_coco(arguments.ground_truth)
    check_outlined(truth, arguments.ground_truth)
    thresholds = arguments.score_threshold
    evaluations, errors = {}, []
    for name, path in arguments.predictions.items():
        try:
            pairs_by_category = pair_by_category(truth, path, arguments)
        except InputError as error:
            errors.append(str(error))
            continue
        for category, pairs in pairs_by_category.items():
            for threshold in thresholds:
                row = f"{name}, {category}" if len(pairs_by_category) > 1 else name
                row += f" from {threshold:g}" if len(thresholds) > 1 else ""
                evaluations[row] = evaluate_pairs(pairs, score_threshold=threshold)
    if len(evaluations) > 1 and (arguments.per_image or arguments.plots):
        raise InputError(
            f"there are several results ({', '.join(evaluations)}); --per-image and --plots take "
            "one. Choose a category with --category."
        )
    if is_comparison(arguments) or len(evaluations) > 1:
        print(format_table_1(evaluations))
        write_comparison(evaluations, arguments)
    elif evaluations:
        [evaluation] = evaluations.values()
        print(format_table(evaluation))
        write_results(evaluation, arguments)
    if errors:
        raise InputError("\nerror: ".join(errors))


def pair_by_category(truth, path, arguments):
    """Pairs of images for each category that is measured: name -> list[ImagePair]."""
    names = {"truth_name": arguments.ground_truth, "predictions_name": path}
    contents = split_by_category(truth, read_coco(path), category=arguments.category, **names)
    return {name: pair_images(*both, **names) for name, both in contents.items()}


def build_parser(prog):
    """The command's options."""
    parser = Parser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ground-truth", required=True, metavar="FILE", help="COCO file of truths")
    parser.add_argument(
        "--predictions",
        required=True,
        nargs="+",
        metavar="[NAME=]FILE",
        help="COCO file of predictions, with the same images; several are compared in one table",
    )
    parser.add_argument(
        "--score-threshold",
        type=finite_number,
        nargs="+",
        default=[0.0],
        metavar="S",
        help="count predictions with this score or more in all figures but COCO AP, which ranks "
        "all of them (default: all in the file); several are compared in one table",
    )
    parser.add_argument(
        "--category",
        metavar="NAME",
        help="measure this category alone (default: each by itself, where there are several)",
    )
    parser.add_argument("--output", metavar="FILE", help="write the metrics as JSON")
    parser.add_argument("--per-image", metavar="FILE.csv", help="write one row an image")
    parser.add_argument("--plots", metavar="DIR", help="write three plots (PNG)")
    return parser


class Parser(argparse.ArgumentParser):
    """Refuses options that do not go together; ``predictions`` becomes a dict of names."""

    def parse_args(self, *args, **kwargs):
        """As ``ArgumentParser.parse_args``."""
        arguments = super().parse_args(*args, **kwargs)
        if is_comparison(arguments) and (arguments.per_image or arguments.plots):
            self.error(
                "--per-image and --plots take one file of predictions and one score at a time"
            )
        named = dict(name_and_path(text) for text in arguments.predictions)
        if len(named) < len(arguments.predictions):
            self.error("two files of predictions have one name; give each its own, as NAME=FILE")
        arguments.predictions = named
        return arguments


def name_and_path(text):
    """What the user calls a file of predictions, and where it is."""
    name, separator, path = text.partition("=")
    if separator and not Path(text).exists():
        return name, path
    return Path(text).stem, text


def is_comparison(arguments):
    return len(arguments.predictions) > 1 or len(arguments.score_threshold) > 1


def write_comparison(evaluations, arguments):
    if arguments.output:
        records = {name: as_record(evaluation) for name, evaluation in evaluations.items()}
        write_json(arguments.output, records, indent=2)


def write_results(evaluation, arguments):
    if arguments.output:
        write_json(arguments.output, as_record(evaluation), indent=2)
    if arguments.per_image:
        write_per_image_csv(arguments.per_image, evaluation)
    if arguments.plots:
        # matplotlib takes longer to import than most evaluations take
        from steatosis_d2.evaluation.plots import write_plots

        write_plots(arguments.plots, evaluation)
