"""Every configuration key of this project, and how a config file becomes a config."""

import torch

from steatosis_d2 import model_zoo
from steatosis_d2.errors import InputError
from steatosis_d2.install_detectron2 import require_detectron2

require_detectron2()

from detectron2.config import get_cfg  # noqa: E402
from yaml import YAMLError  # noqa: E402

import steatosis_d2.modeling  # noqa: E402, F401  (registers what the configs name)
from steatosis_d2.data.catalog import register_coco_specs  # noqa: E402


def add_steatosis_config(cfg):
    """
    Add this project's keys to a Detectron2 config, and its defaults that hold everywhere.

    Args:
        cfg (CfgNode): from ``detectron2.config.get_cfg()``; changed in place.
    """
    # Detectron2's default is "cuda" even where there is none. A value the user gives wins.
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # Read a .pkl file that is not from Detectron2's own addresses. A pickle runs code when it is
    # read: allow it only for files whose maker you trust.
    cfg.MODEL.ALLOW_PICKLE = False

    # TwoThresholdRPN: IoU above which the lower-scored proposal is dropped in training;
    # NMS_THRESH holds at test.
    cfg.MODEL.RPN.NMS_THRESH_TRAIN = 0.7

    # Training images are resized by a factor drawn from this range (min, max), then cropped to
    # INPUT.CROP.SIZE, in px after resizing, and flipped and turned as the keys below say.
    cfg.INPUT.SCALE_TRAIN = (1.0, 1.0)
    # At test the model resizes every image by this factor itself, whatever the image's size, so
    # that DefaultPredictor, evaluation and slides agree. Results are in px of the given image.
    cfg.INPUT.SCALE_TEST = 1.0
    # One of the eight flips and quarter turns, at random: tissue has no up or left.
    cfg.INPUT.RANDOM_ORIENTATION = True
    # Brightness is multiplied by a factor drawn from this range (min, max).
    cfg.INPUT.BRIGHTNESS = (1.0, 1.0)

    # Lowest score that counts in every figure but COCO AP, which ranks all predictions.
    cfg.TEST.SCORE_THRESHOLD = 0.5
    # The figure (higher is better) whose best checkpoint is kept as model_best.pth, by its name
    # in metrics.json; with several test sets, the data set's name and a slash come before it.
    cfg.TEST.BEST_METRIC = "segm/AP"


def load_config(config_file, overrides=()):
    """
    Read a config file on top of the defaults.

    Args:
        config_file (str or Path): a YAML file, or the name of one of ours, for instance
            ``liver/starter.yaml``.
        overrides (list[str]): ``KEY VALUE`` pairs in one flat list, as on the command line.

    Returns:
        CfgNode: not frozen; ``coco:`` data sets named in it are registered.

    Raises:
        InputError: the file does not exist, or a key or value is not known.
    """
    cfg = get_cfg()
    add_steatosis_config(cfg)
    path = model_zoo.get_config_file(config_file)
    try:
        # Detectron2's default would run Python code that a YAML file may hold.
        cfg.merge_from_file(path, allow_unsafe=False)
        cfg.merge_from_list(list(overrides))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, YAMLError) as error:
        raise InputError(
            f"config '{path}' with overrides {list(overrides)}: {error}. Keys are listed in "
            "steatosis_d2/config.py and in Detectron2's config reference."
        ) from None
    register_coco_specs([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    return cfg
