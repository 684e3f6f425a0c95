"""The metrics of this project as a Detectron2 evaluator."""

import logging
from collections import OrderedDict
from pathlib import Path

import numpy as np

from steatosis_d2.data.coco import (
    annotation_record,
    category_names,
    category_records,
    read_coco,
    take_category,
    write_coco,
)
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.evaluation.tables import as_record, format_table
from steatosis_d2.files import write_json
from steatosis_d2.install_detectron2 import require_detectron2
from steatosis_d2.instances.rle import encode_crop

require_detectron2()

from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.evaluation import DatasetEvaluator  # noqa: E402
from detectron2.utils import comm  # noqa: E402

logger = logging.getLogger(__name__)


class SteatosisEvaluator(DatasetEvaluator):
    """
    Measure a network on a data set that is registered from a COCO file.

    ``evaluate`` returns the groups of :class:`~.figures.Evaluation`, so that metrics are named
    ``segm/AP``, ``instances/f1``, ``paper/paper_ap50``, ``clinical/fat_area_error_points`` in
    TensorBoard, ``metrics.json`` and best-checkpoint saving. All fractions are in 0..1, AP too.
    Where the data set has several categories, each is measured by itself, and the groups of all
    but the main one say which: ``instances of vessel/f1``.
    Into ``output_dir`` go ``predictions.json`` (COCO, all predictions with their scores) and
    ``metrics.json``; ``tools/evaluate.py`` gives the same figures from ``predictions.json`` and
    the same score threshold.
    """

    def __init__(
        self,
        dataset_name,
        output_dir=None,
        distributed=True,
        *,
        category=None,
        score_threshold=0.0,
        detections_per_image=None,
    ):
        """
        Args:
            dataset_name (str): registered with ``json_file`` in its metadata.
            output_dir (str, Path or None): where to write; None writes nothing.
            distributed (bool): gather the predictions of all workers, else only this one's.
            category (str or None): the main one, where there are several; None is the first.
            score_threshold (float): lowest score that counts in every figure but COCO AP, which
                ranks all predictions: the score from which users will keep them.
            detections_per_image (int or None): the network's cap (``TEST.DETECTIONS_PER_IMAGE``);
                a warning names the images that reach it.

        Raises:
            InputError: the data set has no COCO file, or it is not sound.
        """
        json_file = MetadataCatalog.get(dataset_name).get("json_file")
        if json_file is None:
            raise InputError(
                f"data set '{dataset_name}' has no COCO file in its metadata; register it with "
                "register_coco_instances, or name it as 'coco:ANNOTATIONS:IMAGES'."
            )
        self._dataset_name = dataset_name
        self._truth_path = json_file
        self._truth = read_coco(json_file)
        self._truth["categories"] = self._truth.get("categories") or category_records(["instance"])
        self._category = category
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._distributed = distributed
        self._score_threshold = score_threshold
        self._detections_per_image = detections_per_image
        self.reset()

    def reset(self):
        """Forget all predictions."""
        self._detections_by_image = {}

    def process(self, inputs, outputs):
        """
        Keep a batch's instances, as run-length codes.

        Args:
            inputs (list[dict]): each with ``image_id``.
            outputs (list[dict]): each with ``instances`` that have ``pred_masks``, bool, shape
                (N, H, W), in px of the image as it is in its file, ``scores`` and
                ``pred_classes``.
        """
        for image, output in zip(inputs, outputs, strict=True):
            self._detections_by_image[image["image_id"]] = encode_detections(output["instances"])

    def evaluate(self):
        """
        Measure everything, write the files and log one table.

        Returns:
            OrderedDict: group -> name -> float; empty in all workers but the first.
        """
        detections_by_image = self._detections_by_image
        if self._distributed:
            comm.synchronize()
            # By image id: what several workers got, to fill their last batches, counts once.
            detections_by_image = {
                image_id: detections
                for part in comm.gather(self._detections_by_image)
                for image_id, detections in part.items()
            }
            if not comm.is_main_process():
                return OrderedDict()
        truth = self._restrict_to(detections_by_image)
        predictions = {
            "images": truth["images"],
            "annotations": _annotation_records(
                truth["images"], detections_by_image, sorted(category_names(truth))
            ),
            "categories": truth["categories"],
        }
        self._warn_of_cap(truth["images"], detections_by_image)
        if self._output_dir is not None:
            self._write_predictions(self._output_dir, predictions)
        metrics: OrderedDict[str, dict] = OrderedDict()
        for name, suffix in self._name_categories(truth).items():
            evaluation = self._evaluate_category(truth, predictions, name)
            logger.info(
                "Evaluation of %s%s\n%s", self._dataset_name, suffix, format_table(evaluation)
            )
            if self._output_dir is not None:
                path = self._output_dir / f"metrics{suffix.replace(' ', '_')}.json"
                write_json(path, as_record(evaluation), indent=2)
            metrics.update((group + suffix, values) for group, values in evaluation.metrics.items())
        return metrics

    def _name_categories(self, truth):
        """What is measured -> what its figures' groups end in: nothing, for the main category."""
        names = list(category_names(truth).values())
        main = self._category if self._category in names else names[0]
        return {main: ""} | {name: f" of {name}" for name in names if name != main}

    def _evaluate_category(self, truth, predictions, name):
        pairs = pair_images(
            take_category(truth, name),
            take_category(predictions, name),
            truth_name=self._truth_path,
            predictions_name=f"predictions on {self._dataset_name}",
        )
        return evaluate_pairs(pairs, score_threshold=self._score_threshold)

    def _restrict_to(self, detections_by_image):
        """The truths of the images that were processed; a warning if these are not all."""
        known = {image["id"] for image in self._truth["images"]}
        unknown = detections_by_image.keys() - known
        if unknown:
            raise InputError(
                f"{len(unknown)} images were processed that are not in '{self._truth_path}' (id "
                f"{min(unknown)}); the loader must read the data set '{self._dataset_name}'."
            )
        if len(detections_by_image) < len(known):
            logger.warning(
                "Only %d of the %d images of %s were processed; the figures are of those alone.",
                len(detections_by_image),
                len(known),
                self._dataset_name,
            )
        return {
            "images": [i for i in self._truth["images"] if i["id"] in detections_by_image],
            "annotations": [
                a for a in self._truth["annotations"] if a["image_id"] in detections_by_image
            ],
            "categories": self._truth["categories"],
        }

    def _warn_of_cap(self, images, detections_by_image):
        cap = self._detections_per_image
        if cap is None:
            return
        full = [i["file_name"] for i in images if len(detections_by_image[i["id"]]) >= cap]
        if full:
            logger.warning(
                "%d of %d images reached the cap of %d detections, the first is '%s'; there may be "
                "more instances. Raise TEST.DETECTIONS_PER_IMAGE.",
                len(full),
                len(images),
                cap,
                full[0],
            )

    def _write_predictions(self, output_dir, predictions):
        path = output_dir / "predictions.json"
        write_coco(
            path,
            predictions["images"],
            predictions["annotations"],
            category=predictions["categories"],
            info={"description": f"predictions on {self._dataset_name}, all scores"},
        )
        logger.info("Writing %s, and metrics.json beside it", path)


