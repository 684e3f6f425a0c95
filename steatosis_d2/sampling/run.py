"""From slides to the tiles that an expert should see."""

import csv
import logging
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from steatosis_d2.data.colours import COLOURS_KEY, ColourStatistics, describe_colours
from steatosis_d2.engine.checkpoint import read_note
from steatosis_d2.errors import InputError
from steatosis_d2.inference.models import ClassicalModel, choose_model
from steatosis_d2.inference.pipeline import note_fault
from steatosis_d2.labeling.pixel_size import open_with_pixel_size
from steatosis_d2.sampling.doubt import NEAR_THRESHOLD, measure_region
from steatosis_d2.sampling.regions import list_regions, spread_over_cases
from steatosis_d2.sampling.selection import select_regions
from steatosis_d2.sampling.tiles import ChosenTile, write_tile_labels
from steatosis_d2.slides.tile_writer import name_tile, write_tile
from steatosis_d2.slides.tissue import find_tissue

logger = logging.getLogger(__name__)

# So many regions are looked at for each that is wanted.
CANDIDATES_EACH = 6


@dataclass(frozen=True)
class Wanted:
    """
    What to choose.

    Attributes:
        number (int): of regions.
        size_um (float): side of a region.
        fractions (tuple[float, float, float]): of the cases, for train, val and test.
        seed (int): of chance.
        mpp (float, "estimate" or None): as for
            :func:`~steatosis_d2.labeling.pixel_size.open_with_pixel_size`.
    """

    number: int = 40
    size_um: float = 200.0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    mpp: float | str | None = None


def sample_tiles(items, output, wanted, *, cases, model_settings, progress=False):
    """
    Choose regions of slides, and write them as tiles with labels.

    Args:
        items (list[SlideInput]): the slides.
        output (Path): folder for ``images/``, ``labels.json``, ``annotations/`` and a table.
        wanted (Wanted): what to choose.
        cases (dict): file name -> case; a slide that is not in it is a case of its own.
        model_settings (dict): keyword arguments for
            :func:`~steatosis_d2.inference.models.choose_model`, of a network.
        progress (bool): show a bar on a terminal.

    Returns:
        tuple: the tiles, list[ChosenTile]; file name -> why a slide could not be read.

    Raises:
        InputError: no slide has a region of tissue, or the model is at fault.
    """
    by_name = {item.file_name: item for item in items}
    faults: dict[str, str] = {}
    regions = _list_all_regions(items, wanted, cases, faults)
    if not regions:
        raise InputError(
            "\nerror: ".join(faults.values())
            or f"no region of {wanted.size_um:g} um is mostly tissue. Give slides with more "
            "tissue, or a smaller --size-um."
        )
    rng = np.random.default_rng(wanted.seed)
    candidates = spread_over_cases(regions, CANDIDATES_EACH * wanted.number, rng)
    looker = _Looker(model_settings, wanted.mpp)
    findings = looker.look_at(candidates, by_name, progress=progress)
    chosen = select_regions(candidates, findings, number=wanted.number)
    tiles = []
    for index, reason in sorted(chosen, key=lambda pair: _place(candidates[pair[0]])):
        region = candidates[index]
        item = by_name[region.file_name]
        with open_with_pixel_size(item.path, mpp=wanted.mpp) as slide:
            image_rgb = read_region_rgb(slide, region)
            name = name_tile(item.name, region.left, region.top)
            tile = ChosenTile(name, region, findings[index], reason, float(slide.mpp))
        write_tile(output / "images" / tile.file_name, image_rgb, mpp=tile.mpp, source=tile.source)
        tiles.append(tile)
    info = {
        "description": "regions chosen for an expert, with a network's labels",
        "model": looker.description,
        "seed": wanted.seed,
    }
    write_tile_labels(
        output, tiles, fractions=wanted.fractions, category=looker.category, info=info
    )
    return tiles, faults


