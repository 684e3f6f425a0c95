"""A tile through R-50-FPN: ours, stock Detectron2 and torchvision, stage by stage."""

import functools
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.drawn import draw_tissue
from benchmarks.figures import (
    Figure,
    compare,
    peak_memory_gb,
    run_alone,
    summarize,
    time_in_turn,
)
from benchmarks.stock import as_stock, build_torchvision, fit_statistics
from steatosis_d2.data.images import read_image_rgb

TILE_PX = 1024
DETECTIONS = 100
MATRIX_SIDE = 2048

# stage -> where the model does it
STAGES = {
    "preprocessing": lambda model: (model, "preprocess_image"),
    "backbone and FPN": lambda model: (model.backbone, "forward"),
    "proposals": lambda model: (model.proposal_generator, "forward"),
    "box head": lambda model: (model.roi_heads, "_forward_box"),
    "mask head": lambda model: (model.roi_heads, "_forward_mask"),
}


def measure_network(options):
    """End to end, by stage, against the matrix-product rate of the machine, and in memory."""
    with tempfile.TemporaryDirectory() as folder:
        image_rgb = read_tile(options)
        cfg = prepare_config(Path(folder), image_rgb)
        contenders = build_contenders(cfg, image_rgb, options)
        return [
            *measure_reading(Path(folder), image_rgb, options),
            *measure_tile(contenders, image_rgb, options),
            *measure_stages(contenders, options),
            *measure_roofline(contenders["ours"], image_rgb, options),
            *measure_memory(cfg, contenders, options),
        ]


def read_tile(options):
    """The user's tile, or a drawn one."""
    if options.tile is not None:
        return read_image_rgb(options.tile)
    return draw_tissue(TILE_PX, droplets=DETECTIONS)


def prepare_config(folder, image_rgb):
    """Config of the 2019 paper's R-50-FPN, with random weights that find DETECTIONS objects."""
    import torch
    from detectron2.modeling import build_model

    from steatosis_d2.config import load_config

    overrides = {
        "MODEL.WEIGHTS": folder / "model.pth",
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,  # as torchvision's
        "INPUT.SCALE": 1.0,
        "INPUT.MPP": 0.0,
        # All scores of random weights lie above it, and the cap decides.
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
        "TEST.DETECTIONS_PER_IMAGE": DETECTIONS,
    }
    words = [str(word) for item in overrides.items() for word in item]
    cfg = load_config("liver/mask_rcnn_R_50_FPN.yaml", words)
    torch.manual_seed(0)
    model = build_model(cfg)
    pixels = torch.from_numpy(image_rgb[:, :, ::-1].transpose(2, 0, 1).copy())
    fit_statistics(model.backbone, model.preprocess_image([{"image": pixels}]).tensor)
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return cfg


def build_contenders(cfg, image_rgb, options):
    """Name -> (function that segments the tile, Detectron2 model in it or None)."""
    names = ["ours"]
    if options.compare_stock:
        names += ["ours in float32", "stock", "torchvision"]
    return {name: build_contender(name, cfg, image_rgb) for name in names}


def build_contender(name, cfg, image_rgb):
    """A function that segments the tile, and the Detectron2 model in it, if there is one."""
    import torch
    from detectron2.engine import DefaultPredictor

    from steatosis_d2.inference.predictor import MaskRCNNPredictor

    if name == "stock":
        stock = DefaultPredictor(as_stock(cfg))
        return functools.partial(stock, image_rgb[:, :, ::-1]), stock.model
    if name == "torchvision":
        pixels = torch.from_numpy(image_rgb.transpose(2, 0, 1).copy())
        return build_torchvision(cfg, pixels), None
    precision = torch.float32 if name == "ours in float32" else None
    ours = MaskRCNNPredictor(cfg, score_threshold=0.0, precision=precision)
    return functools.partial(ours, [image_rgb], mpp=None), ours.model


def measure_reading(folder, image_rgb, options):
    """A tile from a PNG file."""
    from detectron2.data.detection_utils import read_image

    path = folder / "tile.png"
    Image.fromarray(image_rgb).save(path)
    readers = {"ours": lambda: read_image_rgb(path)}
    if options.compare_stock:
        readers["stock"] = lambda: read_image(path, format="RGB")
    seconds = time_in_turn(readers, rounds=5 * options.rounds)
    return [
        summarize("reading", f"{name}: the tile from a PNG file", values)
        for name, values in seconds.items()
    ]


