"""
Inference in 8-bit integers: the same network up to rounding, 1.5 times as fast as in bfloat16.

Weights are rounded with one scale for each output channel, features with a scale and a zero point
for each tensor, which cover the values that it took on calibration images; sums are exact, in 32
bits (Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, section 2). The stem, the deconvolution and the layers that
give scores, boxes and masks stay as they are.
"""

import functools
import itertools
import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, MaskRCNNConvUpsampleHead
from detectron2.utils.file_io import PathManager
from torch import nn
from torch.utils.hooks import RemovableHandle

logger = logging.getLogger(__name__)

RANGES_KEY = "feature_ranges"  # of a checkpoint
# Bytes from 0 to 255; weights from -127 to 127
STEPS, WEIGHT_STEPS = 255, 127
SMALLEST_SCALE = 1e-8  # of a tensor that was zero on all calibration images
NO_ARGUMENTS = ((), "")  # of an activation, for oneDNN


@functools.cache
def cpu_has_int8():
    """
    Whether networks can compute in bytes here, found out once.

    It takes a processor with VNNI (without it sums of two products overflow 16 bits), and
    operators of torch that are not part of its public interface. A release without them, or in
    which they give something else, is found by a known case, and said in the log.

    Returns:
        bool: False where the network has to compute in bfloat16 or float32.
    """
    try:
        if not torch.cpu._is_vnni_supported():
            return False
        is_right = _solve_known_cases()
    except Exception as error:  # what is missing, and how that shows, depends on the release
        logger.warning(
            "torch %s has no 8-bit operators that fit (%s); the network runs in floating point, "
            "a little slower.",
            torch.__version__,
            str(error).splitlines()[0],
        )
        return False
    if not is_right:
        logger.warning(
            "the 8-bit operators of torch %s give wrong results here; the network runs in "
            "floating point, a little slower.",
            torch.__version__,
        )
    return is_right


def _solve_known_cases():
    """Whether a layer of each kind gives what the same layer gives in float32, to rounding."""
    generator = torch.Generator().manual_seed(0)
    scale = ByteScale.covering(-1.0, 1.0)
    image = torch.rand(1, 16, 6, 6, generator=generator) * 2 - 1
    image = image.contiguous(memory_format=torch.channels_last)
    added = torch.rand(1, 16, 6, 6, generator=generator) * 2 - 1
    added = added.contiguous(memory_format=torch.channels_last)
    wide = nn.Conv2d(16, 16, 3, padding=1)
    narrow = nn.Conv2d(16, 16, 1)
    linear = nn.Linear(16, 16)
    for layer in (wide, narrow, linear):
        for parameter in layer.parameters():
            with torch.no_grad():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    rows = image[0, :, 0].T.contiguous()
    with torch.no_grad():
        cases = [
            (wide, image, None, wide(image)),
            (narrow, image, None, narrow(image)),
            (narrow, image, added, narrow(image) + added),
            (linear, rows, None, linear(rows)),
        ]
        return all(
            _compute_in_bytes(layer, tensor, summand, scale).sub(expected.relu()).abs().max()
            < 0.02 * expected.abs().max()
            for layer, tensor, summand, expected in cases
        )


def _compute_in_bytes(layer, tensor, summand, scale):
    quantized = QuantizedLayer(layer, scale, output=None, relu=True, precision=torch.float32)
    if summand is None:
        return quantized(tensor)
    # A summand comes with bytes as output: the range covers what the known case gives.
    output = ByteScale.covering(0.0, 8.0)
    quantized = QuantizedLayer(layer, scale, output=output, relu=True, precision=torch.float32)
    result = quantized(tensor, added=(scale.to_bytes(summand), scale))
    return (result.float() - output.zero_point) * output.scale


