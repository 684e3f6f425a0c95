"""What the label generator can be told, in one place."""

import math
from dataclasses import dataclass

from steatosis_d2.labeling.scorecards import EXPERT_CARD, OPENING_CARD, PAPER_CARD, Scorecard


@dataclass(frozen=True)
class LabelParameters:
    """
    Sizes, levels and thresholds of the label generator.

    Lengths are in um; brightness is the fraction of the way from median tissue (0) to white (1).
    All were chosen on the Torino training tiles and the tiles of Guo et al. 2019.

    Attributes:
        smoothing_um (float): sigma of the Gaussian against pixel noise.
        opening_um (float): bright bridges and spurs thinner than twice this are cut off.
        growth_um (float): the pale rim that belongs to a droplet and is darker than its level.
        levels (tuple[float, ...]): brightness levels at which regions are proposed; each droplet
            is taken at the level that suits it best, so that stain matters little.
        clump_level (float): brightness level at which clumps are split.
        min_clump_part_um (float): smallest diameter of a part of a clump.
        min_diameter_um (float): smallest diameter of a droplet.
        max_diameter_um (float): largest diameter of a droplet.
        min_axis_ratio (float): more elongated regions are slits.
        background_width_um (float): white regions as wide as this are glass, tears or vessels.
        max_overlap (float): share of a proposal that better ones may have taken already.
        scorecard (Scorecard): how the evidence for each proposal is weighed.
        opening_card (Scorecard): how the evidence that a large droplet is one, and no vein, duct
            or glass, is weighed.
        min_score (float): less confident labels are dropped.
        sparse_per_mm2 (float): below this density of droplets on the tissue, all are doubted.
        sparse_doubt (float): loss of log-odds each time the density halves below that.
        few_per_mm2 (float): below this density, large droplets are doubted.
        few_doubt (float): loss of log-odds each time the density halves below that, times the
            doublings of the diameter over ``large_um``.
        large_um (float): diameter from which a droplet is large.
    """

    smoothing_um: float = 0.3
    opening_um: float = 1.0
    growth_um: float = 0.5
    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    clump_level: float = 0.5
    min_clump_part_um: float = 5.5
    min_diameter_um: float = 2.2
    max_diameter_um: float = 70.0
    min_axis_ratio: float = 0.2
    background_width_um: float = 70.0
    max_overlap: float = 0.15
    scorecard: Scorecard = EXPERT_CARD
    opening_card: Scorecard = OPENING_CARD
    min_score: float = 0.5
    sparse_per_mm2: float = 220.0
    sparse_doubt: float = 4.0
    few_per_mm2: float = 700.0
    few_doubt: float = 2.0
    large_um: float = 7.0


# 20x, as the expert of the Torino tiles outlined: every droplet, tiny ones too, and no lumens.
AT_20X = LabelParameters(opening_um=0.5)

# 40x, as the labels of Guo et al. 2019 are: all that is clear and wider than about 6 um. Large
# droplets are the rule there, so that few of them are no cause for doubt.
AT_40X = LabelParameters(min_diameter_um=5.0, scorecard=PAPER_CARD, sparse_doubt=1.0, few_doubt=0.0)

PRESETS = {0.5: AT_20X, 0.25: AT_40X}


def choose_parameters(mpp):
    """
    The preset that was made at the nearest pixel size, by ratio.

    Args:
        mpp (float): pixel size in um/px.

    Returns:
        LabelParameters: for 20x or for 40x.
    """
    return PRESETS[min(PRESETS, key=lambda preset_mpp: abs(math.log(preset_mpp / mpp)))]
