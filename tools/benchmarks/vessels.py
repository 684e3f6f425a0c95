"""How much of the white that is no fat the network that ships takes for fat, on synthetic liver."""

import numpy as np

from benchmarks.figures import Figure

TILES = 40
SEED = 2078  # of tiles that no training has seen
TILE_UM = 208
FAT_FRACTIONS = (0.0, 0.02, 0.1, 0.25)  # by tile, in turn


def measure_white(_options):
    """Pixels in vessels, tears and sinusoids, at both scales; no tile has glass around it."""
    from steatosis_d2.inference.models import MaskRCNNChoice

    model = MaskRCNNChoice()()
    return [measure_scale(model, mpp) for mpp in (0.5, 0.25)]


def measure_scale(model, mpp):
    """The share of white pixels without fat that lie in a droplet found."""
    white = taken_for_fat = 0
    for number in range(TILES):
        tile = draw_tile(number, mpp)
        fat = np.zeros(tile.labels.shape, bool)
        for one in model([tile.image_rgb], mpp=mpp)[0]:
            fat[one.top : one.bottom, one.left : one.right] |= one.crop
        white += np.count_nonzero(tile.white_not_fat)
        taken_for_fat += np.count_nonzero(tile.white_not_fat & fat)
    what = f"the starter: white that is no fat taken for fat, {TILES} synthetic tiles, {mpp} um/px"
    return Figure("vessels", what, 100 * taken_for_fat / white, "%", at_most=2)


def draw_tile(number, mpp):
    """Tissue of a look of its own, with the vessels and tears that it may have."""
    from steatosis_d2.data.synthetic import random_liver

    liver = random_liver(
        np.random.default_rng([SEED, number]),
        mpp=mpp,
        fat_fraction=FAT_FRACTIONS[number % len(FAT_FRACTIONS)],
        glass_fraction=0.0,
    )
    side_px = round(TILE_UM / mpp)
    return liver.render(top=0, left=0, height=side_px, width=side_px)


MEASURES = (measure_white,)
