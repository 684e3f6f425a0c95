"""A training step of the starter, and the loading of its images, ours and stock Detectron2's."""

import functools
import itertools
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.drawn import draw_disks, draw_tissue, random_disks
from benchmarks.figures import compare, summarize, time_in_turn
from benchmarks.stock import as_stock

TILE_PX = 416  # as Torino's
DROPLETS = 60


def measure_training(options):
    """One step with a batch of the config's size, and one image through the mapper."""
    import torch
    from detectron2.data import DatasetMapper

    from steatosis_d2.data.mapper import InstanceMapper
    from steatosis_d2.model_zoo import get_config

    cfg = get_config("liver/starter.yaml", ["MODEL.WEIGHTS", ""])
    with tempfile.TemporaryDirectory() as folder:
        record = write_record(Path(folder))
        ours = InstanceMapper(cfg, is_train=True)
        stock = DatasetMapper(
            is_train=True,
            augmentations=stock_augmentations(cfg),
            image_format=cfg.INPUT.FORMAT,
            use_instance_mask=True,
            instance_mask_format="bitmask",
            recompute_boxes=True,
        )
        torch.manual_seed(0)
        batch = [ours(record) for _ in range(cfg.SOLVER.IMS_PER_BATCH)]
        steps, mappers = {"ours": build_step(cfg, batch)}, {"ours": lambda: ours(record)}
        if options.compare_stock:
            steps["stock"] = build_stock_step(cfg, batch)
            mappers["stock"] = lambda: stock(record)
        step_s = time_in_turn(steps, rounds=options.rounds)
        loading_s = time_in_turn(mappers, rounds=10 * options.rounds)
    crop = " x ".join(map(str, cfg.INPUT.CROP.SIZE))
    batch_size, model = cfg.SOLVER.IMS_PER_BATCH, "starter"
    return [
        *report("training step", f"{model}, {batch_size} crops of {crop} px", step_s, at_least=1.4),
        *report("data loading", f"an image with {DROPLETS} droplets, augmented", loading_s),
    ]


def report(stage, what, seconds, *, at_least=None):
    """Figures of each contender, and how they compare."""
    figures = [summarize(stage, f"{name}: {what}", values) for name, values in seconds.items()]
    if "stock" in seconds:
        ours, stock = seconds["ours"], seconds["stock"]
        name = "times as fast as stock"
        figures.append(compare(stage, name, slower=stock, faster=ours, at_least=at_least))
    return figures


def write_record(folder):
    """A drawn tile in a file, as Detectron2's record of an image."""
    from detectron2.structures import BoxMode
    from pycocotools import mask as coco_mask

    image = folder / "tile.png"
    Image.fromarray(draw_tissue(TILE_PX, droplets=DROPLETS)).save(image)
    rng = np.random.default_rng(0)
    rles = draw_disks(*random_disks(rng, DROPLETS, TILE_PX), TILE_PX)
    annotations = [
        {
            "bbox": coco_mask.toBbox(rle).tolist(),
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "segmentation": rle,
        }
        for rle in rles
    ]
    return {
        "file_name": str(image),
        "height": TILE_PX,
        "width": TILE_PX,
        "image_id": 1,
        "annotations": annotations,
    }


def stock_augmentations(cfg):
    """What Detectron2 itself has of the config's augmentations."""
    from detectron2.data import transforms as T

    shortest = [round(cfg.INPUT.SCALE * factor * TILE_PX) for factor in cfg.INPUT.SCALE_JITTER]
    return [
        T.ResizeShortestEdge(shortest, sample_style="range"),
        T.RandomCrop("absolute", tuple(cfg.INPUT.CROP.SIZE)),
        T.RandomBrightness(*cfg.INPUT.BRIGHTNESS),
        T.RandomFlip(),
    ]


def build_step(cfg, batch):
    """One step as this project's Trainer takes it."""
    import torch

    from steatosis_d2.engine.train_loop import TrainLoop, choose_dtype

    build_loop = functools.partial(
        TrainLoop,
        seed=0,
        dtype=choose_dtype(cfg.MODEL.DEVICE) if cfg.SOLVER.AMP.ENABLED else torch.float32,
        accumulate=cfg.SOLVER.ACCUMULATE,
        ema_decay=cfg.SOLVER.EMA_DECAY,
    )
    return as_step(build_loop, cfg, batch)


def build_stock_step(cfg, batch):
    """One step of Detectron2's own model in its own loop."""
    from detectron2.engine import SimpleTrainer

    return as_step(SimpleTrainer, as_stock(cfg), batch)


def as_step(build_loop, cfg, batch):
    """A function that takes one step of a training loop, always on the same batch."""
    import torch
    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer

    torch.manual_seed(0)
    model = build_model(cfg).train()
    cfg = cfg.clone()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False  # Detectron2 has no clipping of the whole norm
    cfg.SOLVER.BASE_LR = 1e-6  # so that the network, and with it the work, stays as it is
    loop = build_loop(model, itertools.repeat(batch), build_optimizer(cfg, model))
    return functools.partial(take_step, loop)


def take_step(loop):
    from detectron2.utils.events import EventStorage

    with EventStorage() as loop.storage:
        loop.run_step()


MEASURES = (measure_training,)
