"""Whole slides: memory, time, and what of it is not the model's."""

import contextlib
import functools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, peak_memory_gb, run_alone
from benchmarks.virtual_slide import ColorModel, DiskSlide
from steatosis_d2.data.synthetic import Anatomy, SyntheticLiver
from steatosis_d2.inference import pipeline
from steatosis_d2.inference.models import ClassicalChoice, MaskRCNNChoice
from steatosis_d2.inference.outputs import write_run_outputs, write_slide_outputs
from steatosis_d2.inference.parallel import open_executor
from steatosis_d2.inference.plan import SlideInput, Tiling
from steatosis_d2.inference.slide_run import prepare_folder
from steatosis_d2.inference.tiles import plan_tiles
from steatosis_d2.slides.pyramid import Slide
from steatosis_d2.slides.pyramid_writer import write_pyramid
from steatosis_d2.slides.slide import open_slide

SMALL_SIDE_PX, LARGE_SIDE_PX = 10_000, 40_000
# The slide of the simulation: 36% of it tissue, the rest glass around it.
SIMULATED_SIDE_PX, SIMULATED_GLASS_PX = 100_000, 20_000
TISSUE_SIDE_PX, TISSUE_MPP = 4096, 0.5
TILE_SIDES_PX = (256, 512, 1024, 2048)
BLOCK_PX = 1024
COUNTED_BLOCK_PX = 4160
# tools/estimate_costs.py looks for figures of this stage.
MEGAPIXEL = "a megapixel, core time"


class RepeatedTissue(Slide):
    """A block of synthetic liver, mirrored at its borders again and again: real in all but size."""

    def __init__(self, side_px, *, mpp):
        liver = SyntheticLiver(Anatomy(seed=1, fat_fraction=0.15), mpp=mpp)
        block = liver.render(top=0, left=0, height=BLOCK_PX, width=BLOCK_PX).image_rgb
        twice = np.concatenate([block, block[::-1]])
        self._pattern = np.concatenate([twice, twice[:, ::-1]], axis=1)
        super().__init__(Path("tissue.virtual"), sizes=[(side_px, side_px)], mpp=mpp)

    def _read_level(self, level, left, top, width, height):
        rows, columns = np.arange(top, top + height), np.arange(left, left + width)
        period = 2 * BLOCK_PX
        return self._pattern[rows[:, None] % period, columns % period]


class TimedModel:
    """A model, and the seconds that all of its kind took in this process."""

    seconds = core_seconds = 0.0

    def __init__(self, model):
        self.model = model
        self.batch_size, self.category, self.describe = (
            model.batch_size,
            model.category,
            model.describe,
        )

    def __call__(self, images_rgb, *, mpp):
        start, core_start = time.perf_counter(), time.thread_time()
        groups = self.model(images_rgb, mpp=mpp)
        TimedModel.seconds += time.perf_counter() - start
        TimedModel.core_seconds += time.thread_time() - core_start
        return groups


@dataclass(frozen=True)
class Timed:
    """Makes a model whose time is taken."""

    make_model: Callable

    def __call__(self):
        return TimedModel(self.make_model())


@dataclass(frozen=True)
class Run:
    """
    What a slide took in a process of its own.

    Attributes:
        tissue_megapixels (float): looked at.
        seconds (float): of wall time, from opening the slide to the last output.
        model_seconds (float): of these, in the model.
        core_seconds (float): summed over all cores; where other work shares the machine, this
            tells more than the clock.
        model_core_seconds (float): of these, in the model's own thread.
        peak_gb (float): most memory at any time, all that is imported included.
        instances (int): found.
    """

    tissue_megapixels: float
    seconds: float
    model_seconds: float
    core_seconds: float
    model_core_seconds: float
    peak_gb: float
    instances: int


class AllOutputs:
    """What tools/segment.py writes for each slide, with its defaults."""

    def __init__(self, folder):
        self.folder = folder
        self.instances = 0
        self.tissue_px = 0

    def check(self, slide):
        """Any slide will do."""

    def write(self, segmented, result_folder):
        """All files of one slide."""
        row = write_slide_outputs(segmented, self.folder, result_folder=result_folder)
        self.instances, self.tissue_px = row["droplets"], segmented.tissue.area_px


def segment_slide(path, make_model, outputs, *, tiling=None, report=lambda progress: None):
    """Segment one slide as tools/segment.py does; the process's own figures."""
    make_model = Timed(make_model)
    item = SlideInput(path, path.name, path.stem)
    journals = outputs.folder / ".segment"
    with open_executor() as executor:
        facts = pipeline.describe_model(make_model)
        prepare_folder(journals, {}, resume=False)
        start, core_start = time.perf_counter(), time.process_time()
        faults = pipeline.segment_slides(
            [item],
            make_model=make_model,
            facts=facts,
            executor=executor,
            tiling=tiling or Tiling(),
            parameters={},
            folder=journals,
            outputs=outputs,
            report=report,
        )
        if faults:
            raise RuntimeError(f"the benchmark's own slide failed: {faults}")
        if isinstance(outputs, AllOutputs):
            write_run_outputs(
                [journals / item.name],
                outputs.folder,
                category=facts.category,
                categories=facts.categories,
                model=facts.description,
                parameters={},
                faults=[],
            )
    return Run(
        tissue_megapixels=outputs.tissue_px / 1e6,
        seconds=time.perf_counter() - start,
        model_seconds=TimedModel.seconds,
        core_seconds=time.process_time() - core_start,
        model_core_seconds=TimedModel.core_seconds,
        peak_gb=peak_memory_gb(),
        instances=outputs.instances,
    )


