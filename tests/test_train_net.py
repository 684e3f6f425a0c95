"""tools/train_net.py as a user runs it, and every config of ours on real images."""

import json

import cv2
import pytest
import torch
from detectron2.engine import DefaultPredictor, SimpleTrainer
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from steatosis_d2 import model_zoo
from steatosis_d2.config import load_config
from steatosis_d2.engine import Trainer
from steatosis_d2.engine.train_loop import CPUAMPTrainer

TRAIN_NET = "tools/train_net.py"

# Small enough for a test: the network of the starter, but narrower, on small crops.
TINY = [
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "8", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"),
    *("INPUT.CROP.SIZE", "[64, 64]", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "1"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "MODEL.DEVICE", "cpu", "SEED", "1"),
]


def dataset_options(disks):
    spec = f"('coco:{disks}/annotations.json:{disks}/images',)"
    return ["DATASETS.TRAIN", spec, "DATASETS.TEST", spec]


def read_metrics(output):
    """The last value of every figure in metrics.json; NaN is no JSON and fails the test."""
    lines = (output / "metrics.json").read_text().splitlines()
    records = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in lines]
    return {name: value for record in records for name, value in record.items()}


@pytest.mark.slow
def test_train_resume_and_evaluate(disks, tmp_path, run_script):
    output = tmp_path / "output"
    options = [*TINY, *dataset_options(disks), "OUTPUT_DIR", output]
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
    options = [*TINY, *dataset_options(disks), "OUTPUT_DIR", evaluation]
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
            ["--config-file", "liver/starter.yaml", "--num-gpus", "64"],
            1,
            "--num-gpus is 64, and this machine has",
        ),
        (
            ["--config-file", "liver/starter.yaml", "--eval-only", "MODEL.WEIGHTS", "no.pth"],
            1,
            "weights 'no.pth' do not exist",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, exit_code, message, tmp_path, run_script):
    result = run_script(TRAIN_NET, *arguments, cwd=tmp_path)
    assert result.returncode == exit_code
    assert message in result.stderr


def test_wrong_number_of_classes_is_named_before_training(disks):
    cfg = load_config("liver/starter.yaml", dataset_options(disks))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    with pytest.raises(ValueError, match=r"1 categories \['droplet'\], the network 3 classes"):
        Trainer.build_train_loader(cfg)


def test_gradient_norm_over_all_parameters_is_clipped(disks):
    cfg = load_config("liver/starter.yaml", [*TINY, *dataset_options(disks)])
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
    ("processor_has_it", "loop"), [(True, CPUAMPTrainer), (False, SimpleTrainer)]
)
def test_mixed_precision_on_the_cpu_needs_a_processor_that_has_it(
    processor_has_it, loop, disks, tmp_path, monkeypatch
):
    monkeypatch.setattr("steatosis_d2.engine.trainer.cpu_has_bfloat16", lambda: processor_has_it)
    options = [*TINY, *dataset_options(disks), "OUTPUT_DIR", str(tmp_path)]
    trainer = Trainer(load_config("liver/starter.yaml", options))
    assert type(trainer._trainer) is loop


def test_bfloat16_step_has_nearly_the_losses_of_float32(disks, slim_model):
    cfg = load_config("liver/starter.yaml", [*TINY, *dataset_options(disks)])
    cfg.DATALOADER.NUM_WORKERS = 0
    seed_all_rng(0)
    model = slim_model(41)
    batch = [next(iter(Trainer.build_train_loader(cfg)))]
    losses = {}
    for loop in (SimpleTrainer, CPUAMPTrainer):
        torch.manual_seed(0)  # which regions of interest are sampled
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with EventStorage() as storage:
            loop(model, batch, optimizer).run_step()
        losses[loop] = storage.latest()["total_loss"][0]
    assert losses[CPUAMPTrainer] != losses[SimpleTrainer]
    assert losses[CPUAMPTrainer] == pytest.approx(losses[SimpleTrainer], rel=0.05)


@pytest.fixture(scope="session")
def real_tiles(shared_data, run_script, tmp_path_factory):
    """A function that prepares three real images of a source: two to train, one to evaluate."""
    root = tmp_path_factory.mktemp("datasets")

    def prepare(dataset, script, source_folder, file=""):
        folder = root / dataset
        if not folder.is_dir():
            names = json.loads((shared_data / source_folder / "splits.json").read_text())
            splits = {"train": names["train"][:2], "val": names["val"][:1], "test": []}
            (root / f"{dataset}.json").write_text(json.dumps(splits))
            options = ["--splits", root / f"{dataset}.json", "--output", folder]
            process = run_script(script, "--source", shared_data / source_folder / file, *options)
            assert process.returncode == 0
        return folder

    return prepare


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
        *("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "INPUT.CROP.SIZE", "[128, 128]"),
        *("DATALOADER.NUM_WORKERS", "0", "MODEL.RPN.POST_NMS_TOPK_TEST", "100"),
    ]
    cfg = load_config(name, overrides)
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
