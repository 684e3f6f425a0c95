"""The regions that an expert should see: all amounts of fat, and what the network doubts most."""

import itertools
import math
from collections import Counter

import numpy as np

# Limits of the fat's share of the tissue; each class gets as many regions as there are to be had.
FAT_LIMITS = (0.001, 0.01, 0.05, 0.2)
FAT_CLASSES = ("no fat", "fat to 1%", "fat to 5%", "fat to 20%", "fat above 20%")
DOUBTS = {
    "near_threshold": "scores near the threshold",
    "disagreement": "network and classical method differ",
    "strangeness": "unlike the training tiles",
}


def select_regions(regions, findings, *, number):
    """
    Choose regions: half by their amount of fat, half by doubt, spread over the cases.

    In turn, each class of fat gives the region that comes first in the order they have, which is
    by chance, and each kind of doubt the one that is doubted most. A case gives no more than its
    share as long as others have regions.

    Args:
        regions (list[Region]): in an order that chance has made.
        findings (list[Findings]): of each.
        number (int): how many to choose.

    Returns:
        list[tuple[int, str]]: index and reason, in the order of choice; fewer than ``number``
        only where there are fewer regions.
    """
    number = min(number, len(regions))
    queues = [*_by_fat(findings), *_by_doubt(findings)]
    # Turn and turn about: a class of fat, a doubt, so that both get half.
    n_fat = len(FAT_CLASSES)
    turns = itertools.chain.from_iterable(
        zip(
            itertools.cycle(queues[:n_fat]),
            itertools.cycle(queues[n_fat:]),
            strict=False,
        )
    )
    share = math.ceil(number / len({region.case for region in regions})) if regions else 0
    chosen: dict[int, str] = {}
    of_case: Counter[str] = Counter()
    misses = 0
    for reason, queue in turns:
        if len(chosen) == number:
            break
        # Within so many turns all queues are asked; if none had anything, cases may give more.
        if misses >= 2 * len(FAT_CLASSES) * len(DOUBTS):
            share, misses = share + 1, 0
        index = next(
            (i for i in queue if i not in chosen and of_case[regions[i].case] < share), None
        )
        if index is None:
            misses += 1
            continue
        chosen[index], misses = reason, 0
        of_case[regions[index].case] += 1
    return list(chosen.items())


def _by_fat(findings):
    """Reason and indices of each class, in the order they have."""
    classes = np.searchsorted(FAT_LIMITS, [one.fat_share for one in findings], side="right")
    return [(name, np.flatnonzero(classes == i).tolist()) for i, name in enumerate(FAT_CLASSES)]


def _by_doubt(findings):
    """Reason and indices of each kind of doubt, the most doubtful first."""
    return [
        (
            reason,
            np.argsort([-getattr(one, name) for one in findings], kind="stable").tolist(),
        )
        for name, reason in DOUBTS.items()
    ]
