"""``report.html``: what was found in each input, for a pathologist, in one file by itself."""

import json
import platform
from importlib import metadata

import cv2
from markupsafe import Markup

from steatosis_d2.files import replace_when_done
from steatosis_d2.measurement.filters import select_category, select_kept
from steatosis_d2.measurement.summary import TERMS
from steatosis_d2.measurement.uncertainty import BLOCK_UM
from steatosis_d2.report import pictures
from steatosis_d2.report.environment import TEMPLATES

GALLERY_SIZE = 6
_PACKAGES = ("steatosis-d2", "numpy", "scipy", "scikit-image", "shapely", "pandas")
# Drawing units of the histogram, at 1 px each on a wide page.
_HISTOGRAM = {"width": 640, "height": 220, "left": 72, "right": 620, "base": 170}
_TICKS = 8


def render_section(
    segmented,
    table,
    summary,
    *,
    plain_rgb,
    overview_rgb,
    gallery,
    large_diameter_um,
    parts=(),
):
    """
    The report's part on one input, as HTML with its pictures in it.

    Args:
        segmented (SegmentedSlide): the input.
        table (pandas.DataFrame): its instances, with ``dropped_by``.
        summary (dict): from :func:`steatosis_d2.measurement.summary.summarise`.
        plain_rgb (ndarray): uint8, shape (h, w, 3), the whole input.
        overview_rgb (ndarray): the same with outlines.
        gallery (dict): title (str) -> list of (row label of the table, Instance).
        large_diameter_um (float): droplets of this diameter or more are called large.
        parts (list[dict]): summaries of named regions and pieces.

    Returns:
        str: HTML.
    """
    slide, terms = segmented.slide, TERMS[segmented.category]
    has_others = bool(summary["other_categories"])
    table = select_category(table, segmented.category)
    kept = select_kept(table)
    dropped = table["dropped_by"][table["dropped_by"] != ""].value_counts().sort_index()
    return TEMPLATES.get_template("section.html").render(
        terms=terms,
        width_px=round(pictures.OVERVIEW_PX * slide.width / max(slide.width, slide.height)),
        key_figures=_list_key_figures(summary, terms) + list_artefacts(segmented.tissue),
        parts=_lay_out_parts(parts, terms, segmented.category),
        interval_note=_explain_intervals(summary, terms, segmented.model),
        overview={
            "uri": pictures.as_data_uri(overview_rgb),
            "alt": f"Overview with {len(kept)} outlined {terms.plural}",
            "caption": _explain_outlines(
                table, kept, overview_rgb.shape[1] / slide.width, terms, has_others=has_others
            )
            + pictures.explain_artefacts(segmented.tissue),
        },
        heat=_draw_heat(plain_rgb, segmented, kept, terms) if len(kept) else None,
        scale_bar=_choose_scale_bar(slide),
        histogram=_lay_out_histogram(kept, terms, large_diameter_um) if len(kept) else None,
        gallery={
            title: [_as_gallery_item(slide, kept.loc[row], instance) for row, instance in items]
            for title, items in gallery.items()
        },
        n_found=format_number(len(table)),
        n_dropped=format_number(len(table) - len(kept)),
        dropped=[(rule, format_number(int(count))) for rule, count in dropped.items()],
    )


