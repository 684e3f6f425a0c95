"""
Install Detectron2 where there is none: ``python -m steatosis_d2.install_detectron2``.

Detectron2 has no release on PyPI under its own name, and building upstream's source takes a
compiler. PyPI holds its Python code of April 2024 as ``sal-detectron2``, in a wheel tagged for
CPython 3.10 although it is pure Python; so it is fetched for that tag and put into the running
interpreter's site-packages. Its compiled parts (rotated boxes, deformable convolution, the C++
COCOeval) are not in it, and Mask R-CNN needs none of them: NMS and ROIAlign are torchvision's.
"""

import importlib.util
import logging
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path

from steatosis_d2.errors import InputError

REQUIREMENT = (
    "sal-detectron2==0.7.2 "
    "--hash=sha256:491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
)

MISSING = """Detectron2 is not installed in this Python ({python}). Any one of these mends it:
  python -m steatosis_d2.install_detectron2                (from PyPI, no compiler needed)
  conda install -c conda-forge detectron2                  (in a conda environment)
  pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2"""

# From inside Detectron2 and fvcore, where our users cannot mend them.
THIRD_PARTY_WARNINGS = (
    "pkg_resources is deprecated",
    ".*torch.jit.script.* is (deprecated|not supported)",  # the latter from Python 3.14 on
    "torch.meshgrid: in an upcoming release",
    "The given NumPy array is not writable",
)


class Detectron2MissingError(InputError, ImportError):
    """There is no Detectron2 in this Python; the message names the ways to install it."""


def require_detectron2():
    """
    Say how to get Detectron2 where it is missing, and quiet its import where it is there.

    Raises:
        Detectron2MissingError: an ImportError that scripts show without a traceback.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise Detectron2MissingError(MISSING.format(python=sys.executable))
    for message in THIRD_PARTY_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    # Detectron2 asks torch whether it is traced, through a function that torch has renamed.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    # A CUDA toolkit on a machine without a GPU is no fault: the log says what the network runs on.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def main():
    """Install Detectron2 into the running interpreter, unless one is importable already."""
    installed = importlib.util.find_spec("detectron2")
    if installed is not None:
        print(f"Detectron2 is there already, and kept: {installed.origin}")
        return
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(REQUIREMENT)
        command = [
            *(sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary=:all:"),
            *("--python-version", "3.10", "--implementation", "cp", "--abi", "none"),
            *("--platform", "any", "--target", sysconfig.get_path("purelib")),
            *("--require-hashes", "--requirement", str(requirements)),
        ]
        raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
