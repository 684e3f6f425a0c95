"""One process or many: started by us, by torchrun or by SLURM, on GPUs or on CPUs."""

import os
import re

import torch
from detectron2.engine import launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from steatosis_d2.errors import InputError

# torchrun's default; SLURM names none.
_MASTER_PORT = 29500


def launch_processes(
    function, *, num_gpus, num_machines=1, machine_rank=0, dist_url="auto", arguments=()
):
    """
    Run a function in every process of a distributed job, or here where there is only one.

    Processes that torchrun or SLURM's ``srun`` has started find each other by their environment,
    and the options are not needed; otherwise this starts them, as Detectron2's ``launch``.
    Without a GPU they work on the CPU and talk by gloo.

    Args:
        function (callable): called with ``arguments`` in every process.
        num_gpus (int): processes on each machine.
        num_machines (int): machines.
        machine_rank (int): which of them this is.
        dist_url (str): ``tcp://HOST:PORT`` of the first machine; ``auto`` on one machine.
        arguments (tuple): of ``function``; must pickle.

    Raises:
        InputError: there are fewer GPUs than asked for, or the environment is incomplete.
    """
    # Whoever gives the options starts the processes that way, within SLURM too.
    is_started = num_gpus == num_machines == 1
    job = (read_torchrun() or read_slurm()) if is_started else None
    if job is not None:
        _join(job)
        function(*arguments)
        return
    gpus = torch.cuda.device_count()
    if gpus and num_gpus > gpus:
        raise InputError(
            f"--num-gpus is {num_gpus}, and this machine has {gpus}; give {gpus} or fewer."
        )
    launch(
        function,
        num_gpus,
        num_machines=num_machines,
        machine_rank=machine_rank,
        dist_url=dist_url,
        args=arguments,
    )


def read_torchrun(environment=os.environ):
    """
    This process's place in a job of torchrun.

    Args:
        environment (dict): environment variables.

    Returns:
        dict or None: ``rank``, ``world_size``, ``local_rank``, ``local_size`` (int) and
        ``address`` (str); None where torchrun has not started it.
    """
    if "TORCHELASTIC_RUN_ID" not in environment and "LOCAL_WORLD_SIZE" not in environment:
        return None
    return {
        "rank": int(environment["RANK"]),
        "world_size": int(environment["WORLD_SIZE"]),
        "local_rank": int(environment["LOCAL_RANK"]),
        "local_size": int(environment["LOCAL_WORLD_SIZE"]),
        "address": "env://",  # torchrun's own store listens at MASTER_PORT already
    }


def read_slurm(environment=os.environ):
    """
    This process's place in a job step of SLURM, one task a GPU.

    Args:
        environment (dict): environment variables.

    Returns:
        dict or None: as :func:`read_torchrun`; None outside ``srun``, and in a step of one task.

    Raises:
        InputError: the tasks are not spread evenly over the machines.
    """
    # Only srun sets these: a batch script itself also has SLURM_NTASKS and SLURM_PROCID.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
    if tasks == 1:
        return None
    if tasks % nodes:
        raise InputError(
            f"SLURM runs {tasks} tasks on {nodes} machines; give each machine as many, with "
            "--ntasks-per-node equal to the GPUs of a machine."
        )
    host = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
    port = environment.get("MASTER_PORT", _MASTER_PORT)
    return {
        "rank": int(environment["SLURM_PROCID"]),
        "world_size": tasks,
        "local_rank": int(environment["SLURM_LOCALID"]),
        "local_size": tasks // nodes,
        "address": f"tcp://{host}:{port}",
    }


def first_host(node_list):
    """
    First machine of a SLURM node list.

    Args:
        node_list (str): such as ``gpu[03-04,07],login1``.

    Returns:
        str: its name.

    Examples:
        >>> first_host("gpu[03-04,07],login1")
        'gpu03'
    """
    prefix, _, numbers = node_list.partition("[")
    if "," in prefix or not numbers:
        return prefix.partition(",")[0]
    return prefix + re.split(r"[-,\]]", numbers, maxsplit=1)[0]


def _join(job):
    """Make this process, which somebody else started, one of its job."""
    has_gpu = torch.cuda.is_available()
    if has_gpu and job["local_size"] > torch.cuda.device_count() > 1:
        raise InputError(
            f"{job['local_size']} processes run on this machine, which has "
            f"{torch.cuda.device_count()} GPUs; start one process a GPU."
        )
    if has_gpu:
        # SLURM may show each task its own GPU only, as number 0.
        torch.cuda.set_device(job["local_rank"] % torch.cuda.device_count())
    distributed.init_process_group(
        "nccl" if has_gpu else "gloo",
        init_method=job["address"],
        rank=job["rank"],
        world_size=job["world_size"],
        timeout=DEFAULT_TIMEOUT,
    )
    comm.create_local_process_group(job["local_size"])
    comm.synchronize()


def distribute(network):
    """
    Let a network's gradients be averaged over all processes.

    Unlike Detectron2's ``create_ddp_model``, this also works on CPUs, which take no
    ``device_ids``. Parameters that do not learn are left out, so call it again when others do.

    Args:
        network (nn.Module): on its device; all processes get the first one's weights.

    Returns:
        nn.Module: the network itself where there is one process.
    """
    if comm.get_world_size() == 1:
        return network
    device = next(network.parameters()).device
    return DistributedDataParallel(
        network,
        device_ids=[device] if device.type == "cuda" else None,
        # Statistics of batch normalisation are each process's own, as in Detectron2
        broadcast_buffers=False,
    )
