"""Plots of cases, as SVG text for a page."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Equal plots are equal text.
_STYLE: Any = {"svg.hashsalt": "steatosis_d2", "font.size": 11, "svg.fonttype": "none"}
_DOTS: dict[str, Any] = {"s": 22, "alpha": 0.65, "color": "#0b6e4f", "linewidths": 0}


def draw_agreement(agreement):
    """
    Scatter plot with the line of equality, and Bland-Altman plot.

    Args:
        agreement (CaseAgreement): from :func:`~.agreement.measure_case_agreement`.

    Returns:
        str: SVG.
    """
    x, y = agreement.reference, agreement.measured
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        scatter, differences = figure.subplots(1, 2)
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        scatter.plot(ends, ends, color="grey", linewidth=1)
        scatter.scatter(x, y, **_DOTS)
        scatter.set(xlabel=agreement.reference_name, ylabel=agreement.measured_name)
        differences.scatter((x + y) / 2, y - x, **_DOTS)
        for key, style in (("bias", "-"), ("lower_limit", "--"), ("upper_limit", "--")):
            value, low, high = agreement.figures[key]
            differences.axhline(value, color="black", linestyle=style, linewidth=1)
            differences.axhspan(low, high, color="black", alpha=0.07, linewidth=0)
        differences.set(
            xlabel=f"mean of {agreement.measured_name} and {agreement.reference_name}",
            ylabel="measured minus reference",
        )
        return _as_svg(figure)


def draw_grades(fit, measure):
    """
    The measure of each case over its grade, with the limits.

    Args:
        fit (GradeFit): from :func:`~.grade_limits.fit_grades`.
        measure (str): its name.

    Returns:
        str: SVG.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        axes = figure.add_subplot(xlabel="grade given", ylabel=measure)
        # Beside one another rather than on top: the order in the grade decides on the place.
        shift = np.zeros(len(fit.true))
        for number in range(len(fit.grades)):
            [members] = np.nonzero(fit.true == number)
            shift[members] = 0.6 * ((np.arange(len(members)) * 0.618) % 1 - 0.5)
        axes.scatter(fit.true + shift, fit.values, **_DOTS)
        for limit, (low, high) in zip(fit.limits, fit.limits_interval, strict=True):
            axes.axhline(limit, color="black", linewidth=1, linestyle="--")
            axes.axhspan(low, high, color="black", alpha=0.07, linewidth=0)
        axes.set_xticks(range(len(fit.grades)), fit.grades)
        return _as_svg(figure)


def _as_svg(figure):
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    return text[text.index("<svg") :]
