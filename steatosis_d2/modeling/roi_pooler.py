"""ROIAlign on a processor, several times as fast as torchvision's, forwards and backwards."""

import torch
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from torch.nn import functional


def pool_channels_last(heads):
    """
    Put ROIAlign for channels-last features in the place of Detectron2's.

    Args:
        heads (StandardROIHeads): changed in place.
    """
    heads.box_pooler = ChannelsLastROIPooler.like(heads.box_pooler)
    if heads.mask_on:
        heads.mask_pooler = ChannelsLastROIPooler.like(heads.mask_pooler)


class ChannelsLastROIPooler(ROIPooler):
    """
    Detectron2's ``ROIPooler`` (ROIAlign), faster on a processor; on a GPU it is Detectron2's own.

    With channels last, the features of one cell lie side by side, and each output is a weighted
    sum of such rows: torch's ``embedding_bag``, which runs on all cores and in any precision.
    What comes out equals torchvision's up to rounding. Where a gradient is wanted it computes in
    float32, as torchvision does: many boxes add to the gradient of one cell.
    """

    @classmethod
    def like(cls, pooler):
        """
        A pooler with the settings of another.

        Args:
            pooler (ROIPooler): of type ``ROIAlign`` or ``ROIAlignV2``; it has no weights.

        Returns:
            ChannelsLastROIPooler: gives the same features.
        """
        aligners = pooler.level_poolers
        return cls(
            output_size=pooler.output_size,
            scales=[aligner.spatial_scale for aligner in aligners],
            sampling_ratio=aligners[0].sampling_ratio,
            pooler_type="ROIAlignV2" if aligners[0].aligned else "ROIAlign",
            canonical_box_size=pooler.canonical_box_size,
            canonical_level=pooler.canonical_level,
        )

    def forward(self, features, box_lists):
        """
        Args:
            features (list[Tensor]): a level each, shape (N, C, H, W); the fastest if channels are
                last in memory.
            box_lists (list[Boxes]): of each image, in px of the network's input.

        Returns:
            Tensor: shape (number of boxes, C, h, w), channels last in memory on a processor.
        """
        if features[0].device.type != "cpu":
            return super().forward(features, box_lists)
        if features[0].requires_grad:
            features = [level.float() for level in features]
        rois = convert_boxes_to_pooler_format(box_lists)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        boxes_yx = torch.stack(self._to_cells(rois[:, 1:], levels), dim=1)
        images, n_samples_yx = rois[:, 0].int(), self._count_samples(boxes_yx[:, 1])
        # Boxes on the same level with as many samples in a bin have arrays of the same shape.
        kinds, kind_of, counts = torch.unique(
            torch.cat([levels[:, None], n_samples_yx], dim=1),
            dim=0,
            return_inverse=True,
            return_counts=True,
        )
        order = kind_of.argsort(stable=True)
        alike = order.split(counts.tolist())
        pooled = features[0].new_empty(len(rois), *self.output_size, features[0].shape[1])
        for number, level in enumerate(features):
            samples = [
                place_samples(
                    images[chosen],
                    *boxes_yx[chosen].unbind(dim=1),
                    output_size=self.output_size,
                    n_samples_yx=n_samples,
                    level_size=level.shape[2:],
                )
                for (level_of, *n_samples), chosen in zip(kinds.tolist(), alike, strict=True)
                if level_of == number
            ]
            if samples:
                sums = sum_samples(level, samples).unflatten(0, (-1, *self.output_size))
                pooled.index_copy_(0, order[levels[order] == number], sums)
        return pooled.permute(0, 3, 1, 2)

    def _to_cells(self, boxes_xyxy, levels):
        """Upper left corners and sizes of boxes, (K, 2) each, y and x, in cells of their level."""
        scales = torch.tensor([aligner.spatial_scale for aligner in self.level_poolers])
        is_aligned = self.level_poolers[0].aligned
        boxes = boxes_xyxy * scales[levels, None] - (0.5 if is_aligned else 0)
        sizes_yx = (boxes[:, 2:] - boxes[:, :2]).flip(1)
        return boxes[:, :2].flip(1), sizes_yx if is_aligned else sizes_yx.clamp(min=1)

    def _count_samples(self, sizes_yx):
        """Samples along the sides of a bin: as configured, or one a cell that the bin covers."""
        ratio = self.level_poolers[0].sampling_ratio
        if ratio > 0:
            return torch.full_like(sizes_yx, ratio, dtype=torch.int64)
        return (sizes_yx / torch.tensor(self.output_size)).ceil().long().clamp(min=1)