def encode_detections(instances):
    """
    Instances of one image as run-length codes, made from the part of the image that each covers.

    Args:
        instances (detectron2.structures.Instances): with ``pred_masks``, bool, shape (N, H, W),
            on any device, ``scores`` and ``pred_classes``.

    Returns:
        list[tuple]: (COCO RLE or None, score, class) an instance; None where the mask is empty.
    """
    height, width = instances.image_size
    codes = []
    for mask, score, number in zip(
        instances.pred_masks.cpu().numpy(),
        instances.scores.tolist(),
        instances.pred_classes.tolist(),
        strict=True,
    ):
        rows = np.flatnonzero(mask.any(axis=1))
        if not rows.size:
            codes.append((None, score, number))
            continue
        top = int(rows[0])
        strip = mask[top : rows[-1] + 1]
        columns = np.flatnonzero(strip.any(axis=0))
        left = int(columns[0])
        crop = strip[:, left : columns[-1] + 1]
        code = encode_crop(crop, top=top, left=left, height=height, width=width)
        codes.append((code, score, number))
    return codes


def _annotation_records(images, detections_by_image, category_ids):
    """COCO annotations; a network's classes are a data set's categories in order of their ids."""
    found = (
        (image["id"], rle, score, category_ids[number])
        for image in images
        for rle, score, number in detections_by_image[image["id"]]
        if rle is not None
    )
    return [
        annotation_record(number, image_id, rle, score=score, category_id=category_id)
        for number, (image_id, rle, score, category_id) in enumerate(found, 1)
    ]
