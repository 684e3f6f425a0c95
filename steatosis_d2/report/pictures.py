"""Pictures of one input for its report: overview, heat map, size histogram, gallery."""

import base64
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from steatosis_d2.report.overlay import ARTEFACT_RGB, PREDICTED_RGB, draw_outline, show_dark_field

OVERVIEW_PX = 640
# Smaller outlines only darken the overview.
VISIBLE_PX = 4
_HEAT_CELLS = 128
# Narrow enough to show zones of lobules on a biopsy.
_SMOOTHING_SHARE = 1 / 30
_HEAT_LIMITS_PERCENT = (1, 2, 5, 10, 20, 40, 60, 80, 100)
_HEAT_OPACITY = 0.6
_GALLERY_PX = 112
_GALLERY_MARGIN = 0.35
_WEBP_QUALITY = 75
_MAX_HISTOGRAM_BINS = 30


@dataclass(frozen=True)
class HeatMap:
    """
    Density of fat over an overview.

    Attributes:
        picture_rgb (ndarray): uint8, shape (h, w, 3).
        limit_percent (int): what the brightest colour stands for.
        smoothing_px (float): standard deviation of the average, in px of level 0.
    """

    picture_rgb: np.ndarray
    limit_percent: int
    smoothing_px: float


@dataclass(frozen=True)
class Histogram:
    """
    Numbers of instances over diameter.

    Attributes:
        counts (ndarray): int, shape (n,).
        bin_width (float): in ``unit``; the first bin begins at 0.
        unit (str): ``µm`` or ``px``.
    """

    counts: np.ndarray
    bin_width: float
    unit: str


def choose_gallery(table, *, size):
    """
    Instances worth a look: the typical, the largest and the doubtful ones.

    Args:
        table (pandas.DataFrame): instances that are kept.
        size (int): how many of each kind.

    Returns:
        dict: title (str) -> list of row labels (int) of the table; none is in two lists.
    """
    diameter = table[diameter_column(table)].astype(float)
    is_sure = table["score"] >= table["score"].median()
    orders = {
        "Typical (median size)": np.log(diameter / diameter.median()).abs()[is_sure],
        "Largest": -diameter,
        "Doubtful (lowest score)": table["score"].astype(float),
    }
    gallery: dict[str, list[int]] = {}
    shown: set[int] = set()
    for title, rank in orders.items():
        candidates = rank.nsmallest(size + len(shown)).index
        gallery[title] = [row for row in candidates if row not in shown][:size]
        shown.update(gallery[title])
    return gallery


