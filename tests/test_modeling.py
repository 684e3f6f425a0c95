import pytest
import torch
from detectron2.modeling.proposal_generator import RPN
from torch.nn import functional


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_scaling_inside_the_model_equals_scaling_before_it(slim_model, scale):
    image = torch.rand(3, 64, 80) * 255
    scaled = slim_model(41, overrides=["INPUT.SCALE", str(scale)]).eval()
    plain = slim_model(41, overrides=["INPUT.SCALE", "1.0"]).eval()
    plain.load_state_dict(scaled.state_dict())
    resized = functional.interpolate(
        image[None], size=[round(64 * scale), round(80 * scale)], mode="bilinear", antialias=True
    )[0]
    with torch.no_grad():
        ours = scaled([{"image": image}])[0]["instances"]
        expected = plain([{"image": resized, "height": 64, "width": 80}])[0]["instances"]
    assert ours.image_size == (64, 80)
    assert len(ours) > 0
    assert torch.equal(ours.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(ours.pred_masks, expected.pred_masks)


@pytest.mark.parametrize(("mpp", "scale"), [(0.5, 2.0), (0.125, 0.5), (None, 1.5)])
def test_input_is_scaled_by_its_pixel_size_where_it_is_known(mpp, scale, slim_model):
    image_input = {"image": torch.rand(3, 64, 80) * 255}
    aware = slim_model(41, overrides=["INPUT.MPP", "0.25", "INPUT.SCALE", "1.5"]).eval()
    plain = slim_model(41, overrides=["INPUT.MPP", "0.0", "INPUT.SCALE", str(scale)]).eval()
    plain.load_state_dict(aware.state_dict())
    with torch.no_grad():
        ours = aware([image_input | ({"mpp": mpp} if mpp else {})])[0]["instances"]
        expected = plain([image_input])[0]["instances"]
    assert len(ours) > 0
    assert torch.equal(ours.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_another_output_size_can_be_asked_for(slim_model):
    model = slim_model(41).eval()
    with torch.no_grad():
        result = model([{"image": torch.rand(3, 32, 32), "height": 64, "width": 96}])
    assert result[0]["instances"].image_size == (64, 96)


def test_image_of_one_pixel_is_not_an_error(slim_model):
    model = slim_model(41, overrides=["INPUT.SCALE", "0.5"]).eval()
    with torch.no_grad():
        result = model([{"image": torch.rand(3, 1, 1)}])
    assert result[0]["instances"].image_size == (1, 1)


def test_training_takes_images_as_they_are(slim_model):
    """The mapper has scaled them already, together with their masks."""
    model = slim_model(41, overrides=["INPUT.SCALE", "2.0"])
    images = model.preprocess_image([{"image": torch.rand(3, 64, 64)}])
    assert images.image_sizes == [(64, 64)]


def test_proposals_are_thinned_less_in_training(slim_model, monkeypatch):
    thresholds = []

    def record(*arguments, **_):
        thresholds.append(arguments[3])
        return []

    monkeypatch.setattr("steatosis_d2.modeling.proposal_generator.find_top_rpn_proposals", record)
    generator = slim_model(41).proposal_generator
    for is_training in (True, False, True):
        generator.train(is_training).predict_proposals([], [], [], [])
    assert thresholds == [0.9, 0.7, 0.9]


def test_proposals_are_those_of_detectron2(slim_model):
    """Only the best are decoded, and the rest could not have become proposals."""
    model = slim_model(41, overrides=["MODEL.RPN.PRE_NMS_TOPK_TEST", "50"]).eval()
    images = model.preprocess_image([{"image": torch.rand(3, 96, 64) * 255} for _ in range(2)])
    with torch.no_grad():
        features = model.backbone(images.tensor)
        ours, _ = model.proposal_generator(images, features)
        model.proposal_generator.__class__ = RPN
        expected, _ = model.proposal_generator(images, features)
    for proposals, theirs in zip(ours, expected, strict=True):
        assert len(proposals) > 0
        # Rounded alike but for the last bit: exp() takes another path at the end of a tensor
        torch.testing.assert_close(proposals.proposal_boxes.tensor, theirs.proposal_boxes.tensor)
        assert torch.equal(proposals.objectness_logits, theirs.objectness_logits)
