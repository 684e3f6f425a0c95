"""Segment tiles and whole slides: outlines, a table, a picture of each, and a report of all."""

import argparse
import logging
from datetime import timedelta
from pathlib import Path

from steatosis_d2 import api
from steatosis_d2.cli.option_types import (
    add_network_options,
    add_page,
    add_scale_out,
    network_settings,
    pixel_size_or_estimate,
    positive_integer,
    positive_number,
)
from steatosis_d2.data.images import list_inputs
from steatosis_d2.errors import InputError
from steatosis_d2.inference import pipeline
from steatosis_d2.inference.further_formats import FORMATS, check_formats
from steatosis_d2.inference.models import CLUMP_SPLIT, choose_model
from steatosis_d2.inference.outputs import Reporting
from steatosis_d2.inference.parallel import open_executor
from steatosis_d2.inference.plan import (
    EXCLUDE,
    FLAG,
    OVERLAP_PX,
    TILE_PX,
    Tiling,
    name_inputs,
    plan_slide,
    with_regions,
)
from steatosis_d2.inference.tiles import MIN_OVERLAP_PX
from steatosis_d2.labeling.pixel_size import open_with_pixel_size
from steatosis_d2.measurement.filters import parse_rules
from steatosis_d2.measurement.summary import LARGE_DIAMETER_UM
from steatosis_d2.slides.slide import SLIDE_SUFFIXES

EXAMPLES = """
examples:
  a slide, with the model that ships with the package:
    %(prog)s L07.svs --output results
  a folder of slides, two processes, the paper's filter; after a crash the same with --resume:
    %(prog)s slides --output results --workers 2 --filter paper
  tiles without a pixel size in the file, no trained model:
    %(prog)s tiles --output results --model clump-split --mpp 0.25
  three cores on a slide, two slides a case (L07_1.svs, L07_2.svs):
    %(prog)s slides --output results --by-piece --case-pattern '(.+)_'
  regions drawn in QuPath; how many tiles, and how long will it take?
    %(prog)s L07.svs --output results --roi regions.geojson --dry-run
  outlines, measurements and tissue as a SpatialData store, too:
    %(prog)s L07.svs --output results --format spatialdata
  a cluster that sees the same paths:
    %(prog)s /data/slides --output /data/results --scheduler tcp://head:8786
"""


HEADING = f"{'input':<32} {'width_px':>9} {'height_px':>9} {'um/px':>7} {'tissue_mm2':>10} tiles"


