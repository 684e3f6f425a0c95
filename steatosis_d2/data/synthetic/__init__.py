"""Synthetic H&E-stained liver whose fat droplets are known exactly."""

from steatosis_d2.data.synthetic.biopsy import Biopsy, random_biopsy
from steatosis_d2.data.synthetic.layout import Anatomy
from steatosis_d2.data.synthetic.liver import DRAWABLE_MPP, RenderedWindow, SyntheticLiver
from steatosis_d2.data.synthetic.look import Look
from steatosis_d2.data.synthetic.variety import (
    STAINS,
    add_structures,
    random_liver,
    random_look,
)

__all__ = [
    "DRAWABLE_MPP",
    "STAINS",
    "Anatomy",
    "Biopsy",
    "Look",
    "RenderedWindow",
    "SyntheticLiver",
    "add_structures",
    "random_biopsy",
    "random_liver",
    "random_look",
]
