#!/usr/bin/env python
"""Segment tiles and whole slides: outlines, a table, a picture of each, and a report of all."""

import argparse
import dataclasses
import functools
import logging
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from steatosis_d2.data.images import list_inputs
from steatosis_d2.data.prepare import pixel_size_um
from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.inference import pipeline
from steatosis_d2.inference.models import ClumpSplitChoice, MaskRCNNChoice
from steatosis_d2.inference.outputs import write_run_outputs, write_slide_outputs
from steatosis_d2.inference.parallel import open_executor
from steatosis_d2.inference.plan import OVERLAP_PX, TILE_PX, Tiling, name_inputs, plan_slide
from steatosis_d2.inference.slide_run import prepare_folder
from steatosis_d2.inference.tiles import MIN_OVERLAP_PX
from steatosis_d2.measurement.filters import Rule, check_units, parse_rules
from steatosis_d2.measurement.grading import GradeCalibration, read_grade_calibration
from steatosis_d2.measurement.summary import MACRO_DIAMETER_UM, TERMS
from steatosis_d2.slides.regions import read_regions
from steatosis_d2.slides.slide import SLIDE_SUFFIXES, open_slide

logger = logging.getLogger(__name__)

JOURNAL_FOLDER = ".segment"

EXAMPLES = """
examples:
  a slide, with the model that ships with the package:
    python tools/segment.py L07.svs --output results
  a folder of slides, two processes, the paper's filter; after a crash the same with --resume:
    python tools/segment.py slides --output results --workers 2 --filter paper
  tiles without a pixel size in the file, no trained model:
    python tools/segment.py tiles --output results --model clump-split --mpp 0.25
  regions drawn in QuPath; how many tiles, and how long will it take?
    python tools/segment.py L07.svs --output results --roi regions.geojson --dry-run
  a cluster that sees the same paths:
    python tools/segment.py /data/slides --output /data/results --scheduler tcp://head:8786
"""


def main():
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    files, faults = list_inputs(arguments.inputs, suffixes=SLIDE_SUFFIXES)
    if not files:
        raise InputError("\nerror: ".join(faults))
    items = name_inputs(files)
    tiling = Tiling(
        mpp=arguments.mpp,
        tile_px=arguments.tile_px,
        overlap_px=arguments.overlap_px,
        regions=read_regions(arguments.roi) if arguments.roi else None,
    )
    outputs = Outputs(
        folder=Path(arguments.output),
        rules=parse_rules(arguments.filter or ["none"]),
        macro_diameter_um=arguments.macro_diameter_um,
        calibration=arguments.grade_calibration
        and read_grade_calibration(arguments.grade_calibration),
    )
    with open_executor(workers=arguments.workers, scheduler=arguments.scheduler) as executor:
        work = estimate if arguments.dry_run else segment
        faults += work(items, arguments, tiling=tiling, outputs=outputs, executor=executor)
    if faults:
        raise InputError("\nerror: ".join(faults))


@dataclass(frozen=True)
class Outputs:
    """What is written, and where."""

    folder: Path
    rules: list[Rule]
    macro_diameter_um: float
    calibration: GradeCalibration | None

    def describe(self):
        """The settings, as JSON values."""
        return {
            "filter": [str(rule) for rule in self.rules],
            "macro_diameter_um": self.macro_diameter_um,
            "grade_calibration": self.calibration and dataclasses.asdict(self.calibration),
        }

    def check(self, slide):
        """Refuse a slide before hours are spent on it."""
        check_units(self.rules, mpp=slide.mpp, path=slide.path)

    def write(self, segmented, result_folder):
        """The files of one input."""
        row = write_slide_outputs(
            segmented,
            self.folder,
            result_folder=result_folder,
            rules=self.rules,
            macro_diameter_um=self.macro_diameter_um,
            calibration=self.calibration,
        )
        plural = TERMS[segmented.category].plural
        logger.info("'%s': %d %s", segmented.file_name, row[plural], plural)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="slide or image, or a folder of them"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--mpp",
        type=pixel_size_um,
        metavar="M",
        help="pixel size of all inputs in um/px; default: what each file says, or none",
    )
    parser.add_argument(
        "--roi", metavar="FILE", help="look only at regions drawn in QuPath (GeoJSON)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted run, and skip what it finished; the settings must be the "
        "same, but there may be more inputs",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say how many tiles there are and how long they will take; nothing is written",
    )
    add_model_options(parser.add_argument_group("model"))
    add_output_options(parser.add_argument_group("outputs"))
    add_speed_options(parser.add_argument_group("speed"))
    arguments = parser.parse_args()
    if not MIN_OVERLAP_PX <= arguments.overlap_px <= arguments.tile_px // 2:
        parser.error(f"--overlap-px must be {MIN_OVERLAP_PX} to half of --tile-px")
    trained_only = ("config_file", "weights", "set", "batch_size")
    if arguments.model == "clump-split" and any(getattr(arguments, key) for key in trained_only):
        parser.error("--config-file, --weights, --set and --batch-size are for --model mask-rcnn")
    return arguments


def add_model_options(group):
    group.add_argument(
        "--model",
        choices=("mask-rcnn", "clump-split"),
        default="mask-rcnn",
        help="a trained network (default), or the classical method, which needs no training but "
        "the pixel size",
    )
    group.add_argument(
        "--config-file", metavar="C", help="config of the network, by path or name in configs/"
    )
    group.add_argument(
        "--weights", metavar="W", help="checkpoint; with neither this nor a config, the package's"
    )
    group.add_argument(
        "--score-threshold",
        type=share,
        metavar="S",
        help="least confidence, 0 to 1, of what is kept; default: the model's own",
    )
    group.add_argument(
        "--set",
        nargs=2,
        action="append",
        metavar=("KEY", "VALUE"),
        help="change a key of the config, for instance --set MODEL.DEVICE cpu; repeatable",
    )


