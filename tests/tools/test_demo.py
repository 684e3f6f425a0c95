"""`make demo` and `make demo-train`: what they say, and when they fail."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import demo
import demo_train
import pytest

GOOD = demo.Outcome(
    slide_mm2=10.0,
    tissue_mm2=3.6,
    fat_percent=11.0,
    true_fat_percent=11.2,
    droplets=1800,
    true_droplets=2500,
    precision=0.9,
    recall=0.7,
    f1=0.79,
    recall_by_size={"below 5 um": 0.26, "from 10 um": 0.997},
)


def test_a_good_result_has_no_fault():
    assert demo.find_faults(GOOD) == []


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"fat_percent": 12.3}, "the fat area is 1.1 points off"),
        ({"fat_percent": 10.1}, "the fat area is 1.1 points off"),
        ({"f1": 0.74}, "F1 is 0.74; expected 0.75 or more"),
        ({"f1": float("nan")}, "F1 is nan"),
    ],
)
def test_a_bad_result_is_said(figures, message):
    assert message in " ".join(demo.find_faults(dataclasses.replace(GOOD, **figures)))


def test_what_was_missed_is_said_by_size():
    text = demo.describe(GOOD, slide=Path("a.tif"), results=Path("results"))
    assert "70% were found: below 5 um 26%, from 10 um 100% (F1 0.79)" in text


@pytest.mark.slow
def test_demo_finds_the_fat_and_says_what_to_open(tmp_path):
    run = subprocess.run(
        [sys.executable, demo.__file__, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr + run.stdout
    assert "INFO" not in run.stdout + run.stderr
    assert "Warning" not in run.stdout + run.stderr
    found, true = map(float, re.search(r"% of tissue +(\S+) +(\S+)", run.stdout).groups())
    assert found == pytest.approx(true, abs=1.0)
    named = re.findall(rf"({re.escape(str(tmp_path))}/out/\S+)   ", run.stdout)
    assert len(named) == 4
    assert all(Path(path).is_file() for path in named)


def test_training_that_helps_is_shown():
    before = {"truths": 100, "precision": 0.7, "recall": 0.3, "f1": 0.42}
    after = {"truths": 100, "precision": 0.8, "recall": 0.6, "f1": 0.69}
    text = demo_train.describe(before, after, weights="out/model_final.pth")
    assert "as it ships                0.70     0.30     0.42" in text
    assert "--weights out/model_final.pth" in text
