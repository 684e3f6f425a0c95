"""What segments tiles, by the user's choice: loaded once in each process that needs it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steatosis_d2 import __version__, model_zoo
from steatosis_d2.data.coco import DROPLET
from steatosis_d2.errors import InputError
from steatosis_d2.install_detectron2 import require_detectron2
from steatosis_d2.labeling.levels import read_levels
from steatosis_d2.labeling.methods import CLUMP_SPLIT, METHODS
from steatosis_d2.labeling.parameters import PRESETS, choose_parameters

STARTER = "liver/starter.yaml"


def choose_model(model=None, *, weights=None, score_threshold=None, batch_size=None, overrides=()):
    """
    What makes a model, by the user's choice; nothing is loaded yet.

    Args:
        model (str, Path, callable or None): a config file or the name of one of ours, for a
            trained network; ``clump-split`` for the classical method; None for the network that
            ships. What this function returns, and what :func:`steatosis_d2.load_model` returns,
            is taken as it is.
        weights (str, Path or None): checkpoint, as for :class:`MaskRCNNChoice`.
        score_threshold (float or None): lowest score that is kept; None is the model's own.
        batch_size (int or None): tiles that go through the network together.
        overrides (list[str]): config ``KEY VALUE`` pairs in one flat list.

    Returns:
        callable: () -> model; it pickles, and equal ones make the same model.

    Raises:
        InputError: settings of a network are given for what is none, or already chosen.
    """
    for_network = weights is not None or batch_size is not None or bool(overrides)
    if model == CLUMP_SPLIT and not for_network:
        return ClassicalChoice(score_threshold=score_threshold)
    if model is None or (isinstance(model, (str, Path)) and model != CLUMP_SPLIT):
        return MaskRCNNChoice(
            config_file=None if model is None else str(model),
            weights=None if weights is None else str(weights),
            score_threshold=score_threshold,
            batch_size=batch_size,
            overrides=tuple(map(str, overrides)),
        )
    if model == CLUMP_SPLIT or for_network or score_threshold is not None:
        raise InputError(
            "weights, batch size and config keys are for a network that is chosen by its config; "
            "clump-split takes none of them, and a loaded model has its own, which are given to "
            "load_model()."
        )
    return getattr(model, "choice", model)


@dataclass(frozen=True)
class LoadedModel:
    """
    A model ready for use, and what made it.

    Attributes:
        choice (callable): from :func:`choose_model`; other processes make the model anew by it.
        model (callable): (images_rgb, mpp=) -> instances of each.
    """

    choice: Callable
    model: Any

    @property
    def category(self):
        """What it is for, ``droplet`` or ``nucleus``."""
        return self.model.category

    @property
    def categories(self):
        """Names of all its classes; :attr:`category` is among them."""
        return self.model.categories

    def describe(self):
        """What makes its results what they are (dict)."""
        return self.model.describe()

    def __call__(self, images_rgb, *, mpp=None):
        """Instances of each image (list[list[Instance]]); images are uint8, (H, W, 3), RGB."""
        return self.model(images_rgb, mpp=mpp)


@dataclass(frozen=True)
class MaskRCNNChoice:
    """
    A trained network; calling it loads it. It pickles, and equal choices are one model.

    Attributes:
        config_file (str or None): a config file or the name of one of ours; None is the starter.
        weights (str or None): checkpoint; None is the one that ships for the config, or else
            the one that the config names.
        score_threshold (float or None): lowest score that is kept; None is the config's.
        batch_size (int or None): tiles that go through the network together; None is what is
            best on the device.
        overrides (tuple[str, ...]): config ``KEY VALUE`` pairs in one flat list.
    """

    config_file: str | None = None
    weights: str | None = None
    score_threshold: float | None = None
    batch_size: int | None = None
    overrides: tuple[str, ...] = ()

    def __call__(self):
        """
        Returns:
            MaskRCNNPredictor: on the device that the config names.

        Raises:
            InputError: config, weights or overrides are at fault.
        """
        require_detectron2()
        # These take seconds to import, and the classical model does without them.
        from steatosis_d2.inference.predictor import MaskRCNNPredictor

        config_file = self.config_file or STARTER
        weights = self.weights
        if weights is None and (config_file == STARTER or model_zoo.has_weights(config_file)):
            weights = model_zoo.get_weights(config_file)
        return MaskRCNNPredictor(
            model_zoo.get_config(config_file, self.overrides, weights=weights),
            score_threshold=self.score_threshold,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True)
class ClassicalChoice:
    """
    A method that needs no network; calling it makes a model of it.

    Attributes:
        method (str): one of :data:`~steatosis_d2.labeling.methods.METHODS`.
        score_threshold (float or None): lowest confidence that is kept; None is the method's.
    """

    method: str = CLUMP_SPLIT
    score_threshold: float | None = None

    def __call__(self):
        """
        Returns:
            ClassicalModel: ready to use.
        """
        return ClassicalModel(self.method, score_threshold=self.score_threshold)


class ClassicalModel:
    """
    A method that needs no network, with a model's interface.

    Attributes:
        batch_size (int): one tile at a time.
        category (str): it finds droplets.
        categories (tuple[str, ...]): and nothing else.
    """

    batch_size = 1
    category = DROPLET
    categories = (DROPLET,)

    def __init__(self, method=CLUMP_SPLIT, *, score_threshold=None):
        """
        Args:
            method (str): one of :data:`~steatosis_d2.labeling.methods.METHODS`.
            score_threshold (float or None): lowest confidence that is kept.
        """
        self._method = method
        self._changes = {} if score_threshold is None else {"min_score": score_threshold}

    def look_at(self, slide):
        """
        What its tiles do not tell of a slide.

        Args:
            slide (Slide): open.

        Returns:
            dict: keyword arguments for the calls with its tiles.
        """
        if slide.mpp is None:
            return {}
        smoothing_um = choose_parameters(slide.mpp).smoothing_um
        return {"levels": read_levels(slide, smoothing_um=smoothing_um)}

    def __call__(self, images_rgb, *, mpp, levels=None):
        """
        Outline the droplets of some tiles.

        Args:
            images_rgb (list[ndarray]): each uint8, shape (H, W, 3), RGB.
            mpp (float): um/px of the tiles.
            levels (tuple[float, float] or None): of the slide, from :meth:`look_at`; None takes
                each tile by itself.

        Returns:
            list[list[Instance]]: for each tile its droplets in px of the tile, the most confident
            first.

        Raises:
            InputError: the pixel size is not known.
        """
        if mpp is None:
            raise InputError(
                f"the pixel size is unknown, and {self._method} works in um; give it, "
                "e.g. --mpp 0.25."
            )
        parameters = dataclasses.replace(choose_parameters(mpp), **self._changes)
        return [
            METHODS[self._method](image_rgb, mpp=mpp, parameters=parameters, levels=levels)
            for image_rgb in images_rgb
        ]

    def describe(self):
        """
        What makes the results what they are.

        Returns:
            dict: JSON values; ``parameters`` has one entry for each preset, by its um/px.
        """
        return {
            "kind": self._method,
            "parameters": {
                f"{mpp:g}": dataclasses.asdict(dataclasses.replace(preset, **self._changes))
                for mpp, preset in PRESETS.items()
            },
            "versions": {"steatosis_d2": __version__},
        }
