"""Fat droplets in liver slides, and nuclei, as separate instances: Mask R-CNN on Detectron2."""

__version__ = "0.1.0"
