"""Inference in 8-bit integers: exact where it claims to be, close where it rounds."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.modeling import build_model
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from steatosis_d2.errors import InputError
from steatosis_d2.inference.feature_ranges import measure_feature_ranges
from steatosis_d2.inference.predictor import MaskRCNNPredictor
from steatosis_d2.modeling import meta_arch
from steatosis_d2.modeling.acceleration import accelerate
from steatosis_d2.modeling.quantization import (
    RANGES_KEY,
    ByteScale,
    QuantizedLayer,
    RangeRecorder,
    cpu_has_int8,
    list_blocks,
    list_layers,
)

needs_int8 = pytest.mark.skipif(not cpu_has_int8(), reason="this processor has no VNNI")


@given(low=st.floats(-100, 0), high=st.floats(0, 100), share=st.floats(0, 1, exclude_max=True))
def test_bytes_are_at_most_a_step_from_the_numbers(low, high, share):
    scale = ByteScale.covering(low, high)
    number = torch.tensor([low + share * (high - low), 0.0], dtype=torch.float64)
    bytes_ = scale.to_bytes(number)
    assert bytes_.dtype == torch.uint8
    back = scale.scale * (bytes_.double() - scale.zero_point)
    # Half a step within; an end of the range may lie as far outside, for the zero point is rounded.
    assert abs(back[0] - number[0]) <= 1.001 * scale.scale
    assert back[1] == 0


def test_numbers_beyond_the_range_become_its_ends():
    scale = ByteScale.covering(-1.0, 3.0)
    for dtype in (torch.float32, torch.bfloat16):
        found = scale.to_bytes(torch.tensor([-9.0, -1.0, 0.0, 3.0, 9.0], dtype=dtype))
        assert found.tolist() == [0, 0, scale.zero_point, 255, 255]


def test_bytes_are_left_as_they_are():
    bytes_ = torch.tensor([0, 7, 255], dtype=torch.uint8)
    assert ByteScale(0.1, 3).to_bytes(bytes_) is bytes_


LAYERS = {
    "3 x 3": lambda: Conv2d(16, 24, 3, padding=1),
    "3 x 3 in steps": lambda: Conv2d(16, 24, 3, padding=1, stride=2, bias=False),
    "3 x 3 in groups": lambda: Conv2d(16, 32, 3, padding=2, dilation=2, groups=2),
    "1 x 1": lambda: Conv2d(16, 24, 1),
    "1 x 1 in steps": lambda: Conv2d(16, 24, 1, stride=2, bias=False),
}


def draw_bytes(*shape):
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    return pixels.contiguous(memory_format=torch.channels_last)


def to_numbers(bytes_, scale):
    return (bytes_.float() - scale.zero_point) * scale.scale


def round_weights(layer):
    """The layer with weights of 255 steps a channel."""
    weights = layer.weight.detach()
    scales = weights.abs().flatten(1).amax(1).view(-1, *[1] * (weights.dim() - 1)) / 127
    layer.weight.data = (weights / scales).round() * scales
    return layer


@needs_int8
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scale", [ByteScale(0.02, 0), ByteScale(0.02, 117)])
def test_convolution_is_exact_up_to_the_rounding_of_weights(kind, scale):
    layer = round_weights(LAYERS[kind]())
    pixels = draw_bytes(2, 16, 13, 18)
    with torch.inference_mode():
        expected = layer(to_numbers(pixels, scale))
        quantized = QuantizedLayer(layer, scale, output=None, relu=False, precision=torch.float32)
        found = quantized(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)


@needs_int8
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_fully_connected_layer_is_exact_up_to_the_rounding_of_weights(rows):
    layer, scale = round_weights(nn.Linear(48, 10)), ByteScale(0.05, 30)
    pixels = torch.randint(0, 256, (rows, 48), dtype=torch.uint8)
    with torch.inference_mode():
        expected = functional.relu(layer(to_numbers(pixels, scale)))
        found = QuantizedLayer(layer, scale, output=None, relu=True, precision=torch.float32)(
            pixels
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_int8
def test_sum_with_a_shortcut_and_relu_is_rounded_once():
    layer = round_weights(Conv2d(16, 24, 1))
    scale, shortcut_scale, output = ByteScale(0.02, 0), ByteScale(0.03, 90), ByteScale(0.04, 0)
    pixels, shortcut = draw_bytes(2, 16, 9, 7), draw_bytes(2, 24, 9, 7)
    with torch.inference_mode():
        expected = layer(to_numbers(pixels, scale)) + to_numbers(shortcut, shortcut_scale)
        expected = functional.relu(expected).clamp(max=255 * output.scale)
        quantized = QuantizedLayer(layer, scale, output=output, relu=True, precision=torch.float32)
        found = quantized(pixels, added=(shortcut, shortcut_scale))
    assert found.dtype == torch.uint8
    assert (to_numbers(found, output) - expected).abs().max() < 0.51 * output.scale


def in_float32(cfg):
    cfg = cfg.clone()
    cfg.TEST.PRECISION = "float32"
    return cfg


def draw_tiles():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 96, 80, 3), dtype=torch.uint8, generator=generator)
    return [(image.numpy(), None) for image in images]


@pytest.fixture(scope="module")
def calibrated_cfg(slim_cfg, tmp_path_factory):
    """The slim network, with the ranges of its features in the file."""
    weights = torch.load(slim_cfg.MODEL.WEIGHTS, weights_only=True)
    cfg = slim_cfg.clone()
    cfg.MODEL.WEIGHTS = str(tmp_path_factory.mktemp("weights") / "calibrated.pth")
    ranges = measure_feature_ranges(slim_cfg, draw_tiles())
    torch.save({**weights, RANGES_KEY: ranges}, cfg.MODEL.WEIGHTS)
    return cfg


def test_ranges_reach_over_all_that_was_seen(slim_cfg):
    """Of each layer's input, and of the four shortcuts' output."""
    tiles = draw_tiles()
    of_one = measure_feature_ranges(slim_cfg, tiles[:1])
    of_all = measure_feature_ranges(slim_cfg, tiles)
    predictor = MaskRCNNPredictor(slim_cfg)
    assert len(of_all) == len(list_layers(predictor.model)) + 4
    for name, (low, high) in of_all.items():
        assert low <= of_one[name][0] <= 0 <= of_one[name][1] <= high
    # What comes from a ReLU has no negative values.
    assert of_all["backbone.bottom_up.res3.0.conv2"][0] == 0


def emulate(model, ranges):
    """Make a network in float32 round where the quantized one does."""
    names = {module: name for name, module in model.named_modules()}

    def rounding(name):
        scale = ByteScale.covering(*ranges[name])
        return lambda numbers: to_numbers(scale.to_bytes(numbers), scale)

    for layer in list_layers(model):
        round_weights(layer)
        before = rounding(names[layer])
        layer.register_forward_pre_hook(lambda _, inputs, before=before: before(inputs[0]))
    for block in list_blocks(model):
        before = rounding(names[block.conv1])
        block.register_forward_pre_hook(lambda _, inputs, before=before: before(inputs[0]))
        if block.shortcut is not None:
            after = rounding(f"{names[block.shortcut]}.output")
            block.shortcut.register_forward_hook(lambda _, __, output, after=after: after(output))


@needs_int8
def test_network_rounds_inputs_weights_and_shortcuts_and_nothing_else(slim_cfg):
    model = MaskRCNNPredictor(in_float32(slim_cfg), score_threshold=0.05).model
    emulated = model.fast_copy
    image = {"image": torch.rand(3, 64, 96) * 255}
    pixels = emulated.preprocess_image([image]).tensor
    with torch.inference_mode():
        with RangeRecorder(emulated) as recorder:
            exact = emulated.backbone(pixels)
            emulated.inference([image])
        quantized = accelerate(model, precision=torch.float32, ranges=recorder.ranges)
        emulate(emulated, recorder.ranges)
        expected, found = emulated.backbone(pixels), quantized.backbone(pixels)
    for level, values in expected.items():
        difference = (found[level] - values).norm()
        assert difference < 0.02 * values.norm(), level
        assert difference < 0.2 * (values - exact[level]).norm(), level


@needs_int8
def test_calibrated_network_computes_in_bytes_unless_told_otherwise(calibrated_cfg, monkeypatch):
    def precision(cfg):
        return MaskRCNNPredictor(cfg).describe()["precision"]

    assert precision(calibrated_cfg).startswith("int8 and ")
    assert precision(in_float32(calibrated_cfg)) == "float32"
    monkeypatch.setattr(meta_arch, "cpu_has_int8", lambda: False)
    assert "int8" not in precision(calibrated_cfg)


@needs_int8
def test_image_without_proposals_has_no_instances(calibrated_cfg):
    cfg = calibrated_cfg.clone()
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 0
    assert MaskRCNNPredictor(cfg)([draw_tiles()[0][0]], mpp=None) == [[]]


@needs_int8
def test_floating_point_weights_are_let_go(calibrated_cfg):
    model = MaskRCNNPredictor(calibrated_cfg).network
    assert all(layer.weight is None for layer in list_layers(model))


def test_other_network_cannot_be_calibrated(slim_cfg, tmp_path):
    cfg = slim_cfg.clone()
    cfg.MODEL.RPN.CONV_DIMS = [-1, -1]
    cfg.MODEL.WEIGHTS = str(tmp_path / "other.pth")
    torch.save({"model": build_model(cfg).state_dict()}, cfg.MODEL.WEIGHTS)
    with pytest.raises(InputError, match="cannot compute in 8-bit integers"):
        measure_feature_ranges(cfg, draw_tiles())


def test_network_that_finds_nothing_cannot_be_calibrated(slim_cfg):
    """Its mask head would have no range."""
    cfg = slim_cfg.clone()
    cfg.TEST.SCORE_FLOOR = 1.1
    with pytest.raises(InputError, match="found nothing on the calibration images"):
        measure_feature_ranges(cfg, draw_tiles())


@pytest.fixture
def forget_probe():
    """What was found out about the operators is kept for the life of a process."""
    cpu_has_int8.cache_clear()
    yield
    cpu_has_int8.cache_clear()


@needs_int8
@pytest.mark.parametrize("name", ["qlinear_prepack", "qconv2d_pointwise", "qlinear_pointwise"])
def test_without_torchs_private_operators_the_network_runs_in_floating_point(
    name, calibrated_cfg, forget_probe, monkeypatch, caplog
):
    """They are not part of torch's public interface, so any release may drop them."""
    [tile] = [tile for tile, _ in draw_tiles()[:1]]
    [expected] = MaskRCNNPredictor(calibrated_cfg)([tile], mpp=None)
    cpu_has_int8.cache_clear()
    operators = {
        kept: getattr(torch.ops.onednn, kept)
        for kept in ("qlinear_prepack", "qconv_prepack", "qconv2d_pointwise", "qlinear_pointwise")
        if kept != name
    }
    monkeypatch.setattr(torch.ops, "onednn", SimpleNamespace(**operators))
    predictor = MaskRCNNPredictor(calibrated_cfg)
    [found] = predictor([tile], mpp=None)
    predictor([tile], mpp=None)
    assert "int8" not in predictor.describe()["precision"]
    assert len(found) == pytest.approx(len(expected), abs=2)
    assert [name in record.message for record in caplog.records if "8-bit" in record.message] == [
        True
    ]


@needs_int8
def test_operators_that_give_something_else_are_not_used(forget_probe, monkeypatch, caplog):
    right = QuantizedLayer.__call__
    monkeypatch.setattr(QuantizedLayer, "__call__", lambda *a, **k: right(*a, **k) // 2)
    assert not cpu_has_int8()
    assert "give wrong results here" in caplog.text