def write_report(path, results, *, category, model, parameters, faults, detailed_inputs, cases=()):
    """
    Write the report of a run, whole or not at all; equal results give equal bytes.

    Args:
        path (str or Path): the file to write.
        results (list[dict]): ``summary``, ``parts``, ``name`` and ``section_html`` of each input;
            the sections of the first ``detailed_inputs`` are shown.
        category (str): ``droplet`` or ``nucleus``.
        model (dict): what segmented; JSON values.
        parameters (dict): settings of the run; JSON values.
        faults (dict): file name -> what is wrong with an input that could not be segmented.
        detailed_inputs (int): how many inputs have a section.
        cases (list[dict]): from :func:`steatosis_d2.measurement.cases.combine_cases`.
    """
    terms = TERMS[category]
    summaries = [result["summary"] for result in results]
    calibrations = {summary["grade_calibration"] for summary in summaries} - {None}
    columns = _choose_columns(terms, category, with_grade=bool(calibrations))
    sections = [
        {
            "anchor": f"input-{number}",
            "file": result["summary"]["file"],
            "html": Markup(result["section_html"]),
            "overlay": f"{result['name']}_overlay.png",
            "outlines": f"{result['name']}.geojson.gz",
            "table": f"{result['name']}.parquet",
        }
        for number, result in enumerate(results[:detailed_inputs], 1)
    ]
    n_inputs = len(results) + len(faults)
    n_found = sum(summary[terms.plural] for summary in summaries)
    unknown = sum(summary["mpp"] is None for summary in summaries)
    text = TEMPLATES.get_template("report.html").render(
        title=f"{terms.title} in {n_inputs} input{'s' * (n_inputs != 1)}",
        subtitle=f"{format_number(n_found)} {terms.plural} in {len(results)} "
        f"segmented input{'s' * (len(results) != 1)}.",
        terms=terms,
        n_inputs=n_inputs,
        faults=list(faults.items()),
        without_pixel_size=f"{unknown} of {len(results)} inputs" if unknown else None,
        columns=["input", *columns],
        lines=[
            {
                "file": row["file"],
                "part": row["region"],
                "anchor": f"input-{number}" if number <= len(sections) else None,
                "overlay": f"{result['name']}_overlay.png",
                "cells": [format_cell(row) for format_cell in columns.values()],
            }
            for number, result in enumerate(results, 1)
            for row in (result["summary"], *result["parts"])
        ],
        area_note=_explain_area(terms),
        calibration=", ".join(sorted(calibrations)),
        n_hidden=len(results) - len(sections),
        cases=_lay_out_cases(cases, terms, category),
        sections=sections,
        parameters=_format_settings(parameters),
        model=_format_settings(model),
        versions=_list_versions(),
    )
    with replace_when_done(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def format_number(value):
    """
    A figure for reading: three digits, thousands apart, a dash for what is not defined.

    Examples:
        >>> [format_number(value) for value in (None, 0, 12345, 999.6, 0.01234)]
        ['–', '0', '12,345', '1,000', '0.0123']
    """
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def format_length(length_px, mpp):
    """
    A length in um, or mm, where the pixel size is known, else in px.

    Examples:
        >>> format_length(400, 0.25), format_length(8000, 0.25), format_length(400, None)
        ('100 µm', '2 mm', '400 px')
    """
    if mpp is None:
        return f"{format_number(float(length_px))} px"
    length_um = float(length_px * mpp)
    if length_um >= 1000:
        return f"{format_number(length_um / 1000)} mm"
    return f"{format_number(length_um)} µm"


def list_artefacts(tissue, *, from_percent=0.1):
    """
    What is wrong with the tissue, and whether it was measured all the same.

    Args:
        tissue (TissueMask): of a slide.
        from_percent (float): smaller shares are passed over.

    Returns:
        list[tuple[str, str, str]]: kind of artefact, its share in words, and no interval.
    """
    return [
        (
            kind,
            f"{format_number(percent)}% of tissue, "
            + ("measured" if tissue.measures(kind) else "left out"),
            "",
        )
        for kind, percent in tissue.artefact_percents().items()
        if percent is not None and percent >= from_percent
    ]


def _explain_outlines(table, kept, scale, terms, *, has_others):
    parts = ["Overview"]
    if len(kept):
        parts.append(f"{terms.plural} outlined in green")
    if len(kept) < len(table):
        parts.append("left out by the filter: orange")
    if has_others:
        parts.append("what else was found, and is not counted: blue")
    if (scale * table[["width_px", "height_px"]].max(axis=1) < pictures.VISIBLE_PX).any():
        parts.append("the smallest are not outlined at this size")
    return "; ".join(parts) + "."


def _draw_heat(plain_rgb, segmented, kept, terms):
    slide = segmented.slide
    heat = pictures.draw_heat_map(plain_rgb, kept, slide, segmented.tissue)
    return {
        "uri": pictures.as_data_uri(heat.picture_rgb),
        "alt": f"Heat map of {terms.area} area from 0 to {heat.limit_percent} percent",
        "caption": f"Share of tissue that is {terms.area}, averaged with a Gaussian of "
        f"{format_length(heat.smoothing_px, slide.mpp)} standard deviation.",
        "limit": heat.limit_percent,
    }


def _list_key_figures(summary, terms):
    """Label, text and interval of what a reader looks for first; the undefined is left out."""
    if summary["mpp"] is None:
        suffix, unit, per, per_text = "px", "px", "megapixel", "megapixel"
    else:
        suffix, unit, per, per_text = "um", "µm", "mm2", "mm²"
    figures = {
        f"{terms.area} area": (summary[f"{terms.area}_area_percent"], "% of tissue"),
        terms.plural: (summary[terms.plural], ""),
        f"{terms.plural} per {per_text} tissue": (summary[f"{terms.plural}_per_{per}"], ""),
        "median diameter": (summary[f"diameter_median_{suffix}"], unit),
        "90% are wider than": (summary[f"diameter_p10_{suffix}"], unit),
        "10% are wider than": (summary[f"diameter_p90_{suffix}"], unit),
        "nearest neighbour, median": (summary[f"nearest_neighbour_median_{suffix}"], unit),
        "in large droplets": (summary.get("large_droplet_fat_percent"), "% of fat"),
        "cut by a border": (summary["truncated"], ""),
    }
    intervals = {
        f"{terms.area} area": f"{terms.area}_area_percent",
        f"{terms.plural} per mm² tissue": f"{terms.plural}_per_mm2",
        "in large droplets": "large_droplet_fat_percent",
    }
    texts = [
        (label, _with_unit(*figure), _format_ends(summary, intervals.get(label)))
        for label, figure in figures.items()
        if figure[0] is not None
    ]
    if summary["other_categories"]:
        texts.append(("also found", summary["other_categories"], ""))
    texts.append(("tissue", _format_tissue(summary), ""))
    texts.append(("size", f"{summary['width_px']:,} × {summary['height_px']:,} px", ""))
    pixel_size = _with_unit(summary["mpp"], "µm") if summary["mpp"] else "unknown"
    if summary["mpp_source"] == "nuclei":
        pixel_size += " (an estimate, from the nuclei)"
    texts.append(("pixel size", pixel_size, ""))
    if summary["grade"] is not None:
        texts.append((f"grade by {summary['grade_calibration']}", summary["grade"], ""))
    return texts


def _lay_out_parts(parts, terms, category):
    """Heading and cells of a table with a line for each part; None without parts."""
    if not parts:
        return None
    with_grade = any(part["grade"] is not None for part in parts)
    columns = _choose_columns(terms, category, with_grade=with_grade)
    return {
        "columns": ["part", *columns],
        "lines": [
            [part["region"], *(format_cell(part) for format_cell in columns.values())]
            for part in parts
        ],
    }


def _lay_out_cases(cases, terms, category):
    """Heading and cells of a table with a line for each case; None without cases."""
    if not cases:
        return None
    columns = {
        "slides": _count_slides,
        "tissue": lambda row: _with_unit(row["tissue_area_mm2"], "mm²"),
        f"{terms.area} area, %": lambda row: format_number(row[f"{terms.area}_area_percent"]),
        terms.plural: lambda row: format_number(row[terms.plural]),
        "per mm²": lambda row: format_number(row[f"{terms.plural}_per_mm2"]),
    }
    if category == "droplet":
        columns["large, % of fat"] = lambda row: format_number(row["large_droplet_fat_percent"])
    if any(case["grade"] is not None for case in cases):
        columns["grade"] = lambda row: row["grade"] or "–"
    return {
        "columns": ["case", *columns],
        "lines": [[case["case"], *(cell(case) for cell in columns.values())] for case in cases],
        "is_incomplete": any(case["failed_slides"] for case in cases),
    }


def _count_slides(case):
    """Number of a case's slides; of how many, where some could not be segmented."""
    number, failed = case["slides"], case["failed_slides"]
    return f"{number} of {number + failed}" if failed else format_number(number)


def _explain_intervals(summary, terms, model):
    """What the intervals cover and what not; None where there are none."""
    if summary[f"{terms.area}_area_percent_low"] is None:
        return None
    note = (
        "In brackets: 95% intervals for tissue like this, by a bootstrap over blocks of "
        f"{BLOCK_UM / 1000:g} mm. They tell how far another piece of the same tissue would differ. "
        "They do not tell how far the network is wrong."
    )
    validation = model.get("validation")
    if validation and terms.area == "fat":
        note += (
            f" On {validation['images']} images that it was not trained on, its fat area was "
            f"wrong by {validation['fat_area_error_points']:.2g} percentage points on average, its "
            f"count by {validation['count_error']:.2g} droplets an image."
        )
    return note


def _choose_columns(terms, category, *, with_grade):
    """Heading -> what its cell holds, from a summary."""
    columns = {
        "tissue": _format_tissue,
        f"{terms.area} area, %": lambda row: (
            format_number(row[f"{terms.area}_area_percent"])
            + _format_ends(row, f"{terms.area}_area_percent")
        ),
        terms.plural: lambda row: format_number(row[terms.plural]),
        "per mm²": lambda row: format_number(row[f"{terms.plural}_per_mm2"]),
        "median diameter": lambda row: _with_unit(
            *(
                (row["diameter_median_px"], "px")
                if row["mpp"] is None
                else (row["diameter_median_um"], "µm")
            )
        ),
    }
    if category == "droplet":
        columns["large, % of fat"] = lambda row: format_number(row["large_droplet_fat_percent"])
    columns["left out"] = lambda row: format_number(row["dropped"])
    if with_grade:
        columns["grade"] = lambda row: row["grade"] or "–"
    return columns


def _explain_area(terms):
    area = terms.area.capitalize()
    note = f"{area} area is the share of the tissue's area that {terms.plural} cover."
    if terms.area == "fat":
        note += (
            " It is not a steatosis grade: grades (Kleiner et al. 2005) count the share of cells "
            "with fat, which is usually several times as high."
        )
    return note


def _format_ends(summary, column):
    """An interval in brackets, or nothing."""
    low, high = (summary.get(f"{column}_{end}") for end in ("low", "high"))
    return "" if low is None else f" ({format_number(low)} to {format_number(high)})"


def _format_tissue(summary):
    if summary["mpp"] is None:
        return _with_unit(summary["tissue_area_px"] / 1e6, "megapixels")
    return _with_unit(summary["tissue_area_mm2"], "mm²")


def _with_unit(value, unit):
    text = format_number(value)
    if value is None or not unit:
        return text
    return f"{text}{unit}" if unit.startswith("%") else f"{text} {unit}"


def _choose_scale_bar(slide):
    """About a fifth of the width, and a round number."""
    mpp = slide.mpp or 1.0
    length = pictures.round_up(0.15 * slide.width * mpp)
    return {
        "percent": round(100 * length / mpp / slide.width, 2),
        "label": format_length(length / mpp, slide.mpp),
    }


def _lay_out_histogram(kept, terms, large_diameter_um):
    histogram = pictures.count_diameters(kept)
    shows_large = histogram.unit == "µm" and terms.area == "fat"
    left, right, base = (_HISTOGRAM[name] for name in ("left", "right", "base"))
    step = (right - left) / len(histogram.counts)
    highest = int(histogram.counts.max())
    bars = []
    for index, count in enumerate(histogram.counts.tolist()):
        low = index * histogram.bin_width
        height = round(base * count / highest, 1)
        bars.append(
            {
                "x": round(left + index * step + 1, 1),
                "y": round(base - height, 1),
                "width": round(step - 2, 1),
                "height": height,
                "is_large": shows_large and low >= large_diameter_um,
                "title": f"{low:g} to {low + histogram.bin_width:g} {histogram.unit}: {count}",
            }
        )
    tick_step = -(-len(bars) // _TICKS)
    ticks = [
        {"x": round(left + index * step, 1), "label": f"{index * histogram.bin_width:g}"}
        for index in range(0, len(bars) + 1, tick_step)
    ]
    return {
        **_HISTOGRAM,
        "bars": bars,
        "ticks": ticks,
        "highest": format_number(highest),
        "unit": histogram.unit,
        "alt": f"Histogram of {len(kept)} diameters in {histogram.unit}; the most in one bin "
        f"of {histogram.bin_width:g} {histogram.unit} are {highest}",
        "large_label": f"Orange: from {large_diameter_um:g} µm on, called large."
        if shows_large
        else None,
    }


def _as_gallery_item(slide, row, instance):
    unit = "px" if slide.mpp is None else "µm"
    size = f"{format_number(float(row[pictures.diameter_column(row)]))} {unit}"
    picture_rgb = pictures.draw_gallery_picture(slide, instance)
    return {
        "uri": pictures.as_data_uri(picture_rgb),
        "alt": f"number {row['instance_id']}, {size} wide, at x {row['centroid_x_px']:.0f}, "
        f"y {row['centroid_y_px']:.0f} px",
        "size": size,
        "score": f"{row['score']:.2f}",
    }


def _format_settings(settings):
    """One line a setting, however much it holds."""
    return "\n".join(
        f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()
    )


def _list_versions():
    # OpenCV has several packages, and conda's and Debian's have other names still.
    lines = [f"Python {platform.python_version()}", f"OpenCV {cv2.__version__}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue  # imported from a folder, not installed
    return "\n".join(lines)
