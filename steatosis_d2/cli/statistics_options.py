"""Options of the commands that work on tables of cases."""

# What summary.csv and users call it
FAT_AREA = ("fat_area_percent",)


def add_measure(parser):
    """The option --column."""
    parser.add_argument(
        "--column",
        metavar="NAME",
        help=f"what is measured, a column of SUMMARY.csv (default: {FAT_AREA[0]})",
    )


def add_skip_missing(parser):
    """The option --skip-missing."""
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out cases that only one table has; without this they are an error",
    )
