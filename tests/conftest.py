"""Fixtures that many tests share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from screening_actions import write_labels_file
from torch import nn

from steatosis_d2.data import coco
from steatosis_d2.instances import rle
from steatosis_d2.screening.labels import read_labels
from steatosis_d2.screening.log import DecisionLog
from steatosis_d2.screening.session import Screening

REPOSITORY = Path(__file__).resolve().parents[1]

SLIM = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.DEPTH": 41,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.FPN.NORM": "BN",
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.DENSE_BRANCH.CONVS_DIM": 8,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.3,  # of random weights
    "INPUT.SCALE": 1.5,
    "TEST.DETECTIONS_PER_IMAGE": 20,
    "TEST.VIEWS": 1,
}

# The same examples everywhere and always, however slow the machine, so that what fails can be
# looked into; `pytest --hypothesis-profile default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _draw_the_same_in_every_run():
    """A random network now and then has two proposals of equal score, in either order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data():
    """
    Folder of the real data, which is never part of the repository.

    It is $STEATOSIS_SHARED_DATA, else ``../shared/data`` beside the repository; tests that use
    it are skipped where it is absent.
    """
    folder = Path(os.environ.get("STEATOSIS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found in '{folder}'; set STEATOSIS_SHARED_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def run_script():
    """
    Function that runs a script of the repository as a user does: (path, *arguments) -> process.

    The process has ``returncode``, ``stdout`` and ``stderr``. A traceback is never meant for a
    user, so it fails the test.
    """

    def run(script, *arguments, cwd=None):
        command = [sys.executable, REPOSITORY / script, *arguments]
        process = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd
        )
        assert "Traceback" not in process.stderr, process.stderr
        return process

    return run


@pytest.fixture
def disks(tmp_path):
    """
    A data set of white disks on pink: ``images/`` and ``annotations.json`` in one folder.

    Four images of 96 x 128 px with 3 disks each, one image that is blank.
    """
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, 6):
        image = np.full((96, 128, 3), (200, 120, 170), np.uint8)
        for column in (20, 60, 100) if image_id < 5 else ():
            center = (rng.integers(15, 80), column + rng.integers(-4, 5))
            disk = disk_mask(image.shape[:2], center, radius=rng.integers(6, 13))
            image[disk] = 240
            annotations.append(
                coco.annotation_record(len(annotations) + 1, image_id, rle.encode_mask(disk))
            )
        name = f"tile_{image_id}.png"
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / name)
        images.append(coco.image_record(image_id, name, height=96, width=128))
    coco.write_coco(tmp_path / "annotations.json", images, annotations, category=coco.DROPLET)
    return tmp_path


def disk_mask(shape, center_rc, radius):
    """A filled disk: bool, of the given shape."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - center_rc[0]) ** 2 + (columns - center_rc[1]) ** 2 <= radius**2


@pytest.fixture
def slim_model():
    """
    A function that builds a Mask R-CNN of 1/16 of the usual width, on the CPU, from a depth.

    Its state differs between depths in res4 alone, as that of the full-size networks does.
    """
    from detectron2.modeling import build_model

    from steatosis_d2.model_zoo import get_config

    def build(depth, *, classes=1, overrides=()):
        cfg = get_config("liver/mask_rcnn_R_50_FPN.yaml", overrides)
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.RESNETS.DEPTH = depth
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
        cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
        cfg.MODEL.FPN.OUT_CHANNELS = 8
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
        cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
        cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
        return build_model(cfg)

    return build


@pytest.fixture(scope="session")
def slim_cfg(tmp_path_factory):
    """Config of a slim network, and its random weights in a file."""
    from detectron2.modeling import build_model

    from steatosis_d2.model_zoo import get_config

    cfg = get_config("liver/starter.yaml", [str(word) for item in SLIM.items() for word in item])
    torch.manual_seed(0)
    model = build_model(cfg)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model.backbone(torch.randn(4, 3, 96, 96))  # for statistics that fit the weights
    # Else all scores lie within a hair's breadth, and rounding decides on their order
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.1)
    nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=2)
    cfg.MODEL.WEIGHTS = str(tmp_path_factory.mktemp("weights") / "slim.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return cfg


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


@pytest.fixture
def tiny_training(disks):
    """
    Options that make ``liver/starter.yaml`` a training of seconds, on the disks.

    The network has a sixteenth of the starter's arithmetic and works on small crops.
    """
    spec = f"('coco:{disks}/annotations.json:{disks}/images',)"
    return [
        *("DATASETS.TRAIN", spec, "DATASETS.TEST", spec),
        *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32"),
        *("MODEL.RESNETS.WIDTH_PER_GROUP", "8", "MODEL.FPN.OUT_CHANNELS", "16"),
        *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"),
        *("MODEL.DENSE_BRANCH.CONVS_DIM", "8"),
        *("TEST.SCORE_FLOOR", "0.0", "MODEL.DEVICE", "cpu"),
        *("INPUT.CROP.SIZE", "[64, 64]", "SOLVER.IMS_PER_BATCH", "2"),
        *("DATALOADER.NUM_WORKERS", "1", "SEED", "1"),
    ]


@pytest.fixture
def label_file(tmp_path):
    """Labels to be screened, as they were read."""
    return read_labels(write_labels_file(tmp_path / "labels.json"))


@pytest.fixture
def open_screening(tmp_path, label_file):
    """A function that opens the decisions anew, as a restarted server does."""
    return lambda: Screening(
        label_file, DecisionLog(tmp_path / "decisions.sqlite", label_file, create=True)
    )


@pytest.fixture
def screening(open_screening):
    """Decisions on these labels, none yet."""
    return open_screening()
