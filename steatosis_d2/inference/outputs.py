"""The files of a run: tables, outlines and pictures of each slide, and what holds all of them."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from steatosis_d2.data.coco import category_records, write_coco
from steatosis_d2.files import replace_when_done, write_json
from steatosis_d2.inference.annotations import (
    describe_slide,
    open_annotations,
    read_annotations,
)
from steatosis_d2.inference.further_formats import check_slide, write_formats
from steatosis_d2.inference.table import open_table
from steatosis_d2.instances.geojson import detection_feature, open_feature_collection
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.outlines import trace_outlines
from steatosis_d2.instances.strip import split_in_batches
from steatosis_d2.measurement import summary
from steatosis_d2.measurement.cases import combine_cases
from steatosis_d2.measurement.filters import (
    Rule,
    check_units,
    find_reasons,
    select_category,
    select_kept,
)
from steatosis_d2.measurement.grading import GradeCalibration
from steatosis_d2.measurement.morphology import measure_instances
from steatosis_d2.measurement.uncertainty import estimate_intervals
from steatosis_d2.report import html, pictures
from steatosis_d2.report.overlay import (
    DROPPED_RGB,
    OTHER_RGB,
    PREDICTED_RGB,
    draw_outline,
    show_dark_field,
)
from steatosis_d2.slides.parts import split_by_piece, split_by_region

logger = logging.getLogger(__name__)

# A picture of 4096 px fills four screens; all viewers open it.
OVERLAY_PX = 4096
RESULT = "result.json"
# A third of the time of Pillow's default for files a few percent larger.
_PNG_LEVEL = 3
# Artefacts on less of the tissue are in the report only.
_NOTABLE_PERCENT = 10.0
# Not among QuPath's measurements: it has them itself, or they are not numbers.
_NOT_MEASURED = ("category", "left_px", "top_px", "width_px", "height_px", "dropped_by")


@dataclass(frozen=True)
class Reporting:
    """
    What is counted and how it is called: the settings of a run that the model does not see.

    Attributes:
        rules (tuple[Rule]): from :func:`steatosis_d2.measurement.filters.parse_rules`.
        large_diameter_um (float): droplets of this diameter or more are called large.
        calibration (GradeCalibration or None): to give a grade.
        size_bins_um2 (tuple[float]): ascending; limits of area between bins of droplets.
        by_piece (bool): each piece of tissue has a row of its own, too.
        formats (tuple[str, ...]): what is written beside the usual files, from
            :func:`steatosis_d2.inference.further_formats.check_formats`. A run that is gone on
            with may have others.
    """

    rules: tuple[Rule, ...] = ()
    large_diameter_um: float = summary.LARGE_DIAMETER_UM
    calibration: GradeCalibration | None = None
    size_bins_um2: tuple[float, ...] = ()
    by_piece: bool = False
    formats: tuple[str, ...] = ()

    def describe(self):
        """The settings that results rest on (dict), as JSON values."""
        return {
            "filter": [str(rule) for rule in self.rules],
            "large_diameter_um": self.large_diameter_um,
            "grade_calibration": self.calibration and dataclasses.asdict(self.calibration),
            "size_bins_um2": list(self.size_bins_um2),
            "by_piece": self.by_piece,
        }

    def check(self, slide):
        """
        Refuse a slide before hours are spent on it.

        Args:
            slide (Slide): open.

        Raises:
            InputError: a rule is in um, and the pixel size is not known; or a format is not for
                such a slide.
        """
        check_units(self.rules, mpp=slide.mpp, path=slide.path)
        check_slide(self.formats, slide)


class NoFiles:
    """In place of an :class:`OutputFolder`: what was found waits in the journals' folder."""

    def __init__(self, reporting):
        """
        Args:
            reporting (Reporting): what will be counted.
        """
        self.check = reporting.check

    def write(self, segmented, result_folder):
        """Nothing."""


class OutputFolder:
    """Where a run writes the files of each slide as soon as it is finished."""

    def __init__(self, folder, reporting):
        """
        Args:
            folder (Path): for the files; it is created.
            reporting (Reporting): what is counted, and written.
        """
        self.folder, self.reporting = folder, reporting
        self.check = reporting.check

    def write(self, segmented, result_folder):
        """The files of one slide (SegmentedSlide), and a line in the log."""
        row = write_slide_outputs(
            segmented, self.folder, result_folder=result_folder, reporting=self.reporting
        )
        plural = summary.TERMS[segmented.category].plural
        logger.info("'%s': %d %s", segmented.file_name, row[plural], plural)
        for kind, text, _ in html.list_artefacts(segmented.tissue, from_percent=_NOTABLE_PERCENT):
            logger.warning("'%s': %s: %s", segmented.file_name, kind, text)


@dataclass(frozen=True, eq=False)
class Measured:
    """
    What is known of one slide once its instances are measured.

    Attributes:
        table (pandas.DataFrame): one row an instance, with ``dropped_by``.
        summary (dict): the slide's row of ``summary.csv``.
        parts (list[tuple[SlidePart, dict]]): named regions, and pieces of tissue where these are
            asked for, each with its row.
    """

    table: pd.DataFrame
    summary: dict
    parts: list


