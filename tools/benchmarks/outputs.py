"""From instances to files: what a droplet costs, in time and in memory."""

import itertools
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, peak_memory_gb, run_alone
from steatosis_d2.inference.outputs import write_run_outputs, write_slide_outputs
from steatosis_d2.instances.geojson import detection_feature, open_feature_collection
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.outlines import trace_outlines
from steatosis_d2.measurement.morphology import measure_instances
from steatosis_d2.slides.pyramid import WHITE, Slide
from steatosis_d2.slides.tissue import TissueMask

MPP = 0.25
# As many and as large as in the steatotic tiles of Guo et al.: about 150 a megapixel, 8 um wide.
DROPLETS_PER_MEGAPIXEL = 150
MEDIAN_RADIUS_PX, SPREAD = 16, 0.4
FEW, MANY = 20_000, 100_000


class Glass(Slide):
    """White of any size: reading it costs nothing."""

    def _read_level(self, level, left, top, width, height):
        raise NotImplementedError  # read_region() needs no levels

    def read_region(self, left, top, width, height, *, scale=1.0):
        return np.full(
            (max(1, round(height * scale)), max(1, round(width * scale)), 3), WHITE, np.uint8
        )


@dataclass(frozen=True)
class DrawnSlide:
    """Disks and ellipses in the order of tiles, drawn anew for each pass over them."""

    n_droplets: int
    name: str = "drawn"
    file_name: str = "drawn.svs"
    category: str = "droplet"
    categories: tuple = ("droplet",)
    case: str | None = None
    named_regions: tuple = ()
    model: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)

    @property
    def side_px(self):
        return int(1000 * np.sqrt(self.n_droplets / DROPLETS_PER_MEGAPIXEL))

    @property
    def slide(self):
        return Glass(Path(self.file_name), sizes=[(self.side_px,) * 2], mpp=MPP)

    @property
    def tissue(self):
        cell_px = max(16, self.side_px // 2048)
        shape = (-(-self.side_px // cell_px),) * 2
        return TissueMask(np.ones(shape, bool), cell_px, self.side_px, self.side_px)

    def instances(self):
        rng = np.random.default_rng(0)
        crops = [draw_ellipse(rng) for _ in range(400)]
        tiles = itertools.product(range(0, self.side_px, 1024), repeat=2)
        n_tiles = len(range(0, self.side_px, 1024)) ** 2
        for number, (top, left) in enumerate(tiles):
            first, last = (self.n_droplets * k // n_tiles for k in (number, number + 1))
            for offset_rc in rng.integers(0, 1024, (last - first, 2)):
                crop = crops[rng.integers(len(crops))]
                row, column = (
                    int(min(start + offset, self.side_px - side))
                    for start, offset, side in zip((top, left), offset_rc, crop.shape, strict=True)
                )
                yield Instance(crop, row, column, 0.9)


def draw_ellipse(rng):
    """A mask in its bounding box."""
    a = MEDIAN_RADIUS_PX * np.exp(SPREAD * rng.normal())
    b, angle = a * rng.uniform(0.7, 1), rng.uniform(0, np.pi)
    reach = int(a) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = (along / a) ** 2 + (across / b) ** 2 <= 1
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def measure_outputs(options):
    """Core time and memory of a droplet, in each part and in all files of a run."""
    parts = {
        "measuring": time_measuring,
        "GeoJSON, traced, written and gzipped": time_geojson,
    }
    figures = [
        Figure("outputs", what, 1e6 * run_alone(part, MANY) / MANY, "us a droplet, core time")
        for what, part in parts.items()
    ]
    (few_s, few_gb), (many_s, many_gb) = (run_alone(time_outputs, n) for n in (FEW, MANY))
    growth_s, growth_kb = (many_s - few_s) / (MANY - FEW), (many_gb - few_gb) / (MANY - FEW) * 2**20
    return [
        *figures,
        Figure("outputs", "all files of a run", 1e6 * growth_s, "us a droplet, core time"),
        Figure("outputs", "peak memory, growth", growth_kb, "KiB a droplet"),
    ]


def time_measuring(n_droplets):
    droplets = list(DrawnSlide(n_droplets).instances())
    start = time.process_time()
    measure_instances(droplets, mpp=MPP)
    return time.process_time() - start


def time_geojson(n_droplets):
    droplets = list(DrawnSlide(n_droplets).instances())
    measurements = {f"measurement_{number}": 12.3456 for number in range(15)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        with open_feature_collection(Path(folder, "drawn.geojson.gz")) as write_feature:
            for number, polygons in enumerate(trace_outlines(droplets), 1):
                write_feature(
                    detection_feature(
                        polygons,
                        number=number,
                        category="droplet",
                        color_rgb=(0, 140, 60),
                        measurements=measurements,
                    )
                )
        return time.process_time() - start


def time_outputs(n_droplets):
    """Core seconds and peak memory (GB) of everything that is written for one slide."""
    segmented = DrawnSlide(n_droplets)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_slide_outputs(segmented, folder, result_folder=Path(folder, ".segment"))
        write_run_outputs(
            [Path(folder, ".segment")],
            folder,
            category="droplet",
            categories=("droplet",),
            model={},
            parameters={},
            faults={},
        )
        return time.process_time() - start, peak_memory_gb()


MEASURES = (measure_outputs,)
