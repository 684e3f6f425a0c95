"""A network's inference as plain tensors and standard operators, for other programs."""

import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import nn
from torchvision.ops import clip_boxes_to_image, nms, roi_align

from steatosis_d2.errors import InputError
from steatosis_d2.modeling.dense_branch import enlarge_boxes, temper_scores
from steatosis_d2.modeling.limits import scale_with_area
from steatosis_d2.modeling.roi_heads import SteatosisROIHeads


class ExportableNetwork(nn.Module):
    """
    What a :class:`~.meta_arch.ScaledInputRCNN` finds on a tile of one size, up to rounding.

    It does without Detectron2's lists of images and boxes, which a tracing exporter does not see
    through, and without what runs the network faster here. Bringing tiles to the network's pixel
    size, and pasting masks into them, is left to who calls it; so is ``TEST.VIEWS``.
    """

    def __init__(self, model, *, tile_px):
        """
        Args:
            model (ScaledInputRCNN): with its weights, in evaluation mode, on a CPU.
            tile_px (int): side of its tiles, in px of the network's input.

        Raises:
            InputError: the network has parts that are not known here, or its features do not
                divide such a tile.
        """
        super().__init__()
        if type(model.roi_heads) is not SteatosisROIHeads or not model.roi_heads.mask_on:
            raise InputError(
                "this network cannot be exported, which takes FPN and SteatosisROIHeads with masks."
            )
        if model.stretch:
            raise InputError(
                "this network spreads the grey levels of each image (INPUT.STRETCH), which is not "
                "exported. Train one without it."
            )
        divisor = model.backbone.size_divisibility
        if tile_px % divisor or tile_px < divisor:
            raise InputError(
                f"tiles of {tile_px} px do not fit the network; expected a multiple of {divisor}."
            )
        self.model = model
        self.size = (tile_px, tile_px)

    def forward(self, image):
        """
        Args:
            image (Tensor): uint8 or float32, shape (3, S, S), 0 to 255, in the network's order of
                colours.

        Returns:
            tuple[Tensor]: of N objects, the most confident first: the boxes that their masks lie
            in, float32, shape (N, 4), x0, y0, x1, y1 in px of the tile; scores, float32, shape
            (N,); classes, int64, shape (N,); probabilities of the masks, float32, shape (N, M, M),
            each spread over its box.
        """
        model, heads = self.model, self.model.roi_heads
        pixels = (image.float() - model.pixel_mean) / model.pixel_std
        features = model.backbone(pixels[None])
        boxes, scores, classes = self._detect(features, self._propose(features))
        boxes = self._clip(enlarge_boxes(boxes, heads.mask_box_scale))
        levels = [features[name] for name in heads.mask_in_features]
        masks = torch.sigmoid(heads.mask_head.layers(_pool(heads.mask_pooler, levels, boxes)))
        if masks.shape[1] > 1:  # one for each class
            own = classes[:, None, None, None].expand(-1, 1, *masks.shape[2:])
            masks = masks.gather(1, own)
        return boxes, scores, classes, masks[:, 0]

    def _propose(self, features):
        """Boxes that may hold an object, shape (N, 4), the most likely first."""
        rpn = self.model.proposal_generator
        levels = [features[name] for name in rpn.in_features]
        n_decoded, n_kept = (
            scale_with_area(caps[False], [self.size])
            for caps in (rpn.pre_nms_topk, rpn.post_nms_topk)
        )
        found, likely = [], []
        for anchors, logits, deltas in zip(
            rpn.anchor_generator(levels), *rpn.rpn_head(levels), strict=True
        ):
            # From (1, anchors of a cell, h, w) to the order of the anchors
            logits = logits[0].permute(1, 2, 0).flatten()
            deltas = deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
            scores, top = logits.topk(min(n_decoded, len(anchors)))
            boxes = self._clip(rpn.box2box_transform.apply_deltas(deltas[top], anchors.tensor[top]))
            sides = boxes[:, 2:] - boxes[:, :2]
            chosen = torch.nonzero((sides > rpn.min_box_size).all(dim=1))[:, 0]
            chosen = chosen[nms(boxes[chosen], scores[chosen], rpn.nms_thresh_test)]
            found.append(boxes[chosen])
            likely.append(scores[chosen])
        order = torch.argsort(torch.cat(likely), descending=True)[:n_kept]
        return torch.cat(found)[order]

    def _detect(self, features, proposals):
        """Boxes, scores and classes of the objects, as ``SteatosisROIHeads.detect_boxes``."""
        heads, predictor = self.model.roi_heads, self.model.roi_heads.box_predictor
        levels = [features[name] for name in heads.box_in_features]
        logits, deltas = predictor(heads.box_head(_pool(heads.box_pooler, levels, proposals)))
        scores = torch.softmax(logits, dim=1)[:, :-1]
        boxes = predictor.box2box_transform.apply_deltas(deltas, proposals)
        boxes = boxes.unflatten(1, (-1, 4)).expand(-1, predictor.num_classes, 4)
        if self.model.dense_branch is not None and predictor.branch_weight:
            number = predictor.fat_class
            tempered = temper_scores(
                scores[:, number],
                boxes[:, number],
                torch.softmax(self.model.dense_branch(features), dim=1)[0],
                weight=predictor.branch_weight,
                stride=predictor.branch_stride,
            )
            scores = torch.cat(
                [scores[:, :number], tempered[:, None], scores[:, number + 1 :]], dim=1
            )
        row, classes = torch.nonzero(scores >= predictor.test_score_thresh).unbind(1)
        boxes, scores = self._clip(boxes[row, classes]), scores[row, classes]
        # Far from one another, boxes of different classes do not suppress each other.
        apart = boxes + (classes * (max(self.size) + 1))[:, None]
        kept = nms(apart, scores, predictor.test_nms_thresh)
        kept = kept[: scale_with_area(predictor.test_topk_per_image, [self.size])]
        return boxes[kept], scores[kept], classes[kept]

    def _clip(self, boxes):
        return clip_boxes_to_image(boxes, self.size)


def _pool(pooler, levels, boxes):
    """Features of boxes (N, C, h, w), as Detectron2's ``ROIPooler`` gives them."""
    level_of = assign_boxes_to_levels(
        [Boxes(boxes)],
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )
    pooled, places = [], []
    for number, (level, aligner) in enumerate(zip(levels, pooler.level_poolers, strict=True)):
        here = torch.nonzero(level_of == number)[:, 0]
        pooled.append(
            roi_align(
                level,
                nn.functional.pad(boxes[here], (1, 0)),  # of the first image, number 0
                pooler.output_size,
                aligner.spatial_scale,
                aligner.sampling_ratio,
                aligner.aligned,
            )
        )
        places.append(here)
    return torch.cat(pooled)[torch.argsort(torch.cat(places))]
