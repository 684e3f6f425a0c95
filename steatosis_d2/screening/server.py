"""The screening page over HTTP: a thin layer over :class:`~.screening.Screening`."""

import contextlib
import functools
import io
import secrets
import socket
import sqlite3
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image
from pydantic import BaseModel, Field, StringConstraints

from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.errors import InputError
from steatosis_d2.screening.labels import WHOLE_PX, check_size, is_slide
from steatosis_d2.screening.session import Conflict, Unusable
from steatosis_d2.slides.slide import open_slide

_PAGE = resources.files(__package__) / "page"
_ASSETS = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "openseadragon/openseadragon.min.js": "text/javascript",
}
_PIECE_PX, _PIECE_QUALITY = 512, 90
_OPEN_SLIDES = 4
# Of a slide without a pyramid, the farther the view the more is read for a piece: up to this.
_MOST_READ_PX = 4096**2
_FARTHEST_PIECE = 1 << 20
# Nothing but this server is ever asked for anything, and no other page may show this one.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# Coordinates that OpenCV can still draw to, and no slide reaches.
_FARTHEST_PX = 1e6

Coordinate = Annotated[float, Field(ge=-_FARTHEST_PX, le=_FARTHEST_PX)]
Place = Annotated[int, Query(ge=-_FARTHEST_PX, le=_FARTHEST_PX)]
Side = Annotated[int, Query(ge=1, le=WHOLE_PX)]
Shrunk = Annotated[int, PathParameter(ge=0, le=30)]
Piece = Annotated[int, PathParameter(ge=0, le=_FARTHEST_PIECE)]
Reviewer = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]
router = APIRouter()


class DecisionRequest(BaseModel, extra="forbid"):
    """
    What the page sends when a reviewer decides.

    Attributes:
        reviewer: who decides.
        action: as :meth:`~.screening.Screening.decide` has it.
        labels: id -> revision of each label that it is about.
        points: line or outline, (x, y) in px of the image.
        undoes: number of the decision to undo.
        since: number of the last decision that the page knows of.
    """

    reviewer: Reviewer
    action: Literal["accept", "reject", "merge", "split", "redraw", "draw", "undo"]
    labels: dict[int, int] = {}
    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=20_000)] = []
    undoes: int | None = None
    since: int


def create_app(screening, images, *, token):
    """
    The page and its data as an ASGI application.

    Every request needs the token, as the query's ``token`` or in the header ``X-Token``.

    Args:
        screening (Screening): labels and decisions.
        images (dict): image id (int) -> Path; no other file is ever served.
        token (str): ASCII.

    Returns:
        fastapi.FastAPI: errors are JSON with a ``message`` for the reviewer.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.screening, app.state.images, app.state.token = screening, images, token
    app.state.open_slide = functools.lru_cache(_OPEN_SLIDES)(open_slide)
    app.include_router(router)
    app.middleware("http")(_check_token)
    app.exception_handler(HTTPException)(_answer_refusal)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(sqlite3.Error)(_answer_not_written)
    return app


def open_listener(host, port):
    """
    Start to listen, so that a busy port is known before anything else happens.

    Args:
        host (str): address or name.
        port (int): 0 takes a free one.

    Returns:
        socket.socket: listening.

    Raises:
        InputError: the port is in use or not allowed, or the address is not this computer's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host}, port {port} ({error}); another server may be running "
            "there. Choose another one with --port, or --port 0 for any that is free."
        ) from None


def run_app(app, listener):
    """
    Answer requests until interrupted (Ctrl-C).

    Args:
        app (fastapi.FastAPI): from :func:`create_app`.
        listener (socket.socket): from :func:`open_listener`.
    """
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


async def _check_token(request, call_next):
    given = request.headers.get("X-Token") or request.query_params.get("token") or ""
    if not secrets.compare_digest(given.encode(), request.app.state.token.encode()):
        response = JSONResponse(
            {"message": "Open the page with the address that the server printed."}, 403
        )
    else:
        response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _answer_refusal(request, error):
    return JSONResponse(error.detail, error.status_code)


def _answer_invalid(request, error):
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return JSONResponse({"message": f"Request not understood: {where}: {first['msg']}"}, 422)


def _answer_not_written(request, error):
    return JSONResponse(
        {"message": f"Nothing was changed: the decision could not be written ({error})."}, 500
    )


@router.get("/")
def read_page(request: Request) -> HTMLResponse:
    page = (_PAGE / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("{token}", request.app.state.token))


@router.get("/page/{name:path}")
def read_asset(name: str) -> Response:
    if name not in _ASSETS:
        raise HTTPException(404, {"message": f"There is no '{name}'."})
    return Response((_PAGE / name).read_bytes(), media_type=_ASSETS[name])


