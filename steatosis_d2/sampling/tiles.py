"""Chosen regions as a data set: lossless tiles, the network's labels, splits by case."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.data.sources import Sample
from steatosis_d2.data.splits import SPLITS, split_by_case
from steatosis_d2.files import replace_when_done
from steatosis_d2.sampling.doubt import Findings
from steatosis_d2.sampling.regions import Region
from steatosis_d2.slides.tile_writer import describe_source

LABELS, TABLE = "labels.json", "regions.csv"


@dataclass(frozen=True)
class ChosenTile:
    """
    One region that was chosen.

    Attributes:
        name (str): of its file, without suffix.
        region (Region): where it is.
        findings (Findings): what is in it.
        reason (str): why it was chosen.
        mpp (float): um/px.
    """

    name: str
    region: Region
    findings: Findings
    reason: str
    mpp: float

    @property
    def file_name(self):
        """Of the tile (str)."""
        return f"{self.name}.tif"

    @property
    def source(self):
        """Where it comes from (dict)."""
        return describe_source(self.region.file_name, self.region.left, self.region.top)


def write_tile_labels(output, tiles, *, fractions, category, info):
    """
    Write ``labels.json`` of all tiles, ``annotations/instances_*.json`` of each split, and a table.

    Args:
        output (Path): the folder; the tiles are in ``images/``.
        tiles (list[ChosenTile]): all of them.
        fractions (sequence[float]): of the cases, for train, val and test.
        category (str): what is labelled.
        info (dict): for the COCO files.
    """
    write_coco(output / LABELS, *_as_records(tiles), category=category, info=info)
    samples = {
        Sample(tile.name, tile.region.case, Path(tile.file_name), Path()): tile for tile in tiles
    }
    splits = split_by_case(list(samples), fractions)
    for split in SPLITS:
        records = _as_records([samples[sample] for sample in splits[split]])
        write_coco(
            output / "annotations" / f"instances_{split}.json",
            *records,
            category=category,
            info=info,
        )
    split_of = {sample.name: split for split in SPLITS for sample in splits[split]}
    _write_table(output / TABLE, tiles, split_of)


def _as_records(tiles):
    images: list[dict] = []
    annotations: list[dict] = []
    for number, tile in enumerate(tiles, 1):
        side_px = tile.region.side_px
        record = image_record(
            number, tile.file_name, height=side_px, width=side_px, mpp=tile.mpp
        ) | {"case": tile.region.case, "source": tile.source}
        images.append(record)
        for one in tile.findings.instances:
            annotations.append(
                annotation_record(
                    len(annotations) + 1,
                    number,
                    one.encode((side_px, side_px)),
                    score=round(float(one.score), 4),
                )
            )
    return images, annotations


def _write_table(path, tiles, split_of):
    """One line a tile: where it is, why it was chosen, and what was measured."""
    rows = [
        {
            "tile": tile.file_name,
            **asdict(tile.region),
            "mpp": tile.mpp,
            "split": split_of[tile.name],
            "reason": tile.reason,
            "droplets": len(tile.findings.instances),
            **{
                name: float(np.round(getattr(tile.findings, name), 4))
                for name in ("fat_share", "near_threshold", "disagreement", "strangeness")
            },
        }
        for tile in tiles
    ]
    with (
        replace_when_done(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["tile"])
        writer.writeheader()
        writer.writerows(rows)
