"""How the synthetic liver looks: stains, other cells, focus and camera."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from steatosis_d2.data.synthetic.layout import (
    CELL_JITTER,
    CELL_PITCH_UM,
    CELLS,
    Cells,
    cell_maps,
    glass_map,
    scatter,
)
from steatosis_d2.data.synthetic.noise import pixel_noise, smooth_noise, uniform
from steatosis_d2.data.synthetic.structures import (
    COLLAGEN,
    DUCT,
    VEIN,
    duct_nuclei,
    opening_maps,
)

SINUSOID_SHARE = 0.4  # of the borders between two cells
BLUR_REACH = 3.0  # standard deviations
DENSITY_STEPS = 2048  # per unit of optical density
TRANSMITTANCE = np.exp(-np.arange(4 * DENSITY_STEPS) / DENSITY_STEPS).astype(np.float32)
F = np.float32


@dataclass(frozen=True)
class Look:
    """
    Stain, scanner and section. Optical densities are natural logarithms, for R, G, B.

    Attributes:
        white_rgb (tuple): of blank glass, grey levels.
        hematoxylin_od (tuple): of a nucleus.
        eosin_od (tuple): of cytoplasm.
        blood_od (tuple): of red blood cells.
        granularity (float): contrast of the cytoplasm's grain.
        cell_contrast (float): how much the cells differ.
        border_contrast (float): how dark the cells' borders are.
        clearing (float): 0 to 1, share of the cytoplasm that is pale and flocculent (glycogen).
        sinusoid_um (float): width of the open sinusoids.
        congestion (float): 0 to 1, blood in the sinusoids.
        cellularity (float): 0 to 1, small dark nuclei of other cells.
        dirt (float): 0 to 1, how dark the out-of-focus smudges on the glass are.
        blur_um (float): standard deviation of the focus blur, at most 0.6.
        noise (float): of the camera, in grey levels.
    """

    white_rgb: tuple[float, float, float] = (240.0, 240.0, 239.0)
    hematoxylin_od: tuple[float, float, float] = (1.0, 1.35, 0.75)
    eosin_od: tuple[float, float, float] = (0.15, 0.62, 0.33)
    blood_od: tuple[float, float, float] = (0.1, 1.0, 0.75)
    granularity: float = 0.12
    cell_contrast: float = 0.2
    border_contrast: float = 0.5
    clearing: float = 0.0
    sinusoid_um: float = 2.5
    congestion: float = 0.3
    cellularity: float = 0.4
    dirt: float = 0.2
    blur_um: float = 0.3
    noise: float = 1.5


@dataclass(frozen=True)
class Ground:
    """
    The tissue without fat and nuclei, shape (H, W) each, float32 unless said otherwise.

    Attributes:
        open (ndarray): bool, white without being fat.
        clear (ndarray): 0 tissue to 1 nothing in the light's way.
        sinusoid (ndarray): 0 to 1.
        wall (ndarray): bool, of vessels.
        depth (ndarray): into the wall of the nearest vessel, as of :func:`opening_maps`.
        kind (ndarray): uint8, of the structure there, as of :func:`opening_maps`.
        blood (ndarray): share of this opening filled with red blood cells.
        cells (Cells): the hepatocytes.
    """

    open: np.ndarray
    clear: np.ndarray
    sinusoid: np.ndarray
    wall: np.ndarray
    depth: np.ndarray
    kind: np.ndarray
    blood: np.ndarray
    cells: Cells


@dataclass(frozen=True)
class Stains:
    """Amount of each dye at each pixel, float32, shape (H, W); 1 is a nucleus, cytoplasm, blood."""

    hematoxylin: np.ndarray
    eosin: np.ndarray
    blood: np.ndarray


def draw_ground(anatomy, look, frame):
    """
    Cells, vessels, sinusoids and glass of a frame.

    Args:
        anatomy (Anatomy): what is where.
        look (Look): how wide the sinusoids are, and how full.
        frame (Frame): which pixels.

    Returns:
        Ground: of the frame's shape.
    """
    y_um, x_um = frame.y_um, frame.x_um
    cells = cell_maps(anatomy, y_um, x_um)
    openings = opening_maps(anatomy, y_um, x_um)
    depth, vessel_blood = openings.depth, openings.blood
    glass = glass_map(anatomy, y_um, x_um)
    # A sinusoid swells and closes along its way.
    swelling = smooth_noise(anatomy.seed, "swelling", y_um, x_um, scale_um=11.0)
    ragged = smooth_noise(anatomy.seed, "ragged slit", y_um, x_um, scale_um=1.8)
    half_um = F(look.sinusoid_um / 2) * (F(0.6) + F(0.8) * swelling + F(0.25) * ragged)
    tissue = (depth > 1) & ~glass
    sinusoid = np.clip((half_um - cells.border_um) / F(0.8), 0, 1)
    sinusoid *= (cells.edge < SINUSOID_SHARE) & tissue
    plasma = smooth_noise(anatomy.seed, "plasma", y_um, x_um, scale_um=20.0)
    slit = sinusoid * np.clip(F(0.75) + F(0.2) * plasma, 0, 1)
    nothing = glass | (depth < 0)
    crowd = smooth_noise(anatomy.seed, "blood", y_um, x_um, scale_um=14.0)
    blood = np.where(sinusoid > 0, F(look.congestion), vessel_blood * (depth < 0))
    blood *= np.clip(F(0.7) + F(0.6) * crowd, 0, 1) * ~glass
    return Ground(
        open=nothing | (slit > 0.6),
        clear=np.maximum(nothing * (1 - F(0.2) * blood), slit),  # blood's plasma is pinkish
        sinusoid=sinusoid,
        wall=~nothing & ~tissue,
        depth=depth,
        kind=openings.kind,
        blood=blood,
        cells=cells,
    )


def draw_stains(anatomy, look, frame, ground, fat, fat_clear):
    """
    Dyes in a frame.

    Args:
        anatomy (Anatomy): what is where.
        look (Look): how it looks.
        frame (Frame): which pixels, shape (H, W).
        ground (Ground): from :func:`draw_ground`.
        fat (ndarray): bool, shape (H, W), the droplets.
        fat_clear (ndarray): float32, shape (H, W), how little tissue veils them, 0 to 1.

    Returns:
        Stains: of the frame's shape.
    """
    eosin, hematoxylin = _draw_cytoplasm(anatomy, look, frame, ground)
    rim = _rim(fat, frame.mpp) * np.clip(0.25 + 0.2 * _noise(anatomy, frame, "rim", 12.0), 0, 1)
    eosin += rim
    hematoxylin += F(0.5) * rim
    tissue = F(1) - np.maximum(ground.clear, fat_clear)
    nuclei = _blob_map(_nuclei(anatomy, look, frame, ground, fat), frame)
    chromatin = 0.9 + 0.18 * _noise(anatomy, frame, "chromatin", 0.8)
    hematoxylin = hematoxylin * (1 - nuclei) * tissue + nuclei * chromatin
    eosin = eosin * (1 - F(0.4) * np.minimum(nuclei, 1)) * tissue
    # Red cells stay in their vessel, and the tissue at its edge shines through them.
    opening = np.maximum(np.minimum(2 * ground.sinusoid, 1), ground.depth < 0)
    red = _blob_map(_red_cells(anatomy, frame, ground, fat), frame) * opening
    return Stains(hematoxylin * (1 - red), eosin * (1 - red), red)


def expose(anatomy, look, frame, stains):
    """
    Photograph the stained section.

    Args:
        anatomy (Anatomy): whose seed the camera's noise follows.
        look (Look): dyes, focus, white level, noise.
        frame (Frame): which pixels, shape (H, W).
        stains (Stains): from :func:`draw_stains`.

    Returns:
        ndarray: uint8, shape (H, W, 3), RGB.
    """
    rows, columns = frame.top + np.arange(frame.height), frame.left + np.arange(frame.width)
    noise = pixel_noise(anatomy.seed, "camera", rows, columns) * F(look.noise * np.sqrt(3))
    smudge = np.clip(_noise(anatomy, frame, "dirt", 30.0) - 2, 0, 1) * F(0.25 * look.dirt)
    channels = []
    for channel in range(3):
        density = (
            smudge
            + stains.hematoxylin * F(look.hematoxylin_od[channel])
            + stains.eosin * F(look.eosin_od[channel])
            + stains.blood * F(look.blood_od[channel])
        )
        steps = np.clip(density * F(DENSITY_STEPS), 0, len(TRANSMITTANCE) - 1).astype(np.int32)
        light = ndimage.gaussian_filter(
            TRANSMITTANCE[steps], look.blur_um / frame.mpp, truncate=BLUR_REACH
        )
        channels.append(light * F(look.white_rgb[channel]) + noise[..., channel])
    return np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)


def _noise(anatomy, frame, name, scale_um):
    return smooth_noise(anatomy.seed, name, frame.y_um, frame.x_um, scale_um=scale_um)


def _draw_cytoplasm(anatomy, look, frame, ground):
    """Eosin and hematoxylin of the tissue between the nuclei."""
    cells = ground.cells
    grain = _noise(anatomy, frame, "grain", 0.6) + F(0.7) * _noise(anatomy, frame, "lumps", 1.4)
    lobule = _noise(anatomy, frame, "lobule", 60.0)
    line = np.clip(F(1.2) - cells.border_um / F(0.7), 0, 1) * F(look.border_contrast)
    line *= np.clip(F(0.6) + F(0.3) * _noise(anatomy, frame, "border", 6.0), 0, 1)
    eosin = 1 + F(look.granularity) * grain + F(0.08) * lobule + F(0.6) * line
    eosin += F(look.cell_contrast) * (cells.shade - F(0.5))
    basophilia = _noise(anatomy, frame, "basophilia", 8.0)
    hematoxylin = 0.1 + F(0.25 * look.granularity) * grain + F(0.03) * basophilia + F(0.2) * line
    if look.clearing > 0:
        pale = _pale_cytoplasm(anatomy, look, frame, cells)
        eosin *= 1 - pale
        hematoxylin *= 1 - pale
    fibres = _noise(anatomy, frame, "fibres", 5.0) + ground.depth * 3
    fibres = np.abs(fibres % 1 - F(0.5)) * np.abs(_noise(anatomy, frame, "bundles", 9.0))
    if ground.kind.any():
        strands = np.abs(_noise(anatomy, frame, "strands", 2.6)) - F(0.5)
        fibres = np.where(ground.kind == COLLAGEN, F(0.25) * strands, fibres)
        # The epithelium of a duct is pale and has no fibres.
        fibres = np.where(ground.kind == DUCT, F(-0.4) + F(0.1) * grain, fibres)
    wall_eosin = F(0.75) + F(0.5) * fibres + F(0.6 * look.granularity) * grain
    eosin = np.where(ground.wall, wall_eosin, eosin)
    wall_hematoxylin = np.where(ground.kind == DUCT, F(0.14), F(0.05) + F(0.2) * fibres)
    hematoxylin = np.where(ground.wall, wall_hematoxylin, hematoxylin)
    return np.maximum(eosin, 0), np.maximum(hematoxylin, 0)


def _pale_cytoplasm(anatomy, look, frame, cells):
    """Share of the dye that glycogen keeps out: a white web that spares the cells' borders."""
    web = _noise(anatomy, frame, "web", 2.0) + F(0.7) * _noise(anatomy, frame, "fine web", 0.8)
    pale = F(0.4) * web + F(1.6 * look.clearing - 0.8) + F(1.2) * (cells.shade - F(0.5))
    inside = np.clip((cells.border_um - F(0.8)) / F(1.5), 0, 1)
    return F(0.85) * np.clip(pale, 0, 1) * inside


