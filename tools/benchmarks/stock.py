"""The contenders: stock Detectron2 and torchvision, set up to do the same work as ours."""


def as_stock(cfg):
    """
    A config of ours in Detectron2's own classes, whose weights fit.

    Args:
        cfg (CfgNode): of a ``ScaledInputRCNN`` with ``INPUT.SCALE`` 1; left as it is.

    Returns:
        CfgNode: of a ``GeneralizedRCNN``.
    """
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    return cfg


def build_torchvision(cfg, pixels):
    """
    torchvision's Mask R-CNN, which proposes and keeps as many objects as the config says.

    Args:
        cfg (CfgNode): of an R-50-FPN.
        pixels (Tensor): uint8, shape (3, H, W), the image that it will see.

    Returns:
        function: takes no argument and segments that image.
    """
    import functools

    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    anchors, rpn, heads = cfg.MODEL.ANCHOR_GENERATOR, cfg.MODEL.RPN, cfg.MODEL.ROI_HEADS
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=heads.NUM_CLASSES + 1,
        min_size=min(pixels.shape[1:]),
        max_size=max(pixels.shape[1:]),
        rpn_anchor_generator=AnchorGenerator(
            tuple(map(tuple, anchors.SIZES)), tuple(map(tuple, anchors.ASPECT_RATIOS)) * 5
        ),
        rpn_pre_nms_top_n_test=rpn.PRE_NMS_TOPK_TEST,
        rpn_post_nms_top_n_test=rpn.POST_NMS_TOPK_TEST,
        rpn_nms_thresh=rpn.NMS_THRESH,
        box_score_thresh=0.0,
        box_nms_thresh=heads.NMS_THRESH_TEST,
        box_detections_per_img=cfg.TEST.DETECTIONS_PER_IMAGE,
    )
    image = pixels.float() / 255
    fit_statistics(model.backbone, image[None])
    return functools.partial(torch.inference_mode()(model.eval()), [image])


def fit_statistics(backbone, images):
    """
    Give a backbone with random weights the statistics of what it sees.

    Else its features grow from layer to layer, and no box is finite.

    Args:
        backbone (nn.Module): with ``BatchNorm2d``; changed in place.
        images (Tensor): shape (N, 3, H, W), as the backbone takes them.
    """
    import torch
    from torch import nn

    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    backbone.eval()
    for norm in norms:
        norm.momentum = None  # the mean over all that is seen, which is one image
        norm.train()
    with torch.no_grad():
        backbone(images)
    backbone.eval()