def read_feature_ranges(path, model):
    """
    The ranges that a checkpoint notes of its features, for the network that has its weights.

    Args:
        path (str): the checkpoint; any file, address, or nothing.
        model (nn.Module): the network.

    Returns:
        dict[str, list[float]] or None: None where the checkpoint notes none, or the network's
        weights are others by now, for instance since it was trained further.
    """
    if not str(path).partition("?")[0].endswith((".pth", ".yaml")):  # or steatosis-d2://x.yaml
        return None
    local_path = Path(PathManager.get_local_path(str(path)))
    if not local_path.is_file():
        return None
    checkpoint = torch.load(local_path, map_location="cpu", weights_only=True)
    weights, ranges = checkpoint.get("model"), checkpoint.get(RANGES_KEY)
    if not isinstance(ranges, dict) or not isinstance(weights, dict):
        return None
    state = model.state_dict()
    are_same = state.keys() <= weights.keys() and all(
        torch.equal(tensor.cpu(), weights[name].to(tensor.dtype)) for name, tensor in state.items()
    )
    return ranges if are_same else None


def can_quantize(model):
    """
    Whether a network is made of the layers that can be put into bytes here.

    Args:
        model (GeneralizedRCNN): any.

    Returns:
        bool: True for a ResNet of bottleneck blocks with FPN, and Detectron2's usual heads.
    """
    heads = model.roi_heads
    return (
        type(model.backbone) is FPN
        and type(model.backbone.bottom_up) is ResNet
        and all(type(block) is BottleneckBlock for block in list_blocks(model))
        and isinstance(model.proposal_generator.rpn_head.conv, nn.Conv2d)
        and type(heads.box_head) is FastRCNNConvFCHead
        and type(heads.mask_head) is MaskRCNNConvUpsampleHead
    )


class RangeRecorder:
    """
    Notes between which values the features lie that go into each layer to be quantized.

    Used as a context while the network runs on calibration images.

    Attributes:
        ranges (dict[str, list[float]]): lowest (at most 0) and highest (at least 0) input of each
            layer by its name, and output of the shortcuts' layers by name and ``.output``.
    """

    def __init__(self, model):
        """
        Args:
            model (GeneralizedRCNN): as :func:`can_quantize` wants it, with batch normalisation
                already part of the convolutions.
        """
        self.ranges: dict[str, list[float]] = {}
        self._model = model
        self._hooks: list[RemovableHandle] = []

    def __enter__(self):
        names = name_modules(self._model)
        for layer in list_layers(self._model):
            note = partial(self._note_input, names[layer])
            self._hooks.append(layer.register_forward_pre_hook(note))
        for block in list_blocks(self._model):
            if block.shortcut is not None:
                note = partial(self._note_output, output_name(names[block.shortcut]))
                self._hooks.append(block.shortcut.register_forward_hook(note))
        return self

    def __exit__(self, *_):
        while self._hooks:
            self._hooks.pop().remove()

    @property
    def is_complete(self):
        """Whether something went through every layer."""
        names = name_modules(self._model)
        return all(names[layer] in self.ranges for layer in list_layers(self._model))

    def _note_input(self, name, _layer, inputs):
        self._widen(name, inputs[0])

    def _note_output(self, name, _layer, _inputs, output):
        self._widen(name, output)

    def _widen(self, name, tensor):
        if tensor.numel():
            low, high = self.ranges.get(name, (0.0, 0.0))
            self.ranges[name] = [min(low, tensor.min().item()), max(high, tensor.max().item())]