def place_samples(images, starts_yx, sizes_yx, *, output_size, n_samples_yx, level_size):
    """
    The samples of ROIAlign (He et al. 2017, Mask R-CNN, section 3) in boxes on one level.

    Args:
        images (Tensor): int32, shape (K,), the image of each box.
        starts_yx, sizes_yx (Tensor): float32, shape (K, 2), in cells of the level.
        output_size (tuple[int, int]): bins along y and x.
        n_samples_yx (tuple[int, int]): samples in each bin along y and x.
        level_size (tuple[int, int]): cells of the level along y and x.

    Returns:
        tuple[Tensor, Tensor]: shape (bins, 4 samples) each, bins box by box and row by row: the
        cells, counted over all images of the level, and their weights.
    """
    (size_y, size_x), (n_y, n_x), (height, width) = output_size, n_samples_yx, level_size
    y, y_weights = sample_axis(starts_yx[:, 0], sizes_yx[:, 0], size_y, n_y, length=height)
    x, x_weights = sample_axis(starts_yx[:, 1], sizes_yx[:, 1], size_x, n_x, length=width)
    # axes: box, bin along y, bin along x, sample along y, sample along x
    cells = (images[:, None, None] * height + y)[:, :, None, :, None] * width
    cells = cells + x[:, None, :, None, :]
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
    n_corners = 4 * n_y * n_x
    return cells.reshape(-1, n_corners), weights.reshape(-1, n_corners)


def sum_samples(features, samples):
    """
    Weighted sums of cells, over a whole level at once: each call costs a gradient of its size.

    Args:
        features (Tensor): shape (N, C, H, W).
        samples (list[tuple[Tensor, Tensor]]): as :func:`place_samples` gives them.

    Returns:
        Tensor: shape (bins, C), in the precision of the features.
    """
    lengths = [cells.new_full(cells.shape[:1], cells.shape[1]) for cells, _ in samples]
    ends = torch.cat(lengths).cumsum(dim=0, dtype=torch.int32)
    return functional.embedding_bag(
        torch.cat([cells.flatten() for cells, _ in samples]),
        features.permute(0, 2, 3, 1).flatten(0, 2),
        functional.pad(ends[:-1], (1, 0)),
        mode="sum",
        per_sample_weights=torch.cat([weights.flatten() for _, weights in samples]).to(
            features.dtype
        ),
    )


def sample_axis(starts, sizes, n_bins, n_samples, *, length):
    """
    Bilinear samples along one axis, placed and weighted as torchvision's ROIAlign does.

    Args:
        starts, sizes (Tensor): shape (K,), of the boxes, in cells of the level.
        n_bins (int): outputs along the axis.
        n_samples (int): samples in each bin.
        length (int): cells of the level along the axis.

    Returns:
        tuple[Tensor, Tensor]: the two cells beside each sample, and the weight of each in the
        mean over the bin; both of shape (K, n_bins, 2 n_samples).
    """
    bins = torch.arange(n_bins)[:, None] + (torch.arange(n_samples) + 0.5) / n_samples
    places = starts[:, None, None] + bins * (sizes / n_bins)[:, None, None]
    # Up to one cell outside, a sample has the border's value; farther out it counts as zero.
    share = ((places >= -1) & (places <= length)) / n_samples
    places = places.clamp(0, length - 1)
    lower = places.int()
    upper = (lower + 1).clamp(max=length - 1)
    fraction = places - lower
    weights = torch.cat([(1 - fraction) * share, fraction * share], dim=2)
    return torch.cat([lower, upper], dim=2), weights
