"""The package from Python: what the commands call, too."""

import itertools
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from steatosis_d2.data.coco import DROPLET, check_coco, check_outlined, read_coco
from steatosis_d2.data.images import list_inputs
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images, split_by_category
from steatosis_d2.inference import pipeline
from steatosis_d2.inference.further_formats import check_formats
from steatosis_d2.inference.label_outputs import LabelOutputs, Labels, collect_labels
from steatosis_d2.inference.models import ClassicalChoice, LoadedModel, choose_model
from steatosis_d2.inference.outputs import NoFiles, OutputFolder, Reporting
from steatosis_d2.inference.plan import (
    EXCLUDE,
    FLAG,
    OVERLAP_PX,
    TILE_PX,
    Tiling,
    name_inputs,
    with_cases,
    with_regions,
)
from steatosis_d2.inference.results import RunResults
from steatosis_d2.inference.run import run_pipeline
from steatosis_d2.instances.instance import Instance
from steatosis_d2.labeling.methods import describe_labels
from steatosis_d2.labeling.pixel_size import ESTIMATE
from steatosis_d2.measurement.filters import find_reasons, parse_rules
from steatosis_d2.measurement.grading import read_grade_calibration
from steatosis_d2.measurement.morphology import measure_instances
from steatosis_d2.measurement.summary import LARGE_DIAMETER_UM
from steatosis_d2.slides.slide import SLIDE_SUFFIXES, ArraySlide

JOURNAL_FOLDER = ".segment"


class ImageResult(NamedTuple):
    """
    What was found on an image.

    Attributes:
        instances (list[Instance]): in px of the image.
        table (pandas.DataFrame): one row an instance, in the same order.
    """

    instances: list[Instance]
    table: pd.DataFrame


def segment(
    inputs,
    output=None,
    *,
    model=None,
    weights=None,
    overrides=(),
    score_threshold=None,
    mpp=None,
    page=None,
    roi=None,
    filters=(),
    large_diameter_um=LARGE_DIAMETER_UM,
    size_bins_um2=(),
    by_piece=False,
    case_pattern=None,
    grade_calibration=None,
    formats=(),
    workers=1,
    scheduler=None,
    batch_size=None,
    tile_px=TILE_PX,
    overlap_px=OVERLAP_PX,
    artefacts=EXCLUDE,
    resume=False,
    progress=False,
):
    """
    Segment tiles and whole slides, as ``steatosis-d2 segment`` does.

    Args:
        inputs (str, Path or list of them): slides and images, and folders of them.
        output (str, Path or None): folder for the files; None writes none, until
            :meth:`RunResults.write`.
        model (str, LoadedModel or None): config file, or the name of one of ours; ``clump-split``
            for the classical method; None for the network that ships.
        weights (str, Path or None): checkpoint; None takes those that ship for the config.
        overrides (list[str]): config ``KEY VALUE`` pairs, for instance ``["TEST.VIEWS", "1"]``.
        score_threshold (float or None): lowest score that is kept; None is the model's own.
        mpp (float, "estimate" or None): pixel size of all inputs in um/px; ``"estimate"`` takes
            it from the nuclei where the file does not state it; None takes what each file says.
        page (int or None): which page of TIFFs that hold several pictures of like size, from 1.
        roi (str, Path, shapely geometry, dict or None): where to look, as for
            :func:`steatosis_d2.slides.regions.find_regions`.
        filters (list[str]): ``paper``, or rules such as ``area_um2>=5``. What they drop stays in
            the table, with the reason.
        large_diameter_um (float): diameter from which a droplet is called large.
        size_bins_um2 (list[float]): limits between bins of droplets' areas, ascending.
        by_piece (bool): each piece of tissue has a row of its own in ``summary.csv``, too.
        case_pattern (str or None): regular expression that finds, in an input's name, whose slide
            it is; its first group, or all of it. Then ``cases.csv`` has a row a case.
        grade_calibration (str, Path or None): file with limits of fat area for grades.
        formats (list[str]): what is written for each input beside the usual files:
            ``spatialdata`` is a SpatialData store, ``<name>.zarr``; ``dicom`` are annotations of
            a DICOM slide, ``<name>_annotations.dcm``. Each needs the extra of its name: ``pip
            install 'steatosis-d2[spatialdata]'``. With ``resume``, finished inputs get it as well.
        workers (int): processes on this machine.
        scheduler (str or None): address of a Dask scheduler, in place of workers.
        batch_size (int or None): tiles that go through the network together; None is what is
            best on the device.
        tile_px, overlap_px (int): longest side of a tile, and what neighbours share, in px.
        artefacts (str): ``exclude`` leaves tissue that is folded, out of focus or under a bubble
            out of all figures; ``flag`` only tells how much there is. Ink is never tissue.
        resume (bool): go on with an interrupted run in ``output``.
        progress (bool): show a bar on a terminal.

    Returns:
        RunResults: a sequence with ``table``, ``summary`` and ``instances()`` for each input.

    Raises:
        InputError: a setting is at fault, or no input could be segmented. If some could, the
            others stand in ``faults``.

    Examples:
        >>> [tile] = segment("tile.png", mpp=0.5, model="clump-split")
        >>> tile.summary["droplets"], tile.summary["fat_area_percent"]
        (12, 7.84467)
        >>> tile.table["area_um2"].round().tolist()[:3]
        [142.0, 142.0, 142.0]
    """
    if resume and output is None:
        raise InputError("resume needs the output folder of the run to go on with.")
    files, faults = list_inputs(_as_list(inputs), suffixes=SLIDE_SUFFIXES)
    if not files:
        raise InputError(join_faults(faults))
    items = with_cases(with_regions(name_inputs(files), roi), case_pattern)
    output = None if output is None else Path(output)
    tiling = Tiling(mpp=mpp, tile_px=tile_px, overlap_px=overlap_px, page=page, artefacts=artefacts)
    reporting = Reporting(
        rules=tuple(parse_rules(list(filters) or ["none"])),
        large_diameter_um=large_diameter_um,
        calibration=grade_calibration and read_grade_calibration(grade_calibration),
        size_bins_um2=_check_ascending(size_bins_um2),
        by_piece=by_piece,
        formats=check_formats(_as_list(formats), output, items),
    )
    make_model = choose_model(
        model,
        weights=weights,
        score_threshold=score_threshold,
        batch_size=batch_size,
        overrides=overrides,
    )
    scratch = None if output is not None else tempfile.TemporaryDirectory(prefix="steatosis_d2_")
    journals = output / JOURNAL_FOLDER if scratch is None else Path(scratch.name)
    run, failed = run_pipeline(
        items,
        make_model,
        tiling=tiling,
        reporting=reporting,
        outputs=NoFiles(reporting) if output is None else OutputFolder(output, reporting),
        journals=journals,
        resume=resume,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
    )
    faults += failed.values()
    results = RunResults(
        items, run, journals=journals, failed=failed, faults=faults, scratch=scratch
    )
    if output is not None:
        faults += _write_missing_formats(results, output)
        results.write_run_files(output)
    if not results:
        raise InputError(join_faults(faults))
    return results


