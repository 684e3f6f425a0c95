"""Tissue of many patients, stains and scanners, drawn at random."""

import dataclasses

import numpy as np

from steatosis_d2.data.synthetic.layout import Anatomy
from steatosis_d2.data.synthetic.liver import SyntheticLiver
from steatosis_d2.data.synthetic.look import Look

# Optical density of the cytoplasm: red (least, most), green, blue (least, most), of its amount.
STAINS = {
    "hematoxylin-eosin": ((0.08, 0.32), 1.0, (0.38, 0.7)),
    "toluidine-blue": ((0.8, 1.0), 0.45, (0.1, 0.2)),
}


def random_liver(rng, *, mpp, fat_fraction, glass_fraction=0.0, stain="hematoxylin-eosin"):
    """
    One slide as it may come from any laboratory.

    The ranges hold the middle 95% of what was measured on expert-annotated tiles of over 300
    cases and two scanners: optical densities of cytoplasm and nuclei, and their colour ratios.

    Args:
        rng (numpy.random.Generator): the only source of chance.
        mpp (float): um/px.
        fat_fraction (float): 0 to 0.5, share of the tissue covered by fat.
        glass_fraction (float): 0 to 1, share of the slide without tissue.
        stain (str): one of ``STAINS``. No weights that ship have seen another than the first.

    Returns:
        SyntheticLiver: the slide.
    """
    anatomy = Anatomy(
        seed=int(rng.integers(2**63)),
        fat_fraction=fat_fraction,
        # Much fat cannot all be in small droplets.
        macro_share=float(rng.uniform(fat_fraction, 0.9)),
        glass_fraction=glass_fraction,
        tear_density=float(rng.uniform(0, 0.6)),
        vessel_density=float(rng.uniform(0.1, 0.7)),
    )
    return SyntheticLiver(anatomy, random_look(rng, stain), mpp)


def add_structures(liver, rng, *, crowded, gap_share=0.0):
    """
    The same slide with veins, portal tracts and bile ducts as pathologists know them.

    Args:
        liver (SyntheticLiver): from :func:`random_liver`.
        rng (numpy.random.Generator): the only source of chance.
        crowded (bool): many of them, for training and for measuring what is taken for fat; else
            about as many as there are.
        gap_share (float): 0 to 0.5, strips of glass between ribbons of tissue.

    Returns:
        SyntheticLiver: without plain vessels: some have neither wall nor lining, and nobody could
        tell them from fat.
    """
    veins = rng.uniform(1.5, 4.0) if crowded else rng.uniform(0.2, 0.8)
    tracts = rng.uniform(0.3, 1.0) if crowded else rng.uniform(0.0, 0.4)
    anatomy = dataclasses.replace(
        liver.anatomy,
        vessel_density=0.0,
        vein_density=float(veins),
        tract_density=float(tracts),
        gap_share=gap_share,
    )
    return dataclasses.replace(liver, anatomy=anatomy)


def random_look(rng, stain="hematoxylin-eosin"):
    """
    One stain, scanner and section.

    Args:
        rng (numpy.random.Generator): the only source of chance.
        stain (str): one of ``STAINS``.

    Returns:
        Look: drawn from the ranges that :func:`random_liver` names.
    """
    eosin = float(np.exp(rng.normal(np.log(0.7), 0.33)).clip(0.38, 1.2))
    hematoxylin = 0.95 + 0.9 * eosin + rng.uniform(-0.2, 0.3)
    brightness = rng.uniform(228, 246)
    red, green, blue = STAINS[stain]
    return Look(
        white_rgb=tuple((brightness + rng.uniform(-3, 3, 3)).tolist()),
        hematoxylin_od=_density(hematoxylin, rng.uniform(0.6, 0.8), rng.uniform(0.5, 0.6)),
        eosin_od=(
            float(eosin * rng.uniform(*red)),
            float(eosin * green),
            float(eosin * rng.uniform(*blue)),
        ),
        blood_od=_density(rng.uniform(0.9, 1.7), rng.uniform(0.06, 0.12), rng.uniform(0.62, 0.8)),
        granularity=float(rng.uniform(0.06, 0.18)),
        cell_contrast=float(rng.uniform(0.05, 0.4)),
        border_contrast=float(rng.uniform(0.0, 1.0)),
        clearing=float(max(0.0, rng.uniform(-0.8, 0.9))),
        sinusoid_um=float(rng.uniform(1.5, 6.0)),
        congestion=float(rng.uniform(0, 0.8)),
        cellularity=float(rng.uniform(0.2, 0.8)),
        dirt=float(rng.uniform(0, 1) ** 2),
        blur_um=float(rng.uniform(0.12, 0.42)),
        noise=float(rng.uniform(0.5, 3)),
    )


def _density(green, red_share, blue_share):
    return (float(green * red_share), float(green), float(green * blue_share))
