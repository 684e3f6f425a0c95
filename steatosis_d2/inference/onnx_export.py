"""A trained network as an ONNX file, which runs without this package, Detectron2 and torch."""

import json
import warnings

import torch

from steatosis_d2.errors import needs_extra
from steatosis_d2.files import replace_when_done
from steatosis_d2.modeling.exportable import ExportableNetwork

# GridSample, which the dense branch needs, is there since 16.
_OPSET = 17
_OUTPUTS = ("boxes", "scores", "classes", "masks")


def write_onnx(path, predictor, *, tile_px):
    """
    Write a network as ONNX, whole or not at all; inputs and outputs are as for ``forward`` of
    :class:`~steatosis_d2.modeling.exportable.ExportableNetwork`.

    Args:
        path (Path): the file to write.
        predictor (MaskRCNNPredictor): on a CPU.
        tile_px (int): side of the tiles that it will take, in px of the network's input.

    Returns:
        dict: what the file's metadata say, as JSON under ``steatosis_d2``.

    Raises:
        InputError: the package ``onnx`` is missing, or the network cannot be exported.
    """
    with needs_extra("onnx", "--format onnx"):
        import onnx
    network = ExportableNetwork(predictor.model, tile_px=tile_px).eval()
    description = predictor.describe()
    facts = {
        "tile_px": tile_px,
        "um_per_px": predictor.model.mpp or None,
        "colours": predictor.image_format,
        "categories": list(predictor.categories),
        "score_threshold": predictor.score_threshold,
        "weights_sha256": description["weights_sha256"],
        "version": description["versions"]["steatosis_d2"],
    }
    with replace_when_done(path) as temporary:
        with torch.no_grad(), warnings.catch_warnings():
            # Of Python numbers that become constants, as they are meant to for one size
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (torch.zeros(3, tile_px, tile_px, dtype=torch.uint8),),
                temporary,
                opset_version=_OPSET,
                input_names=["image"],
                output_names=list(_OUTPUTS),
                dynamic_axes={name: {0: "objects"} for name in _OUTPUTS},
                # The other exporter takes 13 times as long for the same graph.
                dynamo=False,
            )
        exported = onnx.load(temporary)
        onnx.helper.set_model_props(exported, {"steatosis_d2": json.dumps(facts)})
        onnx.checker.check_model(exported)
        onnx.save(exported, temporary)
    return facts
