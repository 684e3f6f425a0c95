"""What happens between training steps: freezing, best weights, stopping, pictures, the log."""

import json
import logging
from pathlib import Path

import numpy as np
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.nn.modules.batchnorm import _BatchNorm

from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.data.mapper import IGNORED_CLASS
from steatosis_d2.engine.distributed import distribute
from steatosis_d2.errors import InputError
from steatosis_d2.files import write_json
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.report.overlay import IGNORED_RGB, PREDICTED_RGB, TRUE_RGB, draw_outlines

logger = logging.getLogger(__name__)


class StageHook(HookBase):
    """At the beginning of each stage, freeze what does not learn in it."""

    def __init__(self, loop, stages):
        """
        Args:
            loop (TrainLoop): its network is frozen, and distributed over the processes.
            stages (list[Stage]): from :func:`steatosis_d2.engine.schedule.plan_stages`.
        """
        self._loop = loop
        self._stages = stages
        # Those that the network's builder froze stay so (MODEL.BACKBONE.FREEZE_AT).
        self._learnable = [
            name for name, value in loop.network.named_parameters() if value.requires_grad
        ]
        self._stage = None

    def before_step(self):
        stage = next(stage for stage in self._stages if self.trainer.iter < stage.end)
        if stage is not self._stage:
            self._stage = stage
            self._begin(stage)
        # An evaluation between two steps puts the whole network back into training.
        for module in self._frozen_norms:
            module.eval()

    def _begin(self, stage):
        network = self._loop.network
        network.train()  # those frozen in the last stage too
        parameters = dict(network.named_parameters())
        for name in self._learnable:
            parameters[name].requires_grad = stage.trains(name)
            parameters[name].grad = None
        self._frozen_norms = [
            module
            for name, module in network.named_modules()
            if isinstance(module, _BatchNorm)
            and (stage.freeze_norm or not stage.trains(f"{name}."))
        ]
        self._loop.model = distribute(network)
        logger.info(
            "Stage %d of %d: training '%s' at learning rate %g, up to iteration %d",
            self._stages.index(stage) + 1,
            len(self._stages),
            stage.train,
            stage.lr,
            stage.end,
        )


class EarlyStop(Exception):
    """The figure that is watched has not become better for long enough."""


class BestHook(HookBase):
    """
    Keep the best weights by a named figure, and stop when it no longer becomes better.

    The best figure is kept in ``best.json`` beside them, so that a resumed run knows it.
    """

    def __init__(self, checkpointer, metric, *, period, patience):
        """
        Args:
            checkpointer (SafeCheckpointer): writes ``model_best.pth``.
            metric (str): name of the figure in the log; higher is better.
            period (int): iterations from one evaluation to the next.
            patience (int): evaluations without a better figure after which training stops; 0
                never stops.
        """
        self._checkpointer = checkpointer
        self._metric = metric
        self._period = period
        self._patience = patience
        self._file = Path(checkpointer.save_dir, "best.json")

    def after_step(self):
        done = self.trainer.iter + 1
        # Detectron2 does the last evaluation after training.
        if done % self._period == 0 and done < self.trainer.max_iter:
            self._stop_if_no_better(done)

    def after_train(self):
        if self.trainer.iter == self.trainer.max_iter and comm.is_main_process():
            self._update(self.trainer.max_iter)

    def _stop_if_no_better(self, done):
        best = self._update(done) if comm.is_main_process() else None
        best = comm.all_gather(best)[0]
        if self._patience and done - best["iteration"] >= self._patience * self._period:
            raise EarlyStop(
                f"'{self._metric}' has not been above its {best['value']:.4f} of iteration "
                f"{best['iteration']} for {self._patience} evaluations"
            )

    def _update(self, done):
        """The best figure so far, with the one of this iteration."""
        storage = self.trainer.storage
        if self._metric not in storage.latest():
            raise InputError(
                f"TEST.BEST_METRIC is '{self._metric}', which no evaluation has given; there are "
                + ", ".join(sorted(name for name in storage.latest() if "/" in name))
                + "."
            )
        value = storage.latest()[self._metric][0]
        best = self._read(done)
        if best is None or value > best["value"]:
            best = {"metric": self._metric, "value": value, "iteration": done}
            self._checkpointer.save("model_best", **best)
            write_json(self._file, best)
        return best

    def _read(self, done):
        """What ``best.json`` says; None where it is of another run, or of a later iteration."""
        if not self._file.is_file():
            return None
        best = json.loads(self._file.read_text(encoding="utf-8"))
        return best if best["metric"] == self._metric and best["iteration"] < done else None


