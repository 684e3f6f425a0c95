"""Where the fat droplets of the synthetic liver are, how large, and who owns an overlap."""

from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage, spatial

from steatosis_d2.data.synthetic.layout import glass_map, is_spared, scatter
from steatosis_d2.data.synthetic.noise import place_ids, smooth_noise_at, uniform
from steatosis_d2.data.synthetic.structures import opening_maps

SMALLEST_RADIUS_UM = 0.75
MAX_RADIUS_UM = 30.0
MAX_OUTLINE = 1.165  # no outline reaches farther from its centre than this many radii
ROOM_STEP_UM = 4.0
MEMBRANE_UM = (0.1, 1.0)


@dataclass(frozen=True)
class SizeClass:
    """
    Droplets of one range of sizes: one candidate for each cell of a jittered grid.

    Attributes:
        name (str): of the class.
        pitch_um (float): side of the grid's cells.
        diameter_um (tuple): smallest and largest.
        skew (float): above 1 small ones, below 1 large ones are the more frequent.
        zone_um (float): scale of the dense and the sparse places.
        margin_um (float): how far outside a window a candidate can still matter.
        saturation (tuple): (most, rate): candidates present with probability p cover the share
            most * (1 - exp(-rate * p)) of free tissue; fitted to 1 to 3 mm2 of drawn tissue.
    """

    name: str
    pitch_um: float
    diameter_um: tuple[float, float]
    skew: float
    zone_um: float
    margin_um: float
    saturation: tuple[float, float]


# A droplet in the window is cut by neighbours up to 75 um outside it; their sizes depend on
# larger ones farther out, and so on: the margins add up from the last class to the clumps.
SIZE_CLASSES = (
    SizeClass("macro", 31.0, (20.0, 2 * MAX_RADIUS_UM), 1.3, 90.0, 200.0, (0.44, 2.3)),
    SizeClass("medium", 15.0, (8.0, 20.0), 1.3, 60.0, 115.0, (0.37, 1.8)),
    SizeClass("small", 6.5, (2 * SMALLEST_RADIUS_UM, 8.0), 0.6, 25.0, 90.0, (0.325, 1.8)),
)
CLUMP_PITCH_UM = 100.0
CLUMP_REACH_UM = 100.0  # from a clump's place to its farthest member
CLUMP_MARGIN_UM = 300.0
CLUMP_RADIUS_UM = (1.5, 11.0)
CLUMP_MEMBERS = 9
CLUMP_COVER = 0.041  # share of the tissue covered if each grid cell has its clump; measured


