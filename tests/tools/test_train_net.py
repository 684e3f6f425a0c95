"""tools/train_net.py as a user runs it, and every config of ours on real images."""

import json

import cv2
import pytest
import torch
from detectron2.engine import DefaultPredictor

from steatosis_d2 import model_zoo
from steatosis_d2.engine import Trainer
from steatosis_d2.model_zoo import get_config

TRAIN_NET = "tools/train_net.py"


def read_metrics(output):
    """The last value of every figure in metrics.json; NaN is no JSON and fails the test."""
    lines = (output / "metrics.json").read_text().splitlines()
    records = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in lines]
    return {name: value for record in records for name, value in record.items()}


@pytest.mark.slow
def test_train_resume_and_evaluate(tiny_training, tmp_path, run_script):
    output = tmp_path / "output"
    options = [*tiny_training, "OUTPUT_DIR", output]
    command = [TRAIN_NET, "--config-file", "liver/starter.yaml"]

    trained = run_script(*command, *options, "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "2")
    assert trained.returncode == 0, trained.stderr
    assert {"total_loss", "segm/AP", "instances/f1", "lr"} <= read_metrics(output).keys()
    assert (output / "model_best.pth").is_file()
    assert list(output.glob("events.out.tfevents.*"))
    predictions = json.loads((output / "inference" / "predictions.json").read_text())
    assert len(predictions["images"]) == 5

    resumed = run_script(*command, "--resume", *options, "SOLVER.MAX_ITER", "4")
    assert resumed.returncode == 0, resumed.stderr
    assert "Starting training from iteration 2" in resumed.stdout
    state = torch.load(output / "model_final.pth", weights_only=True)
    assert state["iteration"] == 3

    evaluation = tmp_path / "evaluation"
    options = [*tiny_training, "OUTPUT_DIR", evaluation]
    weights = ["MODEL.WEIGHTS", output / "model_final.pth"]
    evaluated = run_script(*command, "--eval-only", *options, *weights)
    assert evaluated.returncode == 0, evaluated.stderr
    figures = [
        (folder / "inference" / "metrics.json").read_text() for folder in (output, evaluation)
    ]
    assert figures[0] == figures[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ([], 2, "--config-file is required"),
        (["--config-file", "nope.yaml"], 1, "'nope.yaml' is neither a file nor one of ours"),
        (
            ["--config-file", "liver/starter.yaml", "DATASETS.TRAIN", "('mine',)"],
            1,
            "DATASETS.TRAIN names 'mine', which is not registered",
        ),
        (
            ["--config-file", "liver/starter.yaml", "SOLVER.LR", "1"],
            1,
            "Non-existent key: SOLVER.LR",
        ),
        (
            ["--config-file", "liver/starter.yaml", "--eval-only", "MODEL.WEIGHTS", "no.pth"],
            1,
            "weights 'no.pth' do not exist",
        ),
        (
            ["--config-file", "liver/mask_rcnn_R_41_FPN.yaml", "--eval-only", "MODEL.WEIGHTS", ""],
            1,
            "no weights ship for the config",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, exit_code, message, tmp_path, run_script):
    result = run_script(TRAIN_NET, *arguments, cwd=tmp_path)
    assert result.returncode == exit_code
    assert message in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", model_zoo.list_configs())
def test_every_config_trains_evaluates_and_predicts_on_real_images(name, real_tiles, tmp_path):
    if name.startswith("liver"):
        folder = real_tiles("torino", "datasets/prepare_torino.py", "torino_liver")
    else:
        folder = real_tiles("bbbc038", "datasets/prepare_bbbc038.py", "bbbc038", "stage1_train.zip")
    annotations, images = folder / "annotations", folder / "images"
    overrides = [
        *("DATASETS.TRAIN", f"('coco:{annotations}/instances_train.json:{images}',)"),
        *("DATASETS.TEST", f"('coco:{annotations}/instances_val.json:{images}',)"),
        *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)),
        *("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "1"),
        *("INPUT.CROP.SIZE", "[128, 128]"),
        *("DATALOADER.NUM_WORKERS", "0", "MODEL.RPN.POST_NMS_TOPK_TEST", "100"),
    ]
    cfg = get_config(name, overrides)
    cfg.SOLVER.STAGES = [{"train": stage["train"], "iterations": 1} for stage in cfg.SOLVER.STAGES]
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    metrics = json.loads((tmp_path / "inference" / "metrics.json").read_text())
    assert 0 <= metrics["segm"]["AP"] <= 1

    cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
    image_bgr = cv2.imread(str(next(images.iterdir())))[:96, :80]
    instances = DefaultPredictor(cfg)(image_bgr)["instances"]
    assert instances.image_size == (96, 80)
    assert instances.pred_masks.shape == (len(instances), 96, 80)