def _rim(fat, mpp):
    """1 at the edge of the fat, falling to 0 within about 1 um outside, and 0 inside."""
    near = ndimage.gaussian_filter(fat.astype(F), 0.5 / mpp, truncate=BLUR_REACH)
    return np.where(fat, 0, np.minimum(2 * near, 1))


def _nuclei(anatomy, look, frame, ground, fat):
    """Ellipses of all nuclei of a frame, those of the hepatocytes and the small dark ones."""
    ids, y_um, x_um = scatter(
        anatomy.seed, CELLS, frame.window, pitch_um=CELL_PITCH_UM, jitter=CELL_JITTER
    )
    size = uniform(ids, "nucleus size")
    hepatocytes = _Blobs(
        ids=ids,
        y_um=y_um + 4 * uniform(ids, "nucleus y") - 2,
        x_um=x_um + 4 * uniform(ids, "nucleus x") - 2,
        long_um=2.9 + 1.2 * size + 1.2 * size**8,
        short_um=(2.9 + 1.2 * size + 1.2 * size**8) * (0.8 + 0.2 * uniform(ids, "roundness")),
        strength=0.55 + 0.5 * uniform(ids, "nucleus strength"),
        softness_um=0.6,
        hollow=0.25,
    )
    free = (ground.clear < 0.3) & ~ground.wall & ~fat
    hepatocytes = hepatocytes[uniform(ids, "cut") < 0.85 * hepatocytes.sample(free, frame)]
    ids, y_um, x_um = scatter(anatomy.seed, "small nucleus", frame.window, pitch_um=6.0)
    length = uniform(ids, "length")
    others = _Blobs(
        ids=ids,
        y_um=y_um,
        x_um=x_um,
        long_um=1.8 + 2.6 * length,
        short_um=1.9 - 0.8 * length * uniform(ids, "slimness"),
        strength=0.9 + 0.4 * uniform(ids, "strength"),
        softness_um=0.5,
    )
    lining = (ground.sinusoid > 0) & (ground.clear < 0.9)
    in_wall = np.select([ground.kind == COLLAGEN, ground.kind > 0], [0.3, 0.0], 0.7)
    chance = np.where(ground.wall, in_wall, np.where(lining, 0.5, 0.02)) * (ground.clear < 1) * ~fat
    others = others[uniform(ids, "present") < look.cellularity * others.sample(chance, frame)]
    if not (anatomy.vein_density or anatomy.tract_density):
        return hepatocytes, others
    ring = _duct_ring(anatomy, frame)
    ring = ring[ring.sample((ground.kind == DUCT) & (ground.clear < 0.5), frame)]
    return hepatocytes, others, _endothelium(anatomy, frame, ground), ring


