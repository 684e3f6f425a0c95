"""
Veins, portal tracts and bile ducts of the synthetic liver as pathologists know them.

What is taken for fat most easily is white, round and has a thin wall. So these have what tells
them from fat: flat nuclei along a vein's wall, a ring of round nuclei around a duct, collagen
around both, and outlines that are less round than a droplet's. All in um, hashed by place as in
:mod:`~steatosis_d2.data.synthetic.layout`.
"""

from dataclasses import dataclass

import numpy as np

from steatosis_d2.data.synthetic.layout import Window, scatter, vessel_maps
from steatosis_d2.data.synthetic.noise import place_ids, smooth_noise, uniform

VEIN_PITCH_UM, TRACT_PITCH_UM = 230.0, 330.0
REACH_UM = 330.0  # from the centre of a vein or a tract to its farthest pixel
# What is at a pixel; 0 is neither.
VEIN, COLLAGEN, DUCT, ARTERY = range(1, 5)
EPITHELIUM_UM = 8.0
NUCLEUS_STEP_UM = 6.2  # along a duct
MAX_RING = 48
F = np.float32


@dataclass(frozen=True)
class Structure:
    """
    One opening with its wall, or a field of collagen.

    Attributes:
        identity (int): of the slide.
        kind (int): one of the above.
        y_um, x_um (float): centre.
        radius_um (float): of the lumen, across; of the whole field of collagen.
        stretch (float): length over width.
        turn (float): of the long axis, radians.
        wall_um (float): thickness of the wall.
        ragged (float): how far the outline leaves the ellipse, of the radius.
        blood (float): 0 to 1, share of the lumen filled with red cells.
    """

    identity: int
    kind: int
    y_um: float
    x_um: float
    radius_um: float
    stretch: float
    turn: float
    wall_um: float
    ragged: float
    blood: float

    @property
    def reach_um(self):
        """From the centre to the farthest pixel of the wall."""
        return (self.radius_um * (1 + 2.5 * self.ragged) + self.wall_um) * self.stretch + 1


@dataclass(frozen=True)
class Openings:
    """
    Vessels of all kinds, shape (H, W) each.

    Attributes:
        depth (ndarray): float32, into the nearest wall: below 0 in the lumen, 0 to 1 in the wall,
            more outside.
        blood (ndarray): float32, 0 to 1, how full the lumen is.
        kind (ndarray): uint8, of the structure at the pixel; 0 also for plain vessels.
    """

    depth: np.ndarray
    blood: np.ndarray
    kind: np.ndarray


def opening_maps(anatomy, y_um, x_um):
    """
    The plain vessels of :func:`~.layout.vessel_maps`, and veins, tracts and ducts.

    Args:
        anatomy (Anatomy): of the tissue.
        y_um (ndarray): float, shape (H,), positions of the rows, ascending.
        x_um (ndarray): float, shape (W,), positions of the columns, ascending.

    Returns:
        Openings: of shape (H, W).
    """
    depth, blood = vessel_maps(anatomy, y_um, x_um)
    kind = np.zeros(depth.shape, np.uint8)
    found = place_structures(anatomy, Window(y_um[0], x_um[0], y_um[-1], x_um[-1]))
    if found:
        outline = smooth_noise(anatomy.seed, "vein outline", y_um, x_um, scale_um=26.0)
        outline += F(0.35) * smooth_noise(anatomy.seed, "fine outline", y_um, x_um, scale_um=8.0)
        for one in found:
            _draw(one, outline, y_um, x_um, depth, blood, kind)
    return Openings(depth, blood, kind)


def place_structures(anatomy, window):
    """
    All veins, tracts and what lies in them that can touch a window.

    Args:
        anatomy (Anatomy): of the tissue.
        window (Window): in um.

    Returns:
        list[Structure]: collagen first, since all others lie in it or apart from it.
    """
    window = window.padded(REACH_UM)
    tracts = _present(anatomy, "tract", window, TRACT_PITCH_UM, anatomy.tract_density)
    veins = _present(anatomy, "vein", window, VEIN_PITCH_UM, anatomy.vein_density)
    fields = [_collagen(*place) for place in tracts]
    inside = [one for place in tracts for one in _triad(*place)]
    return fields + [_vein(*place) for place in veins] + inside


def duct_nuclei(anatomy, window):
    """
    The round nuclei that ring the bile ducts.

    Args:
        anatomy (Anatomy): of the tissue.
        window (Window): in um.

    Returns:
        tuple[ndarray, ndarray, ndarray]: ids (uint64), y_um, x_um, shape (N,).
    """
    ids, y_um, x_um = [np.empty(0, np.uint64)], [np.empty(0)], [np.empty(0)]
    for one in place_structures(anatomy, window):
        if one.kind != DUCT:
            continue
        ring_um = one.radius_um + 0.55 * EPITHELIUM_UM
        count = min(MAX_RING, int(2 * np.pi * ring_um * (1 + one.stretch) / 2 / NUCLEUS_STEP_UM))
        member = place_ids(one.identity, "duct nucleus", np.arange(count), 0)
        angle = 2 * np.pi * (np.arange(count) + 0.5 * uniform(member, "angle")) / count
        away_um = ring_um + 1.2 * (uniform(member, "away") - 0.5)
        along, across = one.stretch * np.cos(angle) * away_um, np.sin(angle) * away_um
        sine, cosine = np.sin(one.turn), np.cos(one.turn)
        ids.append(member)
        y_um.append(one.y_um + sine * along + cosine * across)
        x_um.append(one.x_um + cosine * along - sine * across)
    return np.concatenate(ids), np.concatenate(y_um), np.concatenate(x_um)


