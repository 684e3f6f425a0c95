"""A training that is killed and goes on, through all its stages, as a user sees it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 300

# Johnson's three stages, on a network that a test can afford.
SETTINGS = [
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "SEED", "7", "SOLVER.IMS_PER_BATCH", "2"),
    *("MODEL.RESNETS.DEPTH", "41", "MODEL.RESNETS.NORM", "BN", "MODEL.FPN.OUT_CHANNELS", "32"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "INPUT.CROP.SIZE", "[96, 96]"),
    *("SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "0", "DATASETS.TEST", "()"),
    *("SOLVER.BASE_LR", "0.01", "DATALOADER.NUM_WORKERS", "1"),
    "SOLVER.STAGES",
    "[{'train': 'heads', 'epochs': 4}, {'train': 'res4+', 'epochs': 4},"
    " {'train': 'all', 'epochs': 4, 'lr': 0.001}]",
]


@pytest.fixture
def train(real_tiles, tmp_path):
    """A function that starts a training of 12 steps: (folder, *options) -> Popen."""
    data = real_tiles("bbbc038", "datasets/prepare_bbbc038.py", "bbbc038", "stage1_train.zip")
    spec = f"('coco:{data}/annotations/instances_train.json:{data}/images',)"

    def start(folder, *options):
        command = [
            *(sys.executable, "tools/train_net.py"),
            *("--config-file", "nucleus/mask_rcnn_R_50_FPN.yaml", *options, *SETTINGS),
            *("DATASETS.TRAIN", spec, "OUTPUT_DIR", str(tmp_path / folder)),
        ]
        # Sums over threads depend on their number; one is the same everywhere.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)

    return start


def kill_at(process, file):
    """SIGKILL as soon as a file is there; readers of the killed process must not outlive it."""
    deadline = time.monotonic() + PATIENCE_S
    while not file.is_file():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bits(train, tmp_path):
    """Killed in the first and in the second of three stages."""
    assert train("whole").wait(PATIENCE_S) == 0
    kill_at(train("killed"), tmp_path / "killed" / "model_0000001.pth")
    kill_at(train("killed", "--resume"), tmp_path / "killed" / "model_0000005.pth")
    assert train("killed", "--resume").wait(PATIENCE_S) == 0
    whole, killed = (
        torch.load(tmp_path / folder / "model_final.pth", weights_only=True)
        for folder in ("whole", "killed")
    )
    assert whole["iteration"] == killed["iteration"] == 11
    assert whole["model"].keys() == killed["model"].keys()
    for name, value in whole["model"].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(killed["model"][name])), name
    log = (tmp_path / "killed" / "log.txt").read_text()
    for stage in ("Stage 1 of 3: training 'heads'", "Stage 2 of 3: training 'res4+'"):
        assert stage in log
    assert "Stage 3 of 3: training 'all' at learning rate 0.001, up to iteration 12" in log
