"""What is worked out from measured figures is arithmetic that can be checked by hand."""

import json
import re

import pytest

# 1 s of core time a megapixel: 0.05 to read, 0.9 for the network, 0.05 for the rest.
FIGURES = {"reading": 0.05, "merging and outputs": 0.05, "all, with the starter model": 1.0}


@pytest.fixture
def estimate(run_script, tmp_path):
    """Function that writes figures and runs the script: (figures, *options) -> process."""

    def write_and_run(figures, *options):
        records = [
            {"stage": "a megapixel, core time", "what": what, "value": value, "unit": "s"}
            for what, value in figures.items()
        ]
        path = tmp_path / "figures.json"
        path.write_text(json.dumps({"machine": "any", "figures": records}))
        return run_script("tools/estimate_costs.py", path, *options)

    return write_and_run


def find_row(process, name):
    """Cells of the table's row of one setup."""
    [line] = [line for line in process.stdout.splitlines() if line.startswith(name)]
    return re.split(r"\s{2,}", line.strip())


def test_cores_share_the_work(estimate):
    """1600 s a slide on 16 cores: 100 s, 36 slides an hour; 10,000 in 277.8 h at 0.80 $."""
    process = estimate(FIGURES, "--tissue-mpx", 1600)
    assert process.returncode == 0
    row = find_row(process, "1 CPU machine")
    assert row[1:] == ["16", "0", "0.80", "36.0", "277.8", "222", "network on cores"]


def test_a_gpu_moves_the_bottleneck_to_merging(estimate):
    """The network takes 36 s of a GPU as fast as 40 cores; merging 80 s of the one core it has."""
    row = find_row(estimate(FIGURES, "--tissue-mpx", 1600), "1 GPU")
    assert row[4] == "45.0"
    assert row[-1] == "merging (one core a run)"


def test_many_nodes_move_the_bottleneck_to_storage(estimate):
    process = estimate(FIGURES, "--tissue-mpx", 1600, "--storage-gb-s", 0.5, "--slide-gb", 1)
    row = find_row(process, "100 CPU nodes")
    assert row[4] == "1800.0"
    assert row[-1] == "storage"


def test_assumptions_are_named(estimate):
    output = estimate(FIGURES, "--gpu-cores", 55).stdout
    assert re.search(r"assumed:.*a GPU as fast as 55 cores", output)


@pytest.mark.parametrize("missing", FIGURES)
def test_a_missing_figure_is_named(estimate, missing):
    process = estimate({what: value for what, value in FIGURES.items() if what != missing})
    assert process.returncode == 1
    assert "figures.json' has not all figures" in process.stderr
    assert missing in process.stderr


def test_what_is_no_json_is_an_error(run_script, tmp_path):
    (tmp_path / "figures.json").write_text("no figures")
    process = run_script("tools/estimate_costs.py", tmp_path / "figures.json")
    assert process.returncode == 1
    assert "figures.json" in process.stderr


@pytest.mark.parametrize("option", ["--slides", "--tissue-mpx", "--storage-gb-s"])
def test_numbers_must_be_positive(estimate, option):
    process = estimate(FIGURES, option, 0)
    assert process.returncode == 2
    assert "must be above 0" in process.stderr
