"""An evaluation as text, as a Markdown table, as JSON and as CSV."""

import csv

from tabulate import tabulate

from steatosis_d2.evaluation.figures import CLINICAL_FIGURES, MATCH_IOU
from steatosis_d2.evaluation.matching import pool_matches
from steatosis_d2.evaluation.metrics import IOU_THRESHOLDS, instance_metrics
from steatosis_d2.evaluation.sizes import SIZE_CLASSES
from steatosis_d2.files import replace_when_done

# Heading -> group and name of the figure. The first four are the columns of Table 1 in Guo et al.
# 2019; the others are what they must be read beside, since one prediction may count twice there.
TABLE_1_COLUMNS = {
    "paper AP50": ("paper", "paper_ap50"),
    "paper recall": ("paper", "paper_recall"),
    "paper F1": ("paper", "paper_f1"),
    "paper Jaccard": ("paper", "paper_jaccard"),
    "recall": ("instances", "recall"),
    "F1": ("instances", "f1"),
    "PQ": ("instances", "pq"),
    "AP": ("segm", "AP"),
}

SIZE_FIGURES = ("truths", "recall", "predictions", "precision")


def as_record(evaluation):
    """
    An evaluation as it is written to ``metrics.json``.

    Args:
        evaluation (Evaluation): from :func:`~.figures.evaluate_pairs`.

    Returns:
        dict: the groups of metrics, after ``settings``, which says how they were computed.
    """
    settings = {
        "score_threshold": evaluation.score_threshold,
        "coco_detections_per_image": evaluation.ap.detection_limit,
        "coco_backend": evaluation.ap.backend,
    }
    return {"settings": settings, **evaluation.metrics}


def format_table(evaluation):
    """
    Every figure of one evaluation, for a log or a terminal.

    Args:
        evaluation (Evaluation): from :func:`~.figures.evaluate_pairs`.

    Returns:
        str: lines of text.
    """
    metrics, clinical = evaluation.metrics, evaluation.metrics["clinical"]
    spread = [(name, clinical[name], clinical[f"{name}_sd"]) for name in CLINICAL_FIGURES]
    counts = [(name, value) for name, value in clinical.items() if "healthy" in name]
    by_iou = [
        [name, *(metrics["by_iou"][f"{name}_{round(100 * t)}"] for t in IOU_THRESHOLDS)]
        for name in ("precision", "recall", "f1", "instance_accuracy")
    ]
    return "\n\n".join(
        [
            f"{clinical['images']} images; all but COCO AP count predictions with a score of at "
            f"least {evaluation.score_threshold:g}",
            f"COCO AP, all predictions, at most {evaluation.ap.detection_limit} an image "
            f"(by {evaluation.ap.backend})\n" + _table(metrics["segm"].items()),
            "One to one at IoU 0.50, all images together (per image where it says so, and AJI, "
            "Dice, DSB 2018)\n" + _table(metrics["instances"].items()),
            "One to one over IoU thresholds\n"
            + _table(by_iou, headers=["IoU", *(f"{t:.2f}" for t in IOU_THRESHOLDS)]),
            *_table_by_size(metrics.get("by_size")),
            "Protocol of Guo et al. 2019, mean over images\n" + _table(metrics["paper"].items()),
            "Clinical: mean and standard deviation over images\n"
            + _table([*counts, *spread], headers=["", "mean", "sd"]),
            *_tables_by_kind(evaluation.images),
        ]
    )


def _table_by_size(metrics):
    """One table, or none where a pixel size is not known."""
    if not metrics:
        return []
    rows = [
        [
            name.replace("_", " "),
            *(metrics[f"{figure}_{name}"] for figure in SIZE_FIGURES),
        ]
        for name in SIZE_CLASSES
    ]
    return ["By diameter, one to one at IoU 0.50\n" + _table(rows, ["", *SIZE_FIGURES])]


def _tables_by_kind(images):
    """One table, or none where the truths tell no kinds."""
    kinds = sorted({image.group for image in images if image.group})
    rows = []
    for kind in kinds:
        matches = [image.match for image in images if image.group == kind]
        pooled = pool_matches(matches)
        figures = instance_metrics(pooled, iou_threshold=MATCH_IOU)
        names = ("precision", "recall", "f1", "pq", "mean_matched_iou")
        rows.append([kind, len(matches), pooled.n_truths, *(figures[name] for name in names)])
    headers = ["", "images", "truths", "precision", "recall", "F1", "PQ", "mean matched IoU"]
    return ["By kind of image, one to one at IoU 0.50\n" + _table(rows, headers)] if rows else []


def format_table_1(evaluations):
    """
    Several methods side by side, as in Table 1 of Guo et al. 2019.

    Args:
        evaluations (dict): name of the method -> Evaluation, all on the same truths.

    Returns:
        str: a Markdown table, in percent.
    """
    rows = [
        [name, *(100 * evaluation.metrics[group][key] for group, key in TABLE_1_COLUMNS.values())]
        for name, evaluation in evaluations.items()
    ]
    headers = ["method", *TABLE_1_COLUMNS]
    return tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".2f", disable_numparse=[0])


def write_per_image_csv(path, evaluation):
    """
    Write one row an image with all its figures, and its kind where that is told; whole or not
    at all.

    Args:
        path (str or Path): the file to write.
        evaluation (Evaluation): from :func:`~.figures.evaluate_pairs`.
    """
    has_groups = any(image.group for image in evaluation.images)
    rows = [
        {"file_name": image.file_name}
        | ({"group": image.group} if has_groups else {})
        | image.figures
        for image in evaluation.images
    ]
    with replace_when_done(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _table(rows, headers=()):
    cells = [[_as_text(value) for value in row] for row in rows]
    aligned = ["left", *["right"] * (max(map(len, cells)) - 1)]
    return tabulate(cells, headers, tablefmt="plain", disable_numparse=True, colalign=aligned)


def _as_text(value):
    return f"{value:.4f}" if isinstance(value, float) else str(value)
