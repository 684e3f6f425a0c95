"""What speed costs: COCO AP of the fast predictor and of the same network as Detectron2 runs it."""

from benchmarks.figures import Figure
from steatosis_d2.data.coco import annotation_record, read_coco
from steatosis_d2.data.images import read_image_rgb


def measure_accuracy(options):
    """COCO AP on the config's test sets, with the user's weights."""
    from steatosis_d2.model_zoo import get_config

    cfg = get_config(options.config_file, weights=str(options.weights))
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.TEST.SCORE_FLOOR
    return [figure for name in cfg.DATASETS.TEST for figure in measure_dataset(cfg, name)]


def measure_dataset(cfg, name):
    """COCO AP on one data set, both ways."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    records = DatasetCatalog.get(name)
    truth = read_coco(MetadataCatalog.get(name).json_file)
    stock_ap = compute_ap(truth, segment_as_detectron2(cfg, records))
    our_ap = compute_ap(truth, segment(cfg, records))
    return [
        Figure("accuracy", f"stock, float32: COCO AP on {name}", stock_ap, ""),
        Figure("accuracy", f"ours: COCO AP on {name}", our_ap, ""),
        Figure("accuracy", f"difference on {name}", abs(our_ap - stock_ap), "", at_most=0.003),
    ]


def segment_as_detectron2(cfg, records):
    """Image id, run-length code and score of each object, from the network as it was trained."""
    import torch
    from detectron2.engine import DefaultPredictor

    from steatosis_d2.data.mapper import InstanceMapper
    from steatosis_d2.evaluation.detectron2_evaluator import encode_detections

    model = DefaultPredictor(cfg).model
    mapper = InstanceMapper(cfg, is_train=False)
    # With gradients the network itself computes, not its fast copy
    with torch.enable_grad():
        return [
            (record["image_id"], rle, score)
            for record in records
            for rle, score in encode_detections(model([mapper(record)])[0]["instances"])
            if rle is not None
        ]


def segment(cfg, records):
    """The same from the fast predictor."""
    from steatosis_d2.inference.predictor import MaskRCNNPredictor

    predictor = MaskRCNNPredictor(cfg, score_threshold=cfg.TEST.SCORE_FLOOR)
    found = []
    for record in records:
        image_rgb = read_image_rgb(record["file_name"])
        [instances] = predictor([image_rgb], mpp=record.get("mpp"))
        found += [(record["image_id"], i.encode(image_rgb.shape), i.score) for i in instances]
    return found


def compute_ap(truth, found):
    """COCO AP of what was found in all images."""
    from steatosis_d2.evaluation.figures import evaluate_pairs
    from steatosis_d2.evaluation.image_pairs import pair_images

    annotations = [
        annotation_record(number, image_id, rle, score=score)
        for number, (image_id, rle, score) in enumerate(found, 1)
    ]
    predictions = {"images": truth["images"], "annotations": annotations}
    pairs = pair_images(truth, predictions, truth_name="truth", predictions_name="predictions")
    return evaluate_pairs(pairs).metrics["segm"]["AP"]


MEASURES = (measure_accuracy,)
