"""The Trainer in one process: freezing, resuming, averaging, accumulating, stopping."""

import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from steatosis_d2.engine import Trainer
from steatosis_d2.engine.train_loop import choose_dtype
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config


@pytest.fixture
def make_trainer(tiny_training, tmp_path):
    """A function that builds a trainer: (*overrides, resume=False) -> Trainer."""

    def make(*overrides, resume=False, output="output"):
        settings = [
            *tiny_training,
            *("OUTPUT_DIR", str(tmp_path / output), "SOLVER.WARMUP_ITERS", "0"),
            *("SOLVER.EMA_DECAY", "0.0", "SOLVER.AMP.ENABLED", "False"),
            *("DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0", "DATASETS.TEST", "()"),
            *overrides,
        ]
        trainer = Trainer(get_config("liver/starter.yaml", settings))
        trainer.resume_or_load(resume=resume)
        return trainer

    return make


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def losses_of(trainer):
    return [value for value, _ in trainer.storage.history("total_loss").values()]


STAGES = (
    "[{'train': 'heads', 'iterations': 2}, {'train': 'res4+', 'iterations': 2},"
    " {'train': 'all', 'iterations': 2}]"
)


def test_frozen_means_frozen(make_trainer):
    """In each stage just its own tensors change: weights, and statistics of batch norm."""
    trainer = make_trainer("SOLVER.STAGES", STAGES)
    network = trainer._trainer.network
    snapshots = [weights_of(network)]
    with EventStorage() as trainer.storage:
        for trainer.iter in range(6):
            trainer._hooks[0].before_step()
            trainer.run_step()
            if trainer.iter == 2:  # an evaluation puts all modules back into training
                network.eval()
                network.train()
            snapshots.append(weights_of(network))
    heads = changed(snapshots[0], snapshots[2])
    deeper = changed(snapshots[2], snapshots[4])
    everything = changed(snapshots[4], snapshots[6])
    bottom_up = {name for name in snapshots[0] if name.startswith("backbone.bottom_up.")}
    late = {name for name in bottom_up if ".res4." in name or ".res5." in name}
    assert not heads & bottom_up
    assert deeper & bottom_up == late & deeper
    assert {name for name in late if "running_mean" in name} <= deeper
    assert bottom_up <= everything
    assert any(name.startswith("backbone.fpn_") for name in heads)


def test_statistics_may_stay_while_all_else_learns(make_trainer):
    trainer = make_trainer(
        "SOLVER.STAGES", "[{'train': 'all', 'iterations': 1, 'freeze_norm': True}]"
    )
    before = weights_of(trainer._trainer.network)
    with EventStorage() as trainer.storage:
        trainer.iter = 0
        trainer._hooks[0].before_step()
        trainer.run_step()
    now = changed(before, weights_of(trainer._trainer.network))
    assert not [name for name in now if "running_" in name]
    assert "backbone.bottom_up.stem.conv1.weight" in now


def test_resumed_run_has_the_same_losses_and_weights(make_trainer):
    """To the bit, over a change of stage, with averaged weights and accumulated gradients."""
    settings = [
        *("SOLVER.STAGES", STAGES, "SOLVER.CHECKPOINT_PERIOD", "3", "SOLVER.EMA_DECAY", "0.5"),
        *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.ACCUMULATE", "2"),
    ]
    whole = make_trainer(*settings, output="whole")
    whole.train()
    Path(whole.checkpointer.save_dir, "last_checkpoint").write_text("model_0000002.pth")
    resumed = make_trainer(*settings, output="whole", resume=True)
    assert resumed.start_iter == 3
    resumed.train()
    assert losses_of(resumed) == losses_of(whole)[3:]
    assert len(losses_of(resumed)) == 3
    for part in ("network", "best_network"):
        one, other = (getattr(trainer._trainer, part) for trainer in (whole, resumed))
        assert not changed(weights_of(one), weights_of(other))


def test_unseeded_run_resumes_with_its_own_seed(make_trainer):
    first = make_trainer("SEED", "-1", "SOLVER.MAX_ITER", "1")
    first.train()
    resumed = make_trainer("SEED", "-1", "SOLVER.MAX_ITER", "2", resume=True)
    assert resumed._stream.seed == resumed._trainer.seed == first._stream.seed


