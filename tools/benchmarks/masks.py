"""From the network's small masks to run-length codes, ours and stock Detectron2's."""

import functools

import numpy as np

from benchmarks.figures import Figure, compare, peak_memory_gb, run_alone, summarize, time_in_turn

TILE_PX = 2048
DETECTIONS = 400
MASK_PX = 28


def measure_masks(options):
    """Time of pasting and encoding all masks of a crowded tile, and the memory it takes."""
    masks, boxes = draw_predictions()
    what = f"{DETECTIONS} masks in {TILE_PX} x {TILE_PX} px"
    contenders = {"ours": encode_by_crops}
    if options.compare_stock:
        contenders["stock"] = encode_stock
    runs = {name: functools.partial(run, masks, boxes) for name, run in contenders.items()}
    seconds = time_in_turn(runs, rounds=options.rounds)
    memory_gb = {name: run_alone(measure_memory, run) for name, run in contenders.items()}
    figures = []
    for name in contenders:
        figures += [
            summarize("masks", f"{name}: pasted and encoded, {what}", seconds[name]),
            Figure("masks", f"{name}: memory for it", 1000 * memory_gb[name], "MB"),
        ]
    if options.compare_stock:
        figures += [
            compare(
                "masks",
                "times as fast as stock",
                slower=seconds["stock"],
                faster=seconds["ours"],
                at_least=40,
            ),
            Figure(
                "masks",
                "share of stock's memory",
                100 * memory_gb["ours"] / memory_gb["stock"],
                "%",
                at_most=5,
            ),
        ]
    return figures


def draw_predictions():
    """Ragged disks as a mask head gives them: (N, 28, 28) in 0..1, and their boxes."""
    import torch

    generator = torch.Generator().manual_seed(0)
    sizes = 20 + 60 * torch.rand(DETECTIONS, 2, generator=generator)
    corners = (TILE_PX - 80) * torch.rand(DETECTIONS, 2, generator=generator)
    axis = torch.linspace(-1, 1, MASK_PX)
    radii = torch.hypot(axis[:, None], axis[None, :])
    noise = torch.randn(DETECTIONS, MASK_PX, MASK_PX, generator=generator)
    return torch.sigmoid(8 * (0.8 - radii) + noise), torch.cat([corners, corners + sizes], dim=1)


def encode_by_crops(masks, boxes):
    """This project's way."""
    from steatosis_d2.instances.rle import encode_crop
    from steatosis_d2.modeling.mask_crops import paste_crops

    crops = paste_crops(masks, boxes, height=TILE_PX, width=TILE_PX)
    return [
        encode_crop(crop, top=top, left=left, height=TILE_PX, width=TILE_PX)
        for crop, top, left in crops
    ]


def encode_stock(masks, boxes):
    """The way of Detectron2's ``GeneralizedRCNN`` and ``COCOEvaluator``."""
    from detectron2.layers.mask_ops import paste_masks_in_image
    from pycocotools import mask as coco_mask

    bitmaps = paste_masks_in_image(masks, boxes, (TILE_PX, TILE_PX))
    return [
        coco_mask.encode(np.array(bitmap[:, :, None], order="F", dtype="uint8"))[0]
        for bitmap in bitmaps
    ]


def measure_memory(encode):
    """Resident memory in GB that encoding adds to a process which has all it needs loaded."""
    masks, boxes = draw_predictions()
    encode(masks[:1], boxes[:1])
    before = peak_memory_gb()
    encode(masks, boxes)
    return peak_memory_gb() - before


MEASURES = (measure_masks,)