def _present(anatomy, name, window, pitch_um, density):
    """Places of a jittered grid that hold one: (identity, y, x) each."""
    if density == 0:
        return []
    # More than one in a square: smaller squares.
    ids, y_um, x_um = scatter(
        anatomy.seed, name, window, pitch_um=pitch_um / max(1, density) ** 0.5, jitter=0.8
    )
    chosen = np.flatnonzero(uniform(ids, "present") < density)
    return [(ids[k : k + 1], float(y_um[k]), float(x_um[k])) for k in chosen]


def _draws(place, *names):
    """Numbers from 0 to 1 of a place, by name."""
    return [float(uniform(place, name)[0]) for name in names]


def _vein(place, y_um, x_um):
    """A central or collecting vein, or a wide sinusoid: thin wall, mostly empty."""
    radius, stretch, turn, wall, ragged, blood = _draws(
        place, "radius", "stretch", "turn", "wall", "ragged", "blood"
    )
    radius_um = 6.0 * 9.0**radius
    return Structure(
        identity=int(place[0]),
        kind=VEIN,
        y_um=y_um,
        x_um=x_um,
        radius_um=radius_um,
        # Small ones are often cut along
        stretch=1 + (0.7 if radius_um > 25 else 2.2) * stretch**1.5,
        turn=2 * np.pi * turn,
        wall_um=1.0 + (0.4 + 0.07 * radius_um) * wall**2,
        ragged=0.06 + 0.14 * ragged,
        blood=max(0.0, 1.6 * blood - 1.0),
    )


def _collagen(place, y_um, x_um):
    """The field of a portal tract."""
    radius, stretch, turn = _draws(place, "field", "field stretch", "field turn")
    return Structure(
        identity=int(place[0]),
        kind=COLLAGEN,
        y_um=y_um,
        x_um=x_um,
        radius_um=30 + 45 * radius,
        stretch=1 + 0.8 * stretch,
        turn=2 * np.pi * turn,
        wall_um=1.0,
        ragged=0.18,
        blood=0.0,
    )


def _triad(place, y_um, x_um):
    """Portal vein, artery and one to three bile ducts of a tract."""
    field = _collagen(place, y_um, x_um)
    size, turn, ducts = _draws(place, "portal", "triad turn", "ducts")
    vein_um = 8 + (0.38 * field.radius_um - 8) * size
    yield _member(place, "portal vein", field, VEIN, vein_um, away_um=0.25 * field.radius_um)
    n_members = 2 + int(3 * ducts)
    for number in range(n_members):
        angle = 2 * np.pi * (turn + number / n_members)
        radius, skew = _draws(place, f"lumen {number}", f"skew {number}")
        kind = ARTERY if number == 0 else DUCT
        largest_um = 5.0 if kind == ARTERY else 0.22 * field.radius_um
        lumen_um = 1.8 + (largest_um - 1.8) * radius**1.5
        yield _member(
            place, f"member {number}", field, kind, lumen_um,
            away_um=(0.62 + 0.25 * skew) * field.radius_um, angle=angle,
        )  # fmt: skip


def _member(place, name, field, kind, radius_um, *, away_um, angle=None):
    """A vessel or duct of a tract, so far from its middle."""
    at, stretch, turn, wall, blood, number = _draws(
        place, *(f"{name} {what}" for what in ("at", "stretch", "turn", "wall", "blood", "id"))
    )
    angle = 2 * np.pi * at if angle is None else angle
    walls_um = {VEIN: 1.0 + 2.5 * wall, DUCT: EPITHELIUM_UM, ARTERY: 3.5 + 5 * wall}
    return Structure(
        identity=int(number * 2**53),
        kind=kind,
        y_um=field.y_um + away_um * np.sin(angle),
        x_um=field.x_um + away_um * np.cos(angle),
        radius_um=radius_um,
        stretch=1 + (0.9 if kind == VEIN else 0.4) * stretch,
        turn=2 * np.pi * turn,
        wall_um=walls_um[kind],
        ragged=0.12 if kind == VEIN else 0.03,
        blood=max(0.0, 1.6 * blood - 0.8) if kind != DUCT else 0.0,
    )


def _draw(one, outline, y_um, x_um, depth, blood, kind):
    """Write one structure into the maps, where it lies on top."""
    rows = _span(y_um, one.y_um, one.reach_um)
    columns = _span(x_um, one.x_um, one.reach_um)
    dy, dx = (y_um[rows] - one.y_um)[:, None], x_um[columns] - one.x_um
    sine, cosine = np.sin(one.turn), np.cos(one.turn)
    along, across = (cosine * dx + sine * dy) / one.stretch, cosine * dy - sine * dx
    edge_um = one.radius_um * (1 + F(one.ragged) * np.clip(outline[rows, columns], -2.5, 2.5))
    into = ((np.sqrt(along * along + across * across) - edge_um) / one.wall_um).astype(F)
    here = depth[rows, columns], blood[rows, columns], kind[rows, columns]
    if one.kind == COLLAGEN:
        on_top = (into < 0) & (here[0] > 1)
        into = np.full(into.shape, F(0.5))
    else:
        on_top = (into <= 1) & ((here[2] == COLLAGEN) | (into < here[0]))
    for field, value in zip(here, (into, F(one.blood), np.uint8(one.kind)), strict=True):
        field[on_top] = value[on_top] if np.ndim(value) else value


def _span(positions_um, center_um, reach_um):
    """Slice of the ascending positions within a reach."""
    first, last = np.searchsorted(positions_um, (center_um - reach_um, center_um + reach_um))
    return slice(int(first), int(last))