def _write_missing_formats(results, output):
    """What is not there of inputs that an earlier run finished; returns what went wrong."""
    failed: dict[str, str] = {}
    for found in results:
        with pipeline.note_fault(found, failed):
            found.write_missing_formats(output)
    return failed.values()


def segment_image(image_rgb, *, mpp=None, model=None, filters=()):
    """
    Segment one image, for instance in a notebook; large ones go through tiles.

    The model is loaded at the first call and kept.

    Args:
        image_rgb (ndarray): uint8, shape (H, W, 3), in the order red, green, blue.
        mpp (float or None): um/px; None where it is unknown, then lengths are in px.
        model (str, LoadedModel or None): as for :func:`segment`.
        filters (list[str]): as for :func:`segment`.

    Returns:
        ImageResult: the instances, and their table.

    Raises:
        InputError: the array is no RGB image, or the model needs the pixel size.

    Examples:
        >>> import numpy as np
        >>> from PIL import Image
        >>> image_rgb = np.array(Image.open("tile.png"))
        >>> droplets, table = segment_image(image_rgb, mpp=0.5, model="clump-split")
        >>> len(droplets), f"{table['equivalent_diameter_um'].mean():.1f} um"
        (12, '13.5 um')
    """
    rules = parse_rules(list(filters) or ["none"])
    make_model = choose_model(model)
    with ArraySlide(image_rgb, mpp=mpp) as slide:
        Reporting(rules=tuple(rules)).check(slide)
        instances = pipeline.segment_in_memory(slide, make_model=make_model, tiling=Tiling(mpp=mpp))
    categories = pipeline.describe_model(make_model).categories
    table = measure_instances(instances, mpp=mpp, categories=categories)
    table["dropped_by"] = find_reasons(table, rules)
    return ImageResult(instances, table)


def load_model(name=None, *, weights=None, score_threshold=None, batch_size=None, overrides=()):
    """
    Load a model, to be given to :func:`segment` and :func:`segment_image`, or called itself.

    Args:
        name (str, Path or None): config file, or the name of one of ours, or ``clump-split``;
            None is the network that ships.
        weights, score_threshold, batch_size, overrides: as for :func:`segment`.

    Returns:
        LoadedModel: call it with a list of images and their um/px.

    Raises:
        InputError: there is no such config, or its weights are missing or do not fit.

    Examples:
        >>> model = load_model("clump-split", score_threshold=0.7)
        >>> model.category
        'droplet'
        >>> len(segment("tile.png", mpp=0.5, model=model)[0].table)
        12
    """
    choice = choose_model(
        name,
        weights=weights,
        score_threshold=score_threshold,
        batch_size=batch_size,
        overrides=overrides,
    )
    return LoadedModel(choice, pipeline.load_cached(choice))