def segment_file(path, make_model, tiling=None):
    """A slide in a file, with all outputs, which are deleted."""
    with tempfile.TemporaryDirectory() as folder:
        return segment_slide(path, make_model, AllOutputs(Path(folder)), tiling=tiling)


def write_disks(path, side_px):
    write_pyramid(path, DiskSlide(side_px, side_px))


def write_tissue(path):
    write_pyramid(path, RepeatedTissue(TISSUE_SIDE_PX, mpp=TISSUE_MPP), jpeg_quality=90)


def measure_scaling(_options):
    """What the pipeline takes for a slide beside one with 16 times its area, and for its files."""
    figures, large, reading = compare_sizes(ColorModel, "a perfect stand-in for the model")
    rest = (large.core_seconds - large.model_core_seconds) / large.tissue_megapixels - reading
    return [*figures, Figure(MEGAPIXEL, "merging and outputs", rest, "s")]


def measure_starter_scaling(_options):
    """The same as a user has it, with the network that ships."""
    figures, _, _ = compare_sizes(MaskRCNNChoice(), "the starter model")
    return figures


def compare_sizes(make_model, what):
    """
    Memory and time of a slide of disks beside those of one with 16 times its area.

    Returns:
        tuple: figures; Run of the large slide; core seconds of reading a megapixel of it.
    """
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in (SMALL_SIDE_PX, LARGE_SIDE_PX):
            path = Path(folder, f"disks_{side}.tif")
            run_alone(write_disks, path, side)
            runs[side] = run_alone(segment_file, path, make_model)
        reading = run_alone(time_reading, path)
    small, large = runs.values()
    figures = []
    for side, run in runs.items():
        stage = f"{side} x {side} px"
        run_by = f"{run.instances} droplets, {what}, all outputs"
        figures += [
            Figure(stage, run_by, run.seconds, "s"),
            Figure(stage, "core time of a megapixel of tissue", per_megapixel(run), "s"),
            Figure(stage, "peak memory of the process", run.peak_gb, "GB", at_most=2.5),
        ]
    memory, seconds = large.peak_gb / small.peak_gb, per_megapixel(large) / per_megapixel(small)
    figures += [
        Figure("16 x the area", f"peak memory, {what}", memory, "x", at_most=1.1),
        Figure("16 x the area", f"core time of a megapixel, {what}", seconds, "x", at_most=1.15),
    ]
    return figures, large, reading


def time_reading(path):
    """Core seconds of reading a megapixel, tile by tile."""
    tiling = Tiling()
    with open_slide(path) as slide:
        tiles = plan_tiles(
            slide.width, slide.height, tile_px=tiling.tile_px, overlap_px=tiling.overlap_px
        )
        start = time.process_time()
        for tile in tiles:
            slide.read_region(tile.left, tile.top, tile.width, tile.height)
        return (time.process_time() - start) * 1e6 / (slide.width * slide.height)


def per_megapixel(run):
    """Core seconds of a megapixel of tissue."""
    return run.core_seconds / run.tissue_megapixels


def measure_starter(_options):
    """Share of the time that is not the network's, on a slide of tissue."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tissue.tif")
        run_alone(write_tissue, path)
        run = run_alone(segment_file, path, MaskRCNNChoice())
        reading = run_alone(time_reading, path)
    stage = "starter model"
    share = 100 * (1 - run.model_seconds / run.seconds)
    what = f"{TISSUE_SIDE_PX} x {TISSUE_SIDE_PX} px of tissue, {run.instances} droplets"
    return [
        Figure(stage, what, run.seconds, "s"),
        Figure(stage, "a megapixel", run.seconds / run.tissue_megapixels, "s"),
        Figure(stage, "share of all but the model", share, "%", at_most=15),
        Figure(stage, "peak memory of the process", run.peak_gb, "GB"),
        Figure(MEGAPIXEL, "reading", reading, "s"),
        Figure(MEGAPIXEL, "all, with the starter model", per_megapixel(run), "s"),
    ]


def measure_tile_sizes(_options):
    """How much the number of droplets depends on the tiles, with the network that ships."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tissue.tif")
        run_alone(write_tissue, path)
        counts = {
            tile_px: run_alone(
                segment_file, path, MaskRCNNChoice(), Tiling(tile_px=tile_px)
            ).instances
            for tile_px in TILE_SIDES_PX
        }
    stage, usual = "starter model", counts[Tiling().tile_px]
    difference = max(abs(count / usual - 1) for count in counts.values())
    return [
        *(Figure(stage, f"tiles of {px} px", count, "droplets") for px, count in counts.items()),
        Figure(stage, "largest difference from the usual tiles", 100 * difference, "%", at_most=1),
    ]


