"""The screening page in a real browser (headless Chromium), as a pathologist uses it on slides."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from steatosis_d2.data.coco import image_record, read_coco, write_coco
from steatosis_d2.data.synthetic import random_liver

pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
pytest.importorskip("fastapi", reason="the page needs fastapi: pip install '.[screening]'")

from screening_actions import write_true_labels
from screening_page import (
    current_label,
    expect,
    expect_total,
    inner_point,
    look,
    masks_by_id,
    merged,
    to_window,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def synthetic_slide(tmp_path_factory):
    """A slide of 4400 x 1200 px with its true droplets as labels."""
    folder = tmp_path_factory.mktemp("slide")
    window = random_liver(np.random.default_rng(5), mpp=0.5, fat_fraction=0.1).render(
        left=0, top=0, width=4400, height=1200
    )
    (folder / "images").mkdir()
    with tifffile.TiffWriter(folder / "images" / "slide.tif") as tiff:
        tiff.write(window.image_rgb, tile=(256, 256), photometric="rgb", compression="zlib")
    write_true_labels(folder / "labels.json", "slide.tif", window.labels, mpp=0.5)
    return folder


def test_slide_is_judged_region_by_region(synthetic_slide, tmp_path, serve, open_page):
    folder = Path(shutil.copytree(synthetic_slide, tmp_path / "slide"))
    page = open_page(serve(folder / "labels.json", folder / "images"), "Ann")
    regions = page.locator("nav .regions button")
    expect(regions.first).to_have_attribute("aria-current", "true")
    doubts = [float(re.search(r"([\d.]+) in doubt", text)[1]) for text in regions.all_inner_texts()]
    assert doubts == sorted(doubts, reverse=True)
    expect(page.locator("#facts")).to_contain_text("1 of")
    n_labels = len(read_coco(folder / "labels.json")["annotations"])
    in_region = int(regions.first.inner_text().split(" of ")[0])
    page.keyboard.press("a")
    expect_total(page, f"1 of {n_labels}")
    page.keyboard.press("Shift+A")
    expect_total(page, f"{in_region} of {n_labels}")
    expect(regions.nth(1)).to_have_attribute("aria-current", "true")
    expect(regions.first).to_have_text(f"{in_region} done")
    judged = merged(folder / "labels.json", tmp_path / "screened.json")
    assert sum(one["screening"] == "accepted" for one in judged.values()) == in_region


def test_pieces_of_the_slide_lie_under_their_outlines(synthetic_slide, tmp_path, serve, open_page):
    """White fat inside, stained tissue outside, at two scales."""
    folder = Path(shutil.copytree(synthetic_slide, tmp_path / "slide"))
    page = open_page(serve(folder / "labels.json", folder / "images"), "Ann")
    page.wait_for_load_state("networkidle")
    masks = masks_by_id(folder / "labels.json")
    page.keyboard.press("h")
    for key in ("z", "-"):
        page.keyboard.press(key)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(500)
        everything = np.any(list(masks.values()), axis=0)
        inside = inner_point(masks[current_label(page)], np.zeros_like(everything))
        picture = np.asarray(look(page))
        x, y = map(round, to_window(page, inside))
        assert picture[y, x].min() > 200, key


def test_slide_from_afar_shows_where_the_fat_is(synthetic_slide, tmp_path, serve, open_page):
    folder = Path(shutil.copytree(synthetic_slide, tmp_path / "slide"))
    page = open_page(serve(folder / "labels.json", folder / "images"), "Ann")
    page.keyboard.press("f")
    for _ in range(40):  # until its pieces have come
        page.wait_for_timeout(500)
        x, y = map(round, to_window(page, (2200, 600)))
        picture = np.asarray(look(page), int)
        box = picture[y - 20 : y + 20, x - 20 : x + 20].reshape(-1, 3).mean(axis=0)
        if box[0] > box[1] + 20:  # tissue, not an empty page
            return
    pytest.fail(f"the middle of the slide has the colour {box}")


def test_slide_without_a_pyramid_is_not_read_whole(tmp_path, serve, open_page):
    """From afar the page says so, and goes on."""
    side = 20_000
    with tifffile.TiffWriter(tmp_path / "flat.tif", bigtiff=True) as tiff:
        rows = (np.full((256, 256, 3), 200, np.uint8) for _ in range((-(-side // 256)) ** 2))
        tiff.write(
            rows, shape=(side, side, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb",
            compression="zlib",
        )  # fmt: skip
    record = image_record(1, "flat.tif", height=side, width=side, mpp=0.25)
    square = {"size": [side, side], "counts": [5 * side + 7, 90, side * side - 5 * side - 97]}
    label = {"id": 1, "image_id": 1, "segmentation": square, "score": 0.5, "category_id": 1}
    write_coco(tmp_path / "labels.json", [record], [label], category="droplet")
    page = open_page(serve(tmp_path / "labels.json", tmp_path), "Ann")
    page.keyboard.press("f")
    expect(page.locator("#message")).to_contain_text("has no pyramid")
    page.keyboard.press("a")
    expect_total(page, "1 of 1")
