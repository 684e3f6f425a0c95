"""Means over trainings, one a seed, and how sure they are over seeds and over images."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from table1_results import Training

from steatosis_d2.statistics.bootstrap import LEVEL, bootstrap_interval


@dataclass(frozen=True)
class Method:
    """
    A row of the table: a method's results on one test set.

    Attributes:
        name (str): what the row is called.
        figures (list[dict]): heading -> :class:`Figure`, one dict a training.
        trainings (list[Training]): the trainings; none of what was not trained.
    """

    name: str
    figures: list[dict]
    trainings: list[Training]

    def values(self, heading):
        """A figure's value by each training: ndarray."""
        return np.array([of_training[heading].value for of_training in self.figures])

    def shares(self, heading):
        """What the images add to a figure, by each training: list[tuple], or None."""
        figures = [of_training[heading] for of_training in self.figures]
        if any(figure.part is None for figure in figures):
            return None
        return [(np.asarray(figure.part), np.asarray(figure.whole)) for figure in figures]


@dataclass(frozen=True)
class Estimate:
    """
    A mean over seeds, or a difference of two.

    Attributes:
        value (float): itself.
        over_seeds, over_images (tuple): its 95% intervals; NaN where it has none.
    """

    value: float
    over_seeds: tuple[float, float]
    over_images: tuple[float, float]


def arrange_methods(results, test_set):
    """The rows of a test set: what has no network, what ships, what was trained, by depth."""
    names = sorted({result.method for result in results}, key=_place)
    methods = []
    for name in names:
        of_name = [result for result in results if result.method == name]
        of_name.sort(key=lambda result: result.training.seed if result.training else 0)
        methods.append(
            Method(
                name,
                [result.figures[test_set] for result in of_name],
                [result.training for result in of_name if result.training],
            )
        )
    return methods


def _place(name):
    """A key to sort methods by."""
    _, is_network, depth = name.partition("ResNet-")
    return (2, int(depth), "") if is_network else (int(name == "starter"), 0, name)


def estimate(method, heading):
    """A figure of one method, with its intervals."""
    values = method.values(heading)
    return Estimate(
        float(values.mean()),
        interval_over_seeds(values),
        interval_over_images(method.shares(heading)),
    )


def estimate_difference(method, other, heading):
    """
    How much higher a figure is than another method's, with the intervals of that.

    Trainings of one seed see the same images in the same order, and all are measured on the same:
    so both intervals are of paired differences.
    """
    differences = method.values(heading) - other.values(heading)
    return Estimate(
        float(differences.mean()),
        interval_over_seeds(differences),
        interval_over_images(method.shares(heading), minus=other.shares(heading)),
    )


def interval_over_seeds(values):
    """
    95% interval of a mean of normally distributed values (Student's t).

    Args:
        values (ndarray): float, shape (n,).

    Returns:
        tuple[float, float]: NaN for a single value.
    """
    if len(values) < 2:
        return np.nan, np.nan
    quantile = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    margin = quantile * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - margin), float(values.mean() + margin)


def interval_over_images(shares, *, minus=()):
    """
    95% interval of a figure by a bootstrap over images, the same ones for every training.

    Args:
        shares (list or None): part and whole of each training, as :class:`Figure` has them; the
            figure is the mean of their ratios. None where it is no ratio.
        minus (list): the same of what is taken away from it.

    Returns:
        tuple[float, float]: NaN for a single image, and without shares.
    """
    if shares is None or len(shares[0][0]) < 2:
        return np.nan, np.nan
    samples = [counts for share in (*shares, *minus) for counts in share]
    end = 2 * len(shares)

    def statistic(*drawn):
        value = mean_ratio(drawn[:end])
        return value - mean_ratio(drawn[end:]) if minus else value

    return bootstrap_interval(statistic, *samples)


def mean_ratio(counts):
    """Mean over trainings of the ratio of two sums over images, given in turn: shape (..., n)."""
    ratios = [
        part.sum(axis=-1) / whole.sum(axis=-1)
        for part, whole in zip(counts[::2], counts[1::2], strict=True)
    ]
    return np.mean(ratios, axis=0)
