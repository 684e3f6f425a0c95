"""The screening page with slides, in Chromium: how soon a view is sharp, in how much memory."""

import contextlib
import functools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from skimage import morphology

from benchmarks.figures import Figure, peak_memory_gb, summarize
from benchmarks.slides import RepeatedTissue
from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.instances.rle import encode_crop
from steatosis_d2.slides.pyramid_writer import write_pyramid
from steatosis_d2.slides.slide import open_slide

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = {"width": 1360, "height": 880}
SMALL_SIDE_PX, LARGE_SIDE_PX, MPP, JPEG_QUALITY = 8_000, 32_000, 0.25, 90
FEW, MANY = 3_000, 300_000
DISK_PX = 24
# The view is at rest, each of its pieces is there, and the labels in it are known.
IS_SHARP = """() => {
  const [left, top] = toImage([0, 0]);
  const [right, bottom] = toImage([tile.clientWidth, tile.clientHeight]);
  const { loaded, viewer } = page;
  return viewer?.world.getItemAt(0)?.getFullyLoaded() && loaded && left >= loaded.left &&
    top >= loaded.top && right <= loaded.right && bottom <= loaded.bottom;
}"""
NEXT_FRAME = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"


def measure_page(options):
    """The slide that was given, or drawn ones of two sizes, with few and with many labels."""
    with tempfile.TemporaryDirectory() as folder:
        if options.tile is not None:
            return measure_slide(options.tile, FEW, folder=Path(folder), rounds=options.rounds)[0]
        small, large = (
            draw_slide(Path(folder) / f"{side_px}.tif", side_px)
            for side_px in (SMALL_SIDE_PX, LARGE_SIDE_PX)
        )
        measure = functools.partial(measure_slide, folder=Path(folder), rounds=options.rounds)
        figures, small_gb = measure(small, FEW)
        of_large, large_gb = measure(large, FEW)
        of_many, _ = measure(large, MANY)
    growth = Figure("page", "memory, 16 times the slide", large_gb / small_gb, "x", at_most=1.1)
    return [*figures, *of_large, growth, *of_many]


def draw_slide(path, side_px):
    write_pyramid(path, RepeatedTissue(side_px, mpp=MPP), jpeg_quality=JPEG_QUALITY)
    return path


def measure_slide(path, n_labels, *, folder, rounds):
    """Figures of one slide, and the most memory that its server took, in GB."""
    labels = folder / f"{path.stem}_{n_labels}.json"
    write_labels(labels, path, n_labels)
    what = f"{path.name}, {n_labels:,} labels"
    with serving(labels, path.parent) as (process, url, seconds_to_start):
        pans, zooms, decisions, seconds_to_open = use_page(url, rounds=rounds)
        gigabytes = peak_memory_gb(process.pid)
    figures = [
        Figure("page", f"{what}: server starts", seconds_to_start, "s"),
        Figure("page", f"{what}: page opens", seconds_to_open, "s"),
        summarize("page", f"{what}: sharp after a pan", pans, at_most=1),
        summarize("page", f"{what}: sharp after a zoom", zooms, at_most=1),
        Figure("page", f"{what}: slowest of these", max(pans + zooms), "s", at_most=1),
        summarize("page", f"{what}: a verdict is shown", decisions),
        Figure("page", f"{what}: the server's memory", gigabytes, "GB"),
    ]
    return figures, gigabytes


def write_labels(path, slide_path, n_labels):
    """Disks anywhere on a slide."""
    with open_slide(slide_path) as slide:
        size, mpp = {"height": slide.height, "width": slide.width}, slide.mpp
    rng = np.random.default_rng(0)
    tops, lefts = (rng.integers(0, size[side] - DISK_PX, n_labels) for side in ("height", "width"))
    disk = morphology.disk(DISK_PX // 2, dtype=bool)[:-1, :-1]
    annotations = (
        annotation_record(
            number + 1,
            1,
            encode_crop(disk, top=int(tops[number]), left=int(lefts[number]), **size),
            score=0.5 + 0.5 * number / n_labels,
            box_xywh=[int(lefts[number]), int(tops[number]), DISK_PX, DISK_PX],
            area_px=int(disk.sum()),
        )
        for number in range(n_labels)
    )
    record = image_record(1, slide_path.name, mpp=mpp, **size)
    write_coco(path, [record], annotations, category="droplet")


@contextlib.contextmanager
def serving(labels, images):
    """A server: its process, its address, and the seconds it took until it answered."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "steatosis_d2", "screen", "serve", labels, "--images", images]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            process.stdout.readline()
            url = re.search(r"http\S+", process.stdout.readline())[0]
            yield process, url, time.perf_counter() - start
        finally:
            process.kill()


def use_page(url, *, rounds):
    """Seconds of pans, of zooms, of verdicts, and until the page was open."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(120_000)
        page.goto(url)
        page.get_by_placeholder("Name or initials").fill("Ann")
        start = time.perf_counter()
        page.keyboard.press("Enter")
        page.wait_for_function(IS_SHARP)
        seconds_to_open = time.perf_counter() - start
        middle = page.evaluate(
            "() => { const box = tile.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; }"
        )
        pans, zooms, decisions = [], [], []
        for number in range(rounds):
            pans.append(time_until_sharp(page, lambda: pan(page, middle)))
            for delta in (600, -300, -300) if number % 2 else (-300, 600, -300):
                zooms.append(time_until_sharp(page, lambda delta=delta: zoom(page, middle, delta)))
            page.keyboard.press("n")
            page.evaluate(NEXT_FRAME)
            decisions.append(time_verdict(page))
        browser.close()
    return pans, zooms, decisions, seconds_to_open


def pan(page, middle):
    x, y = middle
    page.mouse.move(x + 250, y)
    page.mouse.down()
    page.mouse.move(x - 250, y, steps=3)
    page.mouse.up()


def zoom(page, middle, delta):
    page.mouse.move(*middle)
    page.mouse.wheel(0, delta)


def time_until_sharp(page, move):
    move()
    start = time.perf_counter()
    page.evaluate(NEXT_FRAME)
    page.wait_for_function(IS_SHARP)
    return time.perf_counter() - start


def time_verdict(page):
    before = page.locator("#total").inner_text()
    start = time.perf_counter()
    page.keyboard.press("a")
    page.wait_for_function("(before) => element('total').textContent !== before", arg=before)
    return time.perf_counter() - start


MEASURES = (measure_page,)
