#!/usr/bin/env python
"""
The README's pictures, made anew from what `make demo` wrote.

It needs Chromium (tools/install_browser.sh).

example:
  make demo && python docs/make_pictures.py output/demo
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from steatosis_d2.data.coco import read_coco
from steatosis_d2.instances.rle import decode_crop
from steatosis_d2.report.overlay import draw_outline
from steatosis_d2.slides.slide import open_slide

DOCS = Path(__file__).resolve().parent
GREEN_RGB = (0, 140, 60)
PART_XYWH = (1250, 1150, 1500, 640)  # of the slide, in px
LINE_PX = 2
REPORT_SIZE_PX = (1180, 1000)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main():
    """Write outlines.jpg and report.jpg beside this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path, metavar="DIR", help="what `make demo` wrote")
    demo = parser.parse_args().demo
    save(draw_part(demo), DOCS / "outlines.jpg")
    save(photograph(demo / "results" / "report.html", demo / "report.png"), DOCS / "report.jpg")


def draw_part(demo):
    """Part of the slide at full resolution, with the outlines that were found."""
    left, top, width, height = PART_XYWH
    with open_slide(demo / "biopsy.tif") as slide:
        drawn = slide.read_region(left, top, width, height)
    for annotation in read_coco(demo / "results" / "predictions.json")["annotations"]:
        crop, row, column = decode_crop(annotation["segmentation"])
        draw_outline(
            drawn, crop, row - top, column - left, color_rgb=GREEN_RGB, thickness_px=LINE_PX
        )
    return Image.fromarray(drawn)


def photograph(report, picture):
    """The first screen of a report, in Chromium."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise SystemExit(
            f"error: no browser found ({', '.join(BROWSERS)}); apt-get install chromium"
        )
    width, height = REPORT_SIZE_PX
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, nor in most containers.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(report.resolve().as_uri())
        page.screenshot(path=picture)
        browser.close()
    return Image.open(picture)


def save(picture, path):
    """As JPEG, small enough for a repository."""
    picture.convert("RGB").save(path, quality=82, optimize=True)
    print(f"{path}: {picture.width} x {picture.height} px, {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
