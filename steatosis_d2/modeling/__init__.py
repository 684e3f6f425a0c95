"""Models, registered with Detectron2 when this package is imported."""

from steatosis_d2.install_detectron2 import require_detectron2

require_detectron2()

from steatosis_d2.modeling.meta_arch import ScaledInputRCNN  # noqa: E402
from steatosis_d2.modeling.proposal_generator import SteatosisRPN  # noqa: E402
from steatosis_d2.modeling.resnet import (  # noqa: E402
    build_steatosis_resnet_backbone,
    build_steatosis_resnet_fpn_backbone,
)
from steatosis_d2.modeling.roi_heads import SteatosisROIHeads  # noqa: E402

__all__ = [
    "ScaledInputRCNN",
    "SteatosisROIHeads",
    "SteatosisRPN",
    "build_steatosis_resnet_backbone",
    "build_steatosis_resnet_fpn_backbone",
]
