"""What the network that ships takes for fat without being fat, on synthetic liver."""

from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.figures import Figure

TILES = 40
SEED = 2078  # of tiles that no training has seen
TILE_UM = 208
FAT_FRACTIONS = (0.0, 0.02, 0.1, 0.25)  # by tile, in turn
GAP_EVERY, GAP_SHARE = 4, (0.08, 0.35)  # so many tiles have strips of glass, cut by their border
# An opening counts from this width on, about as large as droplets that matter for fat area, and
# as taken where so much of it is covered by what was found.
WIDE_UM, TAKEN_SHARE = 18.0, 0.2


@dataclass(frozen=True)
class Restraint:
    """Pixels and wide openings without fat, and how many of them were taken for fat."""

    white_px: int = 0
    taken_px: int = 0
    openings: int = 0
    taken: int = 0

    def __add__(self, other):
        return Restraint(
            self.white_px + other.white_px,
            self.taken_px + other.taken_px,
            self.openings + other.openings,
            self.taken + other.taken,
        )


def measure_white(_options):
    """Pixels in veins, ducts, glass, tears and sinusoids, and whole openings, at both scales."""
    from steatosis_d2.inference.models import MaskRCNNChoice

    model = MaskRCNNChoice()()
    return [figure for mpp in (0.5, 0.25) for figure in measure_scale(model, mpp)]


def measure_scale(model, mpp):
    """Two shares: of white pixels without fat, and of wide openings, that were taken for fat."""
    total = Restraint()
    for number in range(TILES):
        tile = draw_tile(number, mpp)
        total += measure_tile(tile.white_not_fat, model([tile.image_rgb], mpp=mpp)[0], mpp=mpp)
    where = f"{TILES} synthetic tiles, {mpp} um/px"
    return [
        Figure(
            "vessels",
            f"the starter: white that is no fat taken for fat, {where}",
            100 * total.taken_px / total.white_px,
            "%",
            at_most=2,
        ),
        Figure(
            "vessels",
            f"the starter: veins, ducts and glass from {WIDE_UM:g} um on taken for fat, of "
            f"{total.openings}, {where}",
            100 * total.taken / total.openings,
            "%",
            at_most=2,
        ),
    ]


def measure_tile(white_not_fat, instances, *, mpp):
    """
    What of one tile's white without fat was taken for fat.

    Args:
        white_not_fat (ndarray): bool, shape (H, W).
        instances (list[Instance]): found in it.
        mpp (float): um/px.

    Returns:
        Restraint: of the tile.
    """
    fat = np.zeros(white_not_fat.shape, bool)
    for one in instances:
        fat[one.top : one.bottom, one.left : one.right] |= one.crop
    openings = label_wide(white_not_fat, mpp=mpp)
    sizes = np.bincount(openings.ravel())[1:]
    covered = np.bincount(openings[fat], minlength=len(sizes) + 1)[1:]
    return Restraint(
        int(np.count_nonzero(white_not_fat)),
        int(np.count_nonzero(white_not_fat & fat)),
        len(sizes),
        int(np.count_nonzero(covered > TAKEN_SHARE * sizes)),
    )


def label_wide(white, *, mpp):
    """
    The openings into which a disk of 18 um fits, without their narrow arms.

    Beyond the tile they go on as they are at its border.

    Args:
        white (ndarray): bool, shape (H, W).
        mpp (float): um/px.

    Returns:
        ndarray: int32, shape (H, W), 0 is none.
    """
    side = 2 * round(WIDE_UM / mpp / 2) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = cv2.copyMakeBorder(white.astype(np.uint8), *[side] * 4, cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, disk)[side:-side, side:-side]
    return cv2.connectedComponents(np.ascontiguousarray(opened), connectivity=4)[1]


def draw_tile(number, mpp):
    """Tissue of a look of its own, crowded with veins, portal tracts and ducts."""
    from steatosis_d2.data.synthetic import add_structures, random_liver

    rng = np.random.default_rng([SEED, number])
    fat_fraction = FAT_FRACTIONS[number // GAP_EVERY % len(FAT_FRACTIONS)]
    liver = random_liver(rng, mpp=mpp, fat_fraction=fat_fraction, glass_fraction=0.0)
    gap_share = float(rng.uniform(*GAP_SHARE)) if number % GAP_EVERY == 0 else 0.0
    liver = add_structures(liver, rng, crowded=True, gap_share=gap_share)
    side_px = round(TILE_UM / mpp)
    return liver.render(top=0, left=0, height=side_px, width=side_px)


MEASURES = (measure_white,)
