"""The screening page in a real browser (headless Chromium), as a pathologist uses it on tiles."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.coco import annotation_record, image_record, read_coco, write_coco
from steatosis_d2.data.synthetic import random_liver
from steatosis_d2.instances.rle import decode_mask, encode_mask

pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
pytest.importorskip("fastapi", reason="the page needs fastapi: pip install '.[screening]'")

from screening_actions import write_true_labels
from screening_page import (
    WINDOW,
    click,
    current_label,
    drag,
    expect,
    expect_total,
    inner_point,
    look,
    masks_by_id,
    merged,
    take_picture,
    wait_for_image,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A synthetic tile with its true droplets as labels: folder with labels.json and images/."""
    folder = tmp_path_factory.mktemp("synthetic")
    window = random_liver(np.random.default_rng(3), mpp=0.5, fat_fraction=0.2).render(
        left=0, top=0, width=420, height=420
    )
    (folder / "images").mkdir()
    Image.fromarray(window.image_rgb).save(folder / "images" / "tile.png")
    write_true_labels(folder / "labels.json", "tile.png", window.labels, mpp=0.5)
    return folder


@pytest.fixture
def tile(synthetic, tmp_path):
    """A copy of the synthetic tile, with no decisions yet."""
    return Path(shutil.copytree(synthetic, tmp_path / "tile"))


@pytest.fixture(scope="module")
def real_tile(shared_data, run_script, tmp_path_factory):
    """A tile of Guo et al. 2019 with the paper's own labels, in the same form."""
    folder = tmp_path_factory.mktemp("guo")
    [name] = [
        path.name for path in (shared_data / "guo2019_liver").iterdir() if "194_" in path.name
    ]
    (folder / "splits.json").write_text(json.dumps({"train": [name], "val": [], "test": []}))
    process = run_script(
        "datasets/prepare_guo2019.py",
        *("--source", shared_data / "guo2019_liver", "--splits", folder / "splits.json"),
        *("--output", folder, "--mpp", "0.25"),
    )
    assert process.returncode == 0, process.stderr
    shutil.copy(folder / "annotations" / "instances_train.json", folder / "labels.json")
    return folder


@pytest.mark.parametrize("source", ["tile", "real_tile"])
def test_exported_labels_hold_exactly_what_was_done_by_hand(
    source, request, serve, open_page, tmp_path
):
    folder = request.getfixturevalue(source)
    labels, images = folder / "labels.json", folder / "images"
    before = masks_by_id(labels)
    everything = sum(mask.astype(int) for mask in before.values())
    by_size = sorted(before, key=lambda number: -before[number].sum())
    points = {i: inner_point(mask, everything - mask > 0) for i, mask in before.items()}

    # The most doubtful label is offered first; it is rejected by keyboard.
    server = serve(labels, images)
    page = open_page(server, "Ann")
    rejected = current_label(page)
    page.keyboard.press("r")
    expect_total(page, f"1 of {len(before)}")
    server.kill()

    # What the server did not confirm is not shown.
    page.keyboard.press("a")
    expect(page.locator("#trouble")).to_contain_text("does not answer")
    expect_total(page, f"1 of {len(before)}")
    server = serve(labels, images, port=server.port)
    page.keyboard.press("a")
    expect(page.locator("#trouble")).to_contain_text("started anew: open the address")
    page.goto(server.url)
    wait_for_image(page)
    expect_total(page, f"1 of {len(before)}")

    # The largest label is split by a line drawn with the mouse.
    split, *others = (number for number in by_size if number != rejected)
    y = points[split][1]
    click(page, points[split])
    expect(page.locator("#facts")).to_contain_text(f"label {split},")
    page.keyboard.press("s")
    columns = np.flatnonzero(before[split].any(axis=0))
    drag(page, (columns[0] - 8, y), (columns[-1] + 9, y))
    expect_total(page, f"3 of {len(before) + 1}")
    server.kill()

    # Two labels, clicked, are merged by keyboard.
    server = serve(labels, images, port=server.port)
    page.goto(server.url)
    wait_for_image(page)
    first, second = sorted(others[:2])
    click(page, points[first])
    click(page, points[second], shift=True)
    expect(page.locator("#facts")).to_contain_text("2 labels selected")
    page.keyboard.press("m")
    expect_total(page, f"4 of {len(before)}")
    server.kill()

    after = merged(labels, tmp_path / "screened.json")
    new = set(after) - set(before)
    assert set(before) - set(after) == {split, first, second}
    assert len(new) == 3
    assert (after[rejected]["screening"], after[rejected]["iscrowd"]) == ("rejected", 1)
    assert {(after[i]["screening"], after[i]["iscrowd"]) for i in new} == {("accepted", 0)}
    upper, lower, union = (decode_mask(after[i]["segmentation"]) for i in sorted(new))
    assert np.array_equal(union, before[first] | before[second])
    if upper.nonzero()[0].min() > lower.nonzero()[0].min():
        upper, lower = lower, upper
    assert np.array_equal(upper ^ lower, before[split]), "no pixel is lost or doubled"
    assert abs(upper.nonzero()[0].max() - y) <= 1
    assert abs(lower.nonzero()[0].min() - y) <= 1
    original = {one["id"]: one for one in read_coco(labels)["annotations"]}
    for number in set(after) & set(before) - {rejected}:
        assert after[number] == original[number] | {"screening": "unreviewed"}