def quantize(model, ranges, *, precision):
    """
    Put a network's layers into bytes, in place.

    Args:
        model (GeneralizedRCNN): on the CPU, as for :class:`RangeRecorder`.
        ranges (dict[str, list[float]]): as :class:`RangeRecorder` notes them.
        precision (torch.dtype): of the features between the parts that compute in bytes.
    """
    names = name_modules(model)
    inputs = {layer: ByteScale.covering(*ranges[names[layer]]) for layer in list_layers(model)}
    outputs = {}
    blocks, mask_layers = list_blocks(model), model.roi_heads.mask_head.conv_norm_relus
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        outputs[block.conv1], outputs[block.conv2] = inputs[block.conv2], inputs[block.conv3]
        # The last block's output goes into the uppermost lateral convolution.
        reader = following.conv1 if following else model.backbone.lateral_convs[0]
        outputs[block.conv3] = inputs[reader]
        if block.shortcut is not None:
            shortcut_range = ranges[output_name(names[block.shortcut])]
            outputs[block.shortcut] = ByteScale.covering(*shortcut_range)
        block.forward = QuantizedBlock(block, inputs[block.conv1])
    outputs.update({a: inputs[b] for a, b in itertools.pairwise(mask_layers)})
    inside_blocks = {layer for block in blocks for layer in (block.conv1, block.conv2, block.conv3)}
    for layer, scale in inputs.items():
        relu = layer in inside_blocks or getattr(layer, "activation", None) is not None
        # In place of forward(), for Detectron2's modules hold these layers in lists of their own
        layer.forward = QuantizedLayer(
            layer, scale, output=outputs.get(layer), relu=relu, precision=precision
        )
        layer.weight = layer.bias = None


def name_modules(model):
    """Name of each module in the network."""
    return {module: name for name, module in model.named_modules()}


def output_name(layer_name):
    """Under which the range of a layer's output is noted."""
    return f"{layer_name}.output"


def list_layers(model):
    """All layers that are put into bytes."""
    in_blocks = [
        layer
        for block in list_blocks(model)
        for layer in (block.conv1, block.conv2, block.conv3, block.shortcut)
        if layer is not None
    ]
    return in_blocks + list_single_layers(model) + model.roi_heads.mask_head.conv_norm_relus


def list_blocks(model):
    """A ResNet's blocks, from the image upwards."""
    return [block for stage in model.backbone.bottom_up.stages for block in stage]


def list_single_layers(model):
    """Layers whose output other code works on, so that they give it as numbers, not bytes."""
    fpn, rpn_head = model.backbone, model.proposal_generator.rpn_head
    box_head = model.roi_heads.box_head
    return [
        *fpn.lateral_convs,
        *fpn.output_convs,
        rpn_head.conv,
        *box_head.conv_norm_relus,
        *box_head.fcs,
        *(dense_branch_of(model).layers if dense_branch_of(model) else ()),
    ]


def dense_branch_of(model):
    """The network's semantic branch, or None."""
    return getattr(model, "dense_branch", None)


class ByteScale(NamedTuple):
    """Which number a byte stands for: ``scale * (byte - zero_point)``."""

    scale: float
    zero_point: int

    @classmethod
    def covering(cls, low, high):
        """
        The finest scale that reaches over a range; zero is exact, since borders are padded by it.

        Args:
            low, high (float): at most and at least 0.

        Returns:
            ByteScale: values beyond the range become its ends.
        """
        scale = max((high - low) / STEPS, SMALLEST_SCALE)
        return cls(scale, round(-low / scale))

    def to_bytes(self, tensor):
        """
        Args:
            tensor (Tensor): numbers; or bytes, which are left as they are.

        Returns:
            Tensor: uint8, of the same shape and order in memory.
        """
        if tensor.dtype == torch.uint8:
            return tensor
        shift = tensor.new_tensor(self.zero_point - 128)
        steps = torch.add(shift, tensor, alpha=1 / self.scale).round_().clamp_(-128, 127)
        # By way of int8, to which torch converts many times as fast
        return steps.to(torch.int8).view(torch.uint8).bitwise_xor_(128)


