"""A trained Mask R-CNN rebuilt for fast inference: the same network, up to rounding."""

from functools import partial

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import StandardROIHeads
from torch import nn

from steatosis_d2.modeling.quantization import dense_branch_of, quantize
from steatosis_d2.modeling.roi_heads import SteatosisROIHeads
from steatosis_d2.modeling.roi_pooler import pool_channels_last

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
# Detections that go through the mask head together, and the multiple to which the rest is filled.
MASK_CHUNK, MASK_CHUNK_STEP = 64, 8


def choose_precision(device):
    """
    The fastest precision that a device multiplies in.

    Args:
        device (torch.device): where the network runs.

    Returns:
        torch.dtype: float16 on a GPU, where torchvision's ROIAlign knows no bfloat16; on a CPU
        bfloat16 if it multiplies in it, else float32.
    """
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16():
    """
    Whether the processor multiplies in bfloat16; elsewhere it is emulated, and slower.

    Returns:
        bool: True with AVX512-BF16, which AMX processors have as well.
    """
    return torch.cpu._is_avx512_bf16_supported()


def accelerate(model, *, precision, ranges=None):
    """
    Rebuild a network for inference, in place; it cannot be trained further.

    Batch normalisation becomes part of the convolutions, which run with channels last. A network
    with other heads than ours or Detectron2's ``StandardROIHeads`` is left at that, in float32.

    Args:
        model (GeneralizedRCNN): with its weights, in evaluation mode.
        precision (torch.dtype): of the convolutions and the fully connected layers. Boxes,
            scores and mask probabilities are computed in float32 whatever it is.
        ranges (dict[str, list[float]] or None): of the features, as
            :class:`~.quantization.RangeRecorder` notes them: most layers compute in bytes then,
            on a processor alone.

    Returns:
        GeneralizedRCNN: the same model.
    """
    fold_batch_norm(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    model.to(memory_format=torch.channels_last)
    if type(model.roi_heads) in (StandardROIHeads, SteatosisROIHeads):
        multiply_in(model, precision)
        if model.device.type == "cpu":
            pool_channels_last(model.roi_heads)
            if ranges is not None:
                quantize(model, ranges, precision=precision)
            split_mask_head(model.roi_heads.mask_head)
    return model


def fold_batch_norm(model):
    """Put each batch normalisation that follows a convolution into its weights and bias."""
    for module in model.modules():
        if not isinstance(module, Conv2d):
            continue
        norm = module.norm
        if isinstance(norm, BATCH_NORMS):
            scale, shift = scale_and_shift(norm)
            bias = 0 if module.bias is None else module.bias * scale
            module.weight = as_constant(module.weight * scale[:, None, None, None])
            module.bias = as_constant(bias + shift)
            module.norm = None


def scale_and_shift(norm):
    """What a batch normalisation does to each channel in evaluation."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def as_constant(tensor):
    """A parameter that is not trained."""
    return nn.Parameter(tensor.detach(), requires_grad=False)


def multiply_in(model, precision):
    """Run the layers that multiply in a precision, and what decodes their output in float32."""
    heads, rpn_head = model.roi_heads, model.proposal_generator.rpn_head
    branch = dense_branch_of(model)
    for module in (model.backbone, rpn_head, heads.box_head, heads.mask_head, branch):
        if module is not None:
            module.to(precision)
    model.backbone.register_forward_pre_hook(partial(cast_input, precision))
    for module in (rpn_head, heads.box_head, heads.mask_head.predictor):
        module.register_forward_hook(partial(cast_output, torch.float32))


def cast_input(precision, _module, inputs):
    """A hook before a module: the tensors it is given, in another precision."""
    return tuple(tensor.to(precision) for tensor in inputs)


def cast_output(precision, _module, _inputs, output):
    """A hook after a module: the tensor it gives, or lists of them, in another precision."""
    if isinstance(output, torch.Tensor):
        return output.to(precision)
    return tuple([tensor.to(precision) for tensor in tensors] for tensors in output)


def split_mask_head(mask_head):
    """
    Put detections through a mask head in chunks of few different sizes.

    On a CPU oneDNN makes code for each number of detections that it meets, and keeps it: measured
    with the starter, 0.14 GB after 126 tiles, and growing.
    """
    mask_head.layers = partial(run_in_chunks, mask_head.layers)


def run_in_chunks(layers, features):
    """
    Run layers on a part of the detections at a time.

    Args:
        layers (callable): of features to logits, each detection by itself.
        features (Tensor): shape (N, C, H, W).

    Returns:
        Tensor: what ``layers(features)`` gives.
    """
    return torch.cat([run_filled(layers, chunk) for chunk in features.split(MASK_CHUNK)])


def run_filled(layers, chunk):
    """Run layers on some detections, and on zeros up to a round number."""
    missing = chunk.new_zeros(-len(chunk) % MASK_CHUNK_STEP, *chunk.shape[1:])
    filled = torch.cat([chunk, missing]).contiguous(memory_format=torch.channels_last)
    return layers(filled)[: len(chunk)]
