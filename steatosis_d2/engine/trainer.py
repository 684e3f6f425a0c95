"""The training loop: Detectron2's, with this project's data, stages, checkpoints and evaluation."""

import contextlib
import logging
import weakref
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from torch.nn.utils import clip_grad_norm_

from steatosis_d2.data.catalog import PREPARED_DATASETS
from steatosis_d2.data.mapper import InstanceMapper
from steatosis_d2.data.splits import SPLITS
from steatosis_d2.data.stream import (
    ImageStream,
    StreamSampler,
    build_stream_loader,
    load_records,
    start_readers_cleanly,
)
from steatosis_d2.engine.checkpoint import SafeCheckpointer
from steatosis_d2.engine.hooks import (
    BestHook,
    EarlyStop,
    PictureHook,
    StageHook,
    ThroughputHook,
)
from steatosis_d2.engine.schedule import build_staged_scheduler, plan_stages
from steatosis_d2.engine.train_loop import DivergenceError, TrainLoop, choose_dtype
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.detectron2_evaluator import SteatosisEvaluator
from steatosis_d2.evaluation.figures import list_metrics

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """
    Detectron2's ``DefaultTrainer`` for staged training that resumes to the bit.

    What an iteration does follows from the config, the seed, the iteration and the weights
    alone: which images it sees, how they are augmented, what the network draws at random. So a
    run that was killed and resumed ends with the weights of one that was not.
    """

    def __init__(self, cfg):
        """
        Args:
            cfg (CfgNode): a config of this project.

        Raises:
            InputError: a data set is not known or not sound, or a setting is at fault.
        """
        TrainerBase.__init__(self)  # DefaultTrainer would build its own of all that follows
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        check_registered(cfg.DATASETS.TRAIN, key="DATASETS.TRAIN")
        check_evaluation(cfg)
        records, weights = self._load_records()
        stages = plan_stages(cfg, n_images=len(records))
        self.start_iter, self.max_iter = 0, stages[-1].end
        self._seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        mapper = InstanceMapper(cfg, is_train=True)
        self._stream = ImageStream(records, mapper, weights=weights, seed=self._seed)
        self._sampler = StreamSampler(
            _images_per_batch(cfg), rank=comm.get_rank(), world_size=comm.get_world_size()
        )
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = TrainLoop(
            model,
            build_stream_loader(
                self._stream, self._sampler, num_workers=cfg.DATALOADER.NUM_WORKERS
            ),
            optimizer,
            seed=self._seed,
            dtype=choose_dtype(cfg.MODEL.DEVICE) if cfg.SOLVER.AMP.ENABLED else torch.float32,
            accumulate=cfg.SOLVER.ACCUMULATE,
            ema_decay=cfg.SOLVER.EMA_DECAY,
        )
        self.scheduler = build_staged_scheduler(cfg, optimizer, stages)
        self.checkpointer = self._build_checkpointer(trainer=weakref.proxy(self))
        self.register_hooks(self._build_hooks(stages))
        self._report(len(records), stages)

    def _load_records(self):
        records, weights = load_records(self.cfg)
        check_classes(self.cfg, self.cfg.DATASETS.TRAIN)
        return records, weights

    def _build_checkpointer(self, **kwargs):
        return SafeCheckpointer(
            self._trainer.best_network,
            self.cfg.OUTPUT_DIR,
            allow_pickle=self.cfg.MODEL.ALLOW_PICKLE,
            **kwargs,
        )

    def _build_hooks(self, stages):
        cfg = self.cfg
        built = [
            StageHook(self._trainer, stages),
            hooks.IterationTimer(),
            ThroughputHook(cfg.SOLVER.IMS_PER_BATCH),
            hooks.LRScheduler(),
        ]
        if comm.is_main_process():
            # before the evaluation: if that fails, the weights are there
            built.append(
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            )
        if cfg.DATASETS.TEST:
            built.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate))
        else:
            logger.info(
                "DATASETS.TEST is empty: nothing is evaluated, and no best checkpoint kept."
            )
        if cfg.DATASETS.TEST and cfg.TEST.EVAL_PERIOD > 0:
            # Weights alone: what --resume goes on from is saved by the periodic checkpointer.
            built.append(
                BestHook(
                    self._build_checkpointer(resumable=False),
                    cfg.TEST.BEST_METRIC,
                    period=cfg.TEST.EVAL_PERIOD,
                    patience=cfg.TEST.PATIENCE,
                )
            )
        built.append(self._build_picture_hook())
        if comm.is_main_process():
            built.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return built

    def _build_picture_hook(self):
        cfg = self.cfg
        names = cfg.DATASETS.TEST if cfg.TEST.EVAL_PERIOD > 0 and cfg.TEST.PICTURES else ()
        return PictureHook(
            self._trainer,
            channel_order=cfg.INPUT.FORMAT,
            period=cfg.TEST.EVAL_PERIOD,
            predictions=[
                (DatasetCatalog.get(name), evaluation_folder(cfg, name) / "predictions.json")
                for name in names
            ],
            n_pictures=cfg.TEST.PICTURES,
        )

    def _evaluate(self):
        self._last_eval_results = self.test(self.cfg, self._trainer.best_network)
        return self._last_eval_results

    def _report(self, n_images, stages):
        cfg = self.cfg
        logger.info(
            "%d training images, %d a step in %d process(es), %d step(s) an epoch; "
            "%d iterations in %d stage(s); forward pass in %s; seed %d",
            n_images,
            cfg.SOLVER.IMS_PER_BATCH,
            comm.get_world_size(),
            -(-n_images // cfg.SOLVER.IMS_PER_BATCH),
            self.max_iter,
            len(stages),
            str(self._trainer.dtype).removeprefix("torch."),
            self._seed,
        )

    def resume_or_load(self, resume=True):
        """As ``DefaultTrainer.resume_or_load``; the images go on where they stopped, too."""
        super().resume_or_load(resume)
        if self._trainer.averaged is not None and not (resume and self.start_iter):
            # What was loaded went into the averaged weights, which are what is kept.
            self._trainer.network.load_state_dict(self._trainer.best_network.state_dict())
        self._stream.seed = self._trainer.seed = self._seed
        self._sampler.first_batch = self.start_iter * self.cfg.SOLVER.ACCUMULATE

    def state_dict(self):
        return super().state_dict() | {"seed": self._seed}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._seed = state_dict["seed"]

    def train(self):
        """
        Train to the end, or until the figure that is watched no longer becomes better.

        Returns:
            dict or None: figures of the last evaluation, on the main process.

        Raises:
            DivergenceError: the loss is not a number any more.
        """
        try:
            with _no_traceback_for_users():
                return super().train()
        except EarlyStop as stop:
            logger.info("Stopped early at iteration %d: %s", self.iter, stop)
            if comm.is_main_process():
                self.checkpointer.save("model_final", iteration=self.iter)
            return self._last_eval_results

    def run_step(self):
        try:
            super().run_step()
        except DivergenceError as error:
            saved = self.checkpointer.has_checkpoint()
            last = self.checkpointer.get_checkpoint_file() if saved else "none"
            raise DivergenceError(
                f"{error}. The last good checkpoint is {last}. Lower SOLVER.BASE_LR, or look at "
                "these images."
            ) from None

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
    def build_model(cls, cfg):
        """As ``DefaultTrainer.build_model``; at test it gives all that COCO AP ranks."""
        cfg = cfg.clone()
        cfg.defrost()
        heads = cfg.MODEL.ROI_HEADS
        heads.SCORE_THRESH_TEST = min(heads.SCORE_THRESH_TEST, cfg.TEST.SCORE_FLOOR)
        model = super().build_model(cfg)
        if cfg.MODEL.DEVICE == "cpu":  # as the images come, see ScaledInputRCNN.preprocess_image
            model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        check_registered([dataset_name], key="DATASETS.TEST")
        mapper = InstanceMapper(cfg, is_train=False)
        loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        check_classes(cfg, [dataset_name])
        return start_readers_cleanly(loader)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return SteatosisEvaluator(
            dataset_name,
            evaluation_folder(cfg, dataset_name),
            category=cfg.MODEL.CATEGORY,
            score_threshold=cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        )


def _images_per_batch(cfg):
    """Images that one process takes at a time."""
    parts = comm.get_world_size() * cfg.SOLVER.ACCUMULATE
    if cfg.SOLVER.IMS_PER_BATCH % parts:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which "
            f"{comm.get_world_size()} process(es) with SOLVER.ACCUMULATE "
            f"{cfg.SOLVER.ACCUMULATE} cannot share evenly; give a multiple of {parts}."
        )
    return cfg.SOLVER.IMS_PER_BATCH // parts