def measure_clump_split(_options):
    """The classical model beside liverquant on the same slide, in core time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tissue.tif")
        run_alone(write_tissue, path)
        run = run_alone(segment_file, path, ClassicalChoice())
        stage, size = "classical model", f"{TISSUE_SIDE_PX} x {TISSUE_SIDE_PX} px of tissue"
        what = f"{size}, {run.instances} droplets, all outputs: a megapixel"
        figures = [Figure(stage, what, per_megapixel(run), "s")]
        with contextlib.suppress(ImportError):
            for downsample in (1, 2):
                seconds, number = run_alone(run_liverquant, path, downsample)
                name = f"liverquant at 1/{downsample} of the resolution"
                per_mpx = seconds / run.tissue_megapixels
                ratio = per_megapixel(run) / per_mpx
                figures += [
                    Figure(stage, f"{name}, {number} globules: a megapixel", per_mpx, "s"),
                    Figure(stage, f"time against {name}", ratio, "x", at_most=1),
                ]
    return figures


def run_liverquant(path, downsample):
    """Core seconds of liverquant's search of a slide, its worker included, and its finds."""
    import openslide
    from liverquant import detect_fat_globules_wsi

    with contextlib.redirect_stdout(sys.stderr):
        _, globules, _, _ = detect_fat_globules_wsi(
            openslide.OpenSlide(path), downsample=downsample, cores_num=1
        )
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages), len(globules)


def measure_simulation(_options):
    """A slide of 10^10 px, computed as it is read, in the pipeline; compared with the truth."""
    run = run_alone(simulate, SIMULATED_SIDE_PX, SIMULATED_GLASS_PX)
    stage = f"{SIMULATED_SIDE_PX} x {SIMULATED_SIDE_PX} px, simulated"
    what = f"{run.instances} droplets, all exact, {run.tissue_megapixels:.0f} megapixels of tissue"
    return [
        Figure(stage, what, run.seconds, "s"),
        Figure(stage, "core time of a megapixel", per_megapixel(run), "s"),
        Figure(stage, "peak memory of the process", run.peak_gb, "GB"),
    ]


def simulate(side_px, glass_px):
    """Segment a virtual slide in this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "virtual")
        path.write_text("stands in for the file, which the journal asks for\n")
        # The pipeline opens slides by path; this one exists while it is looked at, and no longer.
        pipeline.open_with_pixel_size = functools.partial(
            open_disks, side_px=side_px, glass_px=glass_px
        )
        outputs = Comparison(Path(folder))
        return segment_slide(path, ColorModel, outputs, report=show_progress)


def open_disks(path, *, mpp, page, side_px, glass_px):
    slide = DiskSlide(side_px, side_px, glass_px=glass_px)
    slide.path = path
    return slide


def show_progress(progress):
    if progress.n_done % 500 == 0:
        print(f"{progress.n_done} of {progress.n_tiles} tiles", file=sys.stderr)


class Comparison:
    """Instead of outputs: that the droplets are those of the virtual slide, to the px."""

    def __init__(self, folder):
        self.folder = folder
        self.instances = 0
        self.tissue_px = 0

    def check(self, slide):
        """Any slide will do."""

    def write(self, segmented, result_folder):
        """Compare; nothing is written."""
        found, found_sum = count_and_sum(segmented.instances())
        true, true_sum = count_and_sum(list_all(segmented.slide))
        if (found, found_sum) != (true, true_sum):
            raise RuntimeError(f"{found} droplets found, {true} true ones, or they differ")
        self.instances, self.tissue_px = found, segmented.tissue.area_px


def list_all(slide):
    """All disks of a slide, block by block; each in the block that holds its first px."""
    for top in range(0, slide.height, COUNTED_BLOCK_PX):
        for left in range(0, slide.width, COUNTED_BLOCK_PX):
            bottom, right = top + COUNTED_BLOCK_PX, left + COUNTED_BLOCK_PX
            for instance in slide.instances(left, top, right, bottom):
                first_column = instance.left + np.argmax(instance.crop[0])
                if instance.top >= top and left <= first_column < right:
                    yield instance


def count_and_sum(instances):
    """Number of instances, and a sum of their places and masks that depends on no order."""
    number = total = 0
    for one in instances:
        number += 1
        total += hash((one.top, one.left, one.crop.shape, one.crop.tobytes()))
    return number, total


MEASURES = (measure_scaling, measure_starter, measure_tile_sizes, measure_clump_split)
SCALING_MEASURES = (measure_starter_scaling,)
SIMULATION_MEASURES = (measure_simulation,)
