"""What the pipeline hands over, drawn: a pink tile with white instances whose masks are known."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from steatosis_d2.instances.instance import Instance
from steatosis_d2.slides.slide import open_slide
from steatosis_d2.slides.tissue import find_tissue

PINK = (200, 120, 170)
SHAPE = (300, 400)


@dataclass
class Segmented:
    """What the pipeline hands over, with its instances in memory."""

    slide: object
    found: list
    name: str = "tile"
    case: str | None = None
    named_regions: tuple = ()
    file_name: str = "tile.png"
    category: str = "droplet"
    model: dict = field(default_factory=lambda: {"kind": "drawn"})
    parameters: dict = field(default_factory=lambda: {"tile_px": 1024})

    @property
    def categories(self):
        return (self.category,)

    @property
    def tissue(self):
        return find_tissue(self.slide)

    def instances(self):
        return iter(self.found)


def disk(row, column, radius, *, score=0.9):
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return Instance(x**2 + y**2 <= radius**2, row - radius, column - radius, score)


DISKS = (disk(60, 60, 20), disk(60, 101, 20), disk(200, 300, 5, score=0.4), disk(250, 60, 9))


def _cut(one, *, top=0, left=0):
    """What is left of an instance where a border of the slide cuts it."""
    above, before = max(0, top - one.top), max(0, left - one.left)
    crop = one.crop[above:, before:]
    return Instance(crop, one.top + above, one.left + before, one.score, truncated=True)


def _join(one, other):
    """Two instances as one in two pieces."""
    top, left = min(one.top, other.top), min(one.left, other.left)
    shape = max(one.bottom, other.bottom) - top, max(one.right, other.right) - left
    crop = np.zeros(shape, bool)
    for part in (one, other):
        crop[part.top - top : part.bottom - top, part.left - left : part.right - left] |= part.crop
    return Instance(crop, top, left, one.score)


def _pierce(one, radius):
    """A disk with a hole in its middle."""
    row, column = (side // 2 for side in one.crop.shape)
    crop = one.crop.copy()
    crop[row - radius : row + radius + 1, column - radius : column + radius + 1] = False
    return Instance(crop, one.top, one.left, one.score)


# What droplets can be like: with a hole, touching, at a corner of the slide, in two pieces that lie
# apart or share a corner, and of a low score.
MANY_FORMS = (
    _pierce(disk(60, 60, 20), 5),
    disk(60, 101, 20),
    _cut(disk(4, 6, 12)),
    _join(disk(200, 200, 8), disk(200, 230, 6)),
    Instance(np.kron(np.eye(2), np.ones((9, 9))).astype(bool), 240, 300, 0.9),
    disk(130, 340, 5, score=0.4),
)


def draw_slide(folder, instances, *, mpp=0.5, name="tile", **changes):
    """Write the tile's picture into a folder, and open it (Segmented)."""
    image_rgb = np.full((*SHAPE, 3), PINK, np.uint8)
    for one in instances:
        image_rgb[one.top : one.bottom, one.left : one.right][one.crop] = 240
    path = folder / f"{name}.png"
    folder.mkdir(exist_ok=True)
    Image.fromarray(image_rgb).save(path)
    slide = open_slide(path, mpp=mpp)
    return Segmented(slide, list(instances), **({"name": name, "file_name": path.name} | changes))


def paint(instances, *, shape=SHAPE):
    """How many instances cover each pixel: int, of the given shape."""
    image = np.zeros(shape, int)
    for one in instances:
        image[one.top : one.bottom, one.left : one.right] += one.crop
    return image
