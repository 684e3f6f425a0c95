"""Images of a batch are filled up to its size with their own mirror image."""

import torch


def mirror_into_padding(images):
    """
    Put each image's mirror image where a batch is padded, in place.

    Zeros beyond the border look like nothing that the network has learnt: it sees the objects
    beside them badly.

    Args:
        images (detectron2.structures.ImageList): padded at the right and at the bottom.
    """
    height, width = images.tensor.shape[-2:]
    for image, size in zip(images.tensor, images.image_sizes, strict=True):
        if size != (height, width):
            rows, columns = mirrored_indices(size[0], height), mirrored_indices(size[1], width)
            image.copy_(image[:, rows][:, :, columns])


def mirrored_indices(length, filled_length):
    """
    Where each place of a filled axis comes from, back and forth as often as it takes.

    Args:
        length (int): of the image.
        filled_length (int): with its padding.

    Returns:
        Tensor: int64, shape (filled_length,).

    Examples:
        >>> mirrored_indices(3, 8).tolist()
        [0, 1, 2, 2, 1, 0, 0, 1]
    """
    indices = torch.arange(filled_length) % (2 * length)
    return torch.where(indices < length, indices, 2 * length - 1 - indices)
