"""A whole slide of synthetic liver, as small as a lab has them: the cores of a needle biopsy."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from steatosis_d2.data.synthetic.layout import CORE_PITCH
from steatosis_d2.data.synthetic.liver import SyntheticLiver
from steatosis_d2.data.synthetic.variety import add_structures, random_liver

N_CORES = 2
CORE_WIDTH_UM, CORE_LENGTH_UM = 500.0, 3600.0
FAT_FRACTION, SPARED_SHARE = 0.2, 0.5


@dataclass(frozen=True)
class Biopsy:
    """
    Part of an endless liver that holds whole cores.

    Attributes:
        liver (SyntheticLiver): the tissue; the slide's upper left corner is its origin.
        height (int): of the slide, in px.
        width (int): of the slide, in px.
    """

    liver: SyntheticLiver
    height: int
    width: int

    def render(self, *, map_in_order=map):
        """
        Picture and truth of the whole slide, in memory of ten bytes a px.

        Args:
            map_in_order (callable): as for :meth:`SyntheticLiver.render`.

        Returns:
            RenderedWindow: of the slide.
        """
        return self.liver.render(
            top=0, left=0, height=self.height, width=self.width, map_in_order=map_in_order
        )


def random_biopsy(seed, *, mpp=0.5):
    """
    A slide of 10 mm2 with two cores: healthy and fatty lobules, veins, portal tracts, tears, glass.

    Args:
        seed (int): at least 0; of tissue, stain and scanner.
        mpp (float): um/px.

    Returns:
        Biopsy: yet to be drawn.
    """
    rng = np.random.default_rng(seed)
    liver = add_structures(
        random_liver(rng, mpp=mpp, fat_fraction=FAT_FRACTION), rng, crowded=False
    )
    anatomy = dataclasses.replace(
        liver.anatomy,
        spared_share=SPARED_SHARE,
        core_width_um=CORE_WIDTH_UM,
        core_length_um=CORE_LENGTH_UM,
    )
    return Biopsy(
        dataclasses.replace(liver, anatomy=anatomy),
        height=round(CORE_PITCH * N_CORES * CORE_WIDTH_UM / mpp),
        width=round((CORE_LENGTH_UM + CORE_WIDTH_UM) / mpp),
    )