@router.get("/api/images")
def get_images(request: Request, reviewer: Annotated[Reviewer, Query()]) -> dict:
    screening = request.app.state.screening
    images = screening.list_images(reviewer)
    for image in images:
        image["is_slide"] = is_slide(_find_image(request, image["id"]), image)
    return {
        "images": images,
        "category": screening.label_file.category,
        "ranked_by": screening.ranked_by,
    }


@router.get("/api/images/{image_id}")
def describe_image(
    request: Request,
    image_id: int,
    reviewer: Annotated[Reviewer, Query()],
    since: int | None = None,
) -> dict:
    _find_image(request, image_id)
    return request.app.state.screening.describe(image_id, reviewer, since=since)


@router.get("/api/images/{image_id}/pixels")
def read_pixels(request: Request, image_id: int) -> Response:
    path = _find_image(request, image_id)
    record = request.app.state.screening.label_file.images[image_id]
    with _unreadable_as_refusal():
        image_rgb = read_image_rgb(path)
        check_size(path, image_rgb.shape[:2], record)
    return _as_response(image_rgb, "PNG", compress_level=1)


@router.get("/api/images/{image_id}/regions")
def get_regions(request: Request, image_id: int, reviewer: Annotated[Reviewer, Query()]) -> dict:
    _find_image(request, image_id)
    return request.app.state.screening.list_regions(image_id, reviewer)


@router.get("/api/images/{image_id}/view")
def describe_view(
    request: Request,
    image_id: int,
    reviewer: Annotated[Reviewer, Query()],
    left: Coordinate,
    top: Coordinate,
    right: Coordinate,
    bottom: Coordinate,
) -> dict:
    _find_image(request, image_id)
    window = min(left, right), min(top, bottom), max(left, right), max(top, bottom)
    return request.app.state.screening.describe_view(image_id, reviewer, window)


@router.get("/api/images/{image_id}/window")
def read_window(
    request: Request, image_id: int, left: Place, top: Place, width: Side, height: Side
) -> Response:
    slide = _open_slide(request, image_id)
    with _unreadable_as_refusal():
        window_rgb = slide.read_region(left, top, width, height)
    return _as_response(window_rgb, "PNG", compress_level=1)


@router.get("/api/images/{image_id}/pieces/{shrunk}/{column}_{row}.jpg")
def read_piece(
    request: Request, image_id: int, shrunk: Shrunk, column: Piece, row: Piece
) -> Response:
    """A piece of the slide, of 512 px, that is shrunk by a power of two."""
    slide = _open_slide(request, image_id)
    side = _PIECE_PX << shrunk
    left, top = column * side, row * side
    width, height = min(side, slide.width - left), min(side, slide.height - top)
    if width < 1 or height < 1:
        raise HTTPException(404, {"message": "There is no such piece of the slide."})
    read_px = width * height / slide.levels[slide.choose_level(1 << shrunk)].downsample ** 2
    if read_px > _MOST_READ_PX:
        raise HTTPException(
            422,
            {
                "message": "The slide has no pyramid, so from afar its pixels are not shown. "
                "Zoom in to see them."
            },
        )
    with _unreadable_as_refusal():
        piece_rgb = slide.read_region(left, top, width, height, scale=1 / (1 << shrunk))
    return _as_response(piece_rgb, "JPEG", quality=_PIECE_QUALITY)


@router.post("/api/images/{image_id}/decisions")
def decide(request: Request, image_id: int, decision: DecisionRequest) -> dict:
    _find_image(request, image_id)
    screening = request.app.state.screening
    try:
        screening.decide(
            image_id,
            decision.reviewer,
            decision.action,
            revisions=decision.labels,
            points_xy=decision.points,
            undoes=decision.undoes,
        )
    except Unusable as error:
        raise HTTPException(422, {"message": str(error)}) from None
    except Conflict as error:
        message = f"{error} Nothing was changed; the image is shown as it is now."
        raise HTTPException(409, {"message": message}) from None
    return screening.describe(image_id, decision.reviewer, since=decision.since)


def _find_image(request, image_id) -> Path:
    try:
        return request.app.state.images[image_id]
    except KeyError:
        raise HTTPException(404, {"message": f"There is no image {image_id}."}) from None


def _open_slide(request, image_id):
    path = _find_image(request, image_id)
    record = request.app.state.screening.label_file.images[image_id]
    with _unreadable_as_refusal():
        slide = request.app.state.open_slide(path)
        check_size(path, (slide.height, slide.width), record)
    return slide


@contextlib.contextmanager
def _unreadable_as_refusal():
    try:
        yield
    except InputError as error:
        raise HTTPException(422, {"message": str(error)}) from None


def _as_response(image_rgb, kind, **options):
    content = io.BytesIO()
    Image.fromarray(image_rgb).save(content, kind, **options)
    return Response(
        content.getvalue(),
        media_type=f"image/{kind.lower()}",
        headers={"Cache-Control": "private, max-age=3600"},
    )