def test_two_browsers_do_not_overwrite_each_other(tile, serve, open_page, tmp_path):
    labels = tile / "labels.json"
    before = masks_by_id(labels)
    everything = sum(mask.astype(int) for mask in before.values())
    points = {i: inner_point(mask, everything - mask > 0) for i, mask in before.items()}
    first, second, third = sorted(before, key=lambda i: -before[i].sum())[:3]
    server = serve(labels, tile / "images")
    # Ben's page does not ask for news by itself, so that he decides on what is no more.
    ben = open_page(server, "Ben", init_script="window.setInterval = () => 0")
    ann = open_page(server, "Ann")
    click(ann, points[first])
    click(ann, points[second], shift=True)
    ann.keyboard.press("m")
    expect_total(ann, f"1 of {len(before) - 1}")

    click(ben, points[third])
    ben.keyboard.press("a")
    expect_total(ben, f"1 of {len(before) - 1}"), "another label is none of Ann's business"
    server.process.poll()
    ann.keyboard.press("u")
    expect_total(ann, f"0 of {len(before)}")
    click(ben, points[first])
    ben.keyboard.press("r")
    expect(ben.locator("#message")).to_contain_text("Someone has changed this outline")
    expect_total(ben, f"1 of {len(before)}")

    after = merged(labels, tmp_path / "screened.json")
    assert {i: one["screening"] for i, one in after.items()} == {
        i: "accepted" if i == third else "unreviewed" for i in before
    }


def test_edits_of_others_appear_by_themselves(tile, serve, open_page):
    server = serve(tile / "labels.json", tile / "images")
    ben = open_page(server, "Ben")
    ann = open_page(server, "Ann")
    total = int(ben.locator("#total").inner_text().split()[2])
    ann.keyboard.press("i")
    drag(ann, (5, 5), (25, 5), (25, 25), (5, 25))
    expect_total(ann, f"1 of {total + 1}")
    expect_total(ben, f"0 of {total + 1}")


def test_outlines_are_drawn_and_redrawn_with_the_mouse(tile, serve, open_page, tmp_path):
    labels = tile / "labels.json"
    before = masks_by_id(labels)
    server = serve(labels, tile / "images")
    page = open_page(server, "Ann")
    redrawn = current_label(page)
    page.keyboard.press("d")
    drag(page, (100, 100), (140, 100), (140, 130), (100, 130))
    expect_total(page, f"1 of {len(before)}")
    page.keyboard.press("i")
    for corner in ((200, 50), (230, 50), (230, 80), (200, 80)):
        click(page, corner)
    page.keyboard.press("Enter")
    expect_total(page, f"2 of {len(before) + 1}")
    after = merged(labels, tmp_path / "screened.json")
    assert set(before) - set(after) == {redrawn}
    [first, second] = sorted(set(after) - set(before))
    for number, (left, top, width, height) in {
        first: (100, 100, 40, 30),
        second: (200, 50, 30, 30),
    }.items():
        assert np.allclose(after[number]["bbox"], (left, top, width, height), atol=1.5)
        assert after[number]["area"] == pytest.approx(width * height, rel=0.1)


