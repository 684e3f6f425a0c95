"""
How much each part of the evidence counts: one curve a part, added up in log-odds.

A curve gives the log-odds at a few values of its part, linear between them and constant beyond,
so that each can be read, drawn and argued with. There is one card for each magnification, for
the annotators' conventions differ with what can be seen: at 20x experts outline every droplet,
tiny ones too, and leave out lumens; at 40x (the labels of Guo et al. 2019) all that is clear and
wider than about 6 um was outlined.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scorecard:
    """
    Log-odds of a proposal being a well outlined droplet, from its evidence.

    Attributes:
        mpp (float): pixel size that it was fitted at, in um/px.
        curves (dict): part of the evidence -> (values, log-odds at these values).
        base (float): log-odds of a proposal whose curves all give 0.
    """

    mpp: float
    curves: dict
    base: float

    def weigh(self, parts):
        """
        Confidence in 0..1 for each proposal.

        Args:
            parts (dict): from :func:`steatosis_d2.labeling.evidence.measure_evidence`.

        Returns:
            ndarray: float64, shape (M,).
        """
        log_odds = self.base + sum(
            np.interp(parts[name], values, votes) for name, (values, votes) in self.curves.items()
        )
        return 1 / (1 + np.exp(-log_odds))


def choose_scorecard(mpp):
    """The card that was fitted nearest to a pixel size in um/px, by ratio."""
    return min(SCORECARDS, key=lambda card: abs(np.log(card.mpp / mpp)))


# Fitted by tools/fit_scorecard.py on the training tiles of the Torino set (expert outlines).
EXPERT_20X = Scorecard(
    mpp=0.5,
    curves={
        "diameter_um": (
            (2.2, 3, 4, 5, 6, 7, 9, 14, 25, 45),
            (-2.24, -2.03, -1.39, -0.91, -0.46, -0.15, 0.53, 1.28, 2.76, 2.61),
        ),
        "solidity": (
            (0.6, 0.75, 0.85, 0.92, 1),
            (-1.41, -2.09, 0.18, 1.20, 2.12),
        ),
        "axis_ratio": (
            (0.2, 0.4, 0.6, 0.8),
            (-1.31, -0.01, 0.32, 1.00),
        ),
        "circularity": (
            (0.2, 0.4, 0.6, 0.8, 0.95),
            (-0.69, -0.20, -1.05, 0.28, 1.67),
        ),
        "inner_brightness": (
            (0.4, 0.6, 0.75, 0.85, 0.95),
            (-1.95, -0.77, 0.43, 1.01, 1.27),
        ),
        "contrast": (
            (0.3, 0.5, 0.7, 0.9, 1.1),
            (-0.12, 0.85, 0.55, -0.30, -0.97),
        ),
        "level_height": (
            (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
            (-1.17, -0.63, -0.16, 0.20, 0.54, 1.21),
        ),
        "weak_edge_share": (
            (0, 0.1, 0.2, 0.4),
            (-0.43, -0.74, -0.60, 1.77),
        ),
        "open_edge_share": (
            (0, 0.1, 0.25, 0.5),
            (0.70, 0.03, -0.43, -0.31),
        ),
        "edge_slope": (
            (0.1, 0.25, 0.4, 0.6),
            (-0.77, -0.12, 0.07, 0.82),
        ),
        "edge_slope_spread": (
            (0.05, 0.1, 0.2, 0.3),
            (1.51, 0.72, -0.42, -1.81),
        ),
        "outer_brightness": (
            (-0.1, 0.1, 0.3, 0.5, 0.7),
            (2.31, 1.20, 0.16, -0.91, -2.77),
        ),
        "outer_spread": (
            (0.05, 0.15, 0.25, 0.35),
            (0.42, -0.27, -0.21, 0.07),
        ),
        "inner_saturation": (
            (5, 15, 30, 50),
            (0.26, -0.35, -0.22, 0.30),
        ),
        "rim_saturation": (
            (30, 60, 90, 120),
            (-0.48, 0.30, 0.06, 0.12),
        ),
        "border_share": (
            (0, 0.1, 0.3),
            (-1.33, -0.64, 1.97),
        ),
    },
    base=-4.49,
)

# Fitted by tools/fit_scorecard.py on the eight tiles published with Guo et al. 2019.
PAPER_40X = Scorecard(
    mpp=0.25,
    curves={
        "diameter_um": (
            (2.2, 3, 4, 5, 6, 7, 9, 14, 25, 45),
            (-1.41, -6.58, -3.60, -1.52, 0.20, 1.64, 2.52, 2.83, 4.10, 1.82),
        ),
        "solidity": (
            (0.6, 0.75, 0.85, 0.92, 1),
            (-0.42, -1.39, -0.43, 1.02, 1.23),
        ),
        "axis_ratio": (
            (0.2, 0.4, 0.6, 0.8),
            (0.07, -0.46, 0.02, 0.37),
        ),
        "circularity": (
            (0.2, 0.4, 0.6, 0.8, 0.95),
            (-0.90, 0.23, -0.16, 0.10, 0.74),
        ),
        "inner_brightness": (
            (0.4, 0.6, 0.75, 0.85, 0.95),
            (-0.44, -1.45, -0.57, 0.67, 1.79),
        ),
        "contrast": (
            (0.3, 0.5, 0.7, 0.9, 1.1),
            (-0.16, -0.03, -0.23, 0.13, 0.29),
        ),
        "level_height": (
            (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
            (-0.47, -0.56, -0.20, 0.10, 0.89, 0.25),
        ),
        "weak_edge_share": (
            (0, 0.1, 0.2, 0.4),
            (-0.08, -0.06, -0.11, 0.24),
        ),
        "open_edge_share": (
            (0, 0.1, 0.25, 0.5),
            (0.53, 0.14, -0.40, -0.27),
        ),
        "edge_slope": (
            (0.1, 0.25, 0.4, 0.6),
            (-0.17, -0.42, -0.07, 0.66),
        ),
        "outer_brightness": (
            (-0.1, 0.1, 0.3, 0.5, 0.7),
            (-0.31, -0.06, 0.75, 0.98, -1.36),
        ),
        "border_share": (
            (0, 0.1, 0.3),
            (-0.78, -0.03, 0.81),
        ),
    },
    base=-3.65,
)

SCORECARDS = (EXPERT_20X, PAPER_40X)