def test_accumulated_gradients_are_those_of_the_whole_batch(make_trainer, monkeypatch):
    """
    With as many samples from every image, and no statistics shared between images, the loss of
    a batch is the mean of the losses of its parts.
    """
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n, device=device))
    settings = [
        *("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "", "SOLVER.MAX_ITER", "1"),
        *("MODEL.DENSE_BRANCH.NORM", ""),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "4", "MODEL.ROI_HEADS.POSITIVE_FRACTION", "0.25"),
        *("INPUT.CROP.ENABLED", "False", "INPUT.SCALE_JITTER", "(1.0, 1.0)"),
        *("DATALOADER.FILTER_EMPTY_ANNOTATIONS", "True", "SOLVER.CLIP_GRADIENTS.ENABLED", "False"),
    ]
    gradients = []
    for parts in ("1", "2"):
        trainer = make_trainer(*settings, "SOLVER.ACCUMULATE", parts)
        gradients.append(gradients_of_one_step(trainer))
    whole, accumulated = gradients
    assert whole.keys() == accumulated.keys()
    assert max(float(value.abs().max()) for value in whole.values()) > 0.01
    for name, gradient in whole.items():
        torch.testing.assert_close(accumulated[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def gradients_of_one_step(trainer):
    torch.manual_seed(0)
    for parameter in trainer._trainer.network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    trainer._trainer.optimizer.step = lambda: None
    with EventStorage() as trainer.storage:
        trainer._hooks[0].before_step()
        trainer.run_step()
    network = trainer._trainer.network
    return {name: item.grad.clone() for name, item in network.named_parameters()}


def test_averaged_weights_are_what_is_kept(make_trainer, tmp_path):
    trainer = make_trainer("SOLVER.EMA_DECAY", "0.75", "SOLVER.MAX_ITER", "2")
    start = weights_of(trainer._trainer.network)
    snapshots = []
    step = trainer._trainer.averaged.update_parameters
    trainer._trainer.averaged.update_parameters = lambda network: (
        step(network),
        snapshots.append(weights_of(network)),
    )
    trainer.train()
    saved = torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)
    name = "backbone.fpn_lateral2.weight"
    assert not torch.equal(start[name], snapshots[0][name])
    # The first step's weights begin the average; its decay rises from 2/11 on.
    expected = 2 / 11 * snapshots[0][name] + 9 / 11 * snapshots[1][name]
    torch.testing.assert_close(torch.as_tensor(saved["model"][name]), expected)
    assert torch.equal(saved["trainer"]["_trainer"]["trained_weights"][name], snapshots[1][name])


def test_loaded_weights_reach_the_training_when_there_is_an_average(make_trainer, tmp_path):
    first = make_trainer("SOLVER.MAX_ITER", "1", output="first")
    first.train()
    path = tmp_path / "first" / "model_final.pth"
    second = make_trainer("SOLVER.EMA_DECAY", "0.9", "MODEL.WEIGHTS", str(path), output="second")
    assert not changed(weights_of(first._trainer.network), weights_of(second._trainer.network))


def test_checkpoint_without_average_is_not_resumed_with_one(make_trainer):
    make_trainer("SOLVER.MAX_ITER", "1").train()
    with pytest.raises(InputError, match=r"written without averaged weights.*EMA_DECAY 0"):
        make_trainer("SOLVER.EMA_DECAY", "0.9", resume=True)


def test_batch_that_cannot_be_shared_is_an_error(make_trainer):
    with pytest.raises(InputError, match=r"IMS_PER_BATCH is 2.*ACCUMULATE 3.*multiple of 3"):
        make_trainer("SOLVER.ACCUMULATE", "3")


@pytest.mark.parametrize(
    ("spoilt", "what"),
    [
        ("roi_heads.mask_head.predictor.bias", "loss_mask nan"),
        ("backbone.fpn_lateral2.weight", "boxes or scores contain Inf/NaN"),
    ],
)
def test_divergence_stops_with_iteration_images_and_checkpoint(spoilt, what, make_trainer, caplog):
    trainer = make_trainer("SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", "1")
    step = trainer._trainer.run_step

    def spoil_third_step():
        if trainer._trainer.iter == 2:
            trainer._trainer.network.get_parameter(spoilt).data.fill_(float("nan"))
        step()

    trainer._trainer.run_step = spoil_third_step
    message = rf"iteration 2 \(.*{what}.*tile_\d.png.*last good checkpoint is .*model_0000001.pth"
    with pytest.raises(InputError, match=message):
        trainer.train()
    assert not [record for record in caplog.records if record.exc_info]


@pytest.fixture
def scripted_scores(monkeypatch, tiny_training):
    """
    Make every evaluation give the next of some figures.

    A function that takes them, and gives the options by which each iteration is evaluated.
    """

    def script(*scores):
        left = list(scores)
        monkeypatch.setattr(Trainer, "test", classmethod(lambda *_: {"segm": {"AP": left.pop(0)}}))
        test = tiny_training[tiny_training.index("DATASETS.TEST") + 1]
        return ["TEST.EVAL_PERIOD", "1", "TEST.PICTURES", "0", "DATASETS.TEST", test]

    return script


def test_best_weights_are_kept_and_training_stops_when_no_better(
    make_trainer, scripted_scores, tmp_path, caplog
):
    evaluate = scripted_scores(0.1, 0.3, 0.2, 0.3, 0.9)
    trainer = make_trainer("SOLVER.MAX_ITER", "9", "TEST.PATIENCE", "2", *evaluate)
    with caplog.at_level(logging.INFO):
        trainer.train()
    best = json.loads((tmp_path / "output" / "best.json").read_text())
    assert best == {"metric": "segm/AP", "value": 0.3, "iteration": 2}
    saved = torch.load(tmp_path / "output" / "model_best.pth", weights_only=True)
    assert saved["iteration"] == 2
    assert "Stopped early at iteration 3" in caplog.text
    assert (tmp_path / "output" / "model_final.pth").is_file()


def test_resumed_run_remembers_its_best_figure(make_trainer, scripted_scores, tmp_path):
    """Detectron2's own hook forgets it, and keeps worse weights after --resume."""
    evaluate = scripted_scores(0.5, 0.4)
    make_trainer("SOLVER.MAX_ITER", "2", *evaluate).train()
    scripted_scores(0.45)
    make_trainer("SOLVER.MAX_ITER", "3", *evaluate, resume=True).train()
    best = json.loads((tmp_path / "output" / "best.json").read_text())
    assert best == {"metric": "segm/AP", "value": 0.5, "iteration": 1}


def test_new_run_in_an_old_folder_does_not_keep_the_old_best(
    make_trainer, scripted_scores, tmp_path
):
    evaluate = scripted_scores(0.5)
    make_trainer("SOLVER.MAX_ITER", "1", *evaluate).train()
    scripted_scores(0.2)
    make_trainer("SOLVER.MAX_ITER", "1", *evaluate).train()
    assert json.loads((tmp_path / "output" / "best.json").read_text())["value"] == 0.2


def test_evaluation_leaves_the_network_fit_for_training(make_trainer, tiny_training):
    """It folds batch norms and lowers the precision, but in a copy."""
    datasets = dict(zip(tiny_training[::2], tiny_training[1::2], strict=True))
    trainer = make_trainer("DATASETS.TEST", datasets["DATASETS.TRAIN"])
    network = trainer._trainer.network
    before = weights_of(network)
    figures = Trainer.test(trainer.cfg, network)
    assert "AP" in figures["segm"]
    assert network.training
    assert network.state_dict().keys() == before.keys()
    assert not changed(before, weights_of(network))
    assert all(value.dtype == before[name].dtype for name, value in network.state_dict().items())


def test_unknown_best_metric_is_refused_before_training(make_trainer, tiny_training):
    test = tiny_training[tiny_training.index("DATASETS.TEST") + 1]
    evaluate = ["DATASETS.TEST", test, "TEST.EVAL_PERIOD", "1"]
    with pytest.raises(InputError, match=r"'segm/ap', which no evaluation gives.*segm/AP"):
        make_trainer(*evaluate, "TEST.BEST_METRIC", "segm/ap")


def test_without_test_sets_it_trains_and_keeps_the_weights(make_trainer, tmp_path):
    """It stopped at the first evaluation, with nothing saved."""
    make_trainer("SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1").train()
    assert (tmp_path / "output" / "model_final.pth").is_file()


def test_wrong_number_of_classes_is_named_before_training(make_trainer):
    with pytest.raises(InputError, match=r"1 categories \['droplet'\], the network 3 classes"):
        make_trainer("MODEL.ROI_HEADS.NUM_CLASSES", "3")


def test_gradient_norm_over_all_parameters_is_clipped(tiny_training):
    cfg = get_config("liver/starter.yaml", tiny_training)
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    model = torch.nn.Module()
    model.weights = torch.nn.ParameterList(parameters)
    optimizer = Trainer.build_optimizer(cfg, model)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 2.0)
    optimizer.step()
    assert torch.cat([item.grad.flatten() for item in parameters]).norm() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("processor_has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float32)]
)
def test_mixed_precision_on_the_cpu_needs_a_processor_that_has_it(
    processor_has_it, dtype, monkeypatch
):
    monkeypatch.setattr("steatosis_d2.engine.train_loop.cpu_has_bfloat16", lambda: processor_has_it)
    assert choose_dtype("cpu") is dtype


