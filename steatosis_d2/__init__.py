"""
Fat droplets in liver slides, and nuclei, as separate instances: Mask R-CNN on Detectron2.

    import steatosis_d2

    for slide in steatosis_d2.segment("slides/", "results"):
        print(slide.file_name, slide.summary["fat_area_percent"])

The public names are loaded when they are first used, so that importing the package takes no time.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "evaluate": "steatosis_d2.api",
    "label": "steatosis_d2.api",
    "load_model": "steatosis_d2.api",
    "segment": "steatosis_d2.api",
    "segment_image": "steatosis_d2.api",
    "get_config": "steatosis_d2.model_zoo",
}
__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return __all__
