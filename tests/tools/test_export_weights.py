"""tools/export_weights.py as a user runs it, and what the model zoo makes of its file."""

import hashlib
import json

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager

from steatosis_d2 import model_zoo
from steatosis_d2.engine import SafeCheckpointer
from steatosis_d2.engine.checkpoint import VALIDATION_KEY, read_note
from steatosis_d2.errors import InputError
from steatosis_d2.inference.predictor import MaskRCNNPredictor
from steatosis_d2.model_zoo import get_config
from steatosis_d2.modeling.quantization import cpu_has_int8

EXPORT = "tools/export_weights.py"


@pytest.fixture
def checkpoint(slim_model, tmp_path):
    """A checkpoint with more than the network in it."""
    state = {"model": slim_model(41).state_dict(), "trainer": {"iteration": 3}}
    torch.save(state, tmp_path / "model_final.pth")
    return tmp_path / "model_final.pth"


def test_exported_weights_are_small_and_fit_the_network(
    checkpoint, slim_model, tmp_path, run_script
):
    output = tmp_path / "small.pth"
    result = run_script(EXPORT, checkpoint, "--output", output)
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(output.read_bytes()).hexdigest() in result.stdout
    assert output.stat().st_size < 0.7 * checkpoint.stat().st_size
    model = slim_model(41)
    SafeCheckpointer(model, strict=True).load(str(output))
    trained = torch.load(checkpoint, weights_only=True)["model"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=1e-3, atol=1e-6, msg=name)


def test_weights_carry_their_figures(checkpoint, tmp_path, run_script):
    clinical = {"images": 68.0, "count_error": 4.8123, "fat_area_error_points": 0.4184}
    (tmp_path / "metrics.json").write_text(json.dumps({"clinical": clinical}))
    options = ("--output", tmp_path / "small.pth", "--metrics", tmp_path / "metrics.json")
    assert run_script(EXPORT, checkpoint, *options, "--metrics-of", "Torino").returncode == 0
    assert read_note(tmp_path / "small.pth", VALIDATION_KEY) == {
        "of": "Torino",
        "images": 68,
        "count_error": 4.81,
        "fat_area_error_points": 0.418,
    }
    (tmp_path / "metrics.json").write_text("{}")
    process = run_script(EXPORT, checkpoint, *options)
    assert process.returncode == 1 and "no clinical figures" in process.stderr


@pytest.mark.slow
def test_with_its_config_the_network_computes_in_8_bit_integers(
    tiny_training, tmp_path, run_script
):
    cfg = get_config("liver/starter.yaml", tiny_training)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    output = tmp_path / "small.pth"
    options = ("--output", output, "--config-file", tmp_path / "config.yaml")
    result = run_script(EXPORT, tmp_path / "model.pth", *options)
    assert result.returncode == 0, result.stderr
    assert "on 5 training images" in result.stdout
    cfg.MODEL.WEIGHTS = str(output)
    precision = MaskRCNNPredictor(cfg).describe()["precision"]
    assert precision.startswith("int8 and ") == cpu_has_int8()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"text", "is no checkpoint of tools/train_net.py")],
)
def test_what_is_no_checkpoint_is_an_error(content, message, tmp_path, run_script):
    path = tmp_path / "no.pth"
    if content is not None:
        path.write_bytes(content)
    result = run_script(EXPORT, path, "--output", tmp_path / "out.pth")
    assert result.returncode == 1
    assert message in result.stderr
    assert not (tmp_path / "out.pth").exists()


@pytest.fixture
def shipped(checkpoint, monkeypatch):
    """A model zoo in which the checkpoint ships for the R-50 config."""
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    name = "liver/mask_rcnn_R_50_FPN.yaml"
    monkeypatch.setattr(model_zoo, "_WEIGHTS_FOLDER", checkpoint.parent)
    monkeypatch.setattr(model_zoo, "_SHIPPED_WEIGHTS", {name: (checkpoint.name, sha256)})
    return name


@pytest.mark.parametrize("prefix", ["", "configs/"])
def test_shipped_weights_are_found_by_the_configs_name_or_path(shipped, checkpoint, prefix):
    assert model_zoo.has_weights(prefix + shipped)
    assert model_zoo.get_weights(prefix + shipped) == str(checkpoint)
    weights = model_zoo.get_config(prefix + shipped, trained=True).MODEL.WEIGHTS
    assert weights == str(checkpoint)


def test_shipped_weights_have_an_address_for_detectron2(shipped, checkpoint):
    address = f"steatosis-d2://{shipped}"
    cfg = model_zoo.get_config(shipped, weights=address)
    assert PathManager.get_local_path(cfg.MODEL.WEIGHTS) == str(checkpoint)
    with PathManager.open(address, "rb") as file:
        assert file.read() == checkpoint.read_bytes()


def test_address_of_a_config_without_weights_is_an_error(shipped):
    with pytest.raises(
        InputError, match=r"no weights ship for the config 'nucleus/mask_rcnn_R_50_FPN.yaml'"
    ):
        SafeCheckpointer(torch.nn.Linear(1, 1)).load(
            "steatosis-d2://nucleus/mask_rcnn_R_50_FPN.yaml"
        )


def test_damaged_weights_are_refused(shipped, checkpoint):
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(InputError, match=r"missing or damaged: their SHA-256 is not"):
        model_zoo.get_weights(shipped)


def test_config_without_weights_says_which_have_some(shipped):
    with pytest.raises(InputError, match=rf"no weights ship.*R_41.*these they do: {shipped}"):
        model_zoo.get_weights("liver/mask_rcnn_R_41_FPN.yaml")


def test_a_users_config_has_no_weights(tmp_path):
    (tmp_path / "mine.yaml").write_text("VERSION: 2\n")
    assert not model_zoo.has_weights(tmp_path / "mine.yaml")
