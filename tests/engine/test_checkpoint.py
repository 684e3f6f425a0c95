import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch

from steatosis_d2.engine import SafeCheckpointer
from steatosis_d2.errors import InputError


@pytest.fixture
def saved(tmp_path):
    """A function that saves something as a checkpoint and gives its path."""

    def save(content, name="weights.pth"):
        path = tmp_path / name
        torch.save(content, path)
        return str(path)

    return save


@pytest.mark.parametrize(("depth", "source_depth"), [(41, 50), (65, 101)])
def test_coco_weights_of_another_depth_load_block_by_block(
    slim_model, depth, source_depth, tmp_path
):
    """R-41 takes all it has from an R-50 of COCO's 80 classes, R-65 from an R-101."""
    source = slim_model(source_depth, classes=80).state_dict()
    zoo_file = tmp_path / "model_final.pkl"  # Detectron2's model zoo holds numpy arrays in pickles
    arrays = {name: tensor.numpy() for name, tensor in source.items()}
    zoo_file.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))

    model = slim_model(depth)
    SafeCheckpointer(model, allow_pickle=True).load(str(zoo_file))

    differing = [
        name
        for name, tensor in model.state_dict().items()
        if name not in source or not torch.equal(tensor, source[name])
    ]
    # Only what predicts COCO's classes does not fit; everything else is the source's.
    assert differing == [
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.box_predictor.bbox_pred.bias",
        "roi_heads.mask_head.predictor.weight",
        "roi_heads.mask_head.predictor.bias",
    ]


def test_what_a_checkpoint_does_not_fill_is_listed(slim_model, saved, caplog):
    path = saved({"model": slim_model(50, classes=80).state_dict()})
    with caplog.at_level("WARNING"):
        SafeCheckpointer(slim_model(41)).load(path)
    assert "roi_heads.box_predictor.cls_score.weight" in caplog.text
    assert "backbone.bottom_up.res4.5" in caplog.text


def test_unrelated_weights_are_an_error(slim_model, saved):
    path = saved({"model": {"layer1.0.conv1.weight": torch.zeros(3)}})
    with pytest.raises(InputError, match=r"another network: it fills 0 of the backbone's"):
        SafeCheckpointer(slim_model(41)).load(path)


def test_weights_of_another_width_are_an_error(slim_model, saved):
    state = {
        name: torch.zeros(tuple(2 * side for side in tensor.shape))
        for name, tensor in slim_model(41).state_dict().items()
    }
    with pytest.raises(
        InputError, match=r"fpn_lateral2.weight is \(16, 32, 2, 2\), expected \(8, 16, 1, 1\)"
    ):
        SafeCheckpointer(slim_model(41)).load(saved({"model": state}))


def test_strict_loading_refuses_another_depth(slim_model, saved):
    path = saved({"model": slim_model(50).state_dict()})
    with pytest.raises(InputError, match=r"res4.3.\S+ is not in this network"):
        SafeCheckpointer(slim_model(41), strict=True).load(path)


def test_own_weights_load_strictly(slim_model, saved):
    source = slim_model(41)
    model = slim_model(41)
    SafeCheckpointer(model, strict=True).load(saved({"model": source.state_dict()}))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


def test_code_in_a_checkpoint_is_not_run(slim_model, saved, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_run"), "w"))

    with pytest.raises(InputError, match="hold more than tensors and plain values"):
        SafeCheckpointer(slim_model(41)).load(saved({"model": {}, "extra": Payload()}))
    assert not (tmp_path / "was_run").exists()


def test_pickle_from_elsewhere_needs_consent(slim_model, tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": np.zeros(1)}, "__author__": "someone"}))
    with pytest.raises(InputError, match=r"are a pickle.*MODEL.ALLOW_PICKLE True"):
        SafeCheckpointer(slim_model(41)).load(str(path))


def test_missing_file_is_an_error(slim_model, tmp_path):
    with pytest.raises(InputError, match=r"nope.pth' do not exist; check the path"):
        SafeCheckpointer(slim_model(41)).load(str(tmp_path / "nope.pth"))


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\x80\x02junk", b"PK\x03\x04", b"\0" * 100, b"{}", b"\x80"]
)
def test_junk_is_an_error(slim_model, tmp_path, content):
    """Four bytes gave a traceback."""
    path = tmp_path / "junk.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"junk\.pth' are (truncated|damaged)"):
        SafeCheckpointer(slim_model(41)).load(str(path))


def test_zip_of_something_else_and_a_folder_are_errors(slim_model, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(InputError, match=r"other\.pth' are truncated or no checkpoint"):
        SafeCheckpointer(slim_model(41)).load(str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match="are a folder; expected a file in it"):
        SafeCheckpointer(slim_model(41)).load(str(tmp_path))


def test_truncated_file_is_an_error(slim_model, saved, tmp_path):
    whole = saved({"model": slim_model(41).state_dict()})
    truncated = tmp_path / "truncated.pth"
    content = Path(whole).read_bytes()
    truncated.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"truncated.pth' are truncated or no checkpoint"):
        SafeCheckpointer(slim_model(41)).load(str(truncated))


def test_text_file_is_an_error(slim_model, tmp_path):
    path = tmp_path / "notes.pth"
    path.write_text("not weights at all\n")
    with pytest.raises(InputError, match=r"notes.pth' are"):
        SafeCheckpointer(slim_model(41)).load(str(path))


def test_failed_load_does_not_block_the_next(slim_model, saved, tmp_path):
    """Detectron2's checkpointer asserted on its second load after a failed first one."""
    checkpointer = SafeCheckpointer(slim_model(41))
    with pytest.raises(InputError):
        checkpointer.load(saved({"model": {"x": torch.zeros(1)}}, "bad.pth"))
    checkpointer.load(saved({"model": slim_model(41).state_dict()}, "good.pth"))


def test_offline_download_is_an_error_that_names_the_ways_out(slim_model, monkeypatch):
    checkpointer = SafeCheckpointer(slim_model(41))

    def refuse(address):
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(checkpointer, "path_manager", SimpleNamespace(get_local_path=refuse))
    with pytest.raises(InputError, match=r"cannot be downloaded.*MODEL.WEIGHTS FILE.pth.*random"):
        checkpointer.load("detectron2://COCO-InstanceSegmentation/x/1/model_final.pkl")


def test_saving_leaves_no_temporary_file(slim_model, tmp_path):
    checkpointer = SafeCheckpointer(slim_model(41), str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000001.pth",
    ]
    assert SafeCheckpointer(slim_model(41), str(tmp_path)).resume_or_load("")["iteration"] == 1
