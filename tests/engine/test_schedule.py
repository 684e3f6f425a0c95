"""Stages: from epochs to iterations, what they train, and how fast."""

import pytest
import torch
from detectron2.solver import build_lr_scheduler

from steatosis_d2.engine.schedule import (
    StagedMultiplier,
    build_staged_scheduler,
    plan_stages,
)
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config


def staged_config(*stages, **solver):
    cfg = get_config("liver/starter.yaml")
    cfg.SOLVER.STAGES = list(stages)
    cfg.SOLVER.BASE_LR = 0.02
    cfg.SOLVER.WARMUP_ITERS = 0
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


def learning_rates(cfg, stages):
    """What the optimizer gets, iteration by iteration."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_staged_scheduler(cfg, optimizer, stages)
    rates = []
    for _ in range(stages[-1].end):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_paper_schedule_of_2019_in_iterations():
    """387 tiles, 12 a step (Guo 2019, section 3): 20 epochs of the heads, 50 of everything."""
    stages = plan_stages(get_config("liver/mask_rcnn_R_50_FPN.yaml"), n_images=387)
    assert [(stage.train, stage.first, stage.end) for stage in stages] == [
        ("heads", 0, 645),
        ("all", 645, 645 + 1613),
    ]


def test_epochs_are_rounded_up_to_whole_steps():
    cfg = staged_config({"train": "all", "epochs": 1}, IMS_PER_BATCH=4)
    assert [stage.iterations for stage in plan_stages(cfg, n_images=9)] == [3]


def test_without_stages_everything_is_trained_for_max_iter():
    cfg = staged_config(MAX_ITER=50, STEPS=(20, 40))
    (stage,) = plan_stages(cfg, n_images=9)
    assert (stage.train, stage.first, stage.end, stage.steps) == ("all", 0, 50, (20, 40))


@pytest.mark.parametrize(
    ("train", "trained", "frozen"),
    [
        (
            "heads",
            ["backbone.fpn_lateral2.weight", "proposal_generator.rpn_head.conv.weight"],
            ["backbone.bottom_up.stem.conv1.weight", "backbone.bottom_up.res5.0.conv1.weight"],
        ),
        (
            "res4+",
            ["roi_heads.mask_head.deconv.weight", "backbone.bottom_up.res4.2.conv1.norm.weight"],
            ["backbone.bottom_up.res3.0.conv1.weight"],
        ),
        ("all", ["backbone.bottom_up.stem.conv1.weight"], []),
    ],
)
def test_parts_by_name(train, trained, frozen):
    (stage,) = plan_stages(staged_config({"train": train, "epochs": 1}), n_images=4)
    assert all(stage.trains(name) for name in trained)
    assert not any(stage.trains(name) for name in frozen)


def test_rate_steps_and_warmup_begin_anew_in_each_stage():
    cfg = staged_config(
        {"train": "heads", "iterations": 4, "steps": [2]},
        {"train": "all", "iterations": 6, "lr": 0.01, "steps": [4], "warmup": 2},
        WARMUP_FACTOR=0.5,
    )
    rates = learning_rates(cfg, plan_stages(cfg, n_images=8))
    expected = [0.02, 0.02, 0.002, 0.002, 0.005, 0.0075, 0.01, 0.01, 0.001, 0.001]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR"])
def test_one_stage_is_detectron2s_own_schedule(name):
    cfg = staged_config(MAX_ITER=60, STEPS=(20, 50), WARMUP_ITERS=7, LR_SCHEDULER_NAME=name)
    ours = learning_rates(cfg, plan_stages(cfg, n_images=8))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    theirs = []
    for _ in range(60):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert ours == pytest.approx(theirs)


def test_multiplier_after_the_last_iteration_is_that_of_the_last_stage():
    """Detectron2 steps the scheduler once more after the last iteration."""
    cfg = staged_config({"train": "all", "iterations": 4, "steps": [2]})
    assert StagedMultiplier(cfg, plan_stages(cfg, n_images=8))(1.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"train": "head", "epochs": 1}, "stage 1 of SOLVER.STAGES trains 'head'; expected one of"),
        ({"epochs": 1}, "trains 'None'"),
        (
            {"train": "all", "epoch": 1},
            "has the key 'epoch'; known are epochs, freeze_norm",
        ),
        ({"train": "all"}, "expected either 'epochs' or 'iterations', above 0"),
        ({"train": "all", "epochs": 1, "iterations": 1}, "expected either"),
        ({"train": "all", "epochs": 0}, "expected either"),
    ],
)
def test_mistakes_in_stages_are_named(stage, message):
    with pytest.raises(InputError, match=message):
        plan_stages(staged_config(stage), n_images=4)


def test_unknown_scheduler_is_named():
    cfg = staged_config(LR_SCHEDULER_NAME="Exponential")
    with pytest.raises(InputError, match=r"LR_SCHEDULER_NAME is 'Exponential'; expected"):
        StagedMultiplier(cfg, plan_stages(cfg, n_images=4))