def read_cases(path):
    """
    Which slide is of which case.

    Args:
        path (Path): CSV file with the columns ``file_name`` and ``case``.

    Returns:
        dict: file name (str) -> case (str).

    Raises:
        InputError: the file is missing, or lacks a column.
    """
    if not path.is_file():
        raise InputError(f"file of cases '{path}' does not exist; check the path.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file_name", "case"} <= rows[0].keys():
        raise InputError(
            f"'{path}' has the columns {', '.join(rows[0]) if rows else 'none'}; expected a CSV "
            "file with 'file_name' and 'case', one line a slide."
        )
    return {row["file_name"]: row["case"] for row in rows}


def read_region_rgb(slide, region):
    """Pixels of a region: uint8, shape (side, side, 3)."""
    return slide.read_region(region.left, region.top, region.side_px, region.side_px)


def read_training_colours(weights):
    """
    The colours of the tiles that a network was trained on, as its export noted them.

    Args:
        weights (str): checkpoint, or an address.

    Returns:
        ColourStatistics or None: None where the checkpoint notes none.
    """
    noted = read_note(weights, COLOURS_KEY)
    return noted and ColourStatistics.from_lists(noted)


class _Looker:
    """Network and classical method, which look at one region after another."""

    def __init__(self, model_settings, mpp):
        choice = choose_model(**model_settings)
        network = choice()
        self.description, self.category = network.describe(), network.category
        self._class_index = network.categories.index(network.category)
        self._threshold = network.score_threshold
        self._colours = read_training_colours(network.weights)
        lower = max(self._threshold - NEAR_THRESHOLD, 0.0)
        self._network = replace(choice, score_threshold=lower)()
        self._classical = ClassicalModel()
        self._mpp = mpp

    def look_at(self, regions, by_name, *, progress):
        """Findings of each region, in the order that they have."""
        order = sorted(range(len(regions)), key=lambda i: _place(regions[i]))
        in_order = [regions[i] for i in order]
        if self._colours is None:
            logger.info("the weights note no colours: regions are compared with one another")
            self._colours = ColourStatistics.of(
                [describe_colours(pixels) for _, _, pixels in self._read(in_order, by_name)]
            )
        findings = {}
        with logging_redirect_tqdm():
            bar = tqdm(
                self._read(in_order, by_name),
                total=len(regions),
                unit="region",
                disable=None if progress else True,
            )
            for i, (slide, context, image_rgb) in zip(order, bar, strict=True):
                [found] = self._network([image_rgb], mpp=slide.mpp)
                [classical] = self._classical([image_rgb], mpp=slide.mpp, **context)
                findings[i] = measure_region(
                    image_rgb,
                    [one for one in found if one.class_index == self._class_index],
                    classical,
                    threshold=self._threshold,
                    region=regions[i],
                    mpp=slide.mpp,
                    colours=self._colours,
                )
        return [findings[i] for i in range(len(regions))]

    def _read(self, regions, by_name):
        """Slide, its context for the classical method, and pixels, of regions sorted by slide."""
        slide, context, opened = None, {}, None
        for region in regions:
            if opened != region.file_name:
                if slide is not None:
                    slide.close()
                slide = open_with_pixel_size(by_name[region.file_name].path, mpp=self._mpp)
                context, opened = self._classical.look_at(slide), region.file_name
            yield slide, context, read_region_rgb(slide, region)
        if slide is not None:
            slide.close()


def _list_all_regions(items, wanted, cases, faults):
    regions = []
    for item in items:
        with (
            note_fault(item, faults),
            open_with_pixel_size(item.path, mpp=wanted.mpp) as slide,
        ):
            tissue = find_tissue(slide)
            if slide.mpp is None and not tissue.mask.any():
                continue  # glass has no pixel size that could be estimated
            regions += list_regions(
                slide,
                tissue,
                size_um=wanted.size_um,
                file_name=item.file_name,
                case=cases.get(item.file_name, item.name),
            )
    return regions


def _place(region):
    return region.file_name, region.top, region.left
