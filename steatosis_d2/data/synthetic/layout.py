"""
Where the synthetic liver is tissue, vessel, tear or glass, all in um.

Everything is placed by hashing grid cells, and an object depends on nothing farther away than a
fixed reach. So the objects of a window are the same whether the window is laid out alone or as
a part of a larger one.
"""

from dataclasses import dataclass, fields
from statistics import NormalDist

import numpy as np

from steatosis_d2.data.synthetic.noise import (
    place_ids,
    smooth_noise,
    smooth_noise_at,
    uniform,
)

VESSEL_PITCH_UM = 240.0
VESSEL_REACH_UM = 220.0  # (45 um radius + 43 um wall + 20 um ragged) x 2 for the longest ellipse
GAP_PITCH_UM = 290.0
LOBULE_UM = 250.0
CORE_PITCH = 2.5  # in widths of a core
CELLS = "cell"
CELL_PITCH_UM = 21.0
CELL_JITTER = 0.75
F32 = np.float32


@dataclass(frozen=True)
class Anatomy:
    """
    What the tissue is made of. Shares are of area, approximate, and local: a window may differ.

    Attributes:
        seed (int): which tissue of this kind; at least 0.
        fat_fraction (float): 0 (exactly none) to 0.5, share of the tissue covered by fat.
        macro_share (float): 0 to 1, how much of the fat lies in droplets of 20 to 60 um.
        glass_fraction (float): 0 (none) to 1 (nothing but glass).
        tear_density (float): 0 (none) to 1 (many cracks).
        vessel_density (float): 0 (none) to 4; at 1 there is one in every 240 um square.
        vein_density (float): 0 (none) to 4; veins with their lining, at 1 one in every 230 um.
        tract_density (float): 0 (none) to 1; portal tracts with vein, artery and bile ducts, at 1
            one in every 330 um.
        gap_share (float): 0 (none) to 0.5; share of straight strips of glass between ribbons of
            tissue, as between the cores of a needle biopsy.
        spared_share (float): 0 (none) to 0.9; share of the tissue, in patches as large as
            lobules, that has no fat at all; ``fat_fraction`` is that of the rest.
        core_width_um (float): 0 (tissue without end) or the width, up to 3,000, of the cores of a
            needle biopsy: they lie along the rows, ``CORE_PITCH`` widths apart.
        core_length_um (float): up to 30,000, of each core; half a width of glass is before it.
    """

    seed: int
    fat_fraction: float = 0.1
    macro_share: float = 0.5
    glass_fraction: float = 0.0
    tear_density: float = 0.3
    vessel_density: float = 0.4
    vein_density: float = 0.0
    tract_density: float = 0.0
    gap_share: float = 0.0
    spared_share: float = 0.0
    core_width_um: float = 0.0
    core_length_um: float = 0.0

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected 0 or more.")
        upper = {
            "fat_fraction": 0.5,
            "vessel_density": 4,
            "vein_density": 4,
            "gap_share": 0.5,
            "spared_share": 0.9,
            "core_width_um": 3_000,
            "core_length_um": 30_000,
        }
        for field in fields(self)[1:]:
            value, highest = getattr(self, field.name), upper.get(field.name, 1)
            if not 0 <= value <= highest:
                raise ValueError(f"{field.name} is {value}; expected 0 to {highest}.")


