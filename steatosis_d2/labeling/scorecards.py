"""
How much each part of the evidence counts: one curve a part, added up in log-odds.

A curve gives the log-odds at a few values of its part, linear between them and constant beyond,
so that each can be read, drawn and argued with.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scorecard:
    """
    Log-odds of a proposal being a well outlined droplet, from its evidence.

    Attributes:
        curves (dict): part of the evidence -> (values, log-odds at these values).
        base (float): log-odds of a proposal whose curves all give 0.
    """

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


# Fitted to the expert's outlines of the Torino training tiles (20x);
# tools/fit_scorecard.py says how.
EXPERT_CARD = Scorecard(
    curves={
        "diameter_um": (
            (2.2, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 14.0, 25.0, 45.0),
            (-3.9, -2.38, -1.31, -0.6, -0.06, 0.28, 0.92, 1.66, 2.68, 2.69),
        ),
        "solidity": (
            (0.6, 0.75, 0.85, 0.92, 1.0),
            (-3.01, -1.13, 0.51, 1.43, 2.19),
        ),
        "axis_ratio": (
            (0.2, 0.4, 0.6, 0.8),
            (-1.4, -0.29, 0.54, 1.16),
        ),
        "circularity": (
            (0.2, 0.4, 0.6, 0.8, 0.95),
            (-0.57, -0.39, -0.7, 0.37, 1.3),
        ),
        "inner_brightness": (
            (0.4, 0.6, 0.75, 0.85, 0.95),
            (-1.8, -0.76, 0.35, 0.93, 1.28),
        ),
        "contrast": (
            (0.3, 0.5, 0.7, 0.9, 1.1),
            (-0.06, 0.73, 0.46, -0.28, -0.85),
        ),
        "level_height": (
            (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
            (-1.23, -0.66, -0.29, 0.24, 0.65, 1.29),
        ),
        "weak_edge_share": (
            (0.0, 0.1, 0.2, 0.4),
            (-0.68, -0.73, -0.45, 1.86),
        ),
        "open_edge_share": (
            (0.0, 0.1, 0.25, 0.5),
            (0.27, -0.02, -0.53, 0.27),
        ),
        "edge_slope": (
            (0.1, 0.25, 0.4, 0.6),
            (-0.96, 0.01, 0.09, 0.87),
        ),
        "edge_slope_spread": (
            (0.05, 0.1, 0.2, 0.3),
            (1.18, 0.54, -0.34, -1.37),
        ),
        "outer_brightness": (
            (-0.1, 0.1, 0.3, 0.5, 0.7),
            (2.15, 1.29, 0.28, -0.85, -2.87),
        ),
        "outer_spread": (
            (0.05, 0.15, 0.25, 0.35),
            (0.43, -0.1, -0.2, -0.13),
        ),
        "inner_saturation": (
            (5.0, 15.0, 30.0, 50.0),
            (0.06, -0.39, -0.03, 0.36),
        ),
        "rim_saturation": (
            (30.0, 60.0, 90.0, 120.0),
            (-0.6, 0.27, 0.19, 0.14),
        ),
        "border_share": (
            (0.0, 0.1, 0.3),
            (-0.95, -0.75, 1.7),
        ),
    },
    base=-3.77,
)

# Fitted to the eight tiles published with Guo et al. 2019 (40x), in the same way.
PAPER_CARD = Scorecard(
    curves={
        "diameter_um": (
            (2.2, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 14.0, 25.0, 45.0),
            (-0.0, -0.0, -0.0, -3.99, -2.19, -0.36, 0.84, 1.53, 2.87, 1.31),
        ),
        "solidity": (
            (0.6, 0.75, 0.85, 0.92, 1.0),
            (-0.86, -1.13, -0.44, 0.71, 1.72),
        ),
        "circularity": (
            (0.2, 0.4, 0.6, 0.8, 0.95),
            (-2.13, -0.01, -0.17, 0.55, 1.77),
        ),
        "inner_brightness": (
            (0.4, 0.6, 0.75, 0.85, 0.95),
            (-1.23, -0.97, -0.55, 0.47, 2.29),
        ),
        "contrast": (
            (0.3, 0.5, 0.7, 0.9, 1.1),
            (-0.58, -0.55, -0.67, 0.46, 1.34),
        ),
        "level_height": (
            (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
            (-0.11, -0.39, -0.1, 0.17, 1.08, -0.65),
        ),
        "outer_brightness": (
            (-0.1, 0.1, 0.3, 0.5, 0.7),
            (-1.08, -0.21, 1.13, 1.87, -1.71),
        ),
    },
    base=-1.13,
)