def measure_slide(segmented, reporting):
    """
    Measure one slide, and its parts.

    The instances are read once and never held as a whole.

    Args:
        segmented (SegmentedSlide): slide, tissue and instances.
        reporting (Reporting): what is counted.

    Returns:
        Measured: table and summaries.
    """
    slide = segmented.slide
    table = measure_instances(_Instances(segmented), mpp=slide.mpp, categories=segmented.categories)
    table["dropped_by"] = find_reasons(table, reporting.rules)
    parts = split_by_region(segmented.tissue, segmented.named_regions)
    if reporting.by_piece:
        parts += split_by_piece(segmented.tissue, mpp=slide.mpp)
    x, y = (
        (table[f"{start}_px"] + table[f"{side}_px"] / 2).to_numpy()
        for start, side in (("left", "width"), ("top", "height"))
    )
    rows = [
        _summarise(segmented, reporting, table[part.contains(x, y)], part.tissue, part.name)
        for part in parts
    ]
    summary_row = _summarise(segmented, reporting, table, segmented.tissue)
    return Measured(table, summary_row, list(zip(parts, rows, strict=True)))


def _summarise(segmented, reporting, table, tissue, region=None):
    """The row of a slide or a part of it."""
    slide = segmented.slide
    return summary.summarise(
        table,
        category=segmented.category,
        file_name=segmented.file_name,
        region=region,
        case=segmented.case,
        shape_px=(slide.height, slide.width),
        mpp=slide.mpp,
        mpp_source=slide.mpp_source,
        tissue_area_px=tissue.area_px,
        artefact_percents=tissue.artefact_percents(),
        large_diameter_um=reporting.large_diameter_um,
        calibration=reporting.calibration,
        size_bins_um2=reporting.size_bins_um2,
        intervals=estimate_intervals(
            select_kept(select_category(table, segmented.category)),
            tissue,
            mpp=slide.mpp,
            category=segmented.category,
            large_diameter_um=reporting.large_diameter_um,
        ),
    )


def write_slide_outputs(segmented, folder, *, result_folder, reporting=Reporting()):
    """
    Write ``<name>.parquet``, ``<name>.geojson.gz`` and ``<name>_overlay.png`` of one slide, and
    what else is asked for.

    The instances are read a few times and never held as a whole; their table is.

    Args:
        segmented (SegmentedSlide): slide, tissue, instances, and what to call them.
        folder (str or Path): where to write; it is created.
        result_folder (str or Path): where to leave what :func:`write_run_outputs` needs of this
            slide; ``result.json`` there, which is written last, says that all is done.
        reporting (Reporting): what is counted, and written.

    Returns:
        dict: the slide's row of ``summary.csv``.
    """
    folder, result_folder = Path(folder), Path(result_folder)
    slide = segmented.slide
    measured = measure_slide(segmented, reporting)
    table, row = measured.table, measured.summary
    counted = select_kept(select_category(table, segmented.category))
    gallery = pictures.choose_gallery(counted, size=html.GALLERY_SIZE)
    wanted = {row for rows in gallery.values() for row in rows}
    # A slide without a pyramid is read whole for this, so it is read once.
    picture_rgb = show_dark_field(slide.thumbnail(OVERLAY_PX))
    plain_rgb = pictures.shrink(picture_rgb, pictures.OVERVIEW_PX)
    overview_rgb = plain_rgb.copy()
    shown = _write_instances(
        segmented, table, folder, result_folder, canvases=(picture_rgb, overview_rgb), wanted=wanted
    )
    for canvas in (picture_rgb, overview_rgb):
        pictures.outline_artefacts(canvas, segmented.tissue)
        for part, _ in measured.parts:
            pictures.write_name(canvas, part.name, part.place_xy, slide)
    with replace_when_done(folder / f"{segmented.name}_overlay.png") as temporary:
        Image.fromarray(picture_rgb).save(temporary, compress_level=_PNG_LEVEL)
    write_formats(reporting.formats, segmented, folder, result_folder=result_folder)
    section = html.render_section(
        segmented,
        table,
        row,
        plain_rgb=plain_rgb,
        overview_rgb=overview_rgb,
        gallery={title: [(row, shown[row]) for row in rows] for title, rows in gallery.items()},
        large_diameter_um=reporting.large_diameter_um,
        parts=[part_row for _, part_row in measured.parts],
    )
    result = {
        "name": segmented.name,
        "image": describe_slide(segmented),
        "summary": row,
        "parts": [part_row for _, part_row in measured.parts],
        "section_html": section,
    }
    write_json(result_folder / RESULT, result)
    return row