def test_bfloat16_step_has_nearly_the_losses_of_float32(make_trainer):
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        trainer = make_trainer("SOLVER.MAX_ITER", "1")
        trainer._trainer.dtype = dtype
        trainer.train()
        losses += losses_of(trainer)
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_log_has_throughput_pictures_and_waiting_time(make_trainer, tiny_training, tmp_path):
    spec = tiny_training[tiny_training.index("DATASETS.TEST") + 1]
    trainer = make_trainer(
        *("SOLVER.MAX_ITER", "6", "TEST.EVAL_PERIOD", "5", "DATASETS.TEST", spec)
    )
    shown = []
    put_image = EventStorage.put_image
    EventStorage.put_image = lambda _, name, image: shown.append((name, image.shape))
    try:
        trainer.train()
    finally:
        EventStorage.put_image = put_image
    names = [name for name, _ in shown]
    assert names.count("training batch") == 2  # the first, and one at the evaluation
    assert names.count("predictions/tile_1.png") == 2  # at iteration 5, and at the end
    assert ("predictions/tile_1.png", (3, 96, 128)) in shown
    latest = trainer.storage.latest()
    assert latest["[metric] images/s"][0] > 0
    assert 0 <= latest["[metric] waiting for data, %"][0] <= 100


def test_readers_of_an_evaluation_are_not_forked(tiny_training):
    """Until Python 3.13 they were, in the middle of a training, with all of its threads."""
    settings = [*tiny_training, "DATALOADER.NUM_WORKERS", "1"]
    cfg = get_config("liver/starter.yaml", settings)
    loader = Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    assert loader.multiprocessing_context.get_start_method() == "forkserver"