def _endothelium(anatomy, frame, ground):
    """Flat nuclei along the walls of veins."""
    ids, y_um, x_um = scatter(anatomy.seed, "endothelium", frame.window, pitch_um=4.5)
    length = uniform(ids, "length")
    nuclei = _Blobs(
        ids=ids,
        y_um=y_um,
        x_um=x_um,
        long_um=2.4 + 2.2 * length,
        short_um=0.9 + 0.5 * uniform(ids, "thickness"),
        strength=0.9 + 0.4 * uniform(ids, "strength"),
        softness_um=0.5,
    )
    # About 0.7 um of the wall at the lumen, however thick it is
    down, right = np.gradient(ground.depth)
    slope = np.sqrt(down * down + right * right) / F(frame.mpp)
    lining = (ground.kind == VEIN) & (ground.depth >= 0) & (ground.depth < F(0.9) * slope)
    lining &= ground.clear < 0.5  # where glass cuts a vein, there is no wall
    nuclei = nuclei[uniform(ids, "present") < 0.7 * nuclei.sample(lining, frame)]
    # Along the wall: at right angles to where the depth rises
    turn = np.arctan2(nuclei.sample(right, frame), -nuclei.sample(down, frame))
    return dataclasses.replace(nuclei, turn=turn)


def _duct_ring(anatomy, frame):
    """Round nuclei of the bile ducts' epithelium."""
    ids, y_um, x_um = duct_nuclei(anatomy, frame.window)
    size = uniform(ids, "size")
    return _Blobs(
        ids=ids,
        y_um=y_um,
        x_um=x_um,
        long_um=2.3 + 0.8 * size,
        short_um=(2.3 + 0.8 * size) * (0.75 + 0.25 * uniform(ids, "roundness")),
        strength=0.7 + 0.4 * uniform(ids, "strength"),
        softness_um=0.5,
        hollow=0.2,
    )