@contextlib.contextmanager
def _no_traceback_for_users():
    """Detectron2 logs the traceback of whatever ends a training; a user's error needs none."""

    def is_ours(record):
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, (InputError, EarlyStop))

    train_loop_logger = logging.getLogger("detectron2.engine.train_loop")
    train_loop_logger.addFilter(is_ours)
    try:
        yield
    finally:
        train_loop_logger.removeFilter(is_ours)


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


def check_evaluation(cfg):
    """
    Refuse before the first iteration what would fail at the first evaluation, or at the last.

    Args:
        cfg (CfgNode): ``DATASETS.TEST`` and ``TEST`` are read.

    Raises:
        InputError: a test set is not known or not sound, or the figure that is watched is none.
    """
    names = cfg.DATASETS.TEST
    if not names:
        return
    check_registered(names, key="DATASETS.TEST")
    for name in names:
        DatasetCatalog.get(name)
    check_classes(cfg, names)
    known = set(list_metrics())
    if len(names) > 1:
        known = {f"{name}/{metric}" for name in names for metric in known}
    if cfg.TEST.EVAL_PERIOD > 0 and cfg.TEST.BEST_METRIC not in known:
        raise InputError(
            f"TEST.BEST_METRIC is '{cfg.TEST.BEST_METRIC}', which no evaluation gives; there are "
            f"{', '.join(sorted(known))}."
        )


def check_classes(cfg, names):
    """
    Check that loaded data sets have the categories of the network's classes.

    Args:
        cfg (CfgNode): ``MODEL.ROI_HEADS.NUM_CLASSES`` and ``MODEL.CATEGORIES`` are read.
        names (list[str]): data sets that have been loaded.

    Raises:
        InputError: the numbers differ, so that training would fail with an index error later; or,
            where there are several, the names do.
    """
    for name in names:
        categories = MetadataCatalog.get(name).thing_classes
        if len(categories) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            raise InputError(
                f"data set '{name}' has {len(categories)} categories {categories}, the network "
                f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes; set MODEL.ROI_HEADS.NUM_CLASSES "
                f"{len(categories)}."
            )
        if len(categories) > 1 and list(cfg.MODEL.CATEGORIES) != categories:
            raise InputError(
                f"data set '{name}' has the categories {categories}, MODEL.CATEGORIES is "
                f'{list(cfg.MODEL.CATEGORIES)}; set MODEL.CATEGORIES "{categories}".'
            )
