"""Pictures of an evaluation."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from steatosis_d2.evaluation.metrics import IOU_THRESHOLDS
from steatosis_d2.files import replace_when_done

# 95% of normally distributed differences (Bland and Altman, Lancet 1986).
LIMITS_OF_AGREEMENT_SD = 1.96
RECALL = np.linspace(0, 1, 101)  # where COCO reads its curves


def write_plots(folder, evaluation):
    """
    Write ``precision_recall.png``, ``f1_over_iou.png`` and ``fat_area.png``.

    Args:
        folder (str or Path): where to write; it is created.
        evaluation (Evaluation): from :func:`~.figures.evaluate_pairs`.
    """
    figures = {
        "precision_recall": plot_precision_recall(evaluation),
        "f1_over_iou": plot_f1_over_iou(evaluation),
        "fat_area": plot_fat_area(evaluation),
    }
    for name, figure in figures.items():
        with replace_when_done(Path(folder, f"{name}.png")) as temporary:
            figure.savefig(temporary, dpi=150)


def plot_precision_recall(evaluation):
    """
    Precision over recall as the score falls, at IoU 0.50, 0.75 and 0.90 (COCO's curves).

    Args:
        evaluation (Evaluation): from :func:`~.figures.evaluate_pairs`.

    Returns:
        matplotlib.figure.Figure: the plot.
    """
    figure, axes = _figure_with_axes("recall", "precision (highest at this recall or beyond)")
    for iou_threshold in (0.5, 0.75, 0.9):
        precision = evaluation.ap.precision[IOU_THRESHOLDS.index(iou_threshold)]
        label = f"IoU {iou_threshold:.2f}: AP {precision.mean():.3f}"
        axes.plot(RECALL, precision, label=label)
    instances = evaluation.metrics["instances"]
    axes.plot(
        instances["recall"],
        instances["precision"],
        "ko",
        label=f"score ≥ {evaluation.score_threshold:g}, IoU 0.50, one to one",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.legend()
    return figure


def plot_f1_over_iou(evaluation):
    """
    F1, precision and recall over the overlap that is asked for.

    Args:
        evaluation (Evaluation): from :func:`~.figures.evaluate_pairs`.

    Returns:
        matplotlib.figure.Figure: the plot.
    """
    figure, axes = _figure_with_axes("IoU threshold", "all images together")
    for name, style in (("f1", "o-"), ("precision", ":"), ("recall", "--")):
        values = [evaluation.metrics["by_iou"][f"{name}_{round(100 * t)}"] for t in IOU_THRESHOLDS]
        axes.plot(IOU_THRESHOLDS, values, style, label=name.replace("f1", "F1"))
    axes.set(ylim=(0, 1.02))
    axes.legend()
    return figure


def plot_fat_area(evaluation):
    """
    Predicted against true fat area of each image, and their Bland-Altman plot.

    Args:
        evaluation (Evaluation): from :func:`~.figures.evaluate_pairs`.

    Returns:
        matplotlib.figure.Figure: two plots side by side.
    """
    true, predicted = (
        np.array([image.figures[name] for image in evaluation.images])
        for name in ("true_fat_area_percent", "fat_area_percent")
    )
    figure = Figure(figsize=(11, 5), layout="constrained")
    agreement, bland_altman = figure.subplots(1, 2)
    end = 1.05 * max(true.max(), predicted.max(), 1)
    agreement.plot([0, end], [0, end], color="grey", linewidth=1)
    agreement.scatter(true, predicted, s=14, alpha=0.6)
    agreement.set(
        xlim=(0, end),
        ylim=(0, end),
        aspect="equal",
        xlabel="true fat area (% of the image)",
        ylabel="predicted fat area (% of the image)",
    )
    clinical = evaluation.metrics["clinical"]
    bias = clinical["fat_area_difference_points"]
    limit = LIMITS_OF_AGREEMENT_SD * clinical["fat_area_difference_points_sd"]
    bland_altman.scatter((true + predicted) / 2, predicted - true, s=14, alpha=0.6)
    bland_altman.axhline(bias, color="black", label=f"bias {bias:+.2f} points")
    for end, label in (
        (bias + limit, f"bias ± 1.96 sd ({limit:.2f} points)"),
        (bias - limit, None),
    ):
        bland_altman.axhline(end, color="black", linestyle="--", label=label)
    bland_altman.set(
        xlabel="mean of true and predicted fat area (%)",
        ylabel="predicted minus true (percentage points)",
    )
    bland_altman.legend()
    return figure


def _figure_with_axes(xlabel, ylabel):
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.4)
    return figure, axes
