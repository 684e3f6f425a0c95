"""Images on which a network shows the ranges of its features, for inference in 8-bit integers."""

from steatosis_d2.errors import InputError
from steatosis_d2.inference.predictor import MaskRCNNPredictor
from steatosis_d2.modeling.quantization import RangeRecorder, can_quantize


def measure_feature_ranges(cfg, tiles):
    """
    Run a network on calibration images.

    Args:
        cfg (CfgNode): with ``MODEL.WEIGHTS``.
        tiles (iterable[tuple[ndarray, float or None]]): images, uint8, shape (H, W, 3), RGB, like
            those it will see, and their um/px.

    Returns:
        dict[str, list[float]]: as :class:`~steatosis_d2.modeling.quantization.RangeRecorder`
        notes them; as ``feature_ranges`` beside ``model`` in a checkpoint, they make
        :class:`MaskRCNNPredictor` compute in 8-bit integers.

    Raises:
        InputError: this network cannot be put into 8-bit integers, or found nothing.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.PRECISION = "float32"
    # Of everything that may become a mask, so that the mask head sees a lot
    threshold = cfg.TEST.SCORE_FLOOR
    predictor = MaskRCNNPredictor(cfg, score_threshold=threshold)
    if not can_quantize(predictor.network):
        raise InputError(
            "this network cannot compute in 8-bit integers, which takes a ResNet with FPN and "
            "Detectron2's standard heads; export it without --config-file."
        )
    with RangeRecorder(predictor.network) as recorder:
        for image_rgb, mpp in tiles:
            predictor([image_rgb], mpp=mpp)
    if not recorder.is_complete:
        raise InputError(
            "the network found nothing on the calibration images, so that its mask head did not "
            f"run; train it further, or lower TEST.SCORE_FLOOR ({threshold:g})."
        )
    return recorder.ranges
