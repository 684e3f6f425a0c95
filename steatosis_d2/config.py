"""Every configuration key of this project, and how a config file becomes a config."""

from functools import reduce
from operator import getitem

import torch

from steatosis_d2.errors import InputError
from steatosis_d2.install_detectron2 import require_detectron2

require_detectron2()

from detectron2.config import CfgNode, get_cfg  # noqa: E402
from yaml import YAMLError  # noqa: E402

import steatosis_d2.modeling  # noqa: E402, F401  (registers what configs name)
from steatosis_d2.data.catalog import register_coco_specs  # noqa: E402
from steatosis_d2.data.coco import DROPLET, NUCLEUS  # noqa: E402

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def add_steatosis_config(cfg):
    """
    Add this project's keys to a Detectron2 config, and its defaults that hold everywhere.

    Args:
        cfg (CfgNode): from ``detectron2.config.get_cfg()``; changed in place.
    """
    # Detectron2's default is "cuda" even where there is none. A value the user gives wins.
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # What the network finds, "droplet" or "nucleus": the words in tables and reports.
    cfg.MODEL.CATEGORY = "droplet"
    # Names of a network's classes, in their order, where there are several; CATEGORY is one of
    # them. The others are named in tables and outlines, and no figure counts them.
    cfg.MODEL.CATEGORIES = []
    # Read a .pkl file that is not from Detectron2's own addresses. A pickle runs code when it is
    # read: allow it only for files whose maker you trust.
    cfg.MODEL.ALLOW_PICKLE = False

    # A semantic branch on the feature pyramid (tissue, fat, other white), which tempers the scores
    # of detections. It learns from droplets' masks and what data sets say of the rest.
    cfg.MODEL.DENSE_BRANCH = CfgNode()
    cfg.MODEL.DENSE_BRANCH.ENABLED = False
    cfg.MODEL.DENSE_BRANCH.NAME = "DenseBranch"
    # Levels of the pyramid, the finest first; channels and normalisation of the layers within.
    cfg.MODEL.DENSE_BRANCH.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.DENSE_BRANCH.CONVS_DIM = 64
    cfg.MODEL.DENSE_BRANCH.NORM = "BN"
    cfg.MODEL.DENSE_BRANCH.LOSS_WEIGHT = 2.0
    # Weight of the branch, 0 to 1, in the geometric mean with the box head's score, for large
    # boxes; less for those of a few of its cells. 0: no say.
    cfg.MODEL.DENSE_BRANCH.SCORE_WEIGHT = 0.7

    # SteatosisROIHeads: boxes are enlarged by this factor about their centres before the mask
    # head sees them, in training and at test, so that a mask can reach beyond a box that is too
    # small.
    cfg.MODEL.ROI_MASK_HEAD.BOX_SCALE = 1.0

    # SteatosisRPN: IoU above which the lower-scored proposal is dropped in training;
    # NMS_THRESH holds at test.
    cfg.MODEL.RPN.NMS_THRESH_TRAIN = 0.7

    # The network's own pixel size, in um/px: an image whose pixel size is known is resized to it.
    # 0 means none.
    cfg.INPUT.MPP = 0.0
    # Factor by which every other image is resized. At test the model resizes by itself, so that
    # DefaultPredictor, evaluation and slides agree; results are in px of the given image.
    cfg.INPUT.SCALE = 1.0
    # The values at these percentiles (low, high) of an image become 0 and 255, in training and, by
    # the model itself, at test: for fluorescence, which is often dark as it is stored. [] for none.
    cfg.INPUT.STRETCH = []
    # Images are padded to a multiple of 32 px with their own mirror image, in training and at test;
    # False: with the mean colour, as Detectron2 does.
    cfg.INPUT.MIRROR_BORDERS = False
    # In training that factor is multiplied by one drawn from this range (min, max); the image is
    # then cropped to INPUT.CROP.SIZE, in px after resizing.
    cfg.INPUT.SCALE_JITTER = (1.0, 1.0)
    # What annotations with "iscrowd" cover is neither instance nor background in training: areas
    # that an expert did not review, for instance. False: it is background.
    cfg.INPUT.IGNORE_AREAS = True
    # Probability that a crop is drawn among those that hold the centre of an instance.
    cfg.INPUT.CROP_ON_INSTANCE = 0.0
    # With a dense branch, and before that: the same for a vein or a duct, where the image has one
    # and its pixel size is known.
    cfg.INPUT.CROP_ON_OPENING = 0.0
    # One of the eight flips and quarter turns, at random: tissue has no up or left.
    cfg.INPUT.RANDOM_ORIENTATION = True
    # Turned by up to this angle either way, scaled by a factor from this range (min, max) and
    # sheared by up to this angle; what that uncovers is filled by mirroring, labels too.
    cfg.INPUT.AFFINE_PROBABILITY = 0.0
    cfg.INPUT.AFFINE_ROTATION_DEG = 180.0
    cfg.INPUT.AFFINE_SCALE = (0.8, 1.25)
    cfg.INPUT.AFFINE_SHEAR_DEG = 8.0
    # H&E only: haematoxylin, eosin and residue are each multiplied by a factor in 1 +- strength.
    cfg.INPUT.STAIN_PROBABILITY = 0.0
    cfg.INPUT.STAIN_STRENGTH = 0.3
    # Brightness and contrast are multiplied by factors drawn from these ranges (min, max).
    cfg.INPUT.BRIGHTNESS = (1.0, 1.0)
    cfg.INPUT.CONTRAST = (1.0, 1.0)
    # Gaussian blur with a standard deviation from this range, in px of the network's input.
    cfg.INPUT.BLUR_PROBABILITY = 0.0
    cfg.INPUT.BLUR_SIGMA_PX = (0.0, 1.5)
    # Of the augmentations above, from RANDOM_ORIENTATION on, an image gets 0 to this many, drawn
    # at random; -1: all of them, each with its own probability.
    cfg.INPUT.AUGMENTATIONS_AT_MOST = -1

    # Share of each of DATASETS.TRAIN among the images that are drawn, in the same order, adding
    # up to 1; empty: every image equally often.
    cfg.DATASETS.TRAIN_SHARES = []
    # Images of one data set may state a "group" (the kind of microscopy). A group of n images is
    # drawn as often as n to this power says: 1 every image equally often, 0 every group equally.
    cfg.DATASETS.GROUP_POWER = 1.0

    # Stages of training, in order; empty: all layers throughout, by MAX_ITER and STEPS. Each is
    # {train: heads | res5+ | res4+ | res3+ | res2+ | all, epochs: N or iterations: N, lr: BASE_LR,
    # steps: [iterations of the stage at which lr is multiplied by GAMMA], warmup: WARMUP_ITERS,
    # freeze_norm: False}. What is not trained is frozen, its batch normalisation's statistics too;
    # with freeze_norm all statistics are, which few or small batches would only spoil.
    cfg.SOLVER.STAGES = []
    # A step's IMS_PER_BATCH images are computed in this many parts, one after another: the same
    # training in less memory.
    cfg.SOLVER.ACCUMULATE = 1
    # Exponential moving average of the weights, a step; 0 keeps none. Where it is kept, it is
    # what is evaluated and what checkpoints hold as the model.
    cfg.SOLVER.EMA_DECAY = 0.0

    # MODEL.ROI_HEADS.SCORE_THRESH_TEST, Detectron2's own key, is the lowest score of what counts
    # as found, for DefaultPredictor, tiles and slides, and in every figure but COCO AP. AP ranks
    # predictions down to this score, so evaluation lowers the threshold to it by itself.
    cfg.TEST.SCORE_FLOOR = 0.05
    cfg.register_renamed_key("TEST.SCORE_THRESHOLD", "MODEL.ROI_HEADS.SCORE_THRESH_TEST")
    # Pixel size in um/px of images at test that state none, 0 for unknown: DefaultPredictor's.
    cfg.TEST.MPP = 0.0
    # What the network multiplies in at test: float32, bfloat16, float16; auto is the fastest that
    # the device has, 8-bit integers where the weights come with the ranges of the features.
    cfg.TEST.PRECISION = "auto"
    # Detections are the mean over this many views: 1, the image as it is; 2, and mirrored left to
    # right; 3, and top to bottom; 4, and both. The time grows with it.
    cfg.TEST.VIEWS = 1
    # The figure (higher is better) whose best checkpoint is kept as model_best.pth, by its name
    # in metrics.json; with several test sets, the data set's name and a slash come before it.
    cfg.TEST.BEST_METRIC = "segm/AP"
    # Stop after this many evaluations in which that figure has not become better; 0: never.
    cfg.TEST.PATIENCE = 0
    # Images of each test set whose outlines are shown in TensorBoard at every evaluation.
    cfg.TEST.PICTURES = 4


