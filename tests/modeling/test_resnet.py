import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from steatosis_d2.config import add_steatosis_config
from steatosis_d2.errors import InputError
from steatosis_d2.modeling.resnet import BLOCKS_PER_STAGE, build_steatosis_resnet_backbone

IMAGE = ShapeSpec(channels=3)


def slim_config(**resnet_settings):
    """A ResNet of 1/16 of the usual width, so that every test builds it in milliseconds."""
    cfg = get_cfg()
    add_steatosis_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_steatosis_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    settings = {
        "DEPTH": 41,
        "STEM_OUT_CHANNELS": 4,
        "RES2_OUT_CHANNELS": 16,
        "WIDTH_PER_GROUP": 4,
        "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        **resnet_settings,
    }
    for key, value in settings.items():
        setattr(cfg.MODEL.RESNETS, key, value)
    return cfg


def slim_backbone(**resnet_settings):
    return build_steatosis_resnet_backbone(slim_config(**resnet_settings), IMAGE)


@pytest.mark.parametrize("depth", BLOCKS_PER_STAGE)
def test_depth_is_the_number_of_weighted_layers(depth):
    backbone = slim_backbone(DEPTH=depth)
    convolutions = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and "shortcut" not in name
    ]
    # a ResNet's name counts its fully connected classifier too, which a backbone has not
    assert len(convolutions) + 1 == depth


@pytest.mark.parametrize("depth", [50, 101])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"NORM": "GN", "STEM_OUT_CHANNELS": 32, "RES2_OUT_CHANNELS": 128, "WIDTH_PER_GROUP": 32},
        {"STRIDE_IN_1X1": False, "NORM": "BN"},
        {"RES5_DILATION": 2},
        {"NUM_GROUPS": 2},
        {"OUT_FEATURES": ["res4"]},
    ],
)
def test_equals_detectron2s_own_where_both_exist(depth, settings):
    """The same names, shapes, strides and outputs as Detectron2's build_resnet_backbone."""
    cfg = slim_config(DEPTH=depth, **settings)
    ours = build_steatosis_resnet_backbone(cfg, IMAGE).eval()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    theirs = build_backbone(cfg, IMAGE).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert ours.output_shape() == theirs.output_shape()
    image = torch.rand(1, 3, 64, 64)
    for name, features in theirs(image).items():
        assert torch.equal(ours(image)[name], features)


def test_fpn_has_the_usual_five_levels():
    cfg = slim_config()
    cfg.MODEL.BACKBONE.NAME = "build_steatosis_resnet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.FPN.NORM = "GN"
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    backbone = build_backbone(cfg, IMAGE)
    features = backbone(torch.rand(1, 3, 64, 64))
    assert {name: tuple(item.shape[1:]) for name, item in features.items()} == {
        "p2": (32, 16, 16),
        "p3": (32, 8, 8),
        "p4": (32, 4, 4),
        "p5": (32, 2, 2),
        "p6": (32, 1, 1),
    }
    assert isinstance(backbone.fpn_lateral2.norm, nn.GroupNorm)


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(0, set()), (1, {"stem"}), (3, {"stem", "res2", "res3"})]
)
def test_freeze_at_freezes_the_first_stages(freeze_at, frozen):
    cfg = slim_config(NORM="BN")
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    backbone = build_steatosis_resnet_backbone(cfg, IMAGE)
    without_gradient = {
        name.partition(".")[0]
        for name, parameter in backbone.named_parameters()
        if not parameter.requires_grad
    }
    assert without_gradient == frozen


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DEPTH": 34}, "DEPTH is 34; this backbone has depths 41, 50, 65, 101"),
        ({"DEFORM_ON_PER_STAGE": [False, True, False, False]}, "no deformable convolution"),
        ({"RES5_DILATION": 4}, "RES5_DILATION is 4; give 1 or 2"),
    ],
)
def test_what_it_cannot_build_is_a_clear_error(settings, message):
    with pytest.raises(InputError, match=message):
        slim_backbone(**settings)
