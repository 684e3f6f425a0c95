"""
The text in which COCO stores run lengths, for many masks at once.

pycocotools writes and reads the same text, one mask at a time. It is not used here for three
reasons: it never gives the runs themselves, only a full-size mask or a box; it does not check
them, and hangs on some that are not sound; and its counts stop at images of 2^32 px, which whole
slides exceed.

The format is that of cocodataset/cocoapi, common/maskApi.c, rleToString: five bits a character,
least significant first, then one bit for "more follow". A number's highest bit is its sign. From
the fourth count on, what is stored is the change from the count two before.
"""

import numpy as np

_FIRST_CHARACTER = ord("0")
_MORE_FOLLOW = 32


def encode_counts(counts, n_counts):
    """
    Write the run lengths of some masks.

    Args:
        counts (ndarray): int64, the runs outside, inside, outside, ... of all masks, one mask
            after another.
        n_counts (ndarray): int64, shape (n,), how many of them each mask has, at least 1.

    Returns:
        list[str]: ``counts`` of each mask's COCO RLE.

    Examples:
        >>> encode_counts(np.array([1, 1, 2, 1, 1, 6]), np.array([5, 1]))
        ['11200', '6']
    """
    place = np.arange(len(counts)) - np.repeat(np.cumsum(n_counts) - n_counts, n_counts)
    is_change = np.flatnonzero(place > 2)
    values = counts.copy()
    values[is_change] -= counts[is_change - 2]
    n_bits = np.frexp(np.where(values < 0, ~values, values).astype(float))[1] + 1
    n_characters = -(-n_bits // 5)
    digit = np.arange(n_characters.max())
    characters = values[:, None] >> 5 * digit & 31
    characters[digit < n_characters[:, None] - 1] |= _MORE_FOLLOW
    is_used = digit < n_characters[:, None]
    text = (characters[is_used] + _FIRST_CHARACTER).astype(np.uint8).tobytes().decode()
    ends = np.cumsum(n_characters)[np.cumsum(n_counts) - 1].tolist()
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def decode_counts(texts):
    """
    Read the run lengths of some masks.

    Args:
        texts (list[bytes]): ``counts`` of each mask's COCO RLE; at least one.

    Returns:
        tuple[ndarray, ndarray]: int64, the runs of all masks, one mask after another; shape (n,),
        how many of them each mask has.

    Raises:
        ValueError: a text is no run-length code.

    Examples:
        >>> [array.tolist() for array in decode_counts([b"11200", b"6"])]
        [[1, 1, 2, 1, 1, 6], [5, 1]]
    """
    bits = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    last = np.flatnonzero(bits < _MORE_FOLLOW)
    ends = np.cumsum([len(text) for text in texts])
    n_runs = np.diff(np.searchsorted(last, ends), prepend=0)
    if not all(texts) or bits[ends - 1].max() >= _MORE_FOLLOW or bits.min() < 0 or bits.max() > 63:
        raise ValueError("mask's counts are no COCO run-length code.")
    first = np.concatenate([[0], last[:-1] + 1])
    n_characters = last - first + 1
    place = np.arange(bits.size) - np.repeat(first, n_characters)
    runs = np.add.reduceat((bits & 31) << (5 * place), first)
    runs -= (bits[last] >> 4 & 1) << (5 * n_characters)
    place = np.arange(runs.size) - np.repeat(np.cumsum(n_runs) - n_runs, n_runs)
    for start in (1, 2):
        chain = np.flatnonzero((place >= start) & (place % 2 == start % 2))
        runs[chain] = _restarting_sum(runs[chain], is_first=place[chain] == start)
    return runs, n_runs


def _restarting_sum(values, *, is_first):
    """Cumulative sum that begins anew at each first one."""
    sums = np.cumsum(values)
    before = (sums - values)[is_first]
    return sums - before[np.cumsum(is_first) - 1]
