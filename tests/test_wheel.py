"""The installed wheel, in an environment and a folder that know no checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Function: (*words, cwd=) -> process of ``steatosis-d2``, from the wheel alone."""
    root = tmp_path_factory.mktemp("wheel")
    # From a copy, since building leaves files in the source.
    source = root / "source"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", root, source], check=True)
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / "bin" / "python"
    [wheel] = root.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", *options[:2], wheel], check=True)
    # The heavy packages are those of the environment that runs the tests; a .pth file within that
    # folder, such as an editable install's, is not followed.
    [site] = (root / "venv").glob("lib/python3*/site-packages")
    (site / "heavy.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*words, cwd):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [root / "venv" / "bin" / "steatosis-d2", *map(str, words)],
            cwd=cwd, capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_wheel_segments_evaluates_and_measures_a_network(installed, disks, tmp_path):
    segmented = installed("segment", disks / "images", "--output", "out", cwd=tmp_path)
    assert segmented.returncode == 0, segmented.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    files = ["--ground-truth", disks / "annotations.json", "--predictions", "out/predictions.json"]
    evaluated = installed("evaluate", *files, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    data = f"('coco:{disks}/annotations.json:{disks}/images',)"
    measured = installed(
        "train", "--config-file", "liver/starter.yaml", "--eval-only", "DATASETS.TEST", data,
        "TEST.VIEWS", "1", cwd=tmp_path,
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    assert (tmp_path / "output" / "liver_starter" / "inference" / "metrics.json").is_file()
    doctor = installed("doctor", cwd=tmp_path)
    assert doctor.returncode == 0, doctor.stderr
    assert str(REPOSITORY / "steatosis_d2") not in doctor.stdout
