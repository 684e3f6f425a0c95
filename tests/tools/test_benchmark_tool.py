"""tools/benchmark.py as a user runs it; its figures are for people, not for assertions."""

import json

import numpy as np
import pytest
from PIL import Image

TOOL = "tools/benchmark.py"


@pytest.fixture
def measure(run_script, tmp_path):
    """Function that runs the tool: (*arguments) -> its figures; they are all in its table."""

    def run(*arguments):
        output = tmp_path / "benchmark.json"
        done = run_script(TOOL, "--rounds", "1", "--json", output, *arguments)
        assert done.returncode == 0, done.stderr
        content = json.loads(output.read_text())
        assert "cores" in content["machine"]
        assert content["machine"] in done.stdout
        assert all(figure["what"] in done.stdout for figure in content["figures"])
        return content["figures"]

    return run


def contenders(figures, stage):
    """Who was timed at a stage: "ours", "stock", ..."""
    return {figure["what"].split(":")[0] for figure in figures if figure["stage"] == stage}


@pytest.mark.slow
@pytest.mark.parametrize("group", ["evaluation", "labels"])
def test_groups_are_measured_alone(measure, group):
    figures = measure("--only", group)
    assert {figure["stage"] for figure in figures} == {group}
    assert all(figure["value"] > 0 for figure in figures)
    assert "stock" not in " ".join(contenders(figures, group)), "nobody asked for a comparison"


@pytest.mark.slow
def test_masks_are_compared_in_time_and_memory(measure):
    figures = measure("--only", "masks", "--compare", "stock")
    assert contenders(figures, "masks") >= {"ours", "stock", "times as fast as stock"}
    [ratio] = [figure for figure in figures if figure["unit"] == "x"]
    assert ratio["at_least"] == 40


@pytest.mark.slow
def test_network_is_measured_stage_by_stage_on_the_users_tile(measure, tmp_path):
    tile = tmp_path / "tile.png"
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tile)
    figures = measure("--only", "network", "--compare", "stock", "--tile", tile)
    assert any("128 x 96 px" in figure["what"] for figure in figures)
    assert {"ours", "ours in batches", "starter", "stock"} < contenders(figures, "tile")
    assert "torchvision" in contenders(figures, "tile")
    for stage in ("backbone and FPN", "proposals", "box head", "mask head"):
        floating = {"ours in bfloat16", "ours in float32"}
        assert contenders(figures, stage) == {"ours", "stock", *floating}
    assert "roofline" in {figure["stage"] for figure in figures}


def test_tile_that_is_missing_is_named(run_script, tmp_path):
    done = run_script(TOOL, "--only", "network", "--tile", tmp_path / "none.png")
    assert done.returncode == 1
    assert "none.png' does not exist" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "everything"], "invalid choice: 'everything'"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--only", "accuracy"], "needs --weights"),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(run_script, arguments, message):
    done = run_script(TOOL, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
