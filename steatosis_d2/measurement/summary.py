"""What a table of instances says of its slide: one row of ``summary.csv``."""

import csv
import itertools
import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np

from steatosis_d2.data.coco import DROPLET, NUCLEUS
from steatosis_d2.files import replace_when_done
from steatosis_d2.measurement.filters import select_category, select_kept
from steatosis_d2.measurement.morphology import measure_instances, measure_nearest
from steatosis_d2.slides.artefacts import ARTEFACTS

logger = logging.getLogger(__name__)

# The disk of 100 um2, from which on Marti-Aguado et al. call a droplet large (European Radiology
# 2025, doi:10.1007/s00330-025-11919-0). Pathologists' own criterion, a droplet that fills more
# than half of its cell, cannot be told from droplets alone.
LARGE_DIAMETER_UM = 11.3
PERCENTILES = (5, 10, 25, 75, 90, 95)


@dataclass(frozen=True)
class Terms:
    """What a category is called: in a title, one of it, several, and what their area is."""

    title: str
    singular: str
    plural: str
    area: str


TERMS = {
    DROPLET: Terms("Fat droplets", "droplet", "droplets", "fat"),
    NUCLEUS: Terms("Nuclei", "nucleus", "nuclei", "nucleus"),
}


def summarise(
    table,
    *,
    category,
    file_name,
    shape_px,
    mpp,
    tissue_area_px,
    large_diameter_um,
    calibration,
    mpp_source=None,
    region=None,
    case=None,
    size_bins_um2=(),
    intervals=None,
    artefact_percents=None,
):
    """
    Summarise one input, or a part of it. What a filter dropped is counted, and left out of
    everything else.

    Args:
        table (pandas.DataFrame): from :func:`~.morphology.measure_instances`, with a
            column ``dropped_by``.
        category (str): ``droplet`` or ``nucleus``; its terms are in the columns' names, and
            instances of others are counted, no more.
        file_name (str): the input.
        shape_px (tuple[int, int]): height and width of the input.
        mpp (float or None): its pixel size in um/px.
        tissue_area_px (float): area of its tissue, or of the part's.
        large_diameter_um (float): droplets of this diameter or more are called large.
        calibration (GradeCalibration or None): for a grade.
        mpp_source (str or None): where the pixel size comes from; ``nuclei`` is an estimate.
        region (str or None): name of the part; None is the whole input.
        case (str or None): whose slide it is.
        size_bins_um2 (tuple[float]): ascending; limits of area between bins of droplets.
        intervals (dict or None): column -> (low, high), from
            :func:`~.uncertainty.estimate_intervals`.
        artefact_percents (dict or None): kind of artefact -> share of tissue and artefacts.

    Returns:
        dict: the same keys for every input; None where something is not defined, such as what is
        in um without a pixel size, or a percentage of no tissue.
    """
    terms = TERMS[category]
    others = Counter(_list_others(select_kept(table), category))
    table = select_category(table, category)
    kept = select_kept(table)
    area_px = kept["area_px"] if mpp is None else kept["area_um2"] / mpp**2
    mm2 = None if mpp is None else (mpp / 1000) ** 2
    covered_px = float(area_px.sum())
    percent = _ratio(100 * covered_px, tissue_area_px)
    if percent is not None and percent > 100:
        logger.warning(
            "'%s': what is counted covers %.0f%% of the tissue that was looked at, since the "
            "regions are hardly larger; 100%% is reported.",
            file_name,
            percent,
        )
        percent = 100.0
    reasons = Counter(table["dropped_by"][table["dropped_by"] != ""])
    row = {
        "file": file_name,
        "region": region,
        "case": case,
        "fault": None,
        "width_px": shape_px[1],
        "height_px": shape_px[0],
        "mpp": mpp,
        "mpp_source": mpp_source,
        "tissue_area_mm2": _times(tissue_area_px, mm2),
        "tissue_area_px": tissue_area_px,
        **{artefact_column(kind): (artefact_percents or {}).get(kind) for kind in ARTEFACTS},
        f"{terms.area}_area_mm2": _times(covered_px, mm2),
        f"{terms.area}_area_px": covered_px,
        f"{terms.area}_area_percent": percent,
        **_ends(f"{terms.area}_area_percent", intervals),
        terms.plural: len(kept),
        f"{terms.plural}_per_mm2": mm2 and _ratio(len(kept), tissue_area_px * mm2),
        **_ends(f"{terms.plural}_per_mm2", intervals),
        f"{terms.plural}_per_megapixel": _ratio(len(kept), tissue_area_px / 1e6),
        **_summarise_lengths(kept, mpp),
        **(
            _summarise_large(kept, mpp, large_diameter_um, tissue_area_px, intervals)
            if category == DROPLET
            else {}
        ),
        **_summarise_bins(kept, mpp, size_bins_um2, terms, tissue_area_px),
        "truncated": int(kept["truncated"].sum()),
        "other_categories": _join_counts(others),
        "dropped": len(table) - len(kept),
        "dropped_by": _join_counts(reasons),
        "grade": None,
        "grade_calibration": calibration and calibration.name,
    }
    if calibration is not None and row[calibration.measure] is not None:
        row["grade"] = calibration.grade(row[calibration.measure])
    return {name: _shorten(value) for name, value in row.items()}