class QuantizedLayer:
    """What a convolution or a fully connected layer, and a ReLU behind it, do, in bytes."""

    def __init__(self, layer, scale, *, output, relu, precision):
        """
        Args:
            layer (Conv2d or nn.Linear): with its weights.
            scale (ByteScale): of its input.
            output (ByteScale or None): of its output; None for numbers.
            relu (bool): whether a ReLU follows.
            precision (torch.dtype): of numbers that come out.
        """
        self.scale, self.output = scale, output
        self._result = (*(output or ByteScale(1.0, 0)), torch.uint8 if output else precision)
        self._activation = "relu" if relu else "none"
        self._is_linear = isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1)
        weights = layer.weight.detach().float()
        rows = weights.flatten(1)
        scales = (rows.abs().amax(1) / WEIGHT_STEPS).clamp(min=SMALLEST_SCALE)
        steps = (rows / scales[:, None]).round().to(torch.int8)
        if self._is_linear:
            self._stride = getattr(layer, "stride", (1, 1))
            packed = torch.ops.onednn.qlinear_prepack(steps, None)
        else:
            self._geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
            packed = torch.ops.onednn.qconv_prepack(
                steps.view_as(weights), scales, *scale, *self._geometry
            )
        self._weights = (packed, scales, torch.zeros(len(scales), dtype=torch.int64))
        self._bias = None if layer.bias is None else layer.bias.detach().float()

    def __call__(self, tensor, *, added=None):
        """
        Args:
            tensor (Tensor): numbers, or bytes in the scale of the input.
            added (tuple[Tensor, ByteScale] or None): for a convolution of 1 x 1, bytes that are
                added to its result before the ReLU; they may be overwritten.

        Returns:
            Tensor: bytes in the scale of the output, or numbers.
        """
        tensor = self.scale.to_bytes(tensor)
        if not self._is_linear:
            return torch.ops.onednn.qconv2d_pointwise(
                tensor,
                *self.scale,
                *self._weights,
                self._bias,
                *self._geometry,
                *self._result,
                self._activation,
                *NO_ARGUMENTS,
            )
        if tensor.dim() == 2:
            return self._multiply(tensor)
        # A convolution of 1 x 1 is a matrix product; as such oneDNN is fast for any size.
        step_y, step_x = self._stride
        pixels = tensor[:, :, ::step_y, ::step_x].permute(0, 2, 3, 1)
        rows = pixels.flatten(0, 2)
        if added is None:
            result = self._multiply(rows)
        else:
            summand, scale = added
            result = self._multiply_and_add(rows, summand.permute(0, 2, 3, 1).flatten(0, 2), scale)
        return result.view(*pixels.shape[:3], result.shape[1]).permute(0, 3, 1, 2)

    def _multiply(self, rows):
        """Rows of bytes with the weights."""
        return torch.ops.onednn.qlinear_pointwise(
            rows,
            *self.scale,
            *self._weights,
            self._bias,
            *self._result,
            self._activation,
            *NO_ARGUMENTS,
        )

    def _multiply_and_add(self, rows, summand, summand_scale):
        """The same with rows in another scale, added before the ReLU."""
        return torch.ops.onednn.qlinear_pointwise.binary(
            rows,
            *self.scale,
            *self._weights,
            summand,
            self._bias,
            *self._result,
            *summand_scale,
            "sum",
            1.0,
            self._activation,
            *NO_ARGUMENTS,
        )


class QuantizedBlock:
    """What a ``BottleneckBlock`` of quantized layers does, all in bytes."""

    def __init__(self, block, scale):
        """
        Args:
            block (BottleneckBlock): its layers are quantized before it is used.
            scale (ByteScale): of its input.
        """
        self._block, self._scale = block, scale

    def __call__(self, tensor):
        """
        Args:
            tensor (Tensor): numbers, or bytes in the scale of the input.

        Returns:
            Tensor: bytes in the scale of the next block's input.
        """
        block, tensor = self._block, self._scale.to_bytes(tensor)
        inside = block.conv2(block.conv1(tensor))
        if block.shortcut is None:
            return block.conv3(inside, added=(tensor, self._scale))
        shortcut = block.shortcut(tensor)
        return block.conv3(inside, added=(shortcut, block.shortcut.forward.output))
