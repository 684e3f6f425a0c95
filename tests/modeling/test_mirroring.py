import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.errors import InputError
from steatosis_d2.inference.predictor import MaskRCNNPredictor
from steatosis_d2.model_zoo import get_config
from steatosis_d2.modeling.mirroring import VIEWS, average_views, mirror_boxes, mirror_image

# Of detections in a view: (left, top, right, bottom), score, class
BOX = (10.0, 10.0, 20.0, 20.0)
NEAR = (12.0, 10.0, 22.0, 20.0)  # IoU 2/3 with it
APART = (40.0, 40.0, 60.0, 60.0)


def as_view(*detections):
    view = Instances((64, 64))
    boxes = [box for box, *_ in detections]
    view.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    view.scores = torch.tensor([score for _, score, _ in detections])
    view.pred_classes = torch.tensor([number for *_, number in detections], dtype=torch.int64)
    return view


def average(*views, score_threshold=0.05, at_most=10):
    averaged = average_views(
        list(views), score_threshold=score_threshold, nms_threshold=0.5, at_most=at_most
    )
    boxes = averaged.pred_boxes.tensor.tolist()
    return list(zip(boxes, averaged.scores.tolist(), averaged.pred_classes.tolist(), strict=True))


@given(
    st.sampled_from(VIEWS),
    st.tuples(st.integers(0, 20), st.integers(1, 9), st.integers(0, 10), st.integers(1, 9)),
)
def test_box_goes_where_its_pixels_go(view, place):
    left, width, top, height = place
    image = torch.zeros(3, 24, 32)
    image[:, top : top + height, left : left + width] = 1
    box = torch.tensor([[left, top, left + width, top + height]])
    rows, columns = torch.nonzero(mirror_image(image, view)[0], as_tuple=True)
    mirrored = mirror_boxes(box, view, image_size=(24, 32))
    assert mirrored.tolist() == [
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1],
    ]
    assert torch.equal(mirror_boxes(mirrored, view, image_size=(24, 32)), box)


def test_score_is_the_mean_and_place_is_weighted_by_it():
    [(box, score, _)] = average(as_view((BOX, 0.9, 0)), as_view((NEAR, 0.3, 0)))
    assert score == pytest.approx(0.6)
    assert box == pytest.approx([10.5, 10, 20.5, 20])


def test_what_one_view_alone_shows_counts_for_its_share():
    views = [as_view((BOX, 0.8, 0)), as_view(), as_view((APART, 0.4, 0)), as_view()]
    assert [score for _, score, _ in average(*views)] == pytest.approx([0.2, 0.1])
    assert [box for box, *_ in average(*views, score_threshold=0.15)] == [list(BOX)]


def test_neighbours_and_classes_stay_apart():
    touching = (20.0, 10.0, 30.0, 20.0)
    view = as_view((BOX, 0.9, 0), (touching, 0.7, 0), (BOX, 0.5, 1))
    found = average(view, view)
    assert [(box, number) for box, _, number in found] == [
        (list(BOX), 0),
        (list(touching), 0),
        (list(BOX), 1),
    ]
    assert [score for _, score, _ in found] == pytest.approx([0.9, 0.7, 0.5])


def test_the_most_confident_are_kept():
    view = as_view((APART, 0.4, 0), (BOX, 0.9, 0))
    assert [box for box, *_ in average(view, view, at_most=1)] == [list(BOX)]


def test_many_boxes_are_averaged_as_few_are(monkeypatch):
    views = [as_view((BOX, 0.9, 0), (APART, 0.5, 0)), as_view((APART, 0.7, 0), (NEAR, 0.3, 0))]
    expected = average(*views)
    monkeypatch.setattr("steatosis_d2.modeling.mirroring.BOXES_AT_A_TIME", 1)
    assert average(*views) == expected
    assert [score for _, score, _ in expected] == pytest.approx([0.6, 0.6])


def test_box_without_area_is_left_out():
    """It meets nothing, not even itself; with a score of 0 it would have no place."""
    view = as_view(((20.0, 0.0, 20.0, 9.0), 0.9, 0), (BOX, 0.5, 0))
    assert [box for box, *_ in average(view, view, score_threshold=-1)] == [list(BOX)]


def test_nothing_in_any_view_is_nothing():
    assert average(as_view(), as_view()) == []


def test_mirrored_image_gives_mirrored_boxes(slim_cfg):
    """The four views of an image are the four views of its mirror image, in another order."""
    model = MaskRCNNPredictor(slim_cfg, score_threshold=0.0).model
    model.views, model.scale = VIEWS, 1.0
    image = torch.rand(3, 64, 96) * 255  # multiples of what the network pads to
    with torch.no_grad():
        [plain] = model.inference([{"image": image}], do_postprocess=False)
        [mirrored] = model.inference([{"image": image.flip(2)}], do_postprocess=False)
    assert len(plain) == 20
    expected = mirror_boxes(plain.pred_boxes.tensor, (True, False), image_size=(64, 96))
    torch.testing.assert_close(mirrored.scores, plain.scores)
    torch.testing.assert_close(mirrored.pred_boxes.tensor, expected, rtol=0, atol=1e-2)
    assert plain.pred_masks.shape == (20, 1, 28, 28)


def test_results_come_back_in_px_of_the_image(slim_model):
    model = slim_model(41, overrides=["TEST.VIEWS", "2", "INPUT.SCALE", "2.0"]).eval()
    with torch.no_grad():
        [result] = model([{"image": torch.rand(3, 32, 48) * 255}] * 2)[1:]
    assert result["instances"].image_size == (32, 48)
    assert result["instances"].pred_masks.shape[1:] == (32, 48)
    assert result["instances"].pred_boxes.tensor.isfinite().all()


def test_mean_of_one_view_is_the_view(slim_model):
    """By the way of several views as by Detectron2's own."""
    model = slim_model(41).eval()
    image_input = {"image": torch.rand(3, 64, 64) * 255}
    with torch.no_grad():
        [expected] = model([image_input])
        model.views = VIEWS[:1] * 2
        [averaged] = model([image_input])
    n = len(averaged["instances"])
    assert n > 0
    torch.testing.assert_close(averaged["instances"].scores, expected["instances"].scores[:n])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["TEST.VIEWS", "5"], "TEST.VIEWS is 5; expected 1 to 4 with Steat"),
        (["TEST.VIEWS", "2", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"], "1 to 1 with Standard"),
    ],
)
def test_impossible_number_of_views_is_an_error(overrides, expected):
    with pytest.raises(InputError, match=expected):
        get_config("liver/starter.yaml", overrides)
