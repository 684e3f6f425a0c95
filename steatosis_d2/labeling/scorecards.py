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
            (-3.89, -2.37, -1.3, -0.59, -0.05, 0.28, 0.91, 1.65, 2.68, 2.67),
        ),
        "solidity": (
            (0.6, 0.75, 0.85, 0.92, 1.0),
            (-3.0, -1.12, 0.52, 1.43, 2.17),
        ),
        "axis_ratio": (
            (0.2, 0.4, 0.6, 0.8),
            (-1.39, -0.3, 0.54, 1.15),
        ),
        "circularity": (
            (0.2, 0.4, 0.6, 0.8, 0.95),
            (-0.62, -0.41, -0.68, 0.39, 1.32),
        ),
        "inner_brightness": (
            (0.4, 0.6, 0.75, 0.85, 0.95),
            (-1.8, -0.75, 0.35, 0.94, 1.27),
        ),
        "contrast": (
            (0.3, 0.5, 0.7, 0.9, 1.1),
            (-0.07, 0.73, 0.46, -0.28, -0.84),
        ),
        "level_height": (
            (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
            (-1.24, -0.65, -0.28, 0.24, 0.64, 1.28),
        ),
        "weak_edge_share": (
            (0.0, 0.1, 0.2, 0.4),
            (-0.68, -0.72, -0.44, 1.85),
        ),
        "open_edge_share": (
            (0.0, 0.1, 0.25, 0.5),
            (0.19, -0.06, -0.51, 0.39),
        ),
        "edge_slope": (
            (0.1, 0.25, 0.4, 0.6),
            (-0.98, 0.01, 0.1, 0.88),
        ),
        "edge_slope_spread": (
            (0.05, 0.1, 0.2, 0.3),
            (1.18, 0.53, -0.34, -1.37),
        ),
        "outer_brightness": (
            (-0.1, 0.1, 0.3, 0.5, 0.7),
            (2.15, 1.29, 0.29, -0.85, -2.89),
        ),
        "outer_spread": (
            (0.05, 0.15, 0.25, 0.35),
            (0.43, -0.11, -0.21, -0.11),
        ),
        "inner_saturation": (
            (5.0, 15.0, 30.0, 50.0),
            (0.07, -0.39, -0.04, 0.35),
        ),
        "rim_saturation": (
            (30.0, 60.0, 90.0, 120.0),
            (-0.59, 0.26, 0.19, 0.13),
        ),
        "border_share": (
            (0.0, 0.1, 0.3),
            (-0.9, -0.73, 1.63),
        ),
    },
    base=-3.74,
)

# Fitted to the eight tiles published with Guo et al. 2019 (40x), in the same way.
PAPER_CARD = Scorecard(
    curves={
        "diameter_um": (
            (5.0, 6.0, 7.0, 9.0, 14.0, 25.0, 45.0),
            (-3.92, -2.24, -0.39, 0.83, 1.51, 2.87, 1.33),
        ),
        "solidity": (
            (0.6, 0.75, 0.85, 0.92, 1.0),
            (-0.87, -1.13, -0.43, 0.7, 1.73),
        ),
        "circularity": (
            (0.2, 0.4, 0.6, 0.8, 0.95),
            (-2.12, -0.05, -0.13, 0.52, 1.78),
        ),
        "inner_brightness": (
            (0.4, 0.6, 0.75, 0.85, 0.95),
            (-1.26, -0.98, -0.52, 0.47, 2.28),
        ),
        "contrast": (
            (0.3, 0.5, 0.7, 0.9, 1.1),
            (-0.65, -0.49, -0.62, 0.44, 1.32),
        ),
        "level_height": (
            (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
            (-0.17, -0.4, -0.12, 0.2, 1.09, -0.61),
        ),
        "outer_brightness": (
            (-0.1, 0.1, 0.3, 0.5, 0.7),
            (-1.03, -0.18, 1.13, 1.75, -1.67),
        ),
    },
    base=-1.15,
)

# Keeps every confidence as it is.
NO_CARD = Scorecard(curves={"log_odds": ((-7.0, 7.0), (-7.0, 7.0))}, base=0.0)

# Fitted to what the generator takes for droplets from 15 um on in the Torino training tiles, those
# of Guo et al. 2019 and synthetic tiles at both scales; tools/fit_opening_card.py says how.
OPENING_CARD = Scorecard(
    curves={
        "log_odds": (
            (0.0, 0.7, 1.5, 2.5, 4.0),
            (-0.61, -0.36, -0.01, 0.93, 0.06),
        ),
        "roundness": (
            (0.5, 0.65, 0.75, 0.82, 0.88),
            (-2.01, -0.85, 0.35, 0.7, 1.81),
        ),
        "border_um": (
            (0.0, 20.0, 50.0),
            (-0.02, -0.39, 0.41),
        ),
        "darkest_inside": (
            (0.3, 0.6, 0.8, 0.95),
            (-1.51, 0.93, 0.4, 0.18),
        ),
        "nuclei_share": (
            (0.0, 0.15, 0.4, 0.8),
            (-0.42, 0.7, -0.02, -0.26),
        ),
        "wide_um": (
            (15.0, 20.0, 28.0, 40.0),
            (0.75, 0.28, 0.08, -1.11),
        ),
        "fat_near_share": (
            (0.0, 0.005, 0.02, 0.05, 0.1, 0.2),
            (-1.49, -1.73, -0.82, 0.67, 0.8, 2.58),
        ),
    },
    base=0.28,
)
