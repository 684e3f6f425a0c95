"""The training loop: Detectron2's, with this project's data, checkpoints and evaluation."""

import logging
import weakref
from pathlib import Path

from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, hooks
from detectron2.utils import comm
from torch.nn.utils import clip_grad_norm_

from steatosis_d2.data.catalog import PREPARED_DATASETS
from steatosis_d2.data.mapper import InstanceMapper
from steatosis_d2.data.splits import SPLITS
from steatosis_d2.engine.checkpoint import SafeCheckpointer
from steatosis_d2.engine.train_loop import CPUAMPTrainer, cpu_has_bfloat16
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.evaluator import SteatosisEvaluator

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Detectron2's ``DefaultTrainer`` for tiles with hundreds of instances."""

    def __init__(self, cfg):
        """
        Args:
            cfg (CfgNode): ``SOLVER.AMP.ENABLED`` means bfloat16 on a CPU that has it, and
                float32 on one that has not; on a GPU it is Detectron2's own.
        """
        wants_amp_on_cpu = cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu"
        if wants_amp_on_cpu:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.AMP.ENABLED = False
        super().__init__(cfg)
        if wants_amp_on_cpu and cpu_has_bfloat16():
            logger.info("The forward pass runs in bfloat16.")
            self._trainer = CPUAMPTrainer(self.model, self.data_loader, self.optimizer)

    def build_hooks(self):
        # DefaultTrainer made a checkpointer of its own just before it calls this; the hooks
        # that are built here must hold ours.
        self.checkpointer = SafeCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            allow_pickle=self.cfg.MODEL.ALLOW_PICKLE,
            trainer=weakref.proxy(self),
        )
        built = super().build_hooks()
        if self.cfg.TEST.EVAL_PERIOD > 0 and comm.is_main_process():
            # between the evaluation and the writers, which come last
            built.insert(-1, self._build_best_checkpointer())
        return built

    def _build_best_checkpointer(self):
        # Weights alone, and not resumable: Detectron2 states the next iteration in them, and
        # resuming from there would skip one.
        checkpointer = SafeCheckpointer(self.model, self.cfg.OUTPUT_DIR, resumable=False)
        return hooks.BestCheckpointer(
            self.cfg.TEST.EVAL_PERIOD, checkpointer, self.cfg.TEST.BEST_METRIC
        )

    @classmethod
    def build_optimizer(cls, cfg, model):
        """
        As ``DefaultTrainer.build_optimizer``; besides Detectron2's clipping of each tensor's
        gradient, ``SOLVER.CLIP_GRADIENTS.CLIP_TYPE: full_model`` clips the norm over all.
        """
        clip = cfg.SOLVER.CLIP_GRADIENTS
        if not (clip.ENABLED and clip.CLIP_TYPE == "full_model"):
            return super().build_optimizer(cfg, model)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
        optimizer = super().build_optimizer(cfg, model)
        parameters = [item for group in optimizer.param_groups for item in group["params"]]

        def clip_gradients(*_):
            clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

        optimizer.register_step_pre_hook(clip_gradients)
        return optimizer

    @classmethod
    def build_train_loader(cls, cfg):
        check_registered(cfg.DATASETS.TRAIN, key="DATASETS.TRAIN")
        loader = build_detection_train_loader(cfg, mapper=InstanceMapper(cfg, is_train=True))
        check_classes(cfg, cfg.DATASETS.TRAIN)
        return loader

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        check_registered([dataset_name], key="DATASETS.TEST")
        mapper = InstanceMapper(cfg, is_train=False)
        loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        check_classes(cfg, [dataset_name])
        return loader

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return SteatosisEvaluator(
            dataset_name,
            evaluation_folder(cfg, dataset_name),
            score_threshold=cfg.TEST.SCORE_THRESHOLD,
            detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        )


def evaluation_folder(cfg, dataset_name):
    """
    Where an evaluation writes: ``inference/``, with a folder a data set where there are several.

    Args:
        cfg (CfgNode): ``OUTPUT_DIR`` and ``DATASETS.TEST`` are read.
        dataset_name (str): one of ``DATASETS.TEST``.

    Returns:
        Path: the folder; it may not exist yet.
    """
    folder = Path(cfg.OUTPUT_DIR, "inference")
    if len(cfg.DATASETS.TEST) > 1:
        folder /= dataset_name.replace("/", "_").replace(":", "_")
    return folder


def check_registered(names, *, key):
    """
    Check that data sets are known by name.

    Args:
        names (list[str]): data set names.
        key (str): the config key they come from, for the message.

    Raises:
        InputError: no name is given, or one is not registered.
    """
    if not names:
        raise InputError(f"{key} is empty; name a data set, e.g. {key} \"('liver_torino_val',)\".")
    unknown = [name for name in names if name not in DatasetCatalog]
    if unknown:
        ours = [f"{dataset}_{split}" for dataset in PREPARED_DATASETS for split in SPLITS]
        raise InputError(
            f"{key} names '{unknown[0]}', which is not registered. Ours are {', '.join(ours)}; "
            "your own COCO file is 'coco:ANNOTATIONS:IMAGES'."
        )


def check_classes(cfg, names):
    """
    Check that loaded data sets have as many categories as the network has classes.

    Args:
        cfg (CfgNode): ``MODEL.ROI_HEADS.NUM_CLASSES`` is read.
        names (list[str]): data sets that have been loaded.

    Raises:
        InputError: the numbers differ; training would fail with an index error later.
    """
    for name in names:
        categories = MetadataCatalog.get(name).thing_classes
        if len(categories) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            raise InputError(
                f"data set '{name}' has {len(categories)} categories {categories}, the network "
                f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes; set MODEL.ROI_HEADS.NUM_CLASSES "
                f"{len(categories)}."
            )
