"""How a measure agrees with a reference over cases: a pathologist, MRI, another tool or scan."""

import argparse
import logging
from pathlib import Path

from tabulate import tabulate

from steatosis_d2.cli.statistics_options import FAT_AREA, add_measure, add_skip_missing
from steatosis_d2.files import write_json
from steatosis_d2.measurement.summary import write_rows
from steatosis_d2.statistics.agreement import measure_case_agreement
from steatosis_d2.statistics.cases import read_case_values

EXAMPLES = """
examples:
  fat area against MRI-PDFF, or a pathologist's estimate in percent:
    %(prog)s results/summary.csv pdff.csv --output agreement
  two scans of the same slides:
    %(prog)s first/summary.csv second/summary.csv --reference-column fat_area_percent

The reference is a CSV file with a line of names. One column has the cases (case, file, name, or the
first one), another one their values.
"""


def run(arguments):
    """Compare, print, and write what was asked for."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    agreement = measure_case_agreement(
        read_case_values(arguments.summary, column=arguments.column, usual=FAT_AREA),
        read_case_values(arguments.reference, column=arguments.reference_column, usual=FAT_AREA),
        skip_missing=arguments.skip_missing,
    )
    # matplotlib takes longer to import than the work takes
    from steatosis_d2.statistics.page import list_agreement_rows, write_agreement_page

    print(f"{len(agreement.cases)} cases: {agreement.measured_name}, {agreement.reference_name}")
    print(tabulate(list_agreement_rows(agreement), ["", "value", "95% interval"]))
    if arguments.output:
        write_json(arguments.output / "agreement.json", agreement.as_record(), indent=2)
        write_cases(arguments.output / "cases.csv", agreement)
        write_agreement_page(arguments.output / "agreement.html", agreement)
        print(f"Plots: {arguments.output / 'agreement.html'}")


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("summary", type=Path, metavar="SUMMARY.csv", help="of segment")
    parser.add_argument("reference", type=Path, metavar="REFERENCE.csv", help="by case")
    add_measure(parser)
    parser.add_argument(
        "--reference-column", metavar="NAME", help="of the reference (default: the only one)"
    )
    add_skip_missing(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write agreement.json, cases.csv, and agreement.html with plots",
    )
    return parser


def write_cases(path, agreement):
    """One row a case: its name, both values and their difference."""
    columns = ["case", "measured", "reference", "difference"]
    differences = agreement.measured - agreement.reference
    values = zip(agreement.cases, agreement.measured, agreement.reference, differences, strict=True)
    rows = [
        dict(zip(columns, (case, *(f"{value:.6g}" for value in numbers)), strict=True))
        for case, *numbers in values
    ]
    write_rows(path, rows, columns=columns)
