"""What segments tiles, by the user's choice: loaded once in each process that needs it."""

import dataclasses
from dataclasses import dataclass

from steatosis_d2 import __version__, model_zoo
from steatosis_d2.data.coco import DROPLET
from steatosis_d2.errors import InputError
from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import PRESETS, choose_parameters

STARTER = "liver/starter.yaml"


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
class ClumpSplitChoice:
    """
    The classical label generator; calling it makes a model of it.

    Attributes:
        score_threshold (float or None): lowest confidence that is kept; None is the generator's.
    """

    score_threshold: float | None = None

    def __call__(self):
        """
        Returns:
            ClumpSplitModel: ready to use.
        """
        return ClumpSplitModel(score_threshold=self.score_threshold)


class ClumpSplitModel:
    """
    The classical label generator with a model's interface.

    Attributes:
        batch_size (int): one tile at a time.
        category (str): it finds droplets.
    """

    batch_size = 1
    category = DROPLET

    def __init__(self, *, score_threshold=None):
        """
        Args:
            score_threshold (float or None): lowest confidence that is kept.
        """
        self._changes = {} if score_threshold is None else {"min_score": score_threshold}

    def __call__(self, images_rgb, *, mpp):
        """
        Outline the droplets of some tiles.

        Args:
            images_rgb (list[ndarray]): each uint8, shape (H, W, 3), RGB.
            mpp (float): um/px of the tiles.

        Returns:
            list[list[Instance]]: for each tile its droplets in px of the tile, the most confident
            first.

        Raises:
            InputError: the pixel size is not known.
        """
        if mpp is None:
            raise InputError(
                "the pixel size is unknown, and clump-split works in um; give it, e.g. --mpp 0.25."
            )
        parameters = dataclasses.replace(choose_parameters(mpp), **self._changes)
        return [
            label_by_clump_split(image_rgb, mpp=mpp, parameters=parameters)
            for image_rgb in images_rgb
        ]

    def describe(self):
        """
        What makes the results what they are.

        Returns:
            dict: JSON values; ``parameters`` has one entry for each preset, by its um/px.
        """
        return {
            "kind": "clump-split",
            "parameters": {
                f"{mpp:g}": dataclasses.asdict(dataclasses.replace(preset, **self._changes))
                for mpp, preset in PRESETS.items()
            },
            "versions": {"steatosis_d2": __version__},
        }
