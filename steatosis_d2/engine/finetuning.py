"""Fine-tuning with screened labels: what trains, what judges, how long, and what it brought."""

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from steatosis_d2.data.sources import Sample
from steatosis_d2.data.splits import split_by_case
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done

# Of fewer objects, chance alone moves the recall by a tenth: sqrt(0.8 * 0.2 / 20) is 0.09.
MIN_OBJECTS = 20
# So often each part of an image is seen, within these numbers of steps.
PASSES, STEPS = 20, (60, 2000)
LEARNING_RATE = 0.01
# The rate falls tenfold for the last part, and the network is judged so often.
LAST_PART, JUDGEMENTS, PATIENCE = 0.25, 5, 3
# Of the averaged weights: over the last part and not much more.
_EMA_STEPS_SHARE = 0.1
WATCHED = "instances/f1"
# Heading -> group and name of a figure, and whether more of it is better.
FIGURES = {
    "F1@0.5": ("instances", "f1"),
    "precision": ("instances", "precision"),
    "recall": ("instances", "recall"),
    "PQ": ("instances", "pq"),
    "count error": ("clinical", "count_error"),
    "fat-area error, points": ("clinical", "fat_area_error_points"),
}


@dataclass(frozen=True)
class Schedule:
    """
    How long to train, and how fast.

    Attributes:
        steps (int): at most.
        learning_rate (float): for all but the last part.
        judged_every (int): steps.
    """

    steps: int
    learning_rate: float
    judged_every: int


def split_for_judging(content, *, case_of, judging_share, source):
    """
    Which images train, and which judge.

    Args:
        content (dict): of a COCO file of screened labels.
        case_of (callable): image record -> case (str).
        judging_share (float): of the cases, for judging.
        source (str or Path): of the content, for messages.

    Returns:
        dict: ``train`` and ``val`` -> content of a COCO file.

    Raises:
        InputError: there is too little to train from, or to judge by.
    """
    records = {image["file_name"]: image for image in content["images"]}
    samples = [Sample(name, case_of(one), Path(name), Path()) for name, one in records.items()]
    n_cases = len({sample.case for sample in samples})
    if n_cases < 2:
        raise InputError(
            f"'{source}' has images of {n_cases} case; expected two or more: images of a case that "
            "was trained on look alike and judge nothing. Screen another case, or say which image "
            "is of which case with --case-pattern."
        )
    splits = split_by_case(samples, (1 - judging_share, judging_share, 0.0))
    halves = {
        name: _take_images(content, [records[sample.name] for sample in splits[name]])
        for name in ("train", "val")
    }
    for name, verb in (("train", "train from"), ("val", "judge by")):
        n_objects = count_objects(halves[name])
        if n_objects < MIN_OBJECTS:
            raise InputError(
                f"'{source}' leaves {len(halves[name]['images'])} images with {n_objects} outlined "
                f"objects to {verb}; expected {MIN_OBJECTS} objects or more. Screen more images"
                f"{', or give --judging-share another value' if n_cases > 2 else ''}."
            )
    return halves


def count_objects(content):
    """Number of objects (int) in a COCO file, areas to ignore left out."""
    return sum(not annotation.get("iscrowd") for annotation in content["annotations"])


def plan_schedule(images, cfg, *, steps=None):
    """
    A schedule for some images.

    Args:
        images (list[dict]): COCO records, to train from.
        cfg (CfgNode): of the network: its scale, its crops, images a step.
        steps (int or None): how many; None counts by how much there is to see.

    Returns:
        Schedule: each part of an image is seen about ``PASSES`` times.
    """
    crop_px = math.prod(cfg.INPUT.CROP.SIZE)
    crops = 0.0
    for image in images:
        mpp = image.get("mpp")
        scale = mpp / cfg.INPUT.MPP if mpp and cfg.INPUT.MPP else cfg.INPUT.SCALE
        crops += max(1.0, image["height"] * image["width"] * scale**2 / crop_px)
    if steps is None:
        lowest, highest = STEPS
        steps = min(max(round(PASSES * crops / cfg.SOLVER.IMS_PER_BATCH), lowest), highest)
    return Schedule(steps, LEARNING_RATE, judged_every=max(1, steps // JUDGEMENTS))


def write_config(path, *, base, weights, schedule, datasets, overrides, seed, output):
    """
    Write the config that ``train`` takes: what differs from the network's own.

    Args:
        path (Path): the file.
        base (str): the network's config file.
        weights (str): to begin with.
        schedule (Schedule): from :func:`plan_schedule`.
        datasets (dict): ``train`` and ``val`` -> name of a data set.
        overrides (list[str]): config ``KEY VALUE`` pairs of the user.
        seed (int): of chance.
        output (Path): folder for the training.
    """
    steps = schedule.steps
    changes = {
        "_BASE_": str(Path(base).resolve()),
        "MODEL": {"WEIGHTS": str(weights)},
        "DATASETS": {
            "TRAIN": [datasets["train"]],
            "TRAIN_SHARES": [],
            "TEST": [datasets["val"]],
        },
        "SOLVER": {
            "BASE_LR": schedule.learning_rate,
            "MAX_ITER": steps,
            "STAGES": [
                {
                    "train": "all",
                    "iterations": steps,
                    "steps": [round(steps * (1 - LAST_PART))],
                    # Of a few tiles, with a few crops a step, they tell less than those at hand.
                    "freeze_norm": True,
                }
            ],
            "WARMUP_ITERS": max(1, steps // 10),
            "EMA_DECAY": round(1 - 1 / max(2, steps * _EMA_STEPS_SHARE), 4),
            "CHECKPOINT_PERIOD": schedule.judged_every,
        },
        "TEST": {
            "EVAL_PERIOD": schedule.judged_every,
            "BEST_METRIC": WATCHED,
            "PATIENCE": PATIENCE,
        },
        "SEED": seed,
        "OUTPUT_DIR": str(output),
    }
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        *parents, last = key.split(".")
        node = changes
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = yaml.safe_load(value)
    with replace_when_done(path) as temporary:
        temporary.write_text(yaml.safe_dump(changes, sort_keys=False), encoding="utf-8")


def describe_gain(before, after):
    """
    A table for a person.

    Args:
        before, after (dict): content of ``metrics.json``, of the images that judge.

    Returns:
        str: a line a figure.
    """
    lines = [f"  {'':24}{'before':>9}{'after':>9}"]
    for heading, (group, name) in FIGURES.items():
        values = [content.get(group, {}).get(name) for content in (before, after)]
        if None not in values:
            lines.append(f"  {heading:24}{values[0]:9.3f}{values[1]:9.3f}")
    return "\n".join(lines)


def is_better(before, after):
    """Whether the figure that is watched has become better (bool)."""
    group, name = WATCHED.split("/")
    return after[group][name] > before[group][name]


def _take_images(content, images):
    ids = {image["id"] for image in images}
    annotations = [one for one in content["annotations"] if one["image_id"] in ids]
    return content | {"images": images, "annotations": annotations}
