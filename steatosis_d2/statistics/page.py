"""CaseAgreement and grades as pages for readers: tables and plots, one file each."""

from markupsafe import Markup

from steatosis_d2 import __version__
from steatosis_d2.files import replace_when_done
from steatosis_d2.report.environment import TEMPLATES
from steatosis_d2.statistics.agreement import COEFFICIENTS
from steatosis_d2.statistics.plots import draw_agreement, draw_grades

_INTERVAL = "95% intervals are by a bootstrap over cases (bias-corrected and accelerated)."


def write_agreement_page(path, agreement):
    """
    Write an agreement as one HTML file, whole or not at all.

    Args:
        path (str or Path): the file.
        agreement (CaseAgreement): from :func:`~.agreement.measure_case_agreement`.
    """
    table = {
        "title": "Figures",
        "columns": ["", "value", "95% interval"],
        "rows": list_agreement_rows(agreement),
        "note": f"{_INTERVAL} ICC, Lin's concordance and the differences compare the numbers "
        "themselves: they mean something only where both are in the same unit.",
    }
    plot = {
        "title": "Cases",
        "svg": Markup(draw_agreement(agreement)),
        "caption": "Left: each case, and the line of equality. Right: Bland-Altman plot, with the "
        "mean difference, the 95% limits of agreement (dashed) and their intervals (grey).",
    }
    _write(
        path,
        title=f"{agreement.measured_name} against {agreement.reference_name}",
        subtitle=f"{len(agreement.cases)} cases.",
        tables=[table],
        plots=[plot],
    )


def write_grades_page(path, fit, *, measure, basis):
    """
    Write fitted grades as one HTML file, whole or not at all.

    Args:
        path (str or Path): the file.
        fit (GradeFit): from :func:`~.grade_limits.fit_grades`.
        measure (str): what the limits are of.
        basis (str): a sentence on whose cases they rest.
    """
    tables = [
        {
            "title": "CaseAgreement of grades",
            "columns": ["", "value", "95% interval"],
            "rows": list_fit_rows(fit),
            "note": f"Each case was graded by limits that were fitted without it. {_INTERVAL}",
        },
        {
            "title": "Limits",
            "columns": ["grade from", "limit", "95% interval", "sensitivity", "specificity", "AUC"],
            "rows": list_cut_off_rows(fit),
            "note": "Sensitivity and specificity are of cases that were left out, with Wilson's "
            "intervals. AUC is of the measure itself.",
        },
        {
            "title": "Confusion",
            "columns": ["given", *(f"found {grade}" for grade in fit.grades)],
            "rows": [
                [grade, *map(str, row)]
                for grade, row in zip(fit.grades, fit.confusion.tolist(), strict=True)
            ],
            "note": "Cases by the grade that was given and the one that was found.",
        },
    ]
    plot = {
        "title": "Cases",
        "svg": Markup(draw_grades(fit, measure)),
        "caption": "Each case by its grade; dashed: the limits, with their intervals.",
    }
    _write(
        path,
        title=f"Grades by {measure}",
        subtitle=f"{len(fit.true)} cases. {basis}",
        tables=tables,
        plots=[plot],
    )


def list_agreement_rows(agreement):
    """Name, value and interval of each figure: list of three texts."""
    return [
        [name, *_format_figure(*agreement.figures[key])] for key, (name, _) in COEFFICIENTS.items()
    ]


def list_fit_rows(fit):
    """Name, value and interval of each figure of a fit: list of three texts."""
    names = {
        "weighted_kappa": "kappa, quadratic weights",
        "accuracy": "share graded right",
        "spearman": "Spearman's rho of the measure",
    }
    figures = fit.figures
    return [[name, *_format_figure(*figures[key])] for key, name in names.items()]


def list_cut_off_rows(fit):
    """What is to be said of each limit: list of texts."""
    return [
        [
            row["grade"],
            _format(row["limit"]),
            _format_interval(row["limit_low"], row["limit_high"]),
            *(
                f"{100 * row[name]:.0f}% "
                f"({100 * row[f'{name}_low']:.0f} to {100 * row[f'{name}_high']:.0f})"
                for name in ("sensitivity", "specificity")
            ),
            f"{row['auc']:.3f}",
        ]
        for row in fit.cut_offs
    ]


def _format_figure(value, low, high):
    return [_format(value), _format_interval(low, high)]


def _format_interval(low, high):
    return "–" if low != low or high != high else f"{_format(low)} to {_format(high)}"


def _format(value):
    return "–" if value != value else f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def _write(path, **content):
    text = TEMPLATES.get_template("statistics.html").render(version=__version__, **content)
    with replace_when_done(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
