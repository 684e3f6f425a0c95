"""A picture that slides are made of."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def picture():
    """Random colours: no two windows look alike."""
    return np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
