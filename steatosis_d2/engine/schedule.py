"""Training in stages: which part of the network learns when, and how fast."""

import math
from dataclasses import dataclass

from detectron2.solver.lr_scheduler import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)

from steatosis_d2.errors import InputError

# What each choice trains, as the names that a parameter may begin with. The feature pyramid
# counts as a head, as in the implementation that both papers used.
_HEADS = ("backbone.fpn_", "proposal_generator.", "roi_heads.", "dense_branch.")
_RESNET_STAGES = ("res5", "res4", "res3", "res2")
TRAINABLE_PREFIXES = {
    "heads": _HEADS,
    **{
        f"{stage}+": _HEADS
        + tuple(f"backbone.bottom_up.{name}." for name in _RESNET_STAGES[: number + 1])
        for number, stage in enumerate(_RESNET_STAGES)
    },
    "all": ("",),
}
_STAGE_KEYS = {"train", "epochs", "iterations", "lr", "steps", "warmup", "freeze_norm"}


@dataclass(frozen=True)
class Stage:
    """
    A part of the training in which the same layers learn.

    Attributes:
        train (str): one of ``TRAINABLE_PREFIXES``.
        first (int): its first iteration.
        iterations (int): how many it has.
        lr (float): learning rate after warm-up.
        steps (tuple[int, ...]): iterations of the stage at which the learning rate is multiplied
            by ``SOLVER.GAMMA``.
        warmup (int): iterations over which the learning rate rises.
        freeze_norm (bool): keep the statistics of all batch normalisation, not only of what does
            not learn.
    """

    train: str
    first: int
    iterations: int
    lr: float
    steps: tuple[int, ...]
    warmup: int
    freeze_norm: bool = False

    @property
    def end(self):
        """The iteration after its last one."""
        return self.first + self.iterations

    def trains(self, parameter_name):
        """Whether a parameter, named as in the network, learns in this stage."""
        return parameter_name.startswith(TRAINABLE_PREFIXES[self.train])


def plan_stages(cfg, *, n_images):
    """
    Turn ``SOLVER.STAGES`` into iterations.

    Args:
        cfg (CfgNode): of ``SOLVER``, ``STAGES``, ``IMS_PER_BATCH``, ``BASE_LR``, ``WARMUP_ITERS``,
            and without stages ``MAX_ITER`` and ``STEPS`` are read.
        n_images (int): training images; an epoch shows as many.

    Returns:
        list[Stage]: at least one.

    Raises:
        InputError: a stage has an unknown key or part, no length, or one of no iteration.
    """
    solver = cfg.SOLVER
    settings = solver.STAGES or [
        {"train": "all", "iterations": solver.MAX_ITER, "steps": solver.STEPS}
    ]
    stages: list[Stage] = []
    for number, setting in enumerate(settings, 1):
        _check_setting(number, setting)
        iterations = setting.get("iterations") or math.ceil(
            setting["epochs"] * n_images / solver.IMS_PER_BATCH
        )
        stages.append(
            Stage(
                train=setting["train"],
                first=stages[-1].end if stages else 0,
                iterations=iterations,
                lr=setting.get("lr", solver.BASE_LR),
                steps=tuple(setting.get("steps", ())),
                warmup=min(setting.get("warmup", solver.WARMUP_ITERS), iterations),
                freeze_norm=bool(setting.get("freeze_norm", False)),
            )
        )
    return stages


def _check_setting(number, setting):
    where = f"stage {number} of SOLVER.STAGES"
    unknown = set(setting) - _STAGE_KEYS
    if unknown:
        raise InputError(
            f"{where} has the key '{sorted(unknown)[0]}'; known are "
            f"{', '.join(sorted(_STAGE_KEYS))}."
        )
    if setting.get("train") not in TRAINABLE_PREFIXES:
        raise InputError(
            f"{where} trains '{setting.get('train')}'; expected one of "
            f"{', '.join(TRAINABLE_PREFIXES)}."
        )
    lengths = [setting[key] for key in ("epochs", "iterations") if key in setting]
    if len(lengths) != 1 or lengths[0] <= 0:
        raise InputError(
            f"{where} is {setting}; expected either 'epochs' or 'iterations', above 0."
        )


class StagedMultiplier(ParamScheduler):
    """Factor to ``SOLVER.BASE_LR``, whose warm-up and decay begin anew in each stage."""

    def __init__(self, cfg, stages):
        """
        Args:
            cfg (CfgNode): ``SOLVER.BASE_LR`` and the keys of warm-up and decay are read.
            stages (list[Stage]): from :func:`plan_stages`.
        """
        self._base_lr = cfg.SOLVER.BASE_LR
        self._stages = stages
        self._curves = [_stage_curve(cfg, stage) for stage in stages]

    def __call__(self, where):
        iteration = round(where * self._stages[-1].end)
        index = next(
            (i for i, stage in enumerate(self._stages) if iteration < stage.end),
            len(self._stages) - 1,
        )
        stage = self._stages[index]
        # fvcore's schedulers end just before 1
        progress = min((iteration - stage.first) / stage.iterations, math.nextafter(1.0, 0.0))
        return self._curves[index](progress) * stage.lr / self._base_lr


def _stage_curve(cfg, stage):
    """Detectron2's learning-rate curve over one stage, from 0 to 1 of it."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        curve = CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
    elif solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = [step for step in stage.steps if step < stage.iterations]
        curve = MultiStepParamScheduler(
            values=[solver.GAMMA**k for k in range(len(steps) + 1)],
            milestones=steps,
            num_updates=stage.iterations,
        )
    else:
        raise InputError(
            f"SOLVER.LR_SCHEDULER_NAME is '{solver.LR_SCHEDULER_NAME}'; expected "
            "'WarmupMultiStepLR' or 'WarmupCosineLR'."
        )
    return WarmupParamScheduler(
        curve,
        solver.WARMUP_FACTOR,
        stage.warmup / stage.iterations,
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )


def build_staged_scheduler(cfg, optimizer, stages):
    """
    The learning rate of every iteration.

    Args:
        cfg (CfgNode): as for :class:`StagedMultiplier`.
        optimizer (Optimizer): with ``SOLVER.BASE_LR`` as its learning rate.
        stages (list[Stage]): from :func:`plan_stages`.

    Returns:
        LRMultiplier: Detectron2's scheduler, to step once an iteration.
    """
    return LRMultiplier(optimizer, StagedMultiplier(cfg, stages), max_iter=stages[-1].end)
