"""The script that makes the starter's weights, shortened, on data that is prepared already."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "train_starter.sh"
DATASETS = ("liver_torino", "liver_guo2019", "liver_synthetic", "liver_synthetic_40x")


def train_starter(*arguments):
    python = Path(sys.executable).parent
    return subprocess.run(
        [str(word) for word in (SCRIPT, *arguments)],
        env=os.environ | {"PATH": f"{python}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def output(disks, tmp_path):
    """Output folder of a run that was interrupted after it had prepared its data: disks."""
    datasets = tmp_path / "output" / "datasets"
    for name in DATASETS:
        shutil.copytree(disks / "images", datasets / name / "images")
        (datasets / name / "annotations").mkdir()
        for split in ("train", "val"):
            path = datasets / name / "annotations" / f"instances_{split}.json"
            shutil.copy(disks / "annotations.json", path)
    (datasets / ".prepared").touch()
    return tmp_path / "output"


@pytest.mark.slow
def test_weights_come_out_in_half_precision_with_a_table_of_thresholds(
    output, tiny_training, tmp_path
):
    settings = tiny_training[4:]  # but for the data sets
    done = train_starter(tmp_path, output, *settings, "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", 0)
    assert done.returncode == 0, done.stderr
    assert "from 0.7 " in done.stdout
    assert "SHA-256" in done.stdout
    weights = torch.load(output / "liver_starter.pth", weights_only=True)["model"]
    floats = {value.dtype for value in weights.values() if value.is_floating_point()}
    assert floats == {torch.float16}


def test_missing_sources_are_named(tmp_path):
    assert "usage: tools/train_starter.sh" in train_starter().stderr
    done = train_starter(tmp_path / "none", tmp_path / "output")
    assert done.returncode == 1
    assert "none/torino_liver' does not exist" in done.stderr
    assert "Traceback" not in done.stderr
