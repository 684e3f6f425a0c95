"""The fast predictor against Detectron2's own, on networks with random weights."""

import hashlib
import itertools
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes
from torch import nn

from steatosis_d2.errors import InputError
from steatosis_d2.inference import predictor as predictor_module
from steatosis_d2.inference.predictor import (
    MaskRCNNPredictor,
    batch_by_size,
    upload_ahead,
)
from steatosis_d2.modeling.acceleration import (
    MASK_CHUNK,
    MASK_CHUNK_STEP,
    accelerate,
    choose_precision,
    fold_batch_norm,
    run_in_chunks,
    split_mask_head,
)
from steatosis_d2.modeling.roi_pooler import ChannelsLastROIPooler


def with_keys(cfg, *words):
    cfg = cfg.clone()
    cfg.merge_from_list(list(words))
    return cfg


def in_float32(cfg, **options):
    return MaskRCNNPredictor(with_keys(cfg, "TEST.PRECISION", "float32"), **options)


def random_image(height=96, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def full_size_masks(instances, shape):
    masks = np.zeros((len(instances), *shape), bool)
    for mask, instance in zip(masks, instances, strict=True):
        mask[instance.top : instance.bottom, instance.left : instance.right] = instance.crop
    return masks


def test_instances_are_those_of_detectron2(slim_cfg):
    """The same network in float32, rounding aside: the same objects in the same order."""
    cfg = with_keys(slim_cfg, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05")
    image_rgb = random_image()
    [instances] = in_float32(cfg)([image_rgb], mpp=None)
    model = DefaultPredictor(cfg).model
    pixels = torch.as_tensor(image_rgb.astype("float32").transpose(2, 0, 1))
    with torch.enable_grad():  # the network itself, not its fast copy
        expected = model([{"image": pixels, "height": 96, "width": 80}])[0]["instances"]
    masks = expected.pred_masks.numpy()
    seen = masks.any(axis=(1, 2))
    scores = [instance.score for instance in instances]
    assert len(instances) > 5
    assert np.allclose(scores, expected.scores.detach().numpy()[seen], atol=1e-4)
    differing = full_size_masks(instances, image_rgb.shape[:2]) ^ masks[seen]
    assert differing.mean() < 1e-3


def test_most_confident_come_first_and_none_below_the_threshold(slim_cfg):
    [all_instances] = MaskRCNNPredictor(slim_cfg, score_threshold=0.0)([random_image()], mpp=None)
    scores = [instance.score for instance in all_instances]
    assert scores == sorted(scores, reverse=True)
    middle = scores[len(scores) // 2]
    [kept] = MaskRCNNPredictor(slim_cfg, score_threshold=middle)([random_image()], mpp=None)
    # A score that is equal to the threshold is kept
    assert [instance.score for instance in kept] == [score for score in scores if score >= middle]


def test_freed_memory_goes_back_now_and_then(slim_cfg, monkeypatch):
    """Else a slide of many tiles would need more and more of it."""
    calls = []
    monkeypatch.setattr(predictor_module, "release_freed_memory", lambda: calls.append(None))
    predictor = MaskRCNNPredictor(slim_cfg)
    for _ in range(2 * predictor_module.CALLS_BETWEEN_RELEASES):
        predictor([], mpp=None)
    assert len(calls) == 2


def test_threshold_is_the_configs_where_none_is_given(slim_cfg):
    cfg = slim_cfg.clone()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.9
    predictor = MaskRCNNPredictor(cfg)
    assert predictor.score_threshold == 0.9
    assert all(instance.score >= 0.9 for instance in predictor([random_image()], mpp=None)[0])


def test_colours_are_in_the_networks_order(slim_cfg):
    swapped = slim_cfg.clone()
    swapped.INPUT.FORMAT = "BGR"
    image_rgb = random_image()
    [expected] = in_float32(slim_cfg, score_threshold=0)([image_rgb], mpp=None)
    [ours] = in_float32(swapped, score_threshold=0)([image_rgb[:, :, ::-1]], mpp=None)
    assert [i.score for i in ours] == [i.score for i in expected]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_change_no_result(slim_cfg, batch_size):
    sizes = [(64, 64), (64, 64), (64, 64), (32, 48), (64, 64)]
    images = [random_image(*size, seed=seed) for seed, size in enumerate(sizes)]
    predictor = in_float32(slim_cfg, score_threshold=0.05, batch_size=batch_size)
    together = predictor(images, mpp=None)
    assert len(together) == len(images)
    for image_rgb, instances in zip(images, together, strict=True):
        [alone] = predictor([image_rgb], mpp=None)
        assert len(instances) == len(alone)
        ours, expected = (full_size_masks(i, image_rgb.shape[:2]) for i in (instances, alone))
        assert (ours ^ expected).mean() < 1e-3


def test_no_image_gives_no_result(slim_cfg):
    assert MaskRCNNPredictor(slim_cfg)([], mpp=None) == []


def test_image_with_nothing_in_it_gives_an_empty_list(slim_cfg):
    assert MaskRCNNPredictor(slim_cfg, score_threshold=1.0)([random_image()], mpp=None) == [[]]


def test_pixel_size_decides_the_scale(slim_cfg):
    """Twice the um/px at half the factor is the same image for the network."""
    physical = slim_cfg.clone()
    physical.INPUT.MPP = 0.25
    [by_mpp] = in_float32(physical, score_threshold=0)([random_image()], mpp=0.375)
    [by_scale] = in_float32(slim_cfg, score_threshold=0)([random_image()], mpp=None)
    assert [i.score for i in by_mpp] == [i.score for i in by_scale]


def test_instances_at_the_border_are_marked(slim_cfg):
    image_rgb = random_image()
    [instances] = MaskRCNNPredictor(slim_cfg, score_threshold=0.0)([image_rgb], mpp=None)
    marked = [instance.truncated for instance in instances]
    inner = np.zeros(image_rgb.shape[:2], bool)
    inner[1:-1, 1:-1] = True
    masks = full_size_masks(instances, inner.shape)
    assert marked == [bool((mask & ~inner).any()) for mask in masks]
    assert set(marked) == {True, False}


def test_description_names_the_weights_by_content(slim_cfg):
    digest = hashlib.sha256(Path(slim_cfg.MODEL.WEIGHTS).read_bytes()).hexdigest()
    description = MaskRCNNPredictor(slim_cfg, score_threshold=0.25).describe()
    assert description["weights"] == "slim.pth"
    assert description["weights_sha256"] == digest
    assert description["score_threshold"] == 0.25
    assert description["views"] == 1


def test_network_without_weights_is_refused(slim_cfg):
    cfg = slim_cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(InputError, match="names no weights"):
        MaskRCNNPredictor(cfg)


def test_weights_of_another_network_are_refused(slim_cfg):
    cfg = slim_cfg.clone()
    cfg.MODEL.RESNETS.DEPTH = 50
    with pytest.raises(InputError, match="belongs to another network"):
        MaskRCNNPredictor(cfg)


@pytest.mark.parametrize(("cap", "n_warnings"), [(3, 1), (100_000, 0)])
def test_tile_that_reaches_the_cap_is_warned_of_once(slim_cfg, cap, n_warnings, caplog):
    cfg = slim_cfg.clone()
    cfg.TEST.DETECTIONS_PER_IMAGE = cap
    predictor = MaskRCNNPredictor(cfg, score_threshold=0.0)
    for _ in range(2):
        predictor([random_image()], mpp=None)
    warnings = [text for text in caplog.messages if f"the cap of {cap} detections" in text]
    assert len(warnings) == n_warnings


def test_only_images_of_one_size_share_a_batch():
    images = [np.zeros(shape) for shape in [(2, 2), (2, 2), (2, 2), (3, 2), (2, 2)]]
    batches = list(batch_by_size(images, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 1, 1, 1]
    assert all(a is b for a, b in zip(itertools.chain(*batches), images, strict=True))


def test_batches_for_a_processor_are_left_alone():
    batches = [[torch.zeros(1)], [torch.ones(2)]]
    assert list(upload_ahead(iter(batches), torch.device("cpu"))) == batches


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_reach_a_gpu_in_order():
    batches = [[torch.full((1000, 1000), number)] for number in range(5)]
    uploaded = [batch[0].mean(dtype=float).item() for batch in upload_ahead(batches, "cuda:0")]
    assert uploaded == list(range(5))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
@pytest.mark.parametrize("bias", [True, False])
def test_folded_batch_norm_gives_the_same_features(norm, bias):
    torch.manual_seed(0)
    conv = Conv2d(3, 5, kernel_size=3, bias=bias, norm=norm(5)).eval()
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(conv.norm, name).data.uniform_(0.5, 2)
    image = torch.rand(1, 3, 9, 9)
    expected = conv(image)
    fold_batch_norm(conv)
    assert conv.norm is None
    torch.testing.assert_close(conv(image), expected)


def test_half_precision_leaves_boxes_and_scores_in_float32(slim_cfg):
    model = DefaultPredictor(with_keys(slim_cfg, "TEST.PRECISION", "bfloat16")).model
    fast = model.fast_copy
    with torch.inference_mode():
        [output] = model.inference([{"image": torch.zeros(3, 64, 64)}], do_postprocess=False)
    assert output.pred_boxes.tensor.dtype == output.scores.dtype == torch.float32
    assert output.pred_masks.dtype == torch.float32
    assert next(fast.backbone.parameters()).dtype == torch.bfloat16


def test_bfloat16_costs_no_more_than_autocast(slim_cfg):
    """Batch normalisation is folded before rounding, so that it is not rounded a second time."""
    model = DefaultPredictor(slim_cfg).model
    image = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.backbone(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = model.backbone(image)
        ours = accelerate(model, precision=torch.bfloat16).backbone(image)
    for level, values in expected.items():
        allowed = (autocast[level].float() - values).norm()
        assert (ours[level].float() - values).norm() < 1.5 * allowed, level


@pytest.mark.parametrize("number", [0, 1, 8, 63, 64, 65, 150])
def test_mask_head_in_chunks_gives_the_same_masks(slim_cfg, number):
    """Whatever their number, each detection's mask is that of all detections at once."""
    mask_head = DefaultPredictor(slim_cfg).model.roi_heads.mask_head
    features = torch.randn(number, slim_cfg.MODEL.FPN.OUT_CHANNELS, 14, 14)
    with torch.inference_mode():
        expected = mask_head.layers(features)
        split_mask_head(mask_head)
        torch.testing.assert_close(mask_head.layers(features), expected)


def test_mask_head_sees_few_shapes():
    """A slide's tiles hold any number of droplets; code is made and kept for each shape."""
    shapes = set()

    def layers(chunk):
        shapes.add(chunk.shape)
        return chunk

    for number in range(300):
        run_in_chunks(layers, torch.zeros(number, 1, 2, 2))
    assert len(shapes) <= MASK_CHUNK // MASK_CHUNK_STEP + 1


def test_precision_fits_the_device():
    assert choose_precision(torch.device("cuda:0")) == torch.float16
    assert choose_precision(torch.device("cpu")) in (torch.float32, torch.bfloat16)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told to")
@pytest.mark.parametrize("output_size", [7, (4, 6)])
@pytest.mark.parametrize(
    ("pooler_type", "sampling_ratio"), [("ROIAlignV2", 0), ("ROIAlignV2", 2), ("ROIAlign", 0)]
)
def test_pooled_features_are_those_of_torchvision(pooler_type, sampling_ratio, output_size):
    """Boxes of every size, some of them beyond the image, on all levels of two images."""
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, 6, 256 // s, 320 // s, generator=generator) for s in (4, 8, 16, 32)]
    corners = torch.rand(200, 2, generator=generator) * 300 - 20
    sizes = torch.exp(torch.rand(200, 2, generator=generator) * 7 - 1)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    box_lists = [Boxes(boxes[:80]), Boxes(boxes[80:])]
    pooler = ROIPooler(
        output_size=output_size,
        scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32],
        sampling_ratio=sampling_ratio,
        pooler_type=pooler_type,
    )
    expected = torch.stack(
        [
            pooler.level_poolers[level](levels[level], roi[None])[0]
            for level, roi in levels_and_rois(pooler, box_lists)
        ]
    )
    ours = ChannelsLastROIPooler.like(pooler)(
        [level.to(memory_format=torch.channels_last) for level in levels], box_lists
    )
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_of_pooled_features_are_those_of_torchvision(precision):
    """
    In bfloat16, too, boxes stay where they are: Detectron2 rounds them with the features, from
    256 px on to 2 px.
    """
    generator = torch.Generator().manual_seed(0)
    corners = 200 + torch.rand(60, 2, generator=generator) * 150
    box_lists = [Boxes(torch.cat([corners, corners + corners.flip(1) / 2], dim=1))]
    pooler = ROIPooler(
        output_size=7, scales=[1 / 4, 1 / 8], sampling_ratio=0, pooler_type="ROIAlignV2"
    )
    levels = [torch.randn(1, 6, 96 // s, 96 // s, generator=generator) for s in (1, 2)]
    levels = [level.to(precision) for level in levels]
    wanted = torch.randn(60, 6, 7, 7, generator=generator)

    def pool(pooler, levels):
        levels = [level.detach().clone().requires_grad_() for level in levels]
        pooled = pooler(levels, box_lists)
        (pooled * wanted).sum().backward()
        return pooled, [level.grad.float() for level in levels]

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        pooled, gradients = pool(ChannelsLastROIPooler.like(pooler), levels)
    expected, exact_gradients = pool(pooler, [level.float() for level in levels])
    torch.testing.assert_close(pooled, expected, atol=2e-4, rtol=1e-4)
    step = torch.finfo(precision).eps  # the gradient is rounded to the features' precision
    torch.testing.assert_close(gradients, exact_gradients, atol=1e-4, rtol=max(1e-4, step))


def levels_and_rois(pooler, box_lists):
    levels = assign_boxes_to_levels(box_lists, pooler.min_level, pooler.max_level, 224, 4)
    return zip(levels.tolist(), convert_boxes_to_pooler_format(box_lists), strict=True)


def test_pooling_no_box_gives_no_features():
    pooler = ChannelsLastROIPooler(
        output_size=7, scales=[1 / 4, 1 / 8], sampling_ratio=0, pooler_type="ROIAlignV2"
    )
    levels = [torch.zeros(1, 6, 16, 16), torch.zeros(1, 6, 8, 8)]
    assert pooler(levels, [Boxes(torch.zeros(0, 4))]).shape == (0, 6, 7, 7)