def run(arguments):
    """Segment, or say how long it would take."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    faults = (estimate if arguments.dry_run else segment)(arguments)
    if faults:
        raise InputError(api.join_faults(faults))


def build_parser(prog):
    """The command's options."""
    parser = Parser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="slide or image, or a folder of them"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--mpp",
        type=pixel_size_or_estimate,
        metavar="M",
        help="pixel size of all inputs in um/px; default: what each file says, or none. "
        "'estimate' takes it from the nuclei where the file says nothing",
    )
    add_page(parser)
    parser.add_argument(
        "--roi",
        metavar="FILE",
        help="look only at regions drawn in QuPath (GeoJSON); for several inputs a folder with "
        "NAME.geojson for each. What is classified as Ignore* is taken away",
    )
    parser.add_argument(
        "--artefacts",
        choices=(EXCLUDE, FLAG),
        default=EXCLUDE,
        help="tissue that is folded, out of focus or under a bubble: leave it out of all figures "
        "(default), or only tell how much there is. Ink is left out in any case",
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
    return parser


class Parser(argparse.ArgumentParser):
    """Refuses options that do not go together."""

    def parse_args(self, *args, **kwargs):
        """As ``ArgumentParser.parse_args``."""
        arguments = super().parse_args(*args, **kwargs)
        if not MIN_OVERLAP_PX <= arguments.overlap_px <= arguments.tile_px // 2:
            self.error(f"--overlap-px must be {MIN_OVERLAP_PX} to half of --tile-px")
        trained_only = ("config_file", "weights", "set", "batch_size")
        if arguments.model == CLUMP_SPLIT and any(getattr(arguments, key) for key in trained_only):
            self.error("--config-file, --weights, --set and --batch-size are for --model mask-rcnn")
        return arguments


def add_model_options(group):
    group.add_argument(
        "--model",
        choices=("mask-rcnn", "clump-split"),
        default="mask-rcnn",
        help="a trained network (default), or the classical method, which needs no training but "
        "the pixel size",
    )
    add_network_options(group)


def add_output_options(group):
    group.add_argument(
        "--filter",
        action="append",
        metavar="RULE",
        help="'paper', 'none' (default), or a rule such as 'area_um2>=5' or "
        "'eccentricity<=1.5*mean'; repeatable. What is dropped stays in the table, with its reason",
    )
    group.add_argument(
        "--large-diameter-um",
        "--macro-diameter-um",  # its former name
        type=positive_number,
        default=LARGE_DIAMETER_UM,
        metavar="D",
        help="diameter from which a droplet is called large (default: %(default)s)",
    )
    group.add_argument(
        "--size-bins-um2",
        type=positive_number,
        nargs="+",
        default=(),
        metavar="A",
        help="count droplets by area, too, with these limits between the bins: '1 100' are those "
        "of Marti-Aguado 2025",
    )
    group.add_argument(
        "--by-piece",
        action="store_true",
        help="a row for each piece of tissue, too, such as the cores of a needle biopsy",
    )
    group.add_argument(
        "--case-pattern",
        metavar="REGEX",
        help="finds in a slide's name whose it is (its first group, or all of it); cases.csv then "
        "has a row a case, over all its slides",
    )
    group.add_argument(
        "--grade-calibration",
        metavar="FILE",
        help="grade by limits of fat area, from 'steatosis-d2 grades fit' or of your own",
    )
    group.add_argument(
        "--format",
        action="append",
        choices=FORMATS,
        help="write this, too, for each input: 'spatialdata' is NAME.zarr, a SpatialData store; "
        "'dicom' are annotations, where the input is a DICOM slide; repeatable. With --resume, "
        "finished inputs get it as well",
    )


def add_speed_options(group):
    add_scale_out(
        group,
        workers_help="processes (default: 1); the cores are divided among them",
    )
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


def model_settings(arguments):
    """What the model options say, as keywords of the API."""
    settings = network_settings(arguments) | {"batch_size": arguments.batch_size}
    return settings | {"model": CLUMP_SPLIT} if arguments.model == CLUMP_SPLIT else settings


def segment(arguments):
    """Segment all inputs and write all files; returns what went wrong."""
    results = api.segment(
        arguments.inputs,
        arguments.output,
        **model_settings(arguments),
        mpp=arguments.mpp,
        page=arguments.page,
        artefacts=arguments.artefacts,
        roi=arguments.roi,
        filters=arguments.filter or (),
        large_diameter_um=arguments.large_diameter_um,
        size_bins_um2=arguments.size_bins_um2,
        by_piece=arguments.by_piece,
        case_pattern=arguments.case_pattern,
        grade_calibration=arguments.grade_calibration,
        formats=arguments.format or (),
        workers=arguments.workers,
        scheduler=arguments.scheduler,
        tile_px=arguments.tile_px,
        overlap_px=arguments.overlap_px,
        resume=arguments.resume,
        progress=True,
    )
    return results.faults


def estimate(arguments):
    """Print how many tiles there are and how long they will take; returns what went wrong."""
    files, faults = list_inputs(arguments.inputs, suffixes=SLIDE_SUFFIXES)
    if not files:
        return faults
    items = with_regions(name_inputs(files), arguments.roi)
    reporting = Reporting(
        rules=tuple(parse_rules(arguments.filter or ["none"])),
        formats=check_formats(arguments.format or (), Path(arguments.output), items),
    )
    tiling = Tiling(
        mpp=arguments.mpp,
        tile_px=arguments.tile_px,
        overlap_px=arguments.overlap_px,
        page=arguments.page,
        artefacts=arguments.artefacts,
    )
    make_model = choose_model(**model_settings(arguments))
    tiles_of: dict[str, int] = {}
    failed: dict[str, str] = {}
    seconds_per_tile = None
    with open_executor(workers=arguments.workers, scheduler=arguments.scheduler) as executor:
        facts = executor.submit(pipeline.describe_model, make_model).result()
        print(HEADING)
        for item in items:
            with (
                pipeline.note_fault(item, failed),
                open_with_pixel_size(item.path, mpp=tiling.mpp, page=tiling.page) as slide,
            ):
                reporting.check(slide)
                plan = plan_slide(
                    slide, tiling, regions=item.regions, input_scale=facts.input_scale
                )
                pipeline.check_memory(plan, facts, n_processes=executor.n_processes)
                tiles_of[item.file_name] = len(plan.tiles)
                print(describe_plan(item.file_name, plan))
                if seconds_per_tile is None and plan.tiles:
                    seconds_per_tile = pipeline.time_tile(
                        plan, make_model=make_model, batch_size=facts.batch_size, executor=executor
                    )
    n_tiles = sum(tiles_of.values())
    duration = timedelta(seconds=round(n_tiles * (seconds_per_tile or 0)))
    print(f"{n_tiles} tiles in {len(tiles_of)} inputs: about {duration} (h:mm:ss)")
    return faults + list(failed.values())


def describe_plan(file_name, plan):
    """A row of the table of inputs."""
    slide = plan.slide
    mpp = f"{slide.mpp:.3f}" if slide.mpp else "?"
    tissue_mm2 = f"{plan.tissue.area_px * slide.mpp**2 / 1e6:.2f}" if slide.mpp else "?"
    return (
        f"{file_name:<32} {slide.width:>9} {slide.height:>9} {mpp:>7} {tissue_mm2:>10} "
        f"{len(plan.tiles)}"
    )
