"""The screening page over HTTP."""

import io
import re
import sqlite3
from importlib import resources

import numpy as np
import pytest
import tifffile
from PIL import Image

pytest.importorskip("fastapi", reason="the page needs fastapi: pip install '.[screening]'")

from starlette.testclient import TestClient

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import encode_crop
from steatosis_d2.screening.labels import find_images, read_labels
from steatosis_d2.screening.log import DecisionLog
from steatosis_d2.screening.server import create_app, open_listener
from steatosis_d2.screening.session import Screening

TOKEN = "a-token"


@pytest.fixture
def app(disks):
    label_file = read_labels(disks / "annotations.json")
    log = DecisionLog(disks / "decisions.sqlite", label_file, create=True)
    images = find_images(label_file, disks / "images")
    return create_app(Screening(label_file, log), images, token=TOKEN)


@pytest.fixture
def client(app):
    return TestClient(app, headers={"X-Token": TOKEN})


def decision(action="accept", labels=None, **changes):
    content = {"reviewer": "Ann", "action": action, "labels": labels or {}, "since": 0}
    return content | changes


ROUTES = [
    ("GET", "/"),
    ("GET", "/page/page.js"),
    ("GET", "/page/page.css"),
    ("GET", "/api/images?reviewer=Ann"),
    ("GET", "/api/images/1?reviewer=Ann"),
    ("GET", "/api/images/1/pixels"),
    ("GET", "/api/images/1/pieces/0/0_0.jpg"),
    ("GET", "/api/images/1/window?left=0&top=0&width=9&height=9"),
    ("GET", "/api/images/1/regions?reviewer=Ann"),
    ("GET", "/api/images/1/view?reviewer=Ann&left=0&top=0&right=9&bottom=9"),
    ("POST", "/api/images/1/decisions"),
    ("GET", "/no/such/place"),
]


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("token", [None, "", "wrong", "a-toke", "ä"])
def test_nothing_is_told_without_the_token(app, method, route, token):
    headers = {} if token is None else {"X-Token": token.encode()}
    response = TestClient(app).request(method, route, headers=headers)
    assert response.status_code == 403
    assert set(response.json()) == {"message"}


@pytest.mark.parametrize(("method", "route"), ROUTES[:10])
def test_token_in_the_address_will_do(app, method, route):
    more = "&" if "?" in route else "?"
    response = TestClient(app).request(method, f"{route}{more}token={TOKEN}&reviewer=Ann")
    assert response.status_code == 200


def test_page_gives_the_token_on_and_asks_nobody_else(client):
    page = client.get("/")
    assert f"page/page.js?token={TOKEN}" in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_page_names_no_other_site():
    folder = resources.files("steatosis_d2.screening") / "page"
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    assert set(texts) == {"index.html", "page.js", "page.css"}
    assert not [name for name, text in texts.items() if re.search(r"https?:|//[a-z]+\.", text)]


def test_every_element_that_the_script_uses_is_on_the_page():
    folder = resources.files("steatosis_d2.screening") / "page"
    html, script = ((folder / name).read_text() for name in ("index.html", "page.js"))
    used = set(re.findall(r'element\("([\w-]+)"\)', script))
    assert len(used) > 10
    assert used <= set(re.findall(r'id="([\w-]+)"', html))


@pytest.mark.parametrize(
    "route",
    [
        "/page/server.py",
        "/page/..%2fserver.py",
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/api/images/99?reviewer=Ann",
        "/page/openseadragon/LICENSE.txt",
        "/api/images/99/pixels",
        "/api/images/99/regions?reviewer=Ann",
        "/api/images/99/view?reviewer=Ann&left=0&top=0&right=9&bottom=9",
        "/api/images/1/view?reviewer=Ann&left=nan&top=0&right=9&bottom=9",
        "/api/images/1/window?left=0&top=0&width=99999&height=9",
        "/api/images/1/pieces/0/9_0.jpg",
        "/api/images/1/pieces/-1/0_0.jpg",
        "/api/images/1/pieces/40/0_0.jpg",
        "/api/images/..%2f..%2fetc%2fpasswd/pixels",
        "/etc/passwd",
        "/docs",
        "/openapi.json",
    ],
)
def test_only_what_is_meant_is_served(client, route):
    assert client.get(route).status_code in (404, 422)


def test_pixels_are_those_of_the_image(client, disks):
    response = client.get("/api/images/1/pixels")
    with (
        Image.open(io.BytesIO(response.content)) as shown,
        Image.open(disks / "images" / "tile_1.png") as image,
    ):
        assert np.array_equal(np.asarray(shown), np.asarray(image))


