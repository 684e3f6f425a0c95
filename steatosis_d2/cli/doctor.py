"""Say what this installation has, what it will use and why, and what it lacks, with the cure."""

import argparse
import contextlib
import importlib
import importlib.util
import os
import platform
import sys
from importlib import metadata

from steatosis_d2 import __version__, model_zoo
from steatosis_d2.errors import InputError
from steatosis_d2.install_detectron2 import Detectron2MissingError, require_detectron2

# Module, distributions that may bring it, and the line that installs it.
REQUIRED = {
    "torch": "pip install torch",
    "torchvision": "pip install torchvision",
    "cv2": "pip install opencv-python-headless",
    "openslide": "pip install openslide-python openslide-bin",
    "shapely": "pip install shapely",
    "pycocotools": "pip install pycocotools",
    "detectron2": "python -m steatosis_d2.install_detectron2",
}
OPTIONAL = {
    "fastapi": ("the screening page", "pip install 'steatosis-d2[screening]'"),
    "spatialdata": ("--format spatialdata", "pip install 'steatosis-d2[spatialdata]'"),
    "distributed": ("--scheduler", "pip install 'steatosis-d2[dask]'"),
    "highdicom": ("--format dicom", "pip install 'steatosis-d2[dicom]'"),
    "onnx": ("export --format onnx", "pip install 'steatosis-d2[onnx]'"),
    "zarr": ("slides in OME-Zarr", "pip install 'steatosis-d2[zarr]'"),
}


def build_parser(prog):
    """The command takes no options."""
    return argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=f"example:\n  {prog}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(_arguments):
    """
    Print one line a fact.

    Raises:
        InputError: something is missing that is needed; each line names its cure.
    """
    show("steatosis-d2", __version__)
    show("Python", f"{platform.python_version()}, {sys.executable}")
    with contextlib.suppress(Detectron2MissingError):  # it is among those listed next
        require_detectron2()
    missing = [name for name in REQUIRED if not show_module(name)]
    if "torch" not in missing and "detectron2" not in missing:
        show_device()
    if "openslide" not in missing:
        show("OpenSlide", importlib.import_module("openslide").__library_version__)
    show_machine()
    for name in ("liver/starter.yaml", "nucleus/starter.yaml"):
        show(f"weights {name}", model_zoo.get_weights(name))
    for name, (what, cure) in OPTIONAL.items():
        if not importlib.util.find_spec(name):
            show(name, f"not installed; only for {what}: {cure}")
    if missing:
        cures = "; ".join(f"'{name}' is missing: {REQUIRED[name]}" for name in missing)
        raise InputError(cures)
    print("All that is needed is there.")


def show(name, text):
    """A line of two columns."""
    print(f"{name:28} {text}")


def show_module(name):
    """Print a module's version and where it was found; False if it cannot be imported."""
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a shared library that is missing, for instance
        show(name, f"MISSING ({error})")
        return False
    distributions = metadata.packages_distributions().get(name, [])
    origin = f"by {', '.join(sorted(set(distributions)))}" if distributions else "not by pip"
    where = module.__spec__.origin if module.__spec__ else "?"
    show(name, f"{getattr(module, '__version__', '')} {origin}, {where}")
    return True


def show_device():
    """Print where networks will run, in which precision, and why."""
    import torch

    from steatosis_d2.modeling.acceleration import choose_precision, cpu_has_bfloat16
    from steatosis_d2.modeling.quantization import cpu_has_int8

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    show("device", f"{device.type} {name}".strip())
    precision = str(choose_precision(device)).removeprefix("torch.")
    if device.type == "cuda":
        why = "the fastest on a GPU"
    elif cpu_has_int8():
        precision = f"8-bit integers and {precision}"
        why = "the processor multiplies bytes; weights without ranges of their features run in " + (
            "bfloat16" if cpu_has_bfloat16() else "float32"
        )
    elif cpu_has_bfloat16():
        why = "the processor multiplies in bfloat16, not in bytes"
    else:
        why = "the processor has neither 8-bit products (VNNI) nor bfloat16"
    show("precision", f"{precision}: {why}")


def show_machine():
    """Print cores and free memory."""
    show("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"))
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        show("free memory", f"{free / 1e9:.1f} GB")
    except (AttributeError, ValueError, OSError):  # not on every system
        show("free memory", "unknown")
