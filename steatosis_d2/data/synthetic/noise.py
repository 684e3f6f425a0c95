"""
Randomness that depends on where, not on when: the ground of the synthetic tissue.

A value is a hash of a seed, a name and a place. A window of an endless plane so has the same
values whatever else is rendered, in whatever order. Every operation below works element by
element, so that a pixel's value does not depend on its position in the array either.
"""

import zlib

import numpy as np

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014):
# increment and finaliser of SplitMix64.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

# A cubic B-spline over independent values of standard deviation 1/sqrt(3) has, averaged over
# the lattice cell, this standard deviation in two dimensions: (151/315) / sqrt(3).
_SPLINE_DEVIATION = 151 / 315 / np.sqrt(3)


def place_ids(seed, name, row, column):
    """
    One 64-bit identity for each cell of a grid.

    Args:
        seed (int): of the tissue, at least 0.
        name (str): what the grid is for; other names give independent identities.
        row (ndarray): integer, cell rows, any sign.
        column (ndarray): integer, cell columns; broadcast against ``row``.

    Returns:
        ndarray: uint64, of the broadcast shape.
    """
    start = _mix(np.array([seed % 2**64], np.uint64) ^ _name_key(name))
    rows = _mix(np.asarray(row, np.int64).view(np.uint64) * _INCREMENT + start)
    return _mix(rows ^ (np.asarray(column, np.int64).view(np.uint64) * _MULTIPLIERS[0]))


def uniform(ids, name):
    """
    One number in [0, 1) for each identity.

    Args:
        ids (ndarray): uint64, from :func:`place_ids`.
        name (str): the attribute; other names give independent numbers.

    Returns:
        ndarray: float64, of the shape of ``ids``.

    Examples:
        >>> ids = place_ids(7, "nucleus", np.arange(3), 5)
        >>> (uniform(ids, "radius") == uniform(ids[1:], "radius")[0]).tolist()
        [False, True, False]
    """
    return _as_fraction(_mix(ids ^ _name_key(name)))


def smooth_noise(seed, name, y_um, x_um, *, scale_um):
    """
    Smooth random field with mean 0 and standard deviation 1, nearly Gaussian.

    Args:
        seed (int): of the tissue.
        name (str): of the field; other names give independent fields.
        y_um (ndarray): float, shape (H,), the rows' positions in um, ascending.
        x_um (ndarray): float, shape (W,), the columns' positions in um, ascending.
        scale_um (float): distance of the lattice points in um; blobs are about twice as wide.

    Returns:
        ndarray: float32, shape (H, W).
    """
    row, row_weights = _spline_taps(y_um, scale_um)
    column, column_weights = _spline_taps(x_um, scale_um)
    lattice_rows = np.arange(row[0], row[-1] + 4)
    lattice_columns = np.arange(column[0], column[-1] + 4)
    ids = place_ids(seed, name, lattice_rows[:, None], lattice_columns)
    lattice = ((2 * _as_fraction(ids) - 1) / _SPLINE_DEVIATION).astype(np.float32)
    in_rows = _weighted_sum(lattice.T, column - column[0], column_weights)
    return _weighted_sum(np.ascontiguousarray(in_rows.T), row - row[0], row_weights)


def smooth_noise_at(seed, name, y_um, x_um, *, scale_um):
    """
    The field of :func:`smooth_noise` at single points, up to rounding.

    Args:
        seed (int): of the tissue.
        name (str): of the field.
        y_um (ndarray): float, shape (N,).
        x_um (ndarray): float, shape (N,).
        scale_um (float): distance of the lattice points in um.

    Returns:
        ndarray: float64, shape (N,).
    """
    row, row_weights = _spline_taps(y_um, scale_um)
    column, column_weights = _spline_taps(x_um, scale_um)
    taps = np.arange(4)
    ids = place_ids(seed, name, (row + taps[:, None])[:, None], column + taps[:, None])
    lattice = (2 * _as_fraction(ids) - 1) / _SPLINE_DEVIATION
    return (lattice * row_weights[:, None] * column_weights).sum(axis=(0, 1))


def pixel_noise(seed, name, rows, columns):
    """
    Independent uniform noise in [-1, 1) for three channels of each pixel.

    Args:
        seed (int): of the tissue.
        name (str): of the noise.
        rows (ndarray): int, shape (H,), pixel rows of the slide.
        columns (ndarray): int, shape (W,), pixel columns of the slide.

    Returns:
        ndarray: float32, shape (H, W, 3).
    """
    ids = place_ids(seed, name, rows[:, None], columns)
    parts = [(ids >> np.uint64(shift)).astype(np.uint16) for shift in (0, 16, 32)]
    return np.stack(parts, axis=-1).astype(np.float32) / np.float32(2**15) - np.float32(1)


def _name_key(name):
    return _mix(np.array([zlib.crc32(name.encode())], np.uint64))


def _mix(bits):
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        bits = (bits ^ (bits >> np.uint64(shift))) * multiplier
    return bits ^ (bits >> np.uint64(31))


def _as_fraction(bits):
    return (bits >> np.uint64(11)) * 2.0**-53


def _spline_taps(position_um, scale_um):
    """First of the four lattice points around each position, and their weights, (4, N)."""
    position = position_um / scale_um
    first = np.floor(position).astype(np.int64)
    t = position - first
    weights = [
        (1 - t) * (1 - t) * (1 - t) / 6,
        (3 * t * t * t - 6 * t * t + 4) / 6,
        (-3 * t * t * t + 3 * t * t + 3 * t + 1) / 6,
        t * t * t / 6,
    ]
    return first, np.array(weights, np.float32)


def _weighted_sum(values, first, weights):
    """Rows ``first`` to ``first + 3`` of ``values``, summed with a weight each."""
    total = values[first] * weights[0][:, None]
    for tap in (1, 2, 3):
        total += values[first + tap] * weights[tap][:, None]
    return total