def test_image_of_another_size_is_said(client, disks):
    Image.new("RGB", (20, 10)).save(disks / "images" / "tile_1.png")
    response = client.get("/api/images/1/pixels")
    assert response.status_code == 422
    assert "is 10 x 20 px" in response.json()["message"]
    assert "labels were made for 96 x 128 px" in response.json()["message"]


def test_damaged_image_is_said(client, disks):
    (disks / "images" / "tile_1.png").write_bytes(b"no image")
    response = client.get("/api/images/1/pixels")
    assert response.status_code == 422
    assert "tile_1.png' cannot be read" in response.json()["message"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_images_of_other_kinds_are_shown(client, disks, mode):
    image = Image.open(disks / "images" / "tile_1.png").convert(mode)
    image.save(disks / "images" / "tile_1.png", "TIFF")
    assert client.get("/api/images/1/pixels").headers["Content-Type"] == "image/png"


@pytest.fixture
def slide_client(tmp_path):
    """A slide of 5000 x 3000 px with 200 labels, in a pyramid of which each px is known."""
    rows, columns = np.indices((3000, 5000))
    image = np.stack([columns // 20, rows // 20, (rows + columns) % 251], axis=2).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        tiff.write(image, tile=(256, 256), photometric="rgb", compression="zlib")
    crop = np.ones((12, 12), bool)
    size = {"height": 3000, "width": 5000}
    labels = [
        annotation_record(
            number, 1, encode_crop(crop, top=100 + 20 * (number // 20), left=20 * number, **size),
            score=0.5,
        )
        for number in range(1, 201)
    ]  # fmt: skip
    record = image_record(1, "slide.tif", mpp=0.5, **size)
    write_coco(tmp_path / "labels.json", [record], labels, category="droplet")
    label_file = read_labels(tmp_path / "labels.json")
    log = DecisionLog(tmp_path / "of_slide.sqlite", label_file, create=True)
    app = create_app(Screening(label_file, log), find_images(label_file, tmp_path), token=TOKEN)
    client = TestClient(app, headers={"X-Token": TOKEN})
    client.image = image
    return client


def test_tiles_and_slides_are_told_apart(client, slide_client):
    assert not client.get("/api/images?reviewer=Ann").json()["images"][0]["is_slide"]
    assert slide_client.get("/api/images?reviewer=Ann").json()["images"][0]["is_slide"]


def test_window_of_a_slide_has_its_pixels_and_white_beyond(slide_client):
    response = slide_client.get("/api/images/1/window?left=4990&top=10&width=20&height=30")
    shown = np.asarray(Image.open(io.BytesIO(response.content)))
    np.testing.assert_array_equal(shown[:, :10], slide_client.image[10:40, 4990:])
    assert (shown[:, 10:] == 255).all()


@pytest.mark.parametrize(
    ("address", "size"),
    [("0/0_0", (512, 512)), ("0/9_5", (392, 440)), ("3/1_0", (113, 375)), ("4/0_0", (313, 188))],
)
def test_pieces_cover_the_slide_at_each_scale(slide_client, address, size):
    response = slide_client.get(f"/api/images/1/pieces/{address}.jpg")
    assert response.headers["Content-Type"] == "image/jpeg"
    piece = Image.open(io.BytesIO(response.content))
    assert piece.size == pytest.approx(size, abs=1)
    shrunk, place = address.split("/")
    column, row = map(int, place.split("_"))
    x, y = (512 * number * 2 ** int(shrunk) for number in (column, row))
    assert np.asarray(piece)[0, 0, 0] == pytest.approx(slide_client.image[y, x, 0], abs=12)


def test_view_tells_of_labels_in_it_alone(slide_client, monkeypatch):
    route = "/api/images/1/view?reviewer=Ann&left=0&top=0&right=95&bottom=400"
    answer = slide_client.get(route).json()
    assert [one["id"] for one in answer["labels"]] == [1, 2, 3, 4]
    assert answer["hidden"] == 0
    monkeypatch.setattr("steatosis_d2.screening.session.MAX_IN_VIEW", 3)
    answer = slide_client.get(route).json()
    assert (answer["labels"], answer["hidden"]) == ([], 4)


def test_regions_come_with_doubt_and_progress(slide_client):
    answer = slide_client.get("/api/images/1/regions?reviewer=Ann").json()
    assert answer["side"] == 400
    assert sum(region["unreviewed"] for region in answer["regions"]) == 200
    doubts = [region["doubt"] for region in answer["regions"]]
    assert doubts == sorted(doubts, reverse=True)
    assert sum(doubts) == pytest.approx(100)
    slide_client.post("/api/images/1/decisions", json=decision(labels={"1": 0, "2": 0}))
    after = slide_client.get("/api/images/1/regions?reviewer=Ann").json()["regions"]
    assert sum(region["accepted"] for region in after) == 2
    assert sum(region["doubt"] for region in after) == pytest.approx(99)


def test_what_an_edit_makes_is_found_where_it_is(slide_client):
    outline = [[3000, 2000], [3050, 2000], [3050, 2050], [3000, 2050]]
    slide_client.post("/api/images/1/decisions", json=decision("draw", points=outline))
    route = "/api/images/1/view?reviewer=Ann&left=2990&top=1990&right=3060&bottom=2060"
    [label] = slide_client.get(route).json()["labels"]
    assert label["box"] == [3000, 2000, 50, 50]
    regions = slide_client.get("/api/images/1/regions?reviewer=Ann").json()["regions"]
    [region] = [one for one in regions if one["accepted"]]
    assert (region["left"], region["top"]) == (2800, 2000)


def test_decision_is_answered_with_what_has_changed(client, app):
    answer = client.post("/api/images/1/decisions", json=decision(labels={"2": 0})).json()
    assert [(one["id"], one["verdict"], one["revision"]) for one in answer["labels"]] == [
        (2, "accepted", 1)
    ]
    assert (answer["last"], answer["undoable"], answer["gone"]) == (1, 1, [])
    assert [one.label_ids for one in app.state.screening.log.read(1)] == [(2,)]


def test_stale_decision_is_refused(client, app):
    client.post("/api/images/1/decisions", json=decision("merge", {"1": 0, "2": 0}, reviewer="Ben"))
    response = client.post("/api/images/1/decisions", json=decision("reject", {"1": 0}))
    assert response.status_code == 409
    assert "Ben has changed this outline" in response.json()["message"]
    assert len(app.state.screening.log.read(1)) == 1


@pytest.mark.parametrize(
    "content",
    [
        decision("explode", {"1": 0}),
        decision(labels={"one": 0}),
        decision(labels=[1]),
        decision("draw", points=[[0, 0], [1e9, 0], [0, 5]]),
        decision("draw", points=[[0, 0], [1]]),
        decision("draw", points=[["a", "b"]]),
        decision(reviewer=""),
        decision(reviewer="   "),
        decision(reviewer="x" * 61),
        decision(undoes="x"),
        decision(more=1),
        {},
        [],
        "text",
    ],
)
def test_request_that_makes_no_sense_changes_nothing(client, app, content):
    response = client.post("/api/images/1/decisions", json=content)
    assert response.status_code == 422
    assert "Request not understood" in response.json()["message"]
    assert app.state.screening.log.read(1) == []


@pytest.mark.parametrize("body", [b"", b"{", b'{"points": [[NaN, 1]]}', b"\xff"])
def test_body_that_is_no_json_changes_nothing(client, app, body):
    assert client.post("/api/images/1/decisions", content=body).status_code == 422
    assert app.state.screening.log.read(1) == []


def test_nan_is_no_coordinate(client):
    body = b'{"reviewer": "a", "action": "draw", "since": 0, "points": [[NaN, 1], [2, 3], [4, 5]]}'
    headers = {"Content-Type": "application/json"}
    response = client.post("/api/images/1/decisions", content=body, headers=headers)
    assert response.status_code == 422


def test_label_of_another_image_is_a_conflict(client):
    response = client.post("/api/images/1/decisions", json=decision(labels={"12": 0}))
    assert response.status_code == 409


def test_disk_that_is_full_is_said_and_nothing_shown(client, app, monkeypatch):
    def fail(*arguments):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(app.state.screening.log, "append", fail)
    response = client.post("/api/images/1/decisions", json=decision(labels={"1": 0}))
    assert response.status_code == 500
    assert "Nothing was changed" in response.json()["message"]
    assert "disk is full" in response.json()["message"]


def test_names_of_reviewers_may_be_any(client):
    name = "Zoë <b>'; DROP TABLE decisions;--"
    client.post("/api/images/1/decisions", json=decision(labels={"1": 0}, reviewer=name))
    [first, *_] = client.get("/api/images", params={"reviewer": name}).json()["images"]
    assert first["accepted"] == 1


def test_port_in_use_is_named():
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1, port {port} .*--port 0"):
            open_listener("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 99999), ("127.0.0.1", -1), ("8.8.8.8", 0)]
)
def test_address_that_is_none_is_named(host, port):
    with pytest.raises(InputError, match=f"cannot listen on {host}, port {port}"):
        open_listener(host, port)