def load_config(config_file, overrides=()):
    """
    Read a config file on top of the defaults.

    Args:
        config_file (str or Path): a YAML file; :func:`steatosis_d2.model_zoo.get_config` also
            takes the names of ours.
        overrides (list[str]): ``KEY VALUE`` pairs in one flat list, as on the command line.

    Returns:
        CfgNode: not frozen; ``coco:`` data sets named in it are registered.

    Raises:
        InputError: the file does not exist, or a key or value is not known or makes no sense.
    """
    cfg = get_cfg()
    add_steatosis_config(cfg)
    try:
        # Detectron2's default would run Python code that a YAML file may hold.
        cfg.merge_from_file(str(config_file), allow_unsafe=False)
        cfg.merge_from_list(list(overrides))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, YAMLError) as error:
        raise InputError(
            f"config '{config_file}' with overrides {list(overrides)}: {error}. Keys are listed in "
            "steatosis_d2/config.py and in Detectron2's config reference."
        ) from None
    _check_values(cfg)
    register_coco_specs([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    return cfg


def _check_values(cfg):
    heads = cfg.MODEL.ROI_HEADS.NAME
    n_views = 4 if heads == "SteatosisROIHeads" else 1  # others detect with masks, or not at all
    box_scale, weight = cfg.MODEL.ROI_MASK_HEAD.BOX_SCALE, cfg.MODEL.DENSE_BRANCH.SCORE_WEIGHT
    for section, key, is_sound, expected in [
        ("INPUT", "SCALE", cfg.INPUT.SCALE > 0, "a factor above 0"),
        ("INPUT", "MPP", cfg.INPUT.MPP >= 0, "um/px, or 0 for none"),
        ("INPUT", "STRETCH", _are_percentiles(cfg.INPUT.STRETCH), "[low, high] in %, or []"),
        ("INPUT", "FORMAT", cfg.INPUT.FORMAT in ("RGB", "BGR"), "RGB or BGR"),
        ("TEST", "MPP", cfg.TEST.MPP >= 0, "um/px, or 0 for unknown"),
        ("TEST", "PRECISION", cfg.TEST.PRECISION in PRECISIONS, ", ".join(PRECISIONS)),
        ("TEST", "VIEWS", cfg.TEST.VIEWS in range(1, n_views + 1), f"1 to {n_views} with {heads}"),
        ("MODEL.ROI_MASK_HEAD", "BOX_SCALE", box_scale >= 1, "a factor of at least 1"),
        ("MODEL.DENSE_BRANCH", "SCORE_WEIGHT", 0 <= weight <= 1, "0 to 1"),
        ("MODEL", "CATEGORY", cfg.MODEL.CATEGORY in (DROPLET, NUCLEUS), "droplet or nucleus"),
        ("MODEL", "CATEGORIES", _are_categories(cfg), _expected_categories(cfg)),
    ]:
        if not is_sound:
            value = reduce(getitem, section.split("."), cfg)[key]
            raise InputError(f"{section}.{key} is {value}; expected {expected}.")


def _are_categories(cfg):
    names = list(cfg.MODEL.CATEGORIES)
    are_names = all(isinstance(name, str) and name for name in names)
    return not names or (
        are_names
        and len(names) == len(set(names)) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
        and cfg.MODEL.CATEGORY in names
    )


def _expected_categories(cfg):
    return (
        f"[], or a name for each of the {cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes "
        f"(MODEL.ROI_HEADS.NUM_CLASSES), {cfg.MODEL.CATEGORY} (MODEL.CATEGORY) among them"
    )


def _are_percentiles(values):
    return not values or (len(values) == 2 and 0 <= values[0] < values[1] <= 100)
