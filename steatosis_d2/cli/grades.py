"""Steatosis grades from fat area: limits that are fitted on your own cases, judged, and applied."""

import argparse
import csv
import logging
from pathlib import Path

from tabulate import tabulate

from steatosis_d2.cli.statistics_options import FAT_AREA, add_measure, add_skip_missing
from steatosis_d2.errors import InputError
from steatosis_d2.files import write_json
from steatosis_d2.inference.table import read_model_of
from steatosis_d2.measurement.grading import read_grade_calibration
from steatosis_d2.measurement.summary import write_rows
from steatosis_d2.statistics.cases import join_cases, read_case_values
from steatosis_d2.statistics.grade_limits import fit_grades

logger = logging.getLogger(__name__)

EXAMPLES = """
limits from cases that a pathologist graded:
    %(prog)s fit results/summary.csv grades.csv --output limits.json
grades of other cases by these limits:
    %(prog)s apply more/summary.csv limits.json --output graded.csv
    steatosis-d2 segment slides --output results --grade-calibration limits.json
each has a --help of its own.
"""
FEW_CASES = 30


def run(arguments):
    """Do what the subcommand says."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    arguments.run(arguments)


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_fit(commands)
    add_apply(commands)
    return parser


def add_fit(commands):
    command = commands.add_parser(
        "fit",
        help="find the limits that agree best with given grades",
        description="Find the limits whose grades agree best with given ones (kappa with quadratic "
        "weights), and judge them on cases that were left out. GRADES.csv has a column with the "
        "cases (case, file, name, or the first one) and one with the grades.",
    )
    command.add_argument("summary", type=Path, metavar="SUMMARY.csv", help="of segment")
    command.add_argument("grades", type=Path, metavar="GRADES.csv", help="grades by case")
    command.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE.json",
        help="the limits; a page with plots is written beside it (FILE.html)",
    )
    add_measure(command)
    command.add_argument(
        "--grade-column", metavar="NAME", help="of GRADES.csv (default: 'grade', or the only one)"
    )
    command.add_argument(
        "--order",
        nargs="+",
        metavar="GRADE",
        help="the grades, lowest first, where they are no numbers: none mild moderate severe",
    )
    command.add_argument(
        "--graded-by", metavar="TEXT", help="who graded, how and whose cases; kept in the file"
    )
    add_skip_missing(command)
    command.set_defaults(run=fit)


def add_apply(commands):
    command = commands.add_parser(
        "apply",
        help="grade the rows of a summary",
        description="Grade each row of a summary.csv by the limits of a file.",
    )
    command.add_argument("summary", type=Path, metavar="SUMMARY.csv", help="of segment")
    command.add_argument("limits", type=Path, metavar="LIMITS.json", help="of grades fit")
    command.add_argument(
        "--output", required=True, type=Path, metavar="FILE.csv", help="the same rows, with grades"
    )
    command.set_defaults(run=apply)


def fit(arguments):
    """Fit limits, print how good they are, and write them."""
    measured = read_case_values(arguments.summary, column=arguments.column, usual=FAT_AREA)
    grades = read_case_values(arguments.grades, column=arguments.grade_column, usual=("grade",))
    numbers = measured.as_numbers()
    cases = join_cases(measured, grades, skip_missing=arguments.skip_missing)
    fitted = fit_grades(
        [numbers[case] for case in cases],
        [grades.values[case] for case in cases],
        order=arguments.order,
    )
    if len(cases) < FEW_CASES:
        logger.warning("%d cases are few: see how wide the intervals are.", len(cases))
    # matplotlib takes longer to import than the work takes
    from steatosis_d2.statistics.page import list_cut_off_rows, list_fit_rows, write_grades_page

    basis = arguments.graded_by or f"graded in {arguments.grades.name}"
    write_json(arguments.output, as_calibration(fitted, measured, arguments, basis), indent=2)
    page = arguments.output.with_suffix(".html")
    write_grades_page(page, fitted, measure=measured.column, basis=f"{basis}.")
    print(f"{len(cases)} cases, each graded by limits that were fitted without it:")
    print(tabulate(list_fit_rows(fitted), ["", "value", "95% interval"]))
    headings = ["grade from", "limit", "95% interval", "sensitivity", "specificity", "AUC"]
    print(tabulate(list_cut_off_rows(fitted), headings, disable_numparse=True))
    print(f"Limits: {arguments.output}; plots: {page}")


def as_calibration(fitted, measured, arguments, basis):
    """What the file of limits holds."""
    limits = [*fitted.limits.tolist(), None]
    return {
        "measure": measured.column,
        "grades": [
            {"grade": grade} if limit is None else {"grade": grade, "below": float(f"{limit:.6g}")}
            for grade, limit in zip(fitted.grades, limits, strict=True)
        ],
        "cases": len(fitted.true),
        "cases_of_each_grade": {
            grade: int((fitted.true == number).sum()) for number, grade in enumerate(fitted.grades)
        },
        "graded_by": basis,
        "model": read_model_of(arguments.summary.parent),
        "left_out_one_by_one": {
            name: dict(zip(("value", "low", "high"), figures, strict=True))
            for name, figures in fitted.figures.items()
        },
        "cut_offs": fitted.cut_offs,
        "confusion": fitted.confusion.tolist(),
    }


def apply(arguments):
    """Write the rows of a summary with their grades."""
    calibration = read_grade_calibration(arguments.limits)
    if not arguments.summary.is_file():
        raise InputError(f"table '{arguments.summary}' does not exist; check the path.")
    with arguments.summary.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    if calibration.measure not in columns:
        raise InputError(
            f"'{arguments.summary}' has no column '{calibration.measure}', which the limits in "
            f"'{arguments.limits}' are of. Give a summary.csv of segment."
        )
    for row in rows:
        value = row[calibration.measure]
        row["grade"] = calibration.grade(float(value)) if value else ""
        row["grade_calibration"] = calibration.name if value else ""
    names = list(dict.fromkeys([*columns, "grade", "grade_calibration"]))
    write_rows(arguments.output, rows, columns=names)
    print(f"{len(rows)} rows: {arguments.output}")