def _red_cells(anatomy, frame, ground, fat):
    """Ellipses of the red blood cells in vessels and sinusoids."""
    ids, y_um, x_um = scatter(anatomy.seed, "red cell", frame.window, pitch_um=4.5)
    cells = _Blobs(
        ids=ids,
        y_um=y_um,
        x_um=x_um,
        long_um=2.4 + 1.2 * uniform(ids, "length"),
        short_um=1.6 + 0.8 * uniform(ids, "width"),
        strength=0.6 + 0.4 * uniform(ids, "strength"),
        softness_um=0.5,
    )
    chance = cells.sample(ground.blood * ~fat, frame)
    return (cells[uniform(ids, "present") < chance],)


@dataclass(frozen=True)
class _Blobs:
    """Ellipses with soft edges, columns of equal length."""

    ids: np.ndarray
    y_um: np.ndarray
    x_um: np.ndarray
    long_um: np.ndarray
    short_um: np.ndarray
    strength: np.ndarray
    softness_um: float
    hollow: float = 0.0  # how much paler than its edge a blob is inside, 0 to 1
    turn: np.ndarray | None = None  # of the long axis, radians; None: any

    def __getitem__(self, index):
        columns = ("ids", "y_um", "x_um", "long_um", "short_um", "strength")
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in columns})

    def sample(self, values, frame):
        """Values of a map of the frame at the blobs' centres; 0 outside."""
        row = np.floor(self.y_um / frame.mpp).astype(int) - frame.top
        column = np.floor(self.x_um / frame.mpp).astype(int) - frame.left
        inside = (row >= 0) & (row < frame.height) & (column >= 0) & (column < frame.width)
        return np.where(inside, values[np.where(inside, row, 0), np.where(inside, column, 0)], 0)


