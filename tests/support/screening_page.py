"""What tests of the screening page share: the hand and the eye of a reviewer."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from playwright.sync_api import expect
from scipy import ndimage

from steatosis_d2.data.coco import read_coco
from steatosis_d2.instances.rle import decode_mask

expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong
WINDOW = {"width": 1360, "height": 880}


def wait_for_image(page):
    page.wait_for_selector("#tile[data-image][data-scale]")
    expect(page.locator("#facts")).not_to_be_empty()
    return page


def to_window(page, xy):
    """Where a point of the image, in px, is in the window."""
    tile = page.locator("#tile")
    box = tile.bounding_box()
    scale, x, y = (float(tile.get_attribute(f"data-{name}")) for name in ("scale", "x", "y"))
    return box["x"] + x + scale * xy[0], box["y"] + y + scale * xy[1]


def settle(page):
    """Wait until the canvas shows what the page knows; it draws once a frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def click(page, xy, *, shift=False):
    settle(page)
    page.keyboard.down("Shift") if shift else None
    page.mouse.click(*to_window(page, xy))
    page.keyboard.up("Shift") if shift else None


def drag(page, *points_xy, steps=5):
    settle(page)
    first, *others = (to_window(page, xy) for xy in points_xy)
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=steps)
    page.mouse.up()


def outline_of(mask):
    """Some twelve points (x, y) around a mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)[:, 0] + 0.5
    return outline[:: max(1, len(outline) // 12)]


def current_label(page):
    return int(re.search(r"label (\d+)", page.locator("#facts").inner_text())[1])


def expect_total(page, text):
    expect(page.locator("#total")).to_have_text(f"{text} labels judged")


def inner_point(mask, others):
    """The point (x, y) of a mask that is farthest from its edge and from other masks."""
    depth = ndimage.distance_transform_edt(np.pad(mask & ~others, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return column + 0.5, row + 0.5


def look(page):
    """What is on the screen: RGB image."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def take_picture(page, name):
    """For the guides: with GUIDE_PICTURES=docs the picture there is taken anew."""
    folder = os.environ.get("GUIDE_PICTURES")
    if folder:
        look(page).save(Path(folder) / name, quality=85)


def masks_by_id(path):
    return {one["id"]: decode_mask(one["segmentation"]) for one in read_coco(path)["annotations"]}


def merged(labels, output, *options):
    """The annotations that the merge command writes: id -> record."""
    command = [sys.executable, "-m", "steatosis_d2", "screen", "merge", labels, "--output", output]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return {one["id"]: one for one in read_coco(output)["annotations"]}