def measure_tile(contenders, image_rgb, options):
    """Seconds a tile, from its pixels to instances, and the ratios that the project aims at."""
    runs = {name: run for name, (run, _) in contenders.items()}
    seconds = time_in_turn(runs, rounds=options.rounds)
    height, width = image_rgb.shape[:2]
    what = f"R-50-FPN, {width} x {height} px, {DETECTIONS} detections"
    figures = [summarize("tile", f"{name}: {what}", seconds[name]) for name in runs]
    if options.compare_stock:
        has_bfloat16 = contenders["ours"][1].backbone.bottom_up.stem.conv1.weight.itemsize == 2
        limits = {"stock": (2.8, 1.3), "torchvision": (4, 1.8)}
        for other, (at_least, at_least_float32) in limits.items():
            if has_bfloat16:
                figures.append(
                    compare(
                        "tile",
                        f"times as fast as {other}",
                        slower=seconds[other],
                        faster=seconds["ours"],
                        at_least=at_least,
                    )
                )
            figures.append(
                compare(
                    "tile",
                    f"times as fast as {other}, both in float32",
                    slower=seconds[other],
                    faster=seconds["ours in float32"],
                    at_least=at_least_float32,
                )
            )
    return figures


def measure_stages(contenders, options):
    """Where the time goes; what is left over is the way to boxes and masks in the tile."""
    clocks = {
        name: (run, StageClock(model))
        for name, (run, model) in contenders.items()
        if model is not None
    }
    rounds = {name: [] for name in clocks}
    for _ in range(options.rounds):
        for name, (run, clock) in clocks.items():
            rounds[name].append(clock.time(run))
    return [
        summarize(stage, f"{name}: the tile", [seconds[stage] for seconds in rounds[name]])
        for stage in [*STAGES, "mask post-processing"]
        for name in clocks
    ]


class StageClock:
    """Seconds that a model spends in each stage."""

    def __init__(self, model):
        """
        Args:
            model (GeneralizedRCNN): its methods are replaced by ones that note their time.
        """
        self._seconds = {}
        for stage, find in STAGES.items():
            owner, method = find(model)
            setattr(owner, method, functools.partial(self._note, stage, getattr(owner, method)))

    def time(self, run):
        """
        Args:
            run (function): uses the model once.

        Returns:
            dict: stage -> seconds.
        """
        self._seconds.clear()
        start = time.perf_counter()
        run()
        total = time.perf_counter() - start
        rest = total - sum(self._seconds.values())
        return {**self._seconds, "mask post-processing": rest}

    def _note(self, stage, function, *args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        self._seconds[stage] = time.perf_counter() - start
        return result


def measure_roofline(ours, image_rgb, options):
    """Backbone and FPN against a matrix product in the same precision."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    backbone = ours[1].backbone
    height, width = image_rgb.shape[:2]
    pixels = torch.randn(1, 3, height, width).to(memory_format=torch.channels_last)
    precision = backbone.bottom_up.stem.conv1.weight.dtype
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(precision)
    with torch.inference_mode():
        counter = FlopCountAnalysis(backbone, pixels)
        operations = 2 * counter.unsupported_ops_warnings(False).total()  # it counts products
        seconds = time_in_turn(
            {"product": lambda: matrix @ matrix, "backbone": lambda: backbone(pixels)},
            rounds=2 * options.rounds,
        )
    product_rates = [2 * MATRIX_SIDE**3 / s / 1e9 for s in seconds["product"]]
    backbone_rates = [operations / s / 1e9 for s in seconds["backbone"]]
    name = str(precision).removeprefix("torch.")
    shares = [100 * a / b for a, b in zip(backbone_rates, product_rates, strict=True)]
    return [
        Figure("roofline", "operations of backbone and FPN", operations / 1e9, "GFLOP"),
        summarize("roofline", f"matrix product, {name}", product_rates, unit="GFLOP/s"),
        summarize("roofline", f"backbone and FPN, {name}", backbone_rates, unit="GFLOP/s"),
        summarize("roofline", "share of the matrix product", shares, unit="%", at_least=75),
    ]


def measure_memory(cfg, contenders, options):
    """Memory that one tile adds to a process with the network loaded."""
    return [
        Figure("tile", f"{name}: memory for it", run_alone(memory_of, name, cfg, options), "GB")
        for name in contenders
    ]


def memory_of(name, cfg, options):
    """Resident memory in GB that one contender needs, in a process of its own."""
    run, _ = build_contender(name, cfg, read_tile(options))
    before = peak_memory_gb()
    run()
    return peak_memory_gb() - before


MEASURES = (measure_network,)
