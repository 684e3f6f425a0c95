"""What the label generator can be told, in one place."""

from dataclasses import dataclass


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
        background_width_um (float): white regions as wide as this are glass, tears or vessels.
        max_overlap (float): share of a proposal that better ones may have taken already.
        sparse_per_mm2 (float): below this density of droplets on the tissue, doubt sets in.
        sparse_doubt (float): loss of log-odds each time the density halves below that.
        min_score (float): less confident labels are dropped.
    """

    smoothing_um: float = 0.3
    opening_um: float = 1.0
    growth_um: float = 0.5
    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    clump_level: float = 0.6
    min_clump_part_um: float = 4.4
    min_diameter_um: float = 2.2
    max_diameter_um: float = 70.0
    background_width_um: float = 70.0
    max_overlap: float = 0.15
    sparse_per_mm2: float = 160.0
    sparse_doubt: float = 2.0
    min_score: float = 0.3