def label(images, *, mpp=None, method="clump-split", workers=1, scheduler=None, progress=False):
    """
    Outline fat droplets without a trained network, as ``steatosis-d2 label`` does.

    Args:
        images (str, Path or list of them): images and slides, and folders of them.
        mpp (float, "estimate" or None): pixel size of all images in um/px; ``"estimate"`` takes
            it from the nuclei where the file does not state it; None takes what each file says.
        method (str): ``clump-split``, or ``watershed`` to compare with.
        workers (int): processes on this machine.
        scheduler (str or None): address of a Dask scheduler, in place of workers.
        progress (bool): show a bar on a terminal.

    Returns:
        Labels: ``coco`` (dict), ``faults`` and ``write(path)``.

    Raises:
        InputError: a setting is at fault, or no image could be labelled. If some could, the
            others stand in ``faults``.

    Examples:
        >>> labels = label("tile.png", mpp=0.5)
        >>> len(labels.coco["annotations"])
        12
        >>> labels.write("labels.json")
    """
    labels = label_inputs(
        images, mpp=mpp, method=method, workers=workers, scheduler=scheduler, progress=progress
    )
    if not labels.coco["images"]:
        raise InputError(join_faults(labels.faults))
    return labels


def label_inputs(
    images,
    *,
    mpp,
    method,
    workers,
    scheduler,
    progress,
    page=None,
    overlays=None,
    journals=None,
    resume=False,
):
    """
    As :func:`label`, but where no image could be labelled, that stands in ``faults``, too.

    Args:
        images, mpp, method, workers, scheduler, progress: as for :func:`label`.
        page (int or None): as for :func:`segment`.
        overlays (Path or None): folder for a picture of each input's labels.
        journals (Path or None): folder in which an interrupted run can be gone on with; None keeps
            nothing.
        resume (bool): go on with the run in ``journals``.

    Returns:
        Labels: of all inputs that could be labelled.
    """
    files, faults = list_inputs(_as_list(images), suffixes=SLIDE_SUFFIXES)
    items = name_inputs(files)
    with tempfile.TemporaryDirectory(prefix="steatosis_d2_") as scratch:
        journals = Path(scratch) if journals is None else journals
        _, failed = run_pipeline(
            items,
            ClassicalChoice(method),
            # What is not labelled is background to a network that learns from it.
            tiling=Tiling(mpp=mpp, page=page, artefacts=FLAG),
            reporting=Reporting(),
            outputs=LabelOutputs(needs_mpp=mpp != ESTIMATE, overlays=overlays),
            journals=journals,
            resume=resume,
            workers=workers,
            scheduler=scheduler,
            progress=progress,
        )
        records, annotations = collect_labels(
            [journals / item.name for item in items if item.file_name not in failed]
        )
    coco = {
        "info": describe_labels(records, method=method, mpp=mpp),
        "images": records,
        "categories": [{"id": 1, "name": DROPLET}],
        "annotations": annotations,
    }
    return Labels(coco, [*faults, *failed.values()])


def evaluate(ground_truth, predictions, *, score_threshold=0.0, category=None):
    """
    Measure predictions against truths, as ``steatosis-d2 evaluate`` does.

    Args:
        ground_truth (str, Path or dict): COCO file, or its content.
        predictions (str, Path or dict): the same, with a ``score`` an annotation.
        score_threshold (float): lowest score that counts in every figure but COCO AP.
        category (str or None): what is measured, where the files have several categories.

    Returns:
        Evaluation: ``metrics`` is group -> name -> float; ``images`` has the figures of each.

    Raises:
        InputError: a file is not sound, or the images are not the same.

    Examples:
        >>> labels = label("tile.png", mpp=0.5).coco
        >>> figures = evaluate(labels, labels)
        >>> figures.metrics["instances"]["f1"], figures.metrics["clinical"]["count_error"]
        (1.0, 0.0)
    """
    names = [
        "ground truth" if isinstance(ground_truth, dict) else str(ground_truth),
        "predictions" if isinstance(predictions, dict) else str(predictions),
    ]
    contents = [
        check_coco(content, name) if isinstance(content, dict) else read_coco(content)
        for content, name in zip((ground_truth, predictions), names, strict=True)
    ]
    check_outlined(contents[0], names[0])
    named = {"truth_name": names[0], "predictions_name": names[1]}
    by_category = split_by_category(*contents, category=category, **named)
    if len(by_category) > 1:
        raise InputError(
            f"'{names[0]}' has the categories {', '.join(by_category)}; choose one (category=...)."
        )
    [both] = by_category.values()
    return evaluate_pairs(pair_images(*both, **named), score_threshold=score_threshold)


def join_faults(faults):
    """One message of all that went wrong, a line each, as commands print it."""
    return "\nerror: ".join(faults)


def _as_list(inputs):
    return [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)


def _check_ascending(size_bins_um2):
    bins = tuple(float(limit) for limit in size_bins_um2)
    if any(low >= high for low, high in itertools.pairwise([0.0, *bins])):
        raise InputError(
            f"the limits of size are {list(bins)}; expected areas above 0 in um2, ascending, such "
            "as 1 100."
        )
    return bins
