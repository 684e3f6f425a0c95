"""
A second opinion on what is fat: each pixel is tissue, fat or other white.

As the semantic branch of Panoptic Feature Pyramid Networks (Kirillov et al. 2019, section 3): all
levels of the pyramid are brought to the finest one and added. It sees a vein as a whole, wall and
surroundings included, where the box head sees what fills a box. At test the score of a box is
tempered by it (:func:`temper_scores`).
"""

import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY
from torch import nn
from torch.nn import functional

from steatosis_d2.data.dense_labels import FAT, N_CLASSES, NOT_FAT, OTHER_WHITE, UNKNOWN

# Under which the branch's probabilities lie beside the features of the backbone.
DENSE = "dense"
# A box and what is around it: so many times its sides, looked at in so many places along each.
AROUND, STEPS = 1.5, 12
# Of the box's half sides: the ellipse that is the object, and where its surroundings begin.
INSIDE, OUTSIDE = 0.9, 1.15
# A box so many cells of the branch wide is half resolved by it. On 60 tiles held out of training,
# recall on those of 1 to 10 droplets is 0.32 with it, 0.26 with one weight for all sizes, at the
# thresholds of the best F1, which is the same.
HALF_RESOLVED_CELLS = 4
SMALLEST = 1e-6  # that a power is taken of


def build_dense_branch(cfg, input_shape):
    """
    The branch that a config asks for.

    Args:
        cfg (CfgNode): ``MODEL.DENSE_BRANCH`` is read.
        input_shape (dict[str, ShapeSpec]): of the backbone's features.

    Returns:
        nn.Module or None: None where the config has none.
    """
    if not cfg.MODEL.DENSE_BRANCH.ENABLED:
        return None
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.DENSE_BRANCH.NAME)(cfg, input_shape)


@SEM_SEG_HEADS_REGISTRY.register()
class DenseBranch(nn.Module):
    """Probabilities of tissue, fat and other white at the pyramid's finest level."""

    @configurable
    def __init__(self, input_shape, *, channels, norm, loss_weight):
        """
        Args:
            input_shape (dict[str, ShapeSpec]): of the levels to use, the finest first, each half
                as fine as the one before.
            channels (int): of the layers within.
            norm (str): as for ``detectron2.layers.get_norm``.
            loss_weight (float): of its loss beside the others.
        """
        super().__init__()
        self.levels = list(input_shape)
        self.stride = input_shape[self.levels[0]].stride
        self.loss_weight = loss_weight
        # A level's own layer, then one each time its features are enlarged by two.
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                self._layer(shape.channels if number == 0 else channels, channels, norm)
                for number in range(max(1, depth))
            )
            for depth, shape in enumerate(input_shape.values())
        )
        self.predictor = Conv2d(channels, N_CLASSES, kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg, input_shape):
        settings = cfg.MODEL.DENSE_BRANCH
        return {
            "input_shape": {name: input_shape[name] for name in settings.IN_FEATURES},
            "channels": settings.CONVS_DIM,
            "norm": settings.NORM,
            "loss_weight": settings.LOSS_WEIGHT,
        }

    @staticmethod
    def _layer(in_channels, channels, norm):
        layer = Conv2d(
            in_channels,
            channels,
            kernel_size=3,
            padding=1,
            bias=not norm,
            norm=get_norm(norm, channels),
            activation=functional.relu,
        )
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return layer

    @property
    def layers(self):
        """All convolutions but the one that gives the classes."""
        return [layer for stack in self.stacks for layer in stack.children()]

    def forward(self, features):
        """
        Args:
            features (dict[str, Tensor]): of the backbone, shape (N, C, H, W) each.

        Returns:
            Tensor: logits, shape (N, 3, h, w) of the finest level.
        """
        total = 0
        for depth, (name, stack) in enumerate(zip(self.levels, self.stacks, strict=True)):
            level = features[name]
            for layer in stack.children():
                level = layer(level)
                if depth:
                    level = functional.interpolate(level, scale_factor=2.0, mode="bilinear")
            total = total + level
        return self.predictor(total)

    def losses(self, logits, labels):
        """
        Args:
            logits (Tensor): as :meth:`forward` gives them.
            labels (Tensor): int64, shape (N, H, W), of the values in
                :mod:`steatosis_d2.data.dense_labels`, in px of the network's input.

        Returns:
            dict[str, Tensor]: ``loss_dense``.
        """
        logits = functional.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear")
        return {"loss_dense": self.loss_weight * marginal_loss(logits, labels)}