def fault_row(file_name, fault, *, case=None):
    """The row of an input that could not be segmented: its name, whose it is, what is wrong."""
    return {"file": file_name, "case": case, "fault": fault}


def list_columns(category):
    """Keys of every row of a category, without bins of size."""
    empty = measure_instances([], mpp=None).assign(dropped_by="")
    row = summarise(
        empty,
        category=category,
        file_name="",
        shape_px=(0, 0),
        mpp=None,
        tissue_area_px=0,
        large_diameter_um=LARGE_DIAMETER_UM,
        calibration=None,
    )
    return list(row)


def write_summary(path, rows, *, category):
    """
    Write ``summary.csv``, as :func:`write_rows` does.

    Args:
        path (str or Path): the file to write.
        rows (list[dict]): from :func:`summarise` and :func:`fault_row`.
        category (str): ``droplet`` or ``nucleus``; of the columns where all rows are faults.
    """
    write_rows(path, rows, columns=max([list_columns(category), *map(list, rows)], key=len))


def write_rows(path, rows, *, columns):
    """
    Write a CSV file, whole or not at all; what is None, or missing, becomes an empty cell.

    Args:
        path (str or Path): the file to write.
        rows (list[dict]): column -> value.
        columns (list[str]): in order.
    """
    with (
        replace_when_done(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)


def _summarise_lengths(kept, mpp):
    """Diameters, and distances to the nearest other one that is kept, in um and in px."""
    diameter_px = (
        kept["equivalent_diameter_px"] if mpp is None else kept["equivalent_diameter_um"] / mpp
    )
    nearest_px = measure_nearest(kept[["centroid_x_px", "centroid_y_px"]].to_numpy())
    nearest_px = nearest_px[np.isfinite(nearest_px)]
    figures = {
        "diameter_mean": _reduce(np.mean, diameter_px),
        "diameter_median": _reduce(np.median, diameter_px),
        **{f"diameter_p{p}": _reduce(np.percentile, diameter_px, p) for p in PERCENTILES},
        "nearest_neighbour_mean": _reduce(np.mean, nearest_px),
        "nearest_neighbour_median": _reduce(np.median, nearest_px),
    }
    in_um = {f"{name}_um": _times(value, mpp) for name, value in figures.items()}
    return in_um | {f"{name}_px": value for name, value in figures.items()}


def artefact_column(kind):
    """Name of the column (str) with the share of a kind of artefact."""
    return f"{kind.replace(' ', '_')}_percent"


def _ends(column, intervals):
    """Columns of an interval's ends."""
    low, high = (intervals or {}).get(column, (None, None))
    return {f"{column}_low": low, f"{column}_high": high}


def _summarise_large(kept, mpp, large_diameter_um, tissue_area_px, intervals):
    figures = {
        "large_diameter_um": large_diameter_um,
        "large_droplets": None,
        "large_droplet_area_percent": None,
        "large_droplet_fat_percent": None,
        **_ends("large_droplet_fat_percent", intervals),
        "small_droplet_fat_percent": None,
    }
    if mpp is not None:
        large = kept["equivalent_diameter_um"] >= large_diameter_um
        share = _ratio(100 * float(kept["area_um2"][large].sum()), float(kept["area_um2"].sum()))
        figures["large_droplets"] = int(large.sum())
        large_px = float(kept["area_um2"][large].sum()) / mpp**2
        figures["large_droplet_area_percent"] = _ratio(100 * large_px, tissue_area_px)
        figures["large_droplet_fat_percent"] = share
        figures["small_droplet_fat_percent"] = None if share is None else 100 - share
    return figures


def _summarise_bins(kept, mpp, size_bins_um2, terms, tissue_area_px):
    """Numbers and areas by size, each bin from its lower limit on."""
    figures: dict[str, float | None] = {}
    edges = [0.0, *size_bins_um2, np.inf]
    for low, high in itertools.pairwise(edges) if size_bins_um2 else ():
        name = f"from_{low:g}_um2" if np.isinf(high) else f"{low:g}_to_{high:g}_um2"
        number = percent = None
        if mpp is not None:
            area_um2 = kept["area_um2"].to_numpy(np.float64)
            chosen = (area_um2 >= low) & (area_um2 < high)
            number = int(chosen.sum())
            percent = _ratio(100 * float(area_um2[chosen].sum()) / mpp**2, tissue_area_px)
        figures[f"{terms.plural}_{name}"] = number
        figures[f"{terms.area}_area_percent_{name}"] = percent
    return figures


def _list_others(table, category):
    """Names of the instances' categories, but for the one that is counted."""
    if "category" not in table:
        return []
    return table["category"][table["category"] != category].tolist()


def _join_counts(counts):
    return "; ".join(f"{name}: {n}" for name, n in sorted(counts.items()))


def _ratio(value, total):
    return value / total if total else None


def _times(value, factor):
    return None if value is None or factor is None else value * factor


def _reduce(function, values, *arguments):
    values = np.asarray(values, np.float64)
    return float(function(values, *arguments)) if values.size else None


def _shorten(value):
    """Six digits are more than any of these figures is good for."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
