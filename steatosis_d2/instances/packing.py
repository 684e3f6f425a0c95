"""Instances as bytes: what workers send, and what waits on disk."""

import numpy as np

from steatosis_d2.instances.instance import Instance

_ROW = np.dtype(
    [
        ("top", "<i4"),
        ("left", "<i4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("score", "<f8"),
        ("truncated", "?"),
        ("class_index", "u1"),
    ]
)
_COUNT = np.dtype("<u4")


def pack_instances(groups):
    """
    Pack the instances of some tiles, one bit a px.

    Args:
        groups (list[list[Instance]]): the instances of each tile.

    Returns:
        bytes: for :func:`unpack_instances`.

    Examples:
        >>> dot = Instance(np.ones((1, 1), bool), top=3, left=5, score=0.75)
        >>> data = pack_instances([[], [dot]])
        >>> len(data), [len(group) for group in unpack_instances(data)]
        (39, [0, 1])
    """
    instances = [instance for group in groups for instance in group]
    counts = np.array([len(groups), *map(len, groups)], _COUNT)
    table = np.array(
        [
            (
                item.top,
                item.left,
                *item.crop.shape,
                item.score,
                item.truncated,
                item.class_index,
            )
            for item in instances
        ],
        _ROW,
    )
    pixels = [np.asarray(item.crop, bool).ravel() for item in instances]
    bits = np.packbits(np.concatenate(pixels)) if pixels else np.empty(0, np.uint8)
    return counts.tobytes() + table.tobytes() + bits.tobytes()


def unpack_instances(data):
    """
    The instances that :func:`pack_instances` packed.

    Args:
        data (bytes): what it returned.

    Returns:
        list[list[Instance]]: the instances of each tile.
    """
    [n_groups] = np.frombuffer(data, _COUNT, 1)
    counts = np.frombuffer(data, _COUNT, n_groups, offset=_COUNT.itemsize)
    start = (1 + n_groups) * _COUNT.itemsize
    table = np.frombuffer(data, _ROW, counts.sum(), offset=start)
    bits = np.frombuffer(data, np.uint8, offset=start + table.nbytes)
    sizes = table["height"].astype(np.int64) * table["width"]
    pixels = np.unpackbits(bits, count=sizes.sum()).view(bool)
    ends = np.cumsum(sizes).tolist()
    instances = iter(
        Instance(pixels[end - height * width : end].reshape(height, width), top, left, *rest)
        for (top, left, height, width, *rest), end in zip(table.tolist(), ends, strict=True)
    )
    return [[next(instances) for _ in range(count)] for count in counts]