class ThroughputHook(HookBase):
    """Images a second, and the share of time spent waiting for data, in the log."""

    def __init__(self, images_per_step):
        """
        Args:
            images_per_step (int): over all processes.
        """
        self._images_per_step = images_per_step

    def after_step(self):
        storage = self.trainer.storage
        # Detectron2's printer shows what has "[metric]" in its name.
        if comm.is_main_process() and "time" in storage.latest():
            seconds = storage.history("time").avg(20)
            waited = storage.history("data_time").avg(20)
            storage.put_scalar("[metric] images/s", self._images_per_step / seconds)
            storage.put_scalar("[metric] waiting for data, %", 100 * waited / seconds)


class PictureHook(HookBase):
    """Show in TensorBoard what the network sees, and what it finds."""

    def __init__(self, loop, *, channel_order, period, predictions, n_pictures):
        """
        Args:
            loop (TrainLoop): its first batch, and one at each evaluation, are shown.
            channel_order (str): ``RGB`` or ``BGR``, that of the batches.
            period (int): iterations from one evaluation to the next; 0 without evaluation.
            predictions (list[tuple]): for each test set, its records and the path of the
                ``predictions.json`` that its evaluation writes.
            n_pictures (int): test images to show.
        """
        self._loop = loop
        self._channel_order = channel_order
        self._period = period
        self._predictions = predictions
        self._n_pictures = n_pictures

    def after_step(self):
        done = self.trainer.iter + 1
        evaluated = self._period > 0 and done % self._period == 0
        if comm.is_main_process() and (evaluated or self.trainer.iter == 0):
            batch = draw_batch(self._loop.last_batch, channel_order=self._channel_order)
            self.trainer.storage.put_image("training batch", batch.transpose(2, 0, 1))
        if comm.is_main_process() and evaluated and done < self.trainer.max_iter:
            self._put_predictions()

    def after_train(self):
        # Detectron2 does the last evaluation after training.
        if comm.is_main_process() and self.trainer.iter == self.trainer.max_iter:
            self._put_predictions()

    def _put_predictions(self):
        for records, path in self._predictions:
            self._put_predictions_of(records[: self._n_pictures], path)

    def _put_predictions_of(self, records, path):
        annotations = json.loads(Path(path).read_text(encoding="utf-8"))["annotations"]
        for record in records:
            found = [
                annotation["segmentation"]
                for annotation in annotations
                if annotation["image_id"] == record["image_id"]
            ]
            true = [annotation["segmentation"] for annotation in record["annotations"]]
            picture = read_image_rgb(record["file_name"])
            picture = draw_outlines(picture, true, color_rgb=TRUE_RGB)
            picture = draw_outlines(picture, found, color_rgb=PREDICTED_RGB)
            name = f"predictions/{Path(record['file_name']).name}"
            self.trainer.storage.put_image(name, picture.transpose(2, 0, 1))


def draw_batch(batch, *, channel_order):
    """
    The images of a batch side by side, with the outlines that the network is taught.

    Areas that training leaves out are outlined in grey.

    Args:
        batch (list[dict]): from :class:`steatosis_d2.data.mapper.InstanceMapper`.
        channel_order (str): ``RGB`` or ``BGR``.

    Returns:
        ndarray: uint8, shape (H, W, 3), RGB.
    """
    pictures = []
    for record in batch:
        image = record["image"].numpy().transpose(1, 2, 0)
        image_rgb = image if channel_order == "RGB" else image[:, :, ::-1]
        truths = record["instances"]
        is_ignored = truths.gt_classes == IGNORED_CLASS
        for chosen, color_rgb in ((~is_ignored, TRUE_RGB), (is_ignored, IGNORED_RGB)):
            rles = [encode_mask(mask.numpy()) for mask in truths.gt_masks.tensor[chosen]]
            image_rgb = draw_outlines(image_rgb, rles, color_rgb=color_rgb)
        pictures.append(image_rgb)
    height = max(picture.shape[0] for picture in pictures)
    padded = [
        np.pad(picture, ((0, height - picture.shape[0]), (0, 0), (0, 0))) for picture in pictures
    ]
    return np.concatenate(padded, axis=1)
