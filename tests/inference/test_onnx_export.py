"""A network finds the same in ONNX Runtime as here."""

import json

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from steatosis_d2.cli import export as command
from steatosis_d2.errors import InputError
from steatosis_d2.inference.models import MaskRCNNChoice
from steatosis_d2.inference.onnx_export import write_onnx
from steatosis_d2.inference.predictor import MaskRCNNPredictor
from steatosis_d2.modeling.exportable import ExportableNetwork

TILE_PX = 128
FLOAT32 = ("MODEL.DEVICE", "cpu", "TEST.PRECISION", "float32")


@pytest.fixture(scope="module")
def predictor(slim_cfg):
    cfg = slim_cfg.clone()
    cfg.merge_from_list(FLOAT32)
    return MaskRCNNPredictor(cfg, score_threshold=0.3)


def draw(seed, *, tile_px=TILE_PX):
    """Random blobs, uint8, shape (3, S, S)."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize((tile_px, tile_px), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.moveaxis(np.array(picture), -1, 0))


def find(model, tile):
    """What a model finds on a tile at its own pixel size: boxes, scores, classes, masks."""
    with torch.inference_mode():
        inputs = [{"image": torch.from_numpy(tile), "mpp": model.mpp}]
        [found] = model.inference(inputs, do_postprocess=False)
    boxes, masks = found.pred_boxes.tensor, found.pred_masks[:, 0]
    return [one.numpy() for one in (boxes, found.scores, found.pred_classes, masks)]


def check_equal(found, expected):
    assert len(expected[0]) > 5
    assert [one.shape for one in found] == [one.shape for one in expected]
    for one, other, tolerance in zip(found, expected, (1e-2, 1e-4, 0, 2e-3), strict=True):
        assert np.abs(one - other).max() <= tolerance


def test_the_same_objects_in_onnx_runtime(predictor, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    facts = write_onnx(tmp_path / "a.onnx", predictor, tile_px=TILE_PX)
    session = runtime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"steatosis_d2": json.dumps(facts)}
    assert (facts["um_per_px"], facts["categories"]) == (0.33, ["droplet"])
    for seed in range(3):
        found = session.run(None, {"image": draw(seed)})
        check_equal(found, find(predictor.model, draw(seed)))


def test_several_classes(slim_cfg):
    cfg = slim_cfg.clone()
    cfg.merge_from_list(
        [
            *FLOAT32,
            "MODEL.CATEGORIES",
            ["duct", "droplet", "vein"],
            "MODEL.ROI_HEADS.NUM_CLASSES",
            3,
        ]
    )
    cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.2])
    model = build_model(cfg).eval()
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)
    with torch.no_grad():
        found = ExportableNetwork(model, tile_px=TILE_PX)(torch.from_numpy(draw(0)))
    expected = find(model, draw(0))
    assert len(set(expected[2].tolist())) > 1
    check_equal([one.numpy() for one in found], expected)


def test_what_cannot_be_exported_is_refused(predictor):
    with pytest.raises(InputError, match=r"tiles of 100 px do not fit.*a multiple of 32"):
        ExportableNetwork(predictor.model, tile_px=100)
    stretching = MaskRCNNChoice("nucleus/starter.yaml", overrides=FLOAT32)().model
    with pytest.raises(InputError, match=r"INPUT\.STRETCH"):
        ExportableNetwork(stretching, tile_px=TILE_PX)


@pytest.mark.slow
def test_the_network_that_ships_finds_the_same_droplets(tmp_path, shared_data):
    runtime = pytest.importorskip("onnxruntime")
    words = f"--format onnx --tile-px 512 --output {tmp_path / 'a.onnx'}"
    command.run(command.build_parser("export").parse_args(words.split()))
    session = runtime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    model = MaskRCNNChoice(overrides=FLOAT32)().model
    name = "140_10189_5493_2000_0_976"
    image_rgb = np.array(Image.open(shared_data / "guo2019_liver" / name / "image" / f"{name}.png"))
    for top, left in ((0, 0), (512, 256)):
        tile = image_rgb[top : top + 512, left : left + 512, :3].transpose(2, 0, 1).copy()
        check_equal(session.run(None, {"image": tile}), find(model, tile))
    blank = np.full((3, 512, 512), 240, np.uint8)
    assert [len(one) for one in session.run(None, {"image": blank})] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--output a.pth", "a checkpoint is needed"),
        ("--format onnx --output a.onnx --metrics m.json", "--metrics is for --format checkpoint"),
    ],
)
def test_options_that_do_not_go_together(words, message, capsys):
    with pytest.raises(SystemExit):
        command.build_parser("export").parse_args(words.split())
    assert message in capsys.readouterr().err
