"""A trained Mask R-CNN rebuilt for fast inference: the same network, up to rounding."""

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.poolers import ROIPooler
from torch import nn

from steatosis_d2.engine.train_loop import cpu_has_bfloat16
from steatosis_d2.modeling.roi_pooler import ChannelsLastROIPooler


def choose_precision(device):
    """
    The fastest precision that a device multiplies in.

    Args:
        device (torch.device): where the network runs.

    Returns:
        torch.dtype: float16 on a GPU; bfloat16 on a CPU that has it, else float32.
    """
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def accelerate(model, *, precision):
    """
    Rebuild a network for inference, in place.

    Args:
        model (GeneralizedRCNN): with its weights, in evaluation mode; cannot be trained further.
        precision (torch.dtype): of the convolutions and the fully connected layers. Boxes,
            scores and mask probabilities are computed in float32 whatever it is.

    Returns:
        GeneralizedRCNN: the same model.
    """
    fold_batch_norm(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    multiply_in(model, precision)
    if model.device.type == "cpu":
        pool_channels_last(model)
    return model


def fold_batch_norm(model):
    """Put each batch normalisation that follows a convolution into its weights and bias."""
    for module in model.modules():
        norm = getattr(module, "norm", None)
        if isinstance(module, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            bias = 0 if module.bias is None else module.bias
            module.weight = as_constant(module.weight * scale[:, None, None, None])
            module.bias = as_constant((bias - norm.running_mean) * scale + norm.bias)
            module.norm = None


def as_constant(tensor):
    return nn.Parameter(tensor.detach(), requires_grad=False)


def multiply_in(model, precision):
    """Run the layers that multiply in a precision, and what decodes their output in float32."""
    heads = model.roi_heads
    rpn_head = model.proposal_generator.rpn_head
    for module in (model.backbone, rpn_head, heads.box_head, heads.mask_head):
        module.to(dtype=precision, memory_format=torch.channels_last)

    def to_precision(_, inputs):
        return tuple(tensor.to(precision) for tensor in inputs)

    def to_float32(_, inputs, output):
        return cast(output, torch.float32)

    model.backbone.register_forward_pre_hook(to_precision)
    for module in (rpn_head, heads.box_head, heads.mask_head.predictor):
        module.register_forward_hook(to_float32)


def cast(output, dtype):
    """A tensor, or a nest of lists of them, in another precision."""
    if isinstance(output, torch.Tensor):
        return output.to(dtype)
    return type(output)(cast(item, dtype) for item in output)


def pool_channels_last(model):
    """Put ROIAlign for channels-last features in the place of Detectron2's."""
    for module in model.modules():
        if type(module) is ROIPooler:
            module.__class__ = ChannelsLastROIPooler
