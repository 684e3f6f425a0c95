"""The label generator on one core, beside liverquant where it is installed."""

import contextlib
import functools
import tracemalloc

import cv2

from benchmarks.drawn import draw_tissue
from benchmarks.figures import Figure, compare, summarize, time_in_turn
from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import choose_parameters

MPP = 0.25


def measure_labels(options):
    """Time and memory of one tile, and how they grow with it."""
    cv2.setNumThreads(1)
    label = functools.partial(label_by_clump_split, mpp=MPP, parameters=choose_parameters(MPP))
    tile, large = (draw_tissue(1024, droplets=100), draw_tissue(2048, droplets=400))
    generators = {"clump split": lambda: label(tile), "four times as large": lambda: label(large)}
    with contextlib.suppress(ImportError):
        import liverquant

        generators["liverquant"] = lambda: liverquant.detect_fat_globules(tile, resolution=MPP)
    seconds = time_in_turn(generators, rounds=options.rounds)
    ours = seconds["clump split"]
    tracemalloc.start()
    label(tile)
    bytes_per_pixel = tracemalloc.get_traced_memory()[1] / (tile.size / 3)
    growth = [a / b / 4 for a, b in zip(seconds["four times as large"], ours, strict=True)]
    figures = [
        summarize("labels", "1024 x 1024 px, 100 droplets, one core", ours, at_most=0.35),
        summarize(
            "labels", "time a pixel of a tile four times as large", growth, unit="x", at_most=1.25
        ),
        Figure("labels", "peak memory above the image", bytes_per_pixel, "bytes/px", at_most=12),
    ]
    if "liverquant" in seconds:
        figures.append(
            compare(
                "labels",
                "times as fast as liverquant",
                slower=seconds["liverquant"],
                faster=ours,
                at_least=1,
            )
        )
    return figures


MEASURES = (measure_labels,)
