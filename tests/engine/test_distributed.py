"""Several processes: who finds whom, and that together they train as one."""

import json
import os
import subprocess
import sys

import pytest
import torch

from steatosis_d2.engine.distributed import (
    first_host,
    launch_processes,
    read_slurm,
    read_torchrun,
)
from steatosis_d2.errors import InputError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_place_in_a_job_of_torchrun():
    assert read_torchrun(TORCHRUN) == {
        "rank": 5,
        "world_size": 8,
        "local_rank": 1,
        "local_size": 4,
        "address": "env://",
    }


def test_place_in_a_job_of_slurm():
    place = read_slurm(SLURM)
    assert place == read_torchrun(TORCHRUN) | {"address": "tcp://gpu03:29500"}
    elsewhere = read_slurm(SLURM | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000"})
    assert elsewhere["address"] == "tcp://10.0.0.1:5000"


def test_outside_a_job_there_is_no_place():
    assert read_torchrun({}) is None
    assert read_slurm({}) is None
    # a batch script itself, and a step of one task
    assert read_slurm({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None
    assert read_slurm(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None


def test_uneven_slurm_job_is_an_error():
    with pytest.raises(InputError, match=r"7 tasks on 2 machines.*--ntasks-per-node"):
        read_slurm(SLURM | {"SLURM_STEP_NUM_TASKS": "7"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu[03-04]", "gpu03"), ("gpu[3,5-9]", "gpu3"), ("n1,n2", "n1"), ("login-1", "login-1")],
)
def test_first_host_of_a_node_list(nodes, host):
    assert first_host(nodes) == host


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"--num-gpus is 8, and this machine has 2"):
        launch_processes(print, num_gpus=8)


# What a step computes may depend on no statistics that processes do not share.
SHARED_NOTHING = [
    *(
        "MODEL.RESNETS.NORM",
        "FrozenBN",
        "MODEL.FPN.NORM",
        "",
        "MODEL.DENSE_BRANCH.NORM",
        "",
        "SOLVER.AMP.ENABLED",
        "False",
    ),
    *("SOLVER.STAGES", "[{'train':'heads','iterations':2},{'train':'all','iterations':2}]"),
    *("SOLVER.WARMUP_ITERS", "0", "TEST.EVAL_PERIOD", "2", "SOLVER.EMA_DECAY", "0.5"),
]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["--num-gpus", "torchrun"])
def test_two_processes_train_and_evaluate_as_one(launcher, tiny_training, tmp_path, run_script):
    """
    Through a change of stage, and with gloo, since there is no GPU in a test.

    One process that computes the batch in two parts has the gradients of two processes; that
    these are those of the whole batch is shown in test_trainer.py.
    """
    command = ["tools/train_net.py", "--config-file", "liver/starter.yaml"]
    options = [*tiny_training, *SHARED_NOTHING]
    one = tmp_path / "one"
    alone = run_script(*command, *options, "OUTPUT_DIR", one, "SOLVER.ACCUMULATE", "2")
    assert alone.returncode == 0, alone.stderr
    two = tmp_path / "two"
    if launcher == "torchrun":
        process = run_torchrun(*command, *options, "OUTPUT_DIR", two)
    else:
        process = run_script(*command, "--num-gpus", "2", *options, "OUTPUT_DIR", two)
    assert process.returncode == 0, process.stderr
    assert "2 a step in 2 process(es)" in (two / "log.txt").read_text()
    ours, theirs = (
        torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (two, one)
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=name)
    figures = [json.loads((folder / "inference/metrics.json").read_text()) for folder in (two, one)]
    assert figures[0]["instances"]["truths"] == 12
    assert figures[0]["instances"].keys() == figures[1]["instances"].keys()
    for group in figures[0]:
        assert figures[0][group] == pytest.approx(figures[1][group], abs=1e-3, nan_ok=True)


def run_torchrun(*command):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # Its own host name, which it would take, a bare machine may not know.
    launcher += ["--local-addr=127.0.0.1", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(word) for word in (*launcher, *command)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