@dataclass(frozen=True)
class Droplets:
    """Columns of equal length, one entry a droplet; positions in um of the slide."""

    ids: np.ndarray
    y_um: np.ndarray
    x_um: np.ndarray
    radius_um: np.ndarray

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return Droplets(*(getattr(self, column.name)[index] for column in fields(self)))

    @classmethod
    def concatenate(cls, parts):
        """One table of several."""
        names = [column.name for column in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def place_droplets(anatomy, window):
    """
    All fat droplets that can touch a window, or cut a droplet that does.

    Classes are placed from the largest to the smallest, clumps before all. A candidate shrinks
    until it fits between the tissue's borders, the droplets already placed and the larger
    candidates of its class, and is given up where that leaves too little of it.

    Args:
        anatomy (Anatomy): of the tissue.
        window (Window): in um.

    Returns:
        Droplets: in an order that does not depend on the window.
    """
    placed = Droplets(np.empty(0, np.uint64), np.empty(0), np.empty(0), np.empty(0))
    if anatomy.fat_fraction == 0 or anatomy.glass_fraction == 1:
        return placed
    room_um = _room(anatomy, window.padded(CLUMP_MARGIN_UM + CLUMP_PITCH_UM + CLUMP_REACH_UM))
    candidates, clumps = _clump_candidates(anatomy, window.padded(CLUMP_MARGIN_UM))
    placed = _fit(candidates, clumps, placed, room_um, smallest_um=SMALLEST_RADIUS_UM)
    for size_class, density in zip(SIZE_CLASSES, _densities(anatomy), strict=True):
        candidates = _candidates(
            anatomy, window.padded(size_class.margin_um), size_class, density=density
        )
        # Squeezed between neighbours, a droplet may be half as large as its class begins.
        smallest_um = max(SMALLEST_RADIUS_UM, size_class.diameter_um[0] / 4)
        fitted = _fit(candidates, candidates.ids, placed, room_um, smallest_um=smallest_um)
        placed = Droplets.concatenate([placed, fitted])
    return placed


def find_borders(droplets):
    """
    The straight borders between droplets that overlap or touch.

    As between two soap bubbles, the border is the line through the points where the two circles
    meet (their radical line), and a membrane of 0.1 to 1 um lies along it. A droplet owns what
    of its outline lies on its own side of all its borders. Outlines are convex, so what a
    droplet owns is convex, and no two droplets own the same point.

    Args:
        droplets (Droplets): from :func:`place_droplets`.

    Returns:
        dict: index of a droplet -> list of (normal_y, normal_x, offset_um): it owns the points p
        with (p - centre) . normal <= offset_um.
    """
    borders: dict[int, list] = {}
    if len(droplets) == 0:
        return borders
    reach_um = MAX_OUTLINE * droplets.radius_um + MEMBRANE_UM[1] / 2
    second, first = _neighbours(droplets, droplets, 2 * reach_um)
    dy = droplets.y_um[second] - droplets.y_um[first]
    dx = droplets.x_um[second] - droplets.x_um[first]
    distance_um = np.sqrt(dy * dy + dx * dx)
    # Each pair is found from its larger droplet, whose search reaches far enough.
    meet = (distance_um < reach_um[first] + reach_um[second]) & (
        (reach_um[first] > reach_um[second])
        | ((reach_um[first] == reach_um[second]) & (first < second))
    )
    first, second, dy, dx, distance_um = (
        column[meet] for column in (first, second, dy, dx, distance_um)
    )
    squares = droplets.radius_um**2
    line_um = (distance_um + (squares[first] - squares[second]) / distance_um) / 2
    thinness = uniform(droplets.ids, "membrane")
    thinnest_um, thickest_um = MEMBRANE_UM
    thickness_um = thinnest_um + (thickest_um - thinnest_um) * np.minimum(
        thinness[first], thinness[second]
    )
    normals = dy / distance_um, dx / distance_um
    for k, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        y, x, half_um = normals[0][k], normals[1][k], thickness_um[k] / 2
        borders.setdefault(i, []).append((y, x, line_um[k] - half_um))
        borders.setdefault(j, []).append((-y, -x, distance_um[k] - line_um[k] - half_um))
    return borders


def _neighbours(droplets, others, reach_um):
    """Index pairs (droplet, other) whose centres lie within the reach of the other."""
    tree = spatial.cKDTree(np.column_stack([droplets.y_um, droplets.x_um]))
    found = tree.query_ball_point(np.column_stack([others.y_um, others.x_um]), reach_um)
    other = np.repeat(np.arange(len(others)), [len(indices) for indices in found])
    return np.concatenate([np.asarray(indices, int) for indices in found]), other


def _room(anatomy, window):
    """Function (y_um, x_um) -> distance in um to the nearest place that is no parenchyma."""
    farthest_um = 2 * MAX_RADIUS_UM
    rows, columns = window.padded(farthest_um).grid(ROOM_STEP_UM)
    y_um, x_um = (rows.ravel() + 0.5) * ROOM_STEP_UM, (columns.ravel() + 0.5) * ROOM_STEP_UM
    parenchyma = ~glass_map(anatomy, y_um, x_um) & (opening_maps(anatomy, y_um, x_um).depth > 1)
    if parenchyma.all():
        distance_um = np.full(parenchyma.shape, farthest_um)
    else:
        distance_um = ndimage.distance_transform_edt(parenchyma, sampling=ROOM_STEP_UM)

    def room_um(at_y_um, at_x_um):
        row = np.floor(at_y_um / ROOM_STEP_UM).astype(int) - rows[0, 0]
        column = np.floor(at_x_um / ROOM_STEP_UM).astype(int) - columns[0, 0]
        return np.minimum(distance_um[row, column], farthest_um) - ROOM_STEP_UM

    return room_um


def _densities(anatomy):
    """Probability of a candidate, for each size class, that gives the wanted fat."""
    clumped = CLUMP_COVER * _clump_chance(anatomy)
    single, free = max(anatomy.fat_fraction - clumped, 0), 1 - clumped
    other_share = (1 - anatomy.macro_share) / 2
    densities = []
    for size_class, share in zip(
        SIZE_CLASSES, (anatomy.macro_share, other_share, other_share), strict=True
    ):
        cover = single * share
        most, rate = size_class.saturation
        densities.append(-np.log(max(1 - cover / free / most, 0.02)) / rate)
        free -= cover
    return densities


def _clump_chance(anatomy):
    return min(0.9, 4 * anatomy.fat_fraction)


def _candidates(anatomy, window, size_class, *, density):
    """Candidates of one size class."""
    ids, y_um, x_um = scatter(anatomy.seed, size_class.name, window, pitch_um=size_class.pitch_um)
    zone = smooth_noise_at(
        anatomy.seed, f"{size_class.name} zone", y_um, x_um, scale_um=size_class.zone_um
    )
    present = uniform(ids, "present") < density * np.clip(1 + 0.6 * zone, 0, 2)
    present &= ~is_spared(anatomy, y_um, x_um)
    ids, y_um, x_um = ids[present], y_um[present], x_um[present]
    smallest_um, largest_um = size_class.diameter_um
    diameter_um = smallest_um * (largest_um / smallest_um) ** (
        uniform(ids, "diameter") ** size_class.skew
    )
    return Droplets(ids, y_um, x_um, diameter_um / 2)


def _clump_candidates(anatomy, window):
    """Members of the clumps (chains, rings, packs), and the clump of each."""
    clumps, y_um, x_um = scatter(anatomy.seed, "clump", window, pitch_um=CLUMP_PITCH_UM)
    present = uniform(clumps, "present") < _clump_chance(anatomy)
    present &= ~is_spared(anatomy, y_um, x_um)
    clumps, y_um, x_um = (column[present][:, None] for column in (clumps, y_um, x_um))
    member = np.arange(CLUMP_MEMBERS)
    size = 2 + np.floor((CLUMP_MEMBERS - 1) * uniform(clumps, "size"))
    smallest_um, largest_um = CLUMP_RADIUS_UM
    radius_um = smallest_um + (largest_um - smallest_um) * uniform(clumps, "radius") ** 2
    step_um = 2 * radius_um * (0.8 + 0.2 * uniform(clumps, "overlap"))
    offset_y, offset_x = _clump_pattern(clumps, member, size)
    ids = place_ids(0, "clump member", clumps.view(np.int64), member)
    chosen = member < size
    candidates = Droplets(
        ids[chosen],
        (y_um + step_um * offset_y)[chosen],
        (x_um + step_um * offset_x)[chosen],
        (radius_um * (0.75 + 0.25 * uniform(ids, "radius")))[chosen],
    )
    return candidates, np.broadcast_to(clumps, ids.shape)[chosen]


def _clump_pattern(clumps, member, size):
    """Offsets of the members from the clump's place, in steps, shape (clumps, members)."""
    turn = 2 * np.pi * uniform(clumps, "turn")
    kind = uniform(clumps, "kind")
    is_ring = (kind < 0.3) & (size >= 4)
    bend = np.where(is_ring, 2 * np.pi / size, 1.2 * uniform(clumps, "bend") - 0.6)
    heading = turn + bend * member
    y, x = np.cumsum(np.sin(heading), axis=1), np.cumsum(np.cos(heading), axis=1)
    # A pack: one in the middle, six around it, the next in the gaps of those.
    is_pack = kind > 0.7
    angle = turn + member * np.pi / 3 + np.where(member > 6, np.pi / 6, 0)
    distance = np.where(member == 0, 0, np.where(member > 6, np.sqrt(3), 1))
    y = np.where(is_pack, distance * np.sin(angle), y - y[:, 4:5])
    x = np.where(is_pack, distance * np.cos(angle), x - x[:, 4:5])
    return y, x


def _fit(candidates, groups, placed, room_um, *, smallest_um):
    """Candidates, shrunk to fit and without those that shrank below the smallest radius."""
    room = room_um(candidates.y_um, candidates.x_um)
    candidates, kept = _shrink(candidates, room, smallest_um)
    groups = groups[kept]
    limits = _limits(candidates, placed)
    candidates, kept = _shrink(candidates, limits, smallest_um)
    groups = groups[kept]
    limits = _limits(candidates, candidates, groups=groups)
    return _shrink(candidates, limits, smallest_um)[0]


def _shrink(droplets, limits_um, smallest_um):
    radius_um = np.minimum(droplets.radius_um, limits_um)
    kept = radius_um >= smallest_um
    shrunk = Droplets(droplets.ids, droplets.y_um, droplets.x_um, radius_um)
    return shrunk[kept], kept


def _limits(droplets, others, *, groups=None):
    """
    Largest radii with which droplets may overlap others by at most 30% of their own radius.

    With ``groups``, ``others`` are the droplets themselves: the larger of a pair stays as it
    is, and pairs of one group are let alone.
    """
    limits_um = np.full(len(droplets), np.inf)
    if len(droplets) == 0 or len(others) == 0:
        return limits_um
    # Between 10% of its radius apart and 30% overlapping, each as it likes.
    room_share = 1.1 - 0.4 * uniform(droplets.ids, "overlap")
    one, other = _neighbours(
        droplets, others, others.radius_um + room_share.max() * droplets.radius_um.max()
    )
    if groups is not None:
        smaller = droplets.radius_um[one] < droplets.radius_um[other]
        chosen = smaller & (groups[one] != groups[other])
        one, other = one[chosen], other[chosen]
    dy = droplets.y_um[one] - others.y_um[other]
    dx = droplets.x_um[one] - others.x_um[other]
    free_um = np.sqrt(dy * dy + dx * dx) - others.radius_um[other]
    np.minimum.at(limits_um, one, free_um / room_share[one])
    return limits_um