@dataclass(frozen=True)
class Frame:
    """
    A rectangle of slide pixels.

    Attributes:
        top (int): first row of the slide, any sign.
        left (int): first column.
        height (int): in px.
        width (int): in px.
        mpp (float): um/px.
    """

    top: int
    left: int
    height: int
    width: int
    mpp: float

    @property
    def y_um(self):
        """Centres of the pixel rows."""
        return (self.top + np.arange(self.height) + 0.5) * self.mpp

    @property
    def x_um(self):
        """Centres of the pixel columns."""
        return (self.left + np.arange(self.width) + 0.5) * self.mpp

    @property
    def window(self):
        """The same rectangle in um."""
        return Window(
            self.top * self.mpp,
            self.left * self.mpp,
            (self.top + self.height) * self.mpp,
            (self.left + self.width) * self.mpp,
        )

    def padded(self, margin_px):
        """The frame with a margin on each side."""
        return Frame(
            self.top - margin_px,
            self.left - margin_px,
            self.height + 2 * margin_px,
            self.width + 2 * margin_px,
            self.mpp,
        )

    def around(self, y_um, x_um, reach_um):
        """The pixels within a square around a point, not clipped to this frame."""
        top, left = int((y_um - reach_um) // self.mpp), int((x_um - reach_um) // self.mpp)
        side = int(2 * reach_um / self.mpp) + 2
        return Frame(top, left, side, side, self.mpp)

    def overlap(self, other):
        """Slices of this frame and of the other that cover the same pixels."""
        pairs = []
        for start, length, other_start, other_length in (
            (self.top, self.height, other.top, other.height),
            (self.left, self.width, other.left, other.width),
        ):
            low = max(start, other_start)
            high = max(low, min(start + length, other_start + other_length))
            pairs.append(
                (slice(low - start, high - start), slice(low - other_start, high - other_start))
            )
        return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


@dataclass(frozen=True)
class Window:
    """Part of the slide, in um: rows from top to bottom, columns from left to right."""

    top_um: float
    left_um: float
    bottom_um: float
    right_um: float

    def padded(self, margin_um):
        """The window with a margin on each side."""
        return Window(
            self.top_um - margin_um,
            self.left_um - margin_um,
            self.bottom_um + margin_um,
            self.right_um + margin_um,
        )

    def grid(self, pitch_um):
        """Rows, shape (R, 1), and columns, shape (1, C), of the grid cells that it touches."""
        rows = np.arange(np.floor(self.top_um / pitch_um), np.floor(self.bottom_um / pitch_um) + 1)
        columns = np.arange(
            np.floor(self.left_um / pitch_um), np.floor(self.right_um / pitch_um) + 1
        )
        return rows.astype(np.int64)[:, None], columns.astype(np.int64)[None, :]


def scatter(seed, name, window, *, pitch_um, jitter=1.0):
    """
    One point for each cell of a jittered grid, in row-major order.

    Args:
        seed (int): of the tissue.
        name (str): of the grid.
        window (Window): all cells that touch it are used.
        pitch_um (float): side of a cell.
        jitter (float): 1 puts a point anywhere in its cell, 0 in its centre.

    Returns:
        tuple: ids (uint64), y_um, x_um (float64), each of shape (N,).
    """
    rows, columns = window.grid(pitch_um)
    ids = place_ids(seed, name, rows, columns)
    y_um = (rows + 0.5 + jitter * (uniform(ids, "y") - 0.5)) * pitch_um
    x_um = (columns + 0.5 + jitter * (uniform(ids, "x") - 0.5)) * pitch_um
    return ids.ravel(), y_um.ravel(), x_um.ravel()


def glass_map(anatomy, y_um, x_um):
    """
    Where there is no tissue: beyond its border and in tears.

    Args:
        anatomy (Anatomy): of the tissue.
        y_um (ndarray): float, shape (H,), positions of the rows, ascending.
        x_um (ndarray): float, shape (W,), positions of the columns, ascending.

    Returns:
        ndarray: bool, shape (H, W).
    """
    glass = np.full((len(y_um), len(x_um)), anatomy.glass_fraction == 1)
    if anatomy.glass_fraction == 1:
        return glass

    def noise(name, scale_um):
        return smooth_noise(anatomy.seed, name, y_um, x_um, scale_um=scale_um)

    rough = noise("rough", 22.0) + np.float32(0.5) * noise("ragged", 6.0)
    if anatomy.glass_fraction > 0:
        level = NormalDist().inv_cdf(anatomy.glass_fraction)
        glass |= noise("glass", 260.0) + np.float32(0.06) * rough < np.float32(level)
    if anatomy.gap_share > 0:
        glass |= _gaps(anatomy, y_um, x_um, F32(6.0) * rough)
    if anatomy.core_width_um > 0:
        glass |= _outside_cores(anatomy, y_um, x_um, F32(8.0) * rough)
    if anatomy.tear_density > 0:
        # A tear follows a zero line of one field and opens where another is high.
        opening = noise("tear opening", 70.0) - np.float32(2.2 - 1.5 * anatomy.tear_density)
        path = np.abs(noise("tear", 110.0) + np.float32(0.02) * rough)
        glass |= path < np.float32(0.06) * opening
    return glass


def _gaps(anatomy, y_um, x_um, ragged_um):
    """Strips of glass, all in one direction."""
    place = place_ids(anatomy.seed, "gaps", 0, 0)
    turn, start = (float(uniform(place, name).ravel()[0]) for name in ("turn", "start"))
    # Along an axis of the scan or nearly so, as glass is often met at the border of a tile
    turn = np.pi / 2 * round(4 * turn) + 0.5 * (4 * turn - round(4 * turn))
    across_um = np.cos(turn) * x_um + (np.sin(turn) * y_um)[:, None] + start * GAP_PITCH_UM
    return (across_um + ragged_um) % GAP_PITCH_UM < anatomy.gap_share * GAP_PITCH_UM


def _outside_cores(anatomy, y_um, x_um, ragged_um):
    """All but the cores of a needle biopsy, which bend a little and are ragged."""
    half_width_um, half_length_um = anatomy.core_width_um / 2, anatomy.core_length_um / 2
    bend = smooth_noise(anatomy.seed, "core", y_um, x_um, scale_um=2 * anatomy.core_width_um)
    pitch_um = CORE_PITCH * anatomy.core_width_um
    from_axis_um = y_um[:, None] % pitch_um - pitch_um / 2
    across_um = np.abs(from_axis_um + 0.2 * half_width_um * bend) - half_width_um
    along_um = np.abs(x_um - half_width_um - half_length_um) - half_length_um
    return np.maximum(across_um, along_um + 0.2 * half_width_um * bend) + ragged_um > 0


def is_spared(anatomy, y_um, x_um):
    """
    Which places lie in lobules without fat.

    Args:
        anatomy (Anatomy): of the tissue.
        y_um, x_um (ndarray): float, of equal shape.

    Returns:
        ndarray: bool, of that shape.
    """
    if anatomy.spared_share == 0:
        return np.zeros(y_um.shape, bool)
    level = NormalDist().inv_cdf(anatomy.spared_share)
    return smooth_noise_at(anatomy.seed, "lobule", y_um, x_um, scale_um=LOBULE_UM) < level


def vessel_maps(anatomy, y_um, x_um):
    """
    Vessels and the connective tissue around them.

    Args:
        anatomy (Anatomy): of the tissue.
        y_um (ndarray): float, shape (H,), positions of the rows, ascending.
        x_um (ndarray): float, shape (W,), positions of the columns, ascending.

    Returns:
        tuple: depth into the nearest wall (float32, shape (H, W): below 0 in the lumen, 0 to 1
        in the wall, more outside) and how full of blood the lumen is (float32, 0 to 1).
    """
    depth = np.full((len(y_um), len(x_um)), 9, np.float32)
    blood = np.zeros_like(depth)
    window = Window(y_um[0], x_um[0], y_um[-1], x_um[-1]).padded(VESSEL_REACH_UM)
    # More than one in a square: smaller squares.
    pitch_um = VESSEL_PITCH_UM / max(1, anatomy.vessel_density) ** 0.5
    ids, centre_y_um, centre_x_um = scatter(anatomy.seed, "vessel", window, pitch_um=pitch_um)
    present = np.flatnonzero(uniform(ids, "present") < anatomy.vessel_density)
    ragged = smooth_noise(anatomy.seed, "vessel outline", y_um, x_um, scale_um=14.0)
    for k in present:
        vessel = ids[k : k + 1]
        radius_um = 8 + 37 * uniform(vessel, "radius") ** 2.5
        wall_um = 2.5 + 0.9 * radius_um * uniform(vessel, "wall") ** 3
        distance_um = _ellipse_distance(
            vessel, radius_um, y_um - centre_y_um[k], x_um - centre_x_um[k]
        )
        ragged_um = (0.12 * radius_um).astype(np.float32) * ragged
        this = (distance_um + ragged_um) / wall_um.astype(np.float32)
        nearer = this < depth
        depth[nearer] = this[nearer]
        blood[nearer] = np.clip(2 * uniform(vessel, "blood") - 0.7, 0, 1)
    return depth, blood


def _ellipse_distance(ellipse, radius_um, y_um, x_um):
    """Distance from the outline of one random ellipse, roughly in um, shape (H, W)."""
    turn = 2 * np.pi * uniform(ellipse, "turn")
    stretch = 1 + uniform(ellipse, "stretch")
    along = (np.cos(turn) * x_um + (np.sin(turn) * y_um)[:, None]) / stretch
    across = np.cos(turn) * y_um[:, None] - np.sin(turn) * x_um
    return (np.sqrt(along * along + across * across) - radius_um).astype(np.float32)


@dataclass(frozen=True)
class Cells:
    """
    Hepatocytes around each pixel, shape (H, W) each.

    Attributes:
        border_um (ndarray): float32, distance to the border of the pixel's cell.
        shade (ndarray): float32, 0 to 1, one value for each cell.
        edge (ndarray): float32, 0 to 1, one value for each pair of cells that share a border.
    """

    border_um: np.ndarray
    shade: np.ndarray
    edge: np.ndarray


def cell_maps(anatomy, y_um, x_um):
    """
    Divide the tissue into hepatocytes: each point belongs to the nearest centre.

    Args:
        anatomy (Anatomy): of the tissue.
        y_um (ndarray): float, shape (H,), positions of the rows, ascending.
        x_um (ndarray): float, shape (W,), positions of the columns, ascending.

    Returns:
        Cells: of shape (H, W).
    """
    window = Window(y_um[0], x_um[0], y_um[-1], x_um[-1]).padded(CELL_PITCH_UM)
    rows, columns = window.grid(CELL_PITCH_UM)
    ids = place_ids(anatomy.seed, CELLS, rows, columns)
    row, y = _cell_coordinates(y_um, rows)
    column, x = _cell_coordinates(x_um, columns)
    wave = [
        np.float32(0.05) * smooth_noise(anatomy.seed, f"cell wave {axis}", y_um, x_um, scale_um=5.0)
        for axis in "yx"
    ]
    y, x = y[:, None] + wave[0], x[None, :] + wave[1]
    # Centres relative to the corner of their grid cell, so that rounding is the same everywhere.
    centre_y, centre_x = (
        (0.5 + CELL_JITTER * (uniform(ids, axis) - 0.5)).astype(np.float32) for axis in "yx"
    )
    first, second = _two_nearest(centre_y, centre_x, row, column, y, x)
    apart_y, apart_x = second.y - first.y, second.x - first.x
    apart = np.sqrt(apart_y * apart_y + apart_x * apart_x)
    border = (second.square - first.square) / (2 * apart)
    shade = uniform(ids, "shade").astype(np.float32)
    edge = shade[first.row, first.column] + shade[second.row, second.column]
    return Cells(
        border_um=border * np.float32(CELL_PITCH_UM),
        shade=shade[first.row, first.column],
        edge=edge * np.float32(7) % np.float32(1),
    )


@dataclass(frozen=True)
class _Nearest:
    """For each pixel the squared distance, place and grid cell of one centre near it."""

    square: np.ndarray
    y: np.ndarray
    x: np.ndarray
    row: np.ndarray
    column: np.ndarray


def _cell_coordinates(position_um, grid):
    """Index into the grid and place in its cell (0 to 1) of each position."""
    position = position_um / CELL_PITCH_UM
    cell = np.floor(position)
    return cell.astype(np.int64) - grid.min(), (position - cell).astype(np.float32)


def _two_nearest(centre_y, centre_x, row, column, y, x):
    """The nearest and the second nearest of the nine centres around each pixel."""
    squares = np.full((2, *y.shape), np.inf, np.float32)
    steps = np.zeros((2, *y.shape), np.int8)
    for step in range(9):
        down, right = divmod(step, 3)
        at = np.ix_(row + down - 1, column + right - 1)
        dy = centre_y[at] - (y - np.float32(down - 1))
        dx = centre_x[at] - (x - np.float32(right - 1))
        square = dy * dy + dx * dx
        nearer = square < squares[0]
        between = ~nearer & (square < squares[1])
        squares[1] = np.where(nearer, squares[0], np.where(between, square, squares[1]))
        steps[1] = np.where(nearer, steps[0], np.where(between, step, steps[1]))
        squares[0] = np.where(nearer, square, squares[0])
        steps[0] = np.where(nearer, step, steps[0])
    return [
        _nearest(centre_y, centre_x, row, column, square, step)
        for square, step in zip(squares, steps, strict=True)
    ]


def _nearest(centre_y, centre_x, row, column, square, step):
    down, right = step // 3 - 1, step % 3 - 1
    at_row, at_column = row[:, None] + down, column[None, :] + right
    return _Nearest(
        square=square,
        y=centre_y[at_row, at_column] + down,
        x=centre_x[at_row, at_column] + right,
        row=at_row,
        column=at_column,
    )