def write_run_outputs(
    result_folders,
    folder,
    *,
    category,
    categories,
    model,
    parameters,
    faults,
    calibration=None,
    detailed_inputs=10,
):
    """
    Write ``predictions.json`` (COCO), ``summary.csv`` and ``report.html`` of a run; where slides
    are of cases, ``cases.csv``, too.

    Args:
        result_folders (list[Path]): those given to :func:`write_slide_outputs`, in the order of
            the inputs.
        folder (str or Path): where to write; it is created.
        category (str): what is counted, ``droplet`` or ``nucleus``.
        categories (tuple[str, ...]): names of the model's classes.
        model (dict): what segmented, as its ``describe()`` says; JSON values.
        parameters (dict): settings of the run; JSON values.
        faults (list[dict]): rows of inputs that could not be segmented, from
            :func:`~steatosis_d2.measurement.summary.fault_row`.
        calibration (GradeCalibration or None): to grade cases of several slides.
        detailed_inputs (int): how many inputs the report shows in detail, some 100 kB each.
    """
    folder = Path(folder)
    results = []
    for number, result_folder in enumerate(result_folders, 1):
        result = json.loads(Path(result_folder, RESULT).read_text(encoding="utf-8"))
        if number > detailed_inputs:
            del result["section_html"]
        results.append(result)
    write_coco(
        folder / "predictions.json",
        [result["image"] | {"id": number} for number, result in enumerate(results, 1)],
        read_annotations(result_folders),
        category=category_records(categories),
        info={"model": model, "parameters": parameters},
    )
    rows = [row for result in results for row in (result["summary"], *result["parts"])]
    summary.write_summary(folder / "summary.csv", [*rows, *faults], category=category)
    cases = combine_cases(
        [*(result["summary"] for result in results), *faults],
        category=category,
        calibration=calibration,
    )
    if cases:
        summary.write_rows(folder / "cases.csv", cases, columns=list(cases[0]))
    html.write_report(
        folder / "report.html",
        results,
        cases=cases,
        category=category,
        model=model,
        parameters=parameters,
        faults={row["file"]: row["fault"] for row in faults},
        detailed_inputs=detailed_inputs,
    )


class _Instances:
    """A slide's instances, read anew from its journal for each loop over them."""

    def __init__(self, segmented):
        self._segmented = segmented

    def __iter__(self):
        return self._segmented.instances()


def _write_instances(segmented, table, folder, result_folder, *, canvases, wanted):
    """
    Write table, outlines and annotations and draw on both pictures, in one pass over the instances.

    Returns:
        dict: row label -> Instance, of those that are wanted.
    """
    slide = segmented.slide
    overlay_rgb, overview_rgb = canvases
    is_kept = (table["dropped_by"] == "").to_numpy()
    colors_rgb = _choose_colors(table, segmented.category)
    shown: dict[int, Instance] = {}
    result_folder.mkdir(parents=True, exist_ok=True)
    with (
        open_table(folder / f"{segmented.name}.parquet", table, segmented) as write_rows,
        open_feature_collection(folder / f"{segmented.name}.geojson.gz") as write_feature,
        open_annotations(result_folder, slide) as annotate,
    ):
        first = 0
        for batch in split_in_batches(segmented.instances()):
            outlines = list(trace_outlines(batch))
            write_rows(outlines)
            numbered = dict(enumerate(batch, first))
            kept = {row: instance for row, instance in numbered.items() if is_kept[row]}
            shown.update((row, kept[row]) for row in wanted & kept.keys())
            _draw(numbered, colors_rgb, overlay_rgb, slide)
            _draw(numbered, colors_rgb, overview_rgb, slide, min_side_px=pictures.VISIBLE_PX)
            if kept:
                kept_outlines = {row: outlines[row - first] for row in kept}
                for feature in _as_features(kept_outlines, table, colors_rgb):
                    write_feature(feature)
                annotate(list(kept.values()))
            first += len(batch)
    return shown


def _choose_colors(table, category):
    """Colour of each row's outline: list of RGB."""
    return [
        DROPPED_RGB if dropped_by else PREDICTED_RGB if name == category else OTHER_RGB
        for dropped_by, name in zip(table["dropped_by"], table["category"], strict=True)
    ]


def _draw(numbered, colors_rgb, picture_rgb, slide, *, min_side_px=0):
    """Outline those instances that are ``min_side_px`` wide or high in the picture, in place."""
    scale = picture_rgb.shape[1] / slide.width
    for row, instance in numbered.items():
        if scale * max(instance.crop.shape) >= min_side_px:
            draw_outline(
                picture_rgb,
                instance.crop,
                instance.top,
                instance.left,
                color_rgb=colors_rgb[row],
                scale=scale,
            )


def _as_features(outlines, table, colors_rgb):
    """QuPath detections of some rows, with all their numbers as measurements."""
    rows = table.iloc[list(outlines)]
    columns = {
        name: np.round(rows[name].to_numpy(np.float64), 4).tolist()
        for name in rows.columns
        if name not in _NOT_MEASURED
    }
    for (row, polygons), number, category, *values in zip(
        outlines.items(),
        rows["instance_id"].tolist(),
        rows["category"].tolist(),
        *columns.values(),
        strict=True,
    ):
        yield detection_feature(
            polygons,
            number=number,
            category=category,
            color_rgb=colors_rgb[row],
            # NaN: a lone instance has no neighbour
            measurements={
                name: value for name, value in zip(columns, values, strict=True) if value == value
            },
        )
