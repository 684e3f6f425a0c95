"""What there is to do on a slide: its tissue, cut into tiles, in batches."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import shapely

from steatosis_d2.data.sources import case_of_name, compile_case_pattern
from steatosis_d2.errors import InputError
from steatosis_d2.files import drop_suffix, shorten
from steatosis_d2.inference.tiles import MIN_OVERLAP_PX, Tile, plan_tiles
from steatosis_d2.slides.pyramid import Slide
from steatosis_d2.slides.regions import find_regions
from steatosis_d2.slides.tissue import TissueMask, find_tissue

EXCLUDE, FLAG = "exclude", "flag"
TILE_PX = 1024
# A droplet of 60 um, which few exceed, is 120 px wide at 20x; at 40x one of 32 um is 128 px.
OVERLAP_PX = 128
# Longest side of a tile as the network sees it: 17 megapixels, for which the starter takes 3.6 GB.
MAX_INPUT_PX = 4096


@dataclass(frozen=True)
class SlideInput:
    """
    One input of a run.

    Attributes:
        path (Path): the file.
        file_name (str): what tables and COCO files call it, relative to the image folder.
        name (str): what its output files begin with, unique in the run.
        regions (shapely geometry or None): where to look, in px of level 0.
        named_regions (tuple[tuple[str, shapely.Geometry]]): the parts of it that have names.
        case (str or None): whose slide it is.
    """

    path: Path
    file_name: str
    name: str
    regions: shapely.Geometry | None = None
    named_regions: tuple = ()
    case: str | None = None

    @property
    def regions_sha256(self):
        """A fingerprint of the regions (str), None without any."""
        if self.regions is None:
            return None
        digest = hashlib.sha256(shapely.to_wkb(self.regions))
        for name, geometry in self.named_regions:
            digest.update(name.encode() + shapely.to_wkb(geometry))
        return digest.hexdigest()


def name_inputs(files):
    """
    Say what the output files of each input begin with.

    Args:
        files (dict): ``file_name`` -> Path, from :func:`steatosis_d2.data.images.list_inputs`.

    Returns:
        list[SlideInput]: in the same order. A file's name is that without its suffix; where two
        files share it, their whole names with the folders that tell them apart.

    Examples:
        >>> files = {name: Path(name) for name in ("a.svs", "a.png", "b/c.svs")}
        >>> [item.name for item in name_inputs(files)]
        ['a.svs', 'a.png', 'c']
    """
    stems = {file_name: shorten(drop_suffix(Path(file_name)).name) for file_name in files}
    whole = {file_name: shorten(file_name.replace("/", "_")) for file_name in files}
    # Some file systems do not tell upper from lower case.
    sharing = Counter(name.casefold() for name in (*stems.values(), *whole.values()))
    return [
        SlideInput(
            path,
            file_name,
            name=stem if sharing[(stem := stems[file_name]).casefold()] == 1 else whole[file_name],
        )
        for file_name, path in files.items()
    ]


def with_regions(items, roi):
    """Inputs (list[SlideInput]) that know where to look; ``roi`` is as for ``find_regions``."""
    regions = find_regions(roi, items)
    return [
        item if one is None else replace(item, regions=one.union, named_regions=one.named)
        for item, one in zip(items, regions, strict=True)
    ]


def with_cases(items, pattern):
    """Inputs (list[SlideInput]) that know whose they are; a pattern finds it in their names."""
    if pattern is None:
        return items
    expression = compile_case_pattern(pattern)
    return [
        replace(
            item,
            case=case_of_name(str(drop_suffix(Path(item.file_name))), pattern=expression),
        )
        for item in items
    ]


@dataclass(frozen=True)
class Tiling:
    """
    How slides are read and cut into tiles.

    Attributes:
        mpp (float, "estimate" or None): um/px that wins over what the slides state; or that it
            is estimated where they state none.
        tile_px (int): longest side of a tile, in px of level 0.
        overlap_px (int): least that neighbouring tiles share.
        page (int or None): which page of a TIFF of several pictures, from 1.
        artefacts (str): ``exclude`` leaves what cannot be measured out of the tissue, ``flag``
            only tells how much there is; see :mod:`steatosis_d2.slides.artefacts`.

    Raises:
        InputError: on any other word.
    """

    mpp: float | str | None = None
    tile_px: int = TILE_PX
    overlap_px: int = OVERLAP_PX
    page: int | None = None
    artefacts: str = EXCLUDE

    def __post_init__(self):
        if self.artefacts not in (EXCLUDE, FLAG):
            raise InputError(f"artefacts are '{self.artefacts}'; expected '{EXCLUDE}' or '{FLAG}'.")

    def describe(self):
        """The settings (dict), as JSON values."""
        return {
            "mpp": self.mpp,
            "tile_px": self.tile_px,
            "overlap_px": self.overlap_px,
            "page": self.page,
            "artefacts": self.artefacts,
        }


@dataclass(frozen=True)
class SlidePlan:
    """
    A slide, open, and what is to be looked at.

    Attributes:
        slide (Slide): open.
        tissue (TissueMask): within the regions of interest.
        tiles (list[Tile]): that show tissue.
        regions (shapely geometry or None): in px of level 0.
    """

    slide: Slide
    tissue: TissueMask
    tiles: list[Tile]
    regions: shapely.Geometry | None

    def split(self, batch_size):
        """
        The tiles in batches, which depend on nothing but the plan.

        Args:
            batch_size (int): tiles that a model takes together.

        Returns:
            list[list[Tile]]: in order.
        """
        return [
            self.tiles[start : start + batch_size]
            for start in range(0, len(self.tiles), batch_size)
        ]

    def counts(self, instance):
        """
        Whether an instance belongs to the result, however the slide was cut into tiles.

        Args:
            instance (Instance): in px of level 0.

        Returns:
            bool: it touches tissue, and the middle of its box lies in the regions and on no
            artefact that is left out: one on their border is counted or not by a rule that favours
            neither.
        """
        box = instance.left, instance.top, instance.right, instance.bottom
        x, y = (instance.left + instance.right) / 2, (instance.top + instance.bottom) / 2
        if not self.tissue.overlaps(*box) or self.tissue.leaves_out(x, y):
            return False
        return self.regions is None or bool(shapely.contains_xy(self.regions, x, y))


def plan_slide(slide, tiling, *, regions=None, input_scale=None):
    """
    Find the tissue of a slide, and cut it into tiles.

    Args:
        slide (Slide): open.
        tiling (Tiling): how.
        regions (shapely geometry or None): where to look, in px of level 0.
        input_scale (callable or None): um/px of a slide -> px of the network's input for one of
            its px. Where it enlarges much, tiles are smaller, so that they fit the memory.

    Returns:
        SlidePlan: with the tiles that show tissue.

    Raises:
        InputError: the file is damaged, the regions miss the slide, or it would have to be
            enlarged beyond all measure.
    """
    tissue = find_tissue(slide, leave_out_artefacts=tiling.artefacts == EXCLUDE)
    if regions is not None:
        tissue = tissue.restrict_to(regions)
    scale = 1.0 if input_scale is None else input_scale(slide.mpp)
    tile_px = min(tiling.tile_px, int(MAX_INPUT_PX / scale))
    if tile_px < 2 * MIN_OVERLAP_PX:
        raise InputError(
            f"slide '{slide.path}' would be enlarged {scale:.3g} times for the network; expected "
            f"{MAX_INPUT_PX // (2 * MIN_OVERLAP_PX)} times at most. Check its pixel size (--mpp)."
        )
    tiles = plan_tiles(
        slide.width,
        slide.height,
        tile_px=tile_px,
        overlap_px=min(tiling.overlap_px, tile_px // 2),
        tissue=tissue,
    )
    return SlidePlan(slide, tissue, tiles, regions)
