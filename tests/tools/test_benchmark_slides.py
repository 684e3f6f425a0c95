"""The benchmark of whole slides in small: what it compares with the truth must be able to fail."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.virtual_slide import ColorModel, DiskSlide

from steatosis_d2.inference import pipeline

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def slides(monkeypatch):
    """The module of the benchmark, which scripts import from their own folder."""
    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setattr(pipeline, "open_slide", pipeline.open_slide)  # the simulation replaces it
    from benchmarks import slides

    return slides


class Forgetful(ColorModel):
    """Overlooks one disk of each tile."""

    def __call__(self, images_rgb, *, mpp):
        return [found[1:] for found in super().__call__(images_rgb, mpp=mpp)]


def test_the_simulation_is_exact(slides):
    run = slides.simulate(2400, 450)
    truth = DiskSlide(2400, 2400, glass_px=450).instances(0, 0, 2400, 2400)
    assert run.instances == len(truth) > 50
    assert run.tissue_megapixels == pytest.approx(1.5**2, rel=0.05)


def test_the_simulation_fails_where_a_droplet_is_missing(slides, monkeypatch):
    monkeypatch.setattr(slides, "ColorModel", Forgetful)
    with pytest.raises(RuntimeError, match="true ones, or they differ"):
        slides.simulate(1500, 200)


@pytest.mark.parametrize("block_px", [64, 400])
def test_every_disk_is_listed_once_however_large_the_blocks(slides, monkeypatch, block_px):
    """A block may hold the corner of a disk's box without a px of the disk; it once was lost."""
    slide = DiskSlide(700, 600)
    monkeypatch.setattr(slides, "COUNTED_BLOCK_PX", block_px)
    in_blocks = slides.count_and_sum(slides.list_all(slide))
    assert in_blocks == slides.count_and_sum(slide.instances(0, 0, 700, 600))


def test_a_slide_in_a_file_is_measured_with_all_outputs(slides, tmp_path):
    slides.write_disks(tmp_path / "disks.tif", 1200)
    run = slides.segment_file(tmp_path / "disks.tif", ColorModel)
    assert run.instances == len(DiskSlide(1200, 1200).instances(0, 0, 1200, 1200))
    assert run.tissue_megapixels == 1.44
    assert 0 < run.model_seconds < run.seconds
    assert slides.time_reading(tmp_path / "disks.tif") > 0


def test_repeated_tissue_has_no_seams(slides, monkeypatch):
    monkeypatch.setattr(slides, "BLOCK_PX", 64)
    tissue = slides.RepeatedTissue(500, mpp=1.0)
    whole = tissue.read_region(0, 0, 500, 500)
    assert np.array_equal(whole[63], whole[64]) and np.array_equal(whole[:, 127], whole[:, 128])
    assert np.array_equal(tissue.read_region(130, 70, 50, 60), whole[70:130, 130:180])