def add_output_options(group):
    group.add_argument(
        "--filter",
        action="append",
        metavar="RULE",
        help="'paper', 'none' (default), or a rule such as 'area_um2>=5' or "
        "'eccentricity<=1.5*mean'; repeatable. What is dropped stays in the table, with its reason",
    )
    group.add_argument(
        "--macro-diameter-um",
        type=positive_number,
        default=MACRO_DIAMETER_UM,
        metavar="D",
        help="diameter from which a droplet is macrovesicular (default: %(default)s)",
    )
    group.add_argument(
        "--grade-calibration", metavar="FILE", help="grade by fat area, with limits of your own"
    )


def add_speed_options(group):
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=positive_integer,
        default=1,
        metavar="N",
        help="processes (default: 1); the cores are divided among them",
    )
    where.add_argument("--scheduler", metavar="ADDR", help="address of a Dask scheduler")
    group.add_argument(
        "--tile-px",
        type=positive_integer,
        default=TILE_PX,
        metavar="N",
        help="longest side of a tile, in px (default: %(default)s)",
    )
    group.add_argument(
        "--overlap-px",
        type=positive_integer,
        default=OVERLAP_PX,
        metavar="N",
        help="least that neighbouring tiles share (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size",
        type=positive_integer,
        metavar="N",
        help="tiles that go through the network together (default: 1 on a CPU, 8 on a GPU, where "
        "more may be faster and need more memory)",
    )


def positive_integer(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is less than 1")
    return number


def positive_number(text):
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return number


def share(text):
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return number


def choose_model(arguments):
    if arguments.model == "clump-split":
        return ClumpSplitChoice(score_threshold=arguments.score_threshold)
    return MaskRCNNChoice(
        config_file=arguments.config_file,
        weights=arguments.weights,
        score_threshold=arguments.score_threshold,
        batch_size=arguments.batch_size,
        overrides=tuple(word for pair in arguments.set or () for word in pair),
    )


def segment(items, arguments, *, tiling, outputs, executor):
    """Segment all inputs and write all files; returns what went wrong."""
    make_model = choose_model(arguments)
    facts = executor.submit(pipeline.describe_model, make_model).result()
    parameters = tiling.describe() | {"batch_size": facts.batch_size} | outputs.describe()
    journals = outputs.folder / JOURNAL_FOLDER
    prepare_folder(journals, {"model": facts.description} | parameters, resume=arguments.resume)
    with logging_redirect_tqdm(), tqdm(unit="tile", disable=None) as bar:
        faults = pipeline.segment_slides(
            items,
            make_model=make_model,
            facts=facts,
            executor=executor,
            tiling=tiling,
            parameters=parameters,
            folder=journals,
            outputs=outputs,
            report=functools.partial(show_progress, bar, n_slides=len(items)),
        )
    write_run_outputs(
        [journals / item.name for item in items if item.file_name not in faults],
        outputs.folder,
        category=facts.category,
        model=facts.description,
        parameters=parameters,
        faults=faults,
    )
    return list(faults.values())


def show_progress(bar, progress, *, n_slides):
    """Move the bar on; slides that have not been opened yet are taken to be of average size."""
    bar.total = round(progress.n_tiles * n_slides / progress.n_slides)
    bar.update(progress.n_done - bar.n)


def estimate(items, arguments, *, tiling, outputs, executor):
    """Print how many tiles there are and how long they will take; returns what went wrong."""
    make_model = choose_model(arguments)
    facts = executor.submit(pipeline.describe_model, make_model).result()
    tiles_of, seconds_per_tile, faults = {}, None, {}
    print(f"{'input':<32} {'width_px':>9} {'height_px':>9} {'um/px':>7} {'tissue_mm2':>10} tiles")
    for item in items:
        with pipeline.note_fault(item, faults), open_slide(item.path, mpp=tiling.mpp) as slide:
            outputs.check(slide)
            plan = plan_slide(slide, tiling)
            tiles_of[item.file_name] = len(plan.tiles)
            print(describe_plan(item.file_name, plan))
            if seconds_per_tile is None and plan.tiles:
                seconds_per_tile = pipeline.time_tile(
                    plan, make_model=make_model, batch_size=facts.batch_size, executor=executor
                )
    n_tiles = sum(tiles_of.values())
    duration = timedelta(seconds=round(n_tiles * (seconds_per_tile or 0)))
    print(f"{n_tiles} tiles in {len(tiles_of)} inputs: about {duration} (h:mm:ss)")
    return list(faults.values())


def describe_plan(file_name, plan):
    """A row of the table of inputs."""
    slide = plan.slide
    mpp = f"{slide.mpp:.3f}" if slide.mpp else "?"
    tissue_mm2 = f"{plan.tissue.area_px * slide.mpp**2 / 1e6:.2f}" if slide.mpp else "?"
    return (
        f"{file_name:<32} {slide.width:>9} {slide.height:>9} {mpp:>7} {tissue_mm2:>10} "
        f"{len(plan.tiles)}"
    )


if __name__ == "__main__":
    with exit_cleanly():
        main()