def draw_gallery_picture(slide, instance):
    """
    One instance, outlined, amid its surroundings.

    Args:
        slide (Slide): what it was found in.
        instance (Instance): in px of level 0.

    Returns:
        ndarray: uint8, shape (112, 112, 3), RGB.
    """
    height, width = instance.crop.shape
    side = max(8, math.ceil(max(height, width) * (1 + 2 * _GALLERY_MARGIN)))
    left = instance.left + (width - side) // 2
    top = instance.top + (height - side) // 2
    scale = min(1.0, _GALLERY_PX / side)
    window_rgb = show_dark_field(slide.read_region(left, top, side, side, scale=scale))
    picture_rgb = cv2.resize(window_rgb, (_GALLERY_PX,) * 2, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(
        instance.crop.astype(np.uint8),
        None,
        fx=_GALLERY_PX / side,
        fy=_GALLERY_PX / side,
        interpolation=cv2.INTER_NEAREST,
    )
    corner = [
        (start - first) * _GALLERY_PX / side
        for start, first in ((instance.top, top), (instance.left, left))
    ]
    draw_outline(picture_rgb, mask, *corner, color_rgb=PREDICTED_RGB)
    return picture_rgb


def outline_artefacts(picture_rgb, tissue):
    """
    Outline what cannot be measured, in place.

    Args:
        picture_rgb (ndarray): uint8, shape (h, w, 3), of the whole slide.
        tissue (TissueMask): of the slide.
    """
    scale = picture_rgb.shape[1] / tissue.width * tissue.cell_px
    thickness_px = max(1, round(max(picture_rgb.shape) / 600))
    for cells in tissue.artefacts.values():
        draw_outline(
            picture_rgb, cells, 0, 0, color_rgb=ARTEFACT_RGB, thickness_px=thickness_px, scale=scale
        )


def explain_artefacts(tissue):
    """A caption (str) of what :func:`outline_artefacts` drew; empty where it drew nothing."""
    kinds = [kind for kind, cells in tissue.artefacts.items() if cells.any()]
    return f" In violet: {', '.join(kinds)}." if kinds else ""


def write_name(picture_rgb, name, place_xy, slide):
    """
    Write the name of a part where it lies, in place.

    Args:
        picture_rgb (ndarray): uint8, shape (h, w, 3), of the whole slide.
        name (str): of the part.
        place_xy (tuple[float, float]): its middle, in px of level 0.
        slide (Slide): for its size.
    """
    height, width = picture_rgb.shape[:2]
    # OpenCV writes ASCII alone; this font knows Latin, Greek and Cyrillic letters.
    font_file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    font = ImageFont.truetype(font_file, max(1, round(max(height, width) / 50)))
    rim_px = max(1, round(font.size / 8))
    picture = Image.fromarray(picture_rgb)
    canvas = ImageDraw.Draw(picture)
    left, top, right, bottom = canvas.textbbox((0, 0), name, font=font, stroke_width=rim_px)
    x, y = (place * width / slide.width for place in place_xy)
    corner = (
        round(np.clip(x - (left + right) / 2, -left, max(-left, width - right))),
        round(np.clip(y - (top + bottom) / 2, -top, max(-top, height - bottom))),
    )
    canvas.text(corner, name, (20, 20, 20), font, stroke_width=rim_px, stroke_fill=(255, 255, 255))
    picture_rgb[:] = picture


def draw_heat_map(overview_rgb, table, slide, tissue):
    """
    Share of tissue that instances cover, smoothed, over a grey overview.

    Args:
        overview_rgb (ndarray): uint8, shape (h, w, 3), the whole slide.
        table (pandas.DataFrame): instances that are kept.
        slide (Slide): for its size and pixel size.
        tissue (TissueMask): where the slide is tissue.

    Returns:
        HeatMap: coloured where there is tissue.
    """
    longer_side_px = max(slide.width, slide.height)
    cell_px = longer_side_px / _HEAT_CELLS
    shape = max(1, round(slide.height / cell_px)), max(1, round(slide.width / cell_px))
    area_px = table["area_px"] if slide.mpp is None else table["area_um2"] / slide.mpp**2
    covered_px, _, _ = np.histogram2d(
        table["centroid_y_px"],
        table["centroid_x_px"],
        bins=shape,
        range=((0, slide.height), (0, slide.width)),
        weights=area_px,
    )
    cells = tissue.mask.astype(np.float32)
    tissue_px = cv2.resize(cells, shape[::-1], interpolation=cv2.INTER_AREA) * cell_px**2
    smoothing_px = max(longer_side_px * _SMOOTHING_SHARE, _mean_width(table, area_px))
    smooth = {"sigma": smoothing_px / cell_px, "mode": "constant"}
    covered_px = ndimage.gaussian_filter(covered_px, **smooth)
    around_px = ndimage.gaussian_filter(tissue_px.astype(float), **smooth)
    percent = 100 * np.divide(
        covered_px, around_px, out=np.zeros(shape), where=around_px > 0.01 * cell_px**2
    )
    peak = percent[tissue_px > 0].max(initial=0)
    limit = next((limit for limit in _HEAT_LIMITS_PERCENT if limit >= peak), 100)
    picture_rgb = _paint_heat(overview_rgb, percent / limit, tissue.mask)
    return HeatMap(picture_rgb, limit, smoothing_px)


def count_diameters(table):
    """
    Histogram of the diameters, over a round number of um or px a bin.

    Args:
        table (pandas.DataFrame): instances that are kept, at least one.

    Returns:
        Histogram: from 0 to the largest.
    """
    diameters = table[diameter_column(table)].to_numpy(np.float64)
    bin_width = round_up(diameters.max() / _MAX_HISTOGRAM_BINS)
    n_bins = int(diameters.max() / bin_width) + 1
    counts = np.bincount((diameters / bin_width).astype(int), minlength=n_bins)
    return Histogram(counts, bin_width, "µm" if "area_um2" in table else "px")


def round_up(value):
    """
    The next number of the form 1, 2 or 5 times a power of ten.

    Examples:
        >>> round_up(0.21), round_up(37), round_up(50)
        (0.5, 50.0, 50.0)
    """
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{step * power:.6g}") for step in (1, 2, 5, 10) if step * power >= value)


def diameter_column(table):
    """Name of the diameter's column, with its unit."""
    return "equivalent_diameter_um" if "area_um2" in table else "equivalent_diameter_px"


def shrink(picture_rgb, max_side_px):
    """A picture whose longer side has at most ``max_side_px``; a smaller one as it is."""
    height, width = picture_rgb.shape[:2]
    scale = min(1.0, max_side_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture_rgb, size, interpolation=cv2.INTER_AREA)


def as_data_uri(picture_rgb):
    """A picture as text that a page can hold (WebP)."""
    bgr = cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    return f"data:image/webp;base64,{base64.b64encode(content.tobytes()).decode('ascii')}"


def _mean_width(table, area_px):
    """Mean width weighted by area: an average over less shows droplets, not their density."""
    if not len(table):
        return 0.0
    return float(np.average(table["width_px"], weights=area_px))


def _paint_heat(overview_rgb, heat, tissue_mask):
    height, width = overview_rgb.shape[:2]
    heat = cv2.resize(heat.clip(0, 1), (width, height), interpolation=cv2.INTER_LINEAR)
    colors_bgr = cv2.applyColorMap(np.round(255 * heat).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    grey = cv2.cvtColor(cv2.cvtColor(overview_rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed = cv2.addWeighted(
        cv2.cvtColor(colors_bgr, cv2.COLOR_BGR2RGB), _HEAT_OPACITY, grey, 1 - _HEAT_OPACITY, 0
    )
    is_tissue = cv2.resize(
        tissue_mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    )
    return np.where(is_tissue[..., None] > 0, mixed, grey)