def _blob_map(groups, frame):
    """Strength of the strongest blob at each pixel, float32, 0 to 1."""
    drawn = np.zeros((frame.height, frame.width), F)
    for blobs in groups:
        turn = np.pi * uniform(blobs.ids, "turn") if blobs.turn is None else blobs.turn
        sines, cosines = np.sin(turn), np.cos(turn)
        for k in range(len(blobs.ids)):
            y_um, x_um, long_um, short_um = (
                column[k] for column in (blobs.y_um, blobs.x_um, blobs.long_um, blobs.short_um)
            )
            patch = frame.around(y_um, x_um, long_um + blobs.softness_um)
            here, there = frame.overlap(patch)
            dy = (patch.y_um[there[0]] - y_um)[:, None]
            dx = (patch.x_um[there[1]] - x_um)[None, :]
            along = (cosines[k] * dx + sines[k] * dy) / long_um
            across = (cosines[k] * dy - sines[k] * dx) / short_um
            inside_um = (1 - np.sqrt(along * along + across * across)) * short_um
            blob = blobs.strength[k] * np.clip(inside_um / blobs.softness_um + 0.5, 0, 1)
            blob -= blobs.hollow * blob * np.clip(inside_um - 0.6, 0, 1)
            drawn[here] = np.maximum(drawn[here], blob)
    return drawn