def marginal_loss(logits, labels):
    """
    Cross entropy in which "no fat" is what it says: tissue or other white, together.

    Args:
        logits (Tensor): float32, shape (N, 3, H, W).
        labels (Tensor): int64, shape (N, H, W).

    Returns:
        Tensor: the mean over the pixels that are known; 0 without any.
    """
    log_p = functional.log_softmax(logits, dim=1)
    no_fat = torch.logsumexp(log_p[:, [c for c in range(N_CLASSES) if c != FAT]], dim=1)
    together = torch.cat([log_p, no_fat[:, None]], dim=1)  # NOT_FAT is the class after the last
    is_known = labels != UNKNOWN
    index = torch.where(is_known, labels, NOT_FAT)
    of_pixel = -together.gather(1, index[:, None])[:, 0] * is_known
    return of_pixel.sum() / is_known.sum().clamp(min=1)


def temper_scores(scores, boxes_xyxy, probabilities, *, weight, stride):
    """
    Scores of boxes as the geometric mean with what the dense branch says of them.

    That is the mean probability of fat in the ellipse that the box holds, times the chance that
    its surroundings are no other white: a box on half a vein has the other half around it. A
    geometric mean, since either opinion alone must be able to refuse: the box head knows what a
    droplet looks like, the branch what surrounds it. The branch has less to say of what is a few
    of its cells wide.

    Args:
        scores (Tensor): float32, shape (N,), in 0..1.
        boxes_xyxy (Tensor): float32, shape (N, 4), in px of the network's input.
        probabilities (Tensor): float32, shape (3, h, w), of the classes.
        weight (float): of the branch for large boxes, 0 to 1; 0 leaves the scores as they are.
        stride (int): px of the network's input in one of the branch.

    Returns:
        Tensor: float32, shape (N,).
    """
    fat_inside, white_around = look_at_boxes(boxes_xyxy, probabilities, stride=stride)
    opinion = (fat_inside * (1 - white_around)).clamp(SMALLEST, 1.0)
    sides_px = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=0).prod(dim=1).sqrt()
    weights = weight * sides_px / (sides_px + HALF_RESOLVED_CELLS * stride)
    return scores.clamp(min=SMALLEST) ** (1 - weights) * opinion**weights


def look_at_boxes(boxes_xyxy, probabilities, *, stride):
    """
    Means of the branch's probabilities in boxes and around them.

    Args:
        boxes_xyxy, probabilities, stride: as for :func:`temper_scores`.

    Returns:
        tuple[Tensor, Tensor]: shape (N,) each, of fat in the ellipse inside each box, and of
        other white around it. What lies beyond the image does not count.
    """
    # What is beyond the image comes as zeros; of ones, too.
    maps = torch.cat([probabilities[[FAT, OTHER_WHITE]], torch.ones_like(probabilities[:1])])
    steps = ((torch.arange(STEPS, device=maps.device) + 0.5) / STEPS * 2 - 1) * AROUND
    offsets = torch.cartesian_prod(steps, steps).flip(1)  # x, y in half sides of a box
    radius = offsets.norm(dim=1)
    inside = sample_mean(maps, boxes_xyxy, offsets[radius < INSIDE], stride=stride)
    ring = offsets[(radius > OUTSIDE) & (radius < AROUND)]
    return inside[0], sample_mean(maps, boxes_xyxy, ring, stride=stride)[1]


def sample_mean(maps, boxes_xyxy, offsets, *, stride):
    """
    Means of maps over points that lie alike in all boxes.

    Args:
        maps (Tensor): float32, shape (K + 1, h, w); the last is 1 where points count.
        boxes_xyxy (Tensor): float32, shape (N, 4), in px of the network's input.
        offsets (Tensor): shape (P, 2), x and y of the points, in half sides from the middle.
        stride (int): px in a cell of the maps.

    Returns:
        Tensor: shape (K, N).
    """
    centers = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    halves = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / 2
    points = centers[:, None] + halves[:, None] * offsets
    extent = points.new_tensor(maps.shape[:0:-1]) * stride
    # From 0..extent to -1..1; several times as fast as ROIAlign on a processor
    sampled = functional.grid_sample(
        maps[None], (points / extent * 2 - 1)[None], mode="bilinear", align_corners=False
    )
    sums = sampled[0].sum(dim=2)
    return sums[:-1] / sums[-1].clamp(min=SMALLEST)


def enlarge_boxes(boxes_xyxy, factor):
    """
    Boxes with longer sides about the same centres.

    Args:
        boxes_xyxy (Tensor): shape (N, 4).
        factor (float): of the sides.

    Returns:
        Tensor: shape (N, 4).
    """
    centers = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    halves = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * (factor / 2)
    return torch.cat([centers - halves, centers + halves], dim=1)
