import subprocess
import sys

import pytest

from steatosis_d2 import model_zoo
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config

CONFIGS = [
    "liver/mask_rcnn_R_101_FPN.yaml",
    "liver/mask_rcnn_R_41_FPN.yaml",
    "liver/mask_rcnn_R_50_FPN.yaml",
    "liver/mask_rcnn_R_65_FPN.yaml",
    "liver/starter.yaml",
    "liver/starter_pretraining.yaml",
    "nucleus/mask_rcnn_R_101_FPN.yaml",
    "nucleus/mask_rcnn_R_50_FPN.yaml",
    "nucleus/starter.yaml",
]


def test_every_config_is_listed():
    assert model_zoo.list_configs() == CONFIGS


@pytest.mark.parametrize("name", ["liver/starter.yaml", "configs/liver/starter.yaml"])
def test_config_is_found_by_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_zoo.get_config(name).MODEL.RESNETS.DEPTH == 41


def test_unknown_config_is_an_error_that_lists_ours():
    with pytest.raises(InputError, match=r"'nope.yaml' is neither a file .* liver/starter.yaml"):
        model_zoo.get_config_file("nope.yaml")


def test_weights_replace_those_of_the_config():
    assert model_zoo.get_config("liver/mask_rcnn_R_41_FPN.yaml", weights="").MODEL.WEIGHTS == ""
    assert model_zoo.get_config("liver/starter.yaml", weights="a.pth").MODEL.WEIGHTS == "a.pth"


@pytest.mark.parametrize("name", CONFIGS)
def test_all_detection_caps_are_raised(name):
    """Detectron2's default of 100 detections lost most droplets of a steatotic tile."""
    cfg = model_zoo.get_config(name)
    assert cfg.TEST.DETECTIONS_PER_IMAGE >= 400
    assert cfg.MODEL.RPN.POST_NMS_TOPK_TEST >= 2 * cfg.TEST.DETECTIONS_PER_IMAGE


def test_unknown_key_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"Non-existent key: SOLVER.LEARNING_RATE"):
        get_config("liver/starter.yaml", ["SOLVER.LEARNING_RATE", "0.1"])


@pytest.mark.parametrize(
    "content",
    [
        "MODEL: [unclosed",
        "just text",
        "- a\n- list",
        "MODEL:\n  WEIGHTS: !!python/object/apply:os.getcwd []",
        "SOLVER:\n  MAX_ITER: many",
    ],
)
def test_config_file_that_is_none_is_an_error(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"config '\S+mine.yaml' with overrides \[\]: "):
        get_config(path)


@pytest.mark.parametrize("overrides", [["SOLVER.MAX_ITER"], ["SOLVER.MAX_ITER", "many"]])
def test_override_of_another_form_is_an_error(overrides):
    with pytest.raises(InputError, match=r"with overrides \['SOLVER.MAX_ITER'"):
        get_config("liver/starter.yaml", overrides)


def test_device_given_by_the_user_wins():
    assert get_config("liver/starter.yaml", ["MODEL.DEVICE", "mps"]).MODEL.DEVICE == "mps"


def test_names_and_paths_need_no_detectron2():
    """Importing the package, its masks and its model names stays fast and free of torch."""
    code = (
        "import sys, steatosis_d2.instances.rle, steatosis_d2.data.coco;"
        "import steatosis_d2.model_zoo as zoo;"
        "zoo.list_configs(); assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_detectron2_one_error_names_the_ways_to_get_it():
    code = (
        "import sys, importlib.util as util; find = util.find_spec;"
        "util.find_spec = lambda name, *a: None if name == 'detectron2' else find(name, *a);"
        "import steatosis_d2.modeling"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "python -m steatosis_d2.install_detectron2" in result.stderr
    assert "conda install -c conda-forge detectron2" in result.stderr


def test_installed_detectron2_is_kept():
    command = [sys.executable, "-m", "steatosis_d2.install_detectron2"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is there already, and kept" in result.stdout
