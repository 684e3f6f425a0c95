"""The synthetic biopsy: cores on glass, healthy and fatty lobules."""

import numpy as np
import pytest

from steatosis_d2.data.synthetic import Anatomy, SyntheticLiver, random_biopsy
from steatosis_d2.data.synthetic.biopsy import CORE_LENGTH_UM, CORE_WIDTH_UM, N_CORES
from steatosis_d2.data.synthetic.layout import glass_map, is_spared
from steatosis_d2.inference.parallel import open_mapper
from steatosis_d2.slides.slide import ArraySlide
from steatosis_d2.slides.tissue import find_tissue


def test_cores_have_their_size_and_lie_on_glass():
    """Drawn coarsely, since only the outlines matter."""
    biopsy = random_biopsy(3, mpp=4.0)
    drawn = biopsy.render()
    slide = ArraySlide(drawn.image_rgb, mpp=4.0)
    assert slide.width * slide.height * 16 == pytest.approx(10.25e6, rel=0.01)
    tissue_um2 = find_tissue(slide).area_px * 16
    assert tissue_um2 == pytest.approx(N_CORES * CORE_WIDTH_UM * CORE_LENGTH_UM, rel=0.15)
    border = np.concatenate([drawn.image_rgb[0], drawn.image_rgb[-1], drawn.image_rgb[:, 0]])
    assert border.min() > 200


def test_spared_lobules_have_no_fat_and_the_others_have():
    anatomy = Anatomy(seed=4, fat_fraction=0.2, spared_share=0.5, tear_density=0)
    drawn = SyntheticLiver(anatomy, mpp=2.0).render(top=0, left=0, height=1000, width=1000)
    y_um, x_um = (2.0 * grid.ravel() + 1.0 for grid in np.mgrid[:1000, :1000])
    spared = is_spared(anatomy, y_um, x_um).reshape(1000, 1000)
    fat = drawn.labels > 0
    assert 0.3 < spared.mean() < 0.7
    # Droplets at the border of a lobule reach into the next.
    assert fat[spared].mean() < 0.2 * fat[~spared].mean()
    assert fat[~spared].mean() == pytest.approx(0.2, abs=0.06)


def test_cores_and_lobules_do_not_depend_on_the_window():
    biopsy = random_biopsy(1)
    whole = biopsy.liver.render(top=500, left=400, height=300, width=300)
    part = biopsy.liver.render(top=600, left=450, height=90, width=80)
    assert (part.image_rgb == whole.image_rgb[100:190, 50:130]).all()
    assert ((part.labels > 0) == (whole.labels[100:190, 50:130] > 0)).all()


def test_processes_draw_the_same():
    liver = SyntheticLiver(Anatomy(seed=1, fat_fraction=0.2), mpp=4.0)
    window = {"top": 0, "left": 0, "height": 64, "width": 1100}
    with open_mapper(workers=2) as map_in_order:
        drawn = liver.render(**window, map_in_order=map_in_order)
    alone = liver.render(**window)
    assert (drawn.image_rgb == alone.image_rgb).all()
    assert (drawn.labels == alone.labels).all()


def test_tissue_without_cores_has_no_end():
    edges_um = np.arange(-50.0, 50.0)
    anatomy = Anatomy(seed=1, glass_fraction=0, tear_density=0)
    assert not glass_map(anatomy, edges_um, edges_um).any()