def test_undo_filters_and_accepting_all_that_is_shown(tile, serve, open_page, tmp_path):
    labels = tile / "labels.json"
    scores = {one["id"]: one["score"] for one in read_coco(labels)["annotations"]}
    doubtful = {number for number, score in scores.items() if score <= 0.6}
    server = serve(labels, tile / "images")
    page = open_page(server, "Ann")
    assert current_label(page) == min(scores, key=scores.get), "the most doubtful one comes first"
    page.get_by_label("highest score").press_sequentially("0.6")
    expect(page.locator("#shown")).to_have_text(f"{len(doubtful)} of {len(scores)}")
    page.locator("#tile").focus()
    page.keyboard.press("Shift+A")
    expect_total(page, f"{len(doubtful)} of {len(scores)}")
    page.keyboard.press("u")
    expect_total(page, f"0 of {len(scores)}")
    page.keyboard.press("Control+z")
    expect(page.locator("#message")).to_contain_text("nothing to undo")
    page.get_by_label("smallest diameter").press_sequentially("9999")
    expect(page.locator("#shown")).to_have_text(f"0 of {len(scores)}")
    assert {one["screening"] for one in merged(labels, tmp_path / "o.json").values()} == {
        "unreviewed"
    }


def test_every_key_that_is_pressed_in_a_row_counts(tile, serve, open_page, tmp_path):
    """Keys come faster than answers; each is for the label that the one before has led to."""
    labels = tile / "labels.json"
    scores = {one["id"]: one["score"] for one in read_coco(labels)["annotations"]}
    in_order = sorted(scores, key=scores.get)
    server = serve(labels, tile / "images")
    page = open_page(server, "Ann")
    for key in "ararrunra":
        page.keyboard.press(key)
    # "u" takes the fifth verdict back and returns there; "n" goes past it.
    expect_total(page, f"6 of {len(scores)}")
    after = merged(labels, tmp_path / "o.json")
    judged = [after[number]["screening"] for number in in_order[:7]]
    assert "".join(verdict[0] for verdict in judged) == "ararura"


def test_page_without_the_token_is_refused(tile, serve, browser):
    server = serve(tile / "labels.json", tile / "images")
    page = browser.new_page()
    assert page.goto(server.url.split("?")[0]).status == 403
    assert "server printed" in page.inner_text("body")
    page.close()


def test_image_that_cannot_be_shown_is_said_and_the_page_goes_on(tile, serve, open_page):
    content = read_coco(tile / "labels.json")
    content["images"].append(image_record(2, "other.png", height=420, width=420))
    (tile / "labels.json").write_text(json.dumps(content))
    Image.new("RGB", (9, 9)).save(tile / "images" / "other.png")
    page = open_page(serve(tile / "labels.json", tile / "images"), "Ann")
    page.keyboard.press("]")
    expect(page.locator("#message")).to_contain_text("is 9 x 9 px")
    page.keyboard.press("a")
    expect(page.locator("#total")).to_contain_text("1 of")


def test_1000_labels_are_loaded_and_judged(serve, open_page, tmp_path):
    size, labels = 1024, []
    rows, columns = np.ogrid[:28, :28]
    disk = (rows - 13.5) ** 2 + (columns - 13.5) ** 2 <= 13**2
    for number in range(1024):
        mask = np.zeros((size, size), bool)
        top, left = 32 * (number // 32) + 2, 32 * (number % 32) + 2
        mask[top : top + 28, left : left + 28] = disk
        labels.append(annotation_record(number + 1, 1, encode_mask(mask), score=number / 1024))
    Image.new("RGB", (size, size), (220, 160, 190)).save(tmp_path / "tile.png")
    image = image_record(1, "tile.png", height=size, width=size)
    write_coco(tmp_path / "labels.json", [image], labels, category="droplet")
    page = open_page(serve(tmp_path / "labels.json", tmp_path), "Ann")
    for _ in range(5):
        page.keyboard.press("a")
    expect_total(page, "5 of 1024")
    assert current_label(page) == 6


def test_verdicts_have_colours(tile, serve, open_page):
    page = open_page(serve(tile / "labels.json", tile / "images"), "Ann")
    for key in "raraararar":
        page.keyboard.press(key)
    lowest_score = page.get_by_label("lowest score")
    lowest_score.press_sequentially("0.6")
    page.locator("#tile").focus()
    page.keyboard.press("Shift+A")
    expect(page.locator("#message")).to_contain_text("labels accepted")
    lowest_score.press("Control+a")
    lowest_score.press("Delete")
    page.locator("#tile").focus()
    page.keyboard.press("n")
    expect(page.locator("#message")).to_be_hidden()
    take_picture(page, "screening.jpg")
    pixels = np.asarray(look(page), int)
    assert pixels.shape == (WINDOW["height"], WINDOW["width"], 3)
    for color in ((255, 210, 31), (0, 179, 107), (255, 106, 43)):  # yellow, green, orange outlines
        assert (np.abs(pixels - color).max(axis=2) < 20).sum() > 25
