"""A tile through R-50-FPN, ours, stock and torchvision's, by stage; and through the starter."""

import contextlib
import functools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from benchmarks.drawn import draw_tissue
from benchmarks.figures import Figure, compare, peak_memory_gb, summarize, time_in_turn
from benchmarks.stock import as_stock, build_torchvision, fit_statistics
from steatosis_d2.data.images import read_image_rgb

TILE_PX = 1024
DETECTIONS = 100
BATCH = 4
MATRIX_SIDE = 2048
STARTER_MPP = 0.25  # of the tile, for the starter: a scan at 40x
# Contenders that compute in floating point, and in which precision
FLOATING = {"ours in bfloat16": "bfloat16", "ours in float32": "float32"}

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
    names = ["ours", "ours in batches", "starter", *FLOATING]
    if options.compare_stock:
        names += ["stock", "torchvision"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        image_rgb = read_tile(options)
        cfg = prepare_config(Path(folder), image_rgb)
        workers = {name: stack.enter_context(Worker(name, cfg, image_rgb)) for name in names}
        return [
            *measure_reading(Path(folder), image_rgb, options),
            *measure_tile(workers, image_rgb, options),
            *measure_stages(workers, options),
            *measure_roofline(workers, image_rgb, options),
        ]


class Worker:
    """A contender in a process of its own, as its users run it: its memory is its own as well."""

    def __init__(self, name, cfg, image_rgb):
        """
        Args:
            name (str): of the contender.
            cfg (CfgNode): of the network.
            image_rgb (ndarray): the tile.
        """
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=Contender.set_up,
            initargs=(name, cfg, image_rgb),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown()

    def do(self, function, *arguments):
        """What a function of the contender gives in its process."""
        return self._pool.submit(Contender.do, function, *arguments).result()


class Contender:
    """What a worker holds: a function that segments the tile, and the Detectron2 model in it."""

    instance = None

    def __init__(self, name, cfg, image_rgb):
        self.run, self.model = build_contender(name, cfg, image_rgb)
        self.clock = StageClock(self.model) if self.model is not None else None
        self.loaded_gb = peak_memory_gb()

    @classmethod
    def set_up(cls, *arguments):
        cls.instance = cls(*arguments)

    @classmethod
    def do(cls, function, *arguments):
        return function(cls.instance, *arguments)


def read_tile(options):
    """The user's tile, or a drawn one."""
    if options.tile is not None:
        return read_image_rgb(options.tile)
    return draw_tissue(TILE_PX, droplets=DETECTIONS)


def prepare_config(folder, image_rgb):
    """Config of the 2019 paper's R-50-FPN, with random weights that find DETECTIONS objects."""
    import torch
    from detectron2.modeling import build_model

    from steatosis_d2.inference.feature_ranges import measure_feature_ranges
    from steatosis_d2.model_zoo import get_config
    from steatosis_d2.modeling.quantization import RANGES_KEY

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
    cfg = get_config("liver/mask_rcnn_R_50_FPN.yaml", words)
    torch.manual_seed(0)
    model = build_model(cfg)
    pixels = torch.from_numpy(image_rgb[:, :, ::-1].transpose(2, 0, 1).copy())
    fit_statistics(model.backbone, model.preprocess_image([{"image": pixels}]).tensor)
    weights = {"model": model.state_dict()}
    torch.save(weights, cfg.MODEL.WEIGHTS)
    ranges = measure_feature_ranges(cfg, [(image_rgb, None)])
    torch.save({**weights, RANGES_KEY: ranges}, cfg.MODEL.WEIGHTS)
    return cfg


def build_contender(name, cfg, image_rgb):
    """A function that segments the tile, and the Detectron2 model in it, if there is one."""
    import torch
    from detectron2.engine import DefaultPredictor

    from steatosis_d2.inference.models import MaskRCNNChoice
    from steatosis_d2.inference.predictor import MaskRCNNPredictor

    if name == "stock":
        stock = DefaultPredictor(as_stock(cfg))
        return functools.partial(stock, image_rgb[:, :, ::-1]), stock.model
    if name == "torchvision":
        pixels = torch.from_numpy(image_rgb.transpose(2, 0, 1).copy())
        return build_torchvision(cfg, pixels), None
    if name == "starter":
        starter = MaskRCNNChoice()()
        return functools.partial(starter, [image_rgb], mpp=STARTER_MPP), starter.network
    cfg.TEST.PRECISION = FLOATING.get(name, "auto")
    tiles = [image_rgb] * (BATCH if name == "ours in batches" else 1)
    ours = MaskRCNNPredictor(cfg, score_threshold=0.0, batch_size=len(tiles))
    return functools.partial(ours, tiles, mpp=None), ours.network


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


def measure_tile(workers, image_rgb, options):
    """Seconds a tile, from its pixels to instances, and the ratios that the project aims at."""
    runs = {name: functools.partial(worker.do, run_once) for name, worker in workers.items()}
    seconds = time_in_turn(runs, rounds=options.rounds)
    seconds["ours in batches"] = [s / BATCH for s in seconds["ours in batches"]]
    height, width = image_rgb.shape[:2]
    size = f"{width} x {height} px"
    figures = []
    for name, worker in workers.items():
        what = f"R-50-FPN, {size}, {DETECTIONS} detections"
        if name == "starter":
            what = f"the shipped network, {size} at {STARTER_MPP} um/px"
        memory_gb = worker.do(measure_memory)
        figures += [
            summarize("tile", f"{name}: {what}", seconds[name]),
            Figure("tile", f"{name}: memory beyond that of the loaded network", memory_gb, "GB"),
        ]
    return figures + compare_with_others(seconds) if options.compare_stock else figures


def compare_with_others(seconds):
    """How many times as fast ours is, in the machine's precision and in float32."""
    from steatosis_d2.modeling.acceleration import cpu_has_bfloat16

    limits = {"stock": (2.8, 1.3), "torchvision": (4, 1.8)}
    figures = [
        compare(
            "tile",
            "the starter: times as fast as stock R-50-FPN",
            slower=seconds["stock"],
            faster=seconds["starter"],
            at_least=4,
        )
    ]
    for other, (at_least, at_least_float32) in limits.items():
        if cpu_has_bfloat16():
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


def run_once(contender):
    """Segment the tile."""
    contender.run()


def measure_memory(contender):
    """Resident memory in GB that segmenting added to a process with the network loaded."""
    return peak_memory_gb() - contender.loaded_gb


def measure_stages(workers, options):
    """Where the time goes; what is left over is the way to boxes and masks in the tile."""
    names = ("ours", *FLOATING, "stock")
    watched = {name: workers[name] for name in names if name in workers}
    rounds = {name: [] for name in watched}
    for _ in range(options.rounds):
        for name, worker in watched.items():
            rounds[name].append(worker.do(time_stages))
    return [
        summarize(stage, f"{name}: the tile", [seconds[stage] for seconds in rounds[name]])
        for stage in [*STAGES, "mask post-processing"]
        for name in watched
    ]


def time_stages(contender):
    """Seconds of each stage in one run."""
    return contender.clock.time(contender.run)


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


def measure_roofline(workers, image_rgb, options):
    """Backbone and FPN against a matrix product in the same precision, in floating point."""
    from steatosis_d2.modeling.acceleration import cpu_has_bfloat16

    worker = workers["ours in bfloat16" if cpu_has_bfloat16() else "ours in float32"]
    operations, precision = worker.do(count_operations, image_rgb.shape)
    seconds = time_in_turn(
        {
            "product": functools.partial(worker.do, multiply_matrices),
            "backbone": functools.partial(worker.do, run_backbone),
        },
        rounds=4 * options.rounds,
    )
    product_rates = [2 * MATRIX_SIDE**3 / s / 1e9 for s in seconds["product"]]
    backbone_rates = [operations / s / 1e9 for s in seconds["backbone"]]
    shares = [100 * a / b for a, b in zip(backbone_rates, product_rates, strict=True)]
    return [
        Figure("roofline", "operations of backbone and FPN", operations / 1e9, "GFLOP"),
        summarize("roofline", f"matrix product, {precision}", product_rates, unit="GFLOP/s"),
        summarize("roofline", f"backbone and FPN, {precision}", backbone_rates, unit="GFLOP/s"),
        summarize("roofline", "share of the matrix product", shares, unit="%", at_least=75),
    ]


def count_operations(contender, shape):
    """Additions and products of the backbone, and the precision that they are done in."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    backbone = contender.model.backbone
    precision = next(backbone.parameters()).dtype
    contender.pixels = torch.randn(1, 3, *shape[:2]).to(memory_format=torch.channels_last)
    contender.matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(precision)
    counter = FlopCountAnalysis(backbone, contender.pixels).unsupported_ops_warnings(False)
    # It counts a product and its addition as one.
    return 2 * counter.total(), str(precision).removeprefix("torch.")


def multiply_matrices(contender):
    import torch

    with torch.inference_mode():
        torch.mm(contender.matrix, contender.matrix)


def run_backbone(contender):
    import torch

    with torch.inference_mode():
        contender.model.backbone(contender.pixels)


MEASURES = (measure_network,)
