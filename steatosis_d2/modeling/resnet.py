"""
ResNet-41 and ResNet-65, the 2019 paper's backbones, beside 50 and 101, bare and with FPN.

They differ in the number of blocks in stage 4 (``res4``) alone, so the COCO weights of a deeper
or shallower Detectron2 model fit block by block: 41 takes the first 3 blocks of R-50's stage 4,
65 the first 11 of R-101's.
"""

from detectron2.modeling import BACKBONE_REGISTRY, FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock

from steatosis_d2.errors import InputError

# Blocks in res2 to res5; the depth is 3 x blocks + 2. 41 and 65: Guo et al. 2019, section 2.2,
# with the numbers from the authors' public code.
BLOCKS_PER_STAGE = {
    41: (3, 4, 3, 3),
    50: (3, 4, 6, 3),
    65: (3, 4, 11, 3),
    101: (3, 4, 23, 3),
}


@BACKBONE_REGISTRY.register()
def build_steatosis_resnet_backbone(cfg, input_shape):
    """
    ResNet of depth 41, 50, 65 or 101 from ``cfg.MODEL.RESNETS``.

    Args:
        cfg (CfgNode): all keys of ``MODEL.RESNETS`` and ``MODEL.BACKBONE.FREEZE_AT`` are
            honoured, but for deformable convolution.
        input_shape (ShapeSpec): of the image; only its channels are read.

    Returns:
        ResNet: Detectron2's, with Detectron2's parameter names.

    Raises:
        InputError: an unknown depth, a dilation other than 1 or 2, or deformable convolution.
    """
    settings = cfg.MODEL.RESNETS
    _check_settings(settings)
    stem = BasicStem(input_shape.channels, settings.STEM_OUT_CHANNELS, settings.NORM)
    stages = []
    in_channels = settings.STEM_OUT_CHANNELS
    for index, blocks in enumerate(BLOCKS_PER_STAGE[settings.DEPTH]):
        # Only res5 may be dilated; it then keeps res4's resolution (R-FCN's convention).
        dilation = settings.RES5_DILATION if index == 3 else 1
        stride = 1 if index == 0 or dilation > 1 else 2
        out_channels = settings.RES2_OUT_CHANNELS * 2**index
        stages.append(
            ResNet.make_stage(
                BottleneckBlock,
                blocks,
                in_channels=in_channels,
                out_channels=out_channels,
                bottleneck_channels=settings.NUM_GROUPS * settings.WIDTH_PER_GROUP * 2**index,
                num_groups=settings.NUM_GROUPS,
                norm=settings.NORM,
                stride_in_1x1=settings.STRIDE_IN_1X1,
                dilation=dilation,
                stride_per_block=[stride] + [1] * (blocks - 1),
            )
        )
        in_channels = out_channels
    return ResNet(
        stem,
        stages,
        out_features=settings.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@BACKBONE_REGISTRY.register()
def build_steatosis_resnet_fpn_backbone(cfg, input_shape):
    """
    The same ResNets with a feature pyramid (``p2`` to ``p6``) from ``cfg.MODEL.FPN``.

    Args:
        cfg (CfgNode): as in :func:`build_steatosis_resnet_backbone`, and ``MODEL.FPN``.
        input_shape (ShapeSpec): of the image.

    Returns:
        FPN: Detectron2's, with Detectron2's parameter names.
    """
    return FPN(
        bottom_up=build_steatosis_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _check_settings(settings):
    if settings.DEPTH not in BLOCKS_PER_STAGE:
        raise InputError(
            f"MODEL.RESNETS.DEPTH is {settings.DEPTH}; this backbone has depths "
            f"{', '.join(map(str, BLOCKS_PER_STAGE))}. For others set MODEL.BACKBONE.NAME to "
            "Detectron2's build_resnet_fpn_backbone."
        )
    if any(settings.DEFORM_ON_PER_STAGE):
        raise InputError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE is {list(settings.DEFORM_ON_PER_STAGE)}; this "
            "backbone has no deformable convolution, which needs Detectron2's compiled "
            "extension. Set all four to False."
        )
    if settings.RES5_DILATION not in (1, 2):
        raise InputError(f"MODEL.RESNETS.RES5_DILATION is {settings.RES5_DILATION}; give 1 or 2.")
