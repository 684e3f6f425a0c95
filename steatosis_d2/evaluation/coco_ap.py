"""COCO's average precision (AP), by faster-coco-eval or, where it is absent, by pycocotools."""

import contextlib
import io
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask
from scipy import sparse
from scipy.sparse import csgraph

from steatosis_d2.evaluation.matching import sparse_iou

# COCO's own limit is 100 detections an image; a liver tile holds 400 droplets, a slide thousands.
MIN_DETECTION_LIMIT = 1000
PIECE_INSTANCES = 100
COCO_SIZES = ("", "s", "m", "l")  # all, below 32 x 32 px, below 96 x 96 px, above


@dataclass(frozen=True)
class CocoAP:
    """
    COCO's figures for instance masks.

    Attributes:
        figures (dict): ``AP`` (mean over IoU 0.50:0.05:0.95), ``AP50``, ``AP75``, and ``APs``,
            ``APm``, ``APl`` for the sizes of which there are truths; fractions in 0..1.
        precision (ndarray): float64, shape (10, 101): IoU threshold x recall 0:0.01:1.
        detection_limit (int): detections an image that count (COCO's ``maxDets``).
        backend (str): the package that computed it.
    """

    figures: dict
    precision: np.ndarray
    detection_limit: int
    backend: str


def coco_ap(pairs, *, backend=None):
    """
    Average precision as COCO defines it (Lin et al., ECCV 2014), over all detections.

    The limit on detections an image is raised to the fullest image, so that none is left out.
    Without any truth AP is 1 if nothing was predicted, else 0.

    Args:
        pairs (list[ImagePair]): all images of the dataset.
        backend (str or None): ``faster-coco-eval`` or ``pycocotools``; None takes the faster one
            that is installed.

    Returns:
        CocoAP: the figures and the precision-recall curves.
    """
    backend, coco_class, evaluation_class = _load_backend(backend)
    limit = max(MIN_DETECTION_LIMIT, *(len(pair.predictions) for pair in pairs))
    pieces = [piece for pair in pairs for piece in _split_where_nothing_meets(pair)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluation_class(
            _coco(coco_class, pieces, _truths), _coco(coco_class, pieces, _predictions), "segm"
        )
        evaluation.params.maxDets = [limit]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, 0, :, 0]
    if not any(pair.truths for pair in pairs):
        precision = np.full_like(precision, float(not any(pair.predictions for pair in pairs)))
    figures = {"AP": precision[:, :, 0], "AP50": precision[0, :, 0], "AP75": precision[5, :, 0]}
    figures |= {f"AP{size}": precision[:, :, i] for i, size in enumerate(COCO_SIZES) if size}
    return CocoAP(
        figures={key: float(p.mean()) for key, p in figures.items() if p.min() >= 0},
        precision=precision[:, :, 0],
        detection_limit=limit,
        backend=backend,
    )


def _load_backend(name):
    if name != "pycocotools":
        try:
            from faster_coco_eval import COCO, COCOeval_faster

            return "faster-coco-eval", COCO, COCOeval_faster
        except ImportError:
            if name is not None:
                raise
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return "pycocotools", COCO, COCOeval


def _split_where_nothing_meets(pair):
    """
    Parts of one image between which no prediction meets a truth: their AP together is the whole's.

    COCO's code compares all predictions of an image with all its truths in one dense array.
    """
    regions = pair.truths + pair.ignored
    n_predictions, n_regions = len(pair.predictions), len(regions)
    if n_predictions * n_regions <= PIECE_INSTANCES**2:
        return [pair]
    met = sparse_iou(pair.predictions, regions).tocoo()
    n_nodes = n_predictions + n_regions
    graph = sparse.coo_array((met.data, (met.row, met.col + n_predictions)), (n_nodes, n_nodes))
    _, component = csgraph.connected_components(graph, directed=False)
    piece = (np.cumsum(np.bincount(component)) // PIECE_INSTANCES)[component]
    of_predictions, of_truths, of_ignored = np.split(
        piece, [n_predictions, n_predictions + len(pair.truths)]
    )
    return [
        replace(
            pair,
            truths=_select(pair.truths, of_truths == number),
            ignored=_select(pair.ignored, of_ignored == number),
            predictions=_select(pair.predictions, of_predictions == number),
            scores=pair.scores[of_predictions == number],
        )
        for number in np.unique(piece)
    ]


def _select(items, wanted):
    return [items[i] for i in np.flatnonzero(wanted)]


def _coco(coco_class, pieces, annotations_of):
    coco = coco_class()
    coco.dataset = {
        "images": [
            {"id": i, "height": piece.height, "width": piece.width}
            for i, piece in enumerate(pieces, 1)
        ],
        "categories": [{"id": 1, "name": "instance"}],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": 1,
                "area": int(coco_mask.area(annotation["segmentation"])),
                **annotation,
            }
            for number, (image_id, annotation) in enumerate(
                (
                    (image_id, annotation)
                    for image_id, piece in enumerate(pieces, 1)
                    for annotation in annotations_of(piece)
                ),
                1,
            )
        ],
    }
    coco.createIndex()
    return coco


def _truths(pair):
    return [
        {"segmentation": rle, "iscrowd": int(i >= len(pair.truths))}
        for i, rle in enumerate(pair.truths + pair.ignored)
    ]


def _predictions(pair):
    return [
        {"segmentation": rle, "score": score, "iscrowd": 0}
        for rle, score in zip(pair.predictions, pair.scores.tolist(), strict=True)
    ]
