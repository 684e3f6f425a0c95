"""What the slides of a case say together."""

from steatosis_d2.data.coco import DROPLET
from steatosis_d2.measurement.summary import TERMS


def combine_cases(rows, *, category, calibration=None):
    """
    One row a case, over all its slides: sums of areas and numbers, and ratios of these sums, so
    that a slide counts by its tissue. A slide that could not be segmented is named, and its case's
    figures are of the others.

    Args:
        rows (list[dict]): of slides, from :func:`~.summary.summarise` and
            :func:`~.summary.fault_row`, with ``case``.
        category (str): ``droplet`` or ``nucleus``.
        calibration (GradeCalibration or None): for a grade.

    Returns:
        list[dict]: in the order in which cases come; empty where no slide is of a case. A figure
        in um is None where a slide's pixel size is not known, every figure where all slides
        failed.
    """
    slides_of: dict[str, list[dict]] = {}
    for row in rows:
        if row["case"] is not None:
            slides_of.setdefault(row["case"], []).append(row)
    return [
        _combine(case, slides, TERMS[category], category, calibration)
        for case, slides in slides_of.items()
    ]


def _combine(case, rows, terms, category, calibration):
    slides = [row for row in rows if row["fault"] is None]
    failed = [row["file"] for row in rows if row["fault"] is not None]
    tissue, covered = f"tissue_area_{_unit(slides)}", f"{terms.area}_area_{_unit(slides)}"
    row = {
        "case": case,
        "slides": len(slides),
        "files": "; ".join(slide["file"] for slide in slides),
        "failed_slides": len(failed),
        "failed_files": "; ".join(failed),
        "tissue_area_mm2": _add(slides, "tissue_area_mm2"),
        f"{terms.area}_area_mm2": _add(slides, f"{terms.area}_area_mm2"),
        f"{terms.area}_area_percent": _percent(_add(slides, covered), _add(slides, tissue)),
        terms.plural: _add(slides, terms.plural),
    }
    row[f"{terms.plural}_per_mm2"] = _divide(row[terms.plural], row["tissue_area_mm2"])
    if category == DROPLET:
        large_mm2 = _add(
            [
                {"large": _multiply(slide["large_droplet_area_percent"], slide["tissue_area_mm2"])}
                for slide in slides
            ],
            "large",
        )
        row["large_droplets"] = _add(slides, "large_droplets")
        row["large_droplet_area_percent"] = _divide(large_mm2, row["tissue_area_mm2"])
        row["large_droplet_fat_percent"] = _divide(large_mm2, row["fat_area_mm2"])
    row["grade"] = None
    row["grade_calibration"] = calibration and calibration.name
    if calibration is not None and row.get(calibration.measure) is not None:
        row["grade"] = calibration.grade(row[calibration.measure])
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in row.items()
    }


def _unit(slides):
    """px only where no pixel size is known: px of slides of several sizes do not add up."""
    return "px" if all(slide["mpp"] is None for slide in slides) else "mm2"


def _add(rows, column):
    values = [row[column] for row in rows]
    return sum(values) if values and None not in values else None


def _multiply(value, factor):
    # Of no tissue there is no percentage, and no area either
    return (
        0.0
        if value is None and factor == 0
        else None
        if None in (value, factor)
        else value * factor
    )


def _divide(value, total):
    return None if value is None or not total else value / total


def _percent(value, total):
    share = _divide(value, total)
    return None if share is None else 100 * share
